"""Signed notes: read back, and what is none; signatures of keys that are not known do no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.tlog.note import (
    LONGEST,
    MOST_SIGNATURES,
    BadNote,
    Note,
    NoteSignature,
    is_key_name,
    key_hash,
    read_signatures,
    unbase64,
)
from tests.pki.strategies import mutated

_LETTERS = st.characters(
    blacklist_categories=["Cc", "Cs", "Zs", "Zl", "Zp"], blacklist_characters="+"
)
names = st.text(_LETTERS, min_size=1, max_size=20).filter(is_key_name)
signatures = st.builds(
    NoteSignature, names, st.binary(min_size=4, max_size=4), st.binary(max_size=90)
)
lines = st.text(_LETTERS, min_size=0, max_size=30)
notes = st.builds(
    Note,
    st.lists(lines, min_size=1, max_size=4).map(lambda found: "\n".join(found) + "\n"),
    st.lists(signatures, min_size=1, max_size=4).map(tuple),
)
#: That of C2SP's signed-note, which has an empty line in its text.
EXAMPLE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "\u2014 quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQw"
    "aqP3ZekRwNtIc=\n"
)


@given(notes)
def test_a_note_is_read_back(note: Note) -> None:
    assert Note.parse(str(note)) == note


def test_the_example_of_the_specification_is_read_back() -> None:
    note = Note.parse(EXAMPLE)
    assert str(note) == EXAMPLE
    (line,) = note.signatures
    assert line.name == "quasimodo.example/salvatore"
    assert note.by(line.name, line.key_hash) == (line.signature,)
    assert note.by("another", line.key_hash) == () == note.by(line.name, bytes(4))


@given(mutated(EXAMPLE.encode()) | st.binary(max_size=100))
def test_damage_raises_nothing_but_bad_note_and_is_canonical(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        note = Note.parse(text)
    except BadNote:
        return
    assert str(note) == text


_LINE = "\u2014 name AAAAAAA=\n"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("", "not signed"),
        ("text\n", "not signed"),
        ("text\n\n", "damaged"),
        (f"text\n\n{_LINE}"[:-1], "damaged"),
        (f"text\r\n\n{_LINE}", "characters that none has"),
        ("text\n\n- name AAAAAAA=\n", "a line of its signatures"),
        ("text\n\n\u2014 na+me AAAAAAA=\n", "a line of its signatures"),
        ("text\n\n\u2014  AAAAAAA=\n", "a line of its signatures"),
        ("text\n\n\u2014 name AAAA\n", "a line of its signatures"),
        ("text\n\n\u2014 name AAAAAAB=\n", "a line of its signatures"),
        ("text\n\n\u2014 name AAAA AAA=\n", "a line of its signatures"),
        (f"text\n\n\u2014 {'n' * 201} AAAAAAA=\n", "a line of its signatures"),
        (f"{'x' * LONGEST}\n\n{_LINE}", "too long"),
        (f"text\n\n{_LINE * (MOST_SIGNATURES + 1)}", "over 100 signatures"),
    ],
    ids=range(14),
)
def test_what_is_no_note_is_refused_with_its_reason(bad: str, told: str) -> None:
    with pytest.raises(BadNote, match=told):
        Note.parse(bad)


@pytest.mark.parametrize("bad", ["", "x", _LINE[:-1], f"{_LINE}\n", _LINE * LONGEST])
def test_lines_alone_are_lines_of_signatures(bad: str) -> None:
    with pytest.raises(BadNote):
        read_signatures(bad)


def test_lines_alone_are_read_as_a_witness_answers() -> None:
    assert read_signatures(_LINE * 2) == (NoteSignature("name", bytes(4), b"\0"),) * 2


def test_a_key_is_named_as_c2sp_has_it() -> None:
    key = unbase64("BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2")
    assert key_hash("remora.n621.de", key[0], key[1:]).hex() == "da77ade7"
