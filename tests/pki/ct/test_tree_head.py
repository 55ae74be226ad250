"""Tree heads as checkpoints: signed and opened, by the log's key alone; and what witnesses add."""

import asyncio
import base64

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.errors import BadLogList
from pki.ct.sct import LATEST, MOST_ENTRIES
from pki.ct.tree_head import (
    Cosignature,
    HeadText,
    TreeHead,
    WitnessKey,
    cosign,
    cosignatures_of,
    open_note,
    sign_head,
    with_signatures,
)
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, UnusableKey
from pki.tlog.merkle import EMPTY_ROOT
from pki.tlog.note import BadNote, Note, NoteSignature
from tests.authorities import key
from tests.pki.ct.logs import NOW_MS, ONE, TWO, Tree, leaf_hashes
from tests.pki.strategies import mutated

TREE = Tree().add(leaf_hashes(300))
HEAD = TreeHead(ONE.log.origin, 300, TREE.root(), NOW_MS)
NOTE = ONE.head(300, TREE.root())
W1, W2 = (key(name, KeyAlgorithm.ED25519) for name in ("witness 1", "witness 2"))


def witness(name: str, of: object = W1) -> WitnessKey:
    return WitnessKey(name, of.public_key.public_bytes_raw())  # type: ignore[attr-defined]


def cosigned(name: str = "w/1", of: object = W1, at: int = 1700000000) -> NoteSignature:
    return asyncio.run(cosign(HEAD.text, at, name, of))  # type: ignore[arg-type]


@given(st.integers(1, MOST_ENTRIES), st.binary(min_size=32, max_size=32), st.integers(0, 2**47))
def test_a_head_is_signed_and_opened(size: int, root: bytes, at: int) -> None:
    head = TreeHead(ONE.log.origin, size, root, at)
    assert open_note(asyncio.run(sign_head(head, ONE.key)), ONE.log) == head
    found = HeadText.parse(head.text)
    assert (found.origin, found.size, found.root) == (head.origin, size, root)


@pytest.mark.parametrize("at", [LATEST + 1, 2**64 - 1])
def test_a_head_of_no_year_that_there_will_be_is_none(at: int) -> None:
    """What is proved by it could not be told, since nobody can write when it was signed."""
    with pytest.raises(BadNote, match="of no year"):
        open_note(ONE.head(300, TREE.root(), at), ONE.log)
    assert open_note(ONE.head(300, TREE.root(), LATEST), ONE.log).timestamp == LATEST


def test_a_log_with_an_rsa_key_signs_heads_too() -> None:
    log = evolve(ONE, key=key("a log", KeyAlgorithm.RSA_2048))
    assert open_note(log.head(300, TREE.root()), log.log) == HEAD


def test_no_head_is_signed_by_another_kind_of_key() -> None:
    with pytest.raises(BadLogList):
        asyncio.run(sign_head(HEAD, W1))


def test_the_head_of_an_empty_log_has_the_empty_root() -> None:
    assert open_note(ONE.head(0, EMPTY_ROOT), ONE.log).size == 0
    with pytest.raises(BadNote, match="no log without entries"):
        open_note(ONE.head(0, bytes(32)), ONE.log)


def changed(old: str, new: str) -> str:
    assert old in NOTE
    return NOTE.replace(old, new)


_NAME = f"\u2014 {ONE.log.origin} "
_BODY = base64.b64decode(NOTE.rpartition(" ")[2])


def body(data: bytes) -> str:
    return f"{NOTE.rpartition(' ')[0]} {base64.b64encode(data).decode()}\n"


BAD = {
    "another log's": (lambda: TWO.head(300, TREE.root()), "not signed by the key of"),
    "another root": (lambda: changed(HEAD.text, evolve(HEAD, root=bytes(32)).text), "is wrong"),
    "another size": (lambda: changed("\n300\n", "\n301\n"), "is wrong"),
    "another time": (lambda: body(_BODY[:4] + bytes(8) + _BODY[12:]), "is wrong"),
    "a bit flipped": (lambda: body(_BODY[:-1] + bytes((_BODY[-1] ^ 1,))), "is wrong"),
    "another algorithm": (lambda: body(_BODY[:13] + b"\1" + _BODY[14:]), "is wrong"),
    "a signature cut short": (lambda: body(_BODY[:-1]), "is wrong"),
    "a signature of nothing": (lambda: body(_BODY[:5]), "is wrong"),
    "signed twice": (
        lambda: NOTE + NOTE.rpartition("\n\n")[2],
        "or more than once",
    ),
    "an extension line": (lambda: changed("\n\n", "\ntime now\n\n"), "no checkpoint of a log"),
    "a size with a zero": (lambda: changed("\n300\n", "\n0300\n"), "no checkpoint of a log"),
    "a size too large": (lambda: ONE.head(MOST_ENTRIES + 1, bytes(32)), "no such size"),
    "a short root": (lambda: changed("=\n\n", "\n\n"), "no checkpoint"),
    "another's origin": (
        lambda: changed(f"{ONE.log.origin}\n300", f"{TWO.log.origin}\n300"),
        "is of the log two.example/2026, not of one.example/2026",
    ),
    "no note": (lambda: "x", "not signed"),
}


@pytest.mark.parametrize(("make", "told"), BAD.values(), ids=BAD)
def test_what_a_log_has_not_signed_is_not_opened(make: object, told: str) -> None:
    with pytest.raises(BadNote, match=told):
        open_note(make(), ONE.log)  # type: ignore[operator]


@given(mutated(NOTE.encode()))
def test_damage_raises_nothing_but_bad_note(data: bytes) -> None:
    try:
        found = open_note(data.decode("utf-8", "surrogateescape"), ONE.log)
    except BadNote:
        return
    assert found == HEAD


@given(st.text(max_size=80))
def test_any_text_raises_nothing_but_bad_note(text: str) -> None:
    for parse in (HeadText.parse, WitnessKey.parse):
        with pytest.raises(BadNote):
            parse(text)


def test_cosignatures_of_known_witnesses_are_found_and_others_passed_over() -> None:
    note = with_signatures(NOTE, [cosigned(), cosigned("w/2", W2, 1700000005)])
    assert open_note(note, ONE.log) == HEAD
    first, second = witness("w/1"), witness("w/2", W2)
    assert cosignatures_of(note, [first, second]) == (
        Cosignature(first, 1700000000),
        Cosignature(second, 1700000005),
    )
    assert cosignatures_of(note, [second, second]) == (Cosignature(second, 1700000005),)
    assert cosignatures_of(note, [witness("w/3")]) == ()
    assert cosignatures_of(NOTE, [first]) == ()


def test_the_latest_of_one_witness_counts_and_no_line_is_repeated() -> None:
    note = with_signatures(NOTE, [cosigned(at=5), cosigned(at=9), cosigned(at=7)])
    assert cosignatures_of(note, [witness("w/1")]) == (Cosignature(witness("w/1"), 9),)
    assert with_signatures(note, [cosigned(at=5)]) == note
    assert Note.parse(note).text == HEAD.text


def line(data: bytes) -> NoteSignature:
    return NoteSignature("w/1", witness("w/1").key_hash, data)


@pytest.mark.parametrize(
    "wrong",
    [
        evolve(cosigned(), signature=bytes(8) + cosigned().signature[8:]),
        line(cosigned().signature[:-1]),
        line(b"\xff" * 8 + cosigned().signature[8:]),
        line(b"x"),
    ],
    ids=["another time", "cut short", "a time too large", "nothing"],
)
def test_a_wrong_cosignature_of_a_known_witness_spoils_the_note(wrong: NoteSignature) -> None:
    with pytest.raises(BadNote, match="cosignature of w/1"):
        cosignatures_of(with_signatures(NOTE, [wrong]), [witness("w/1")])


def test_a_cosignature_is_of_the_whole_text() -> None:
    other = asyncio.run(cosign(evolve(HEAD, size=299).text, 1, "w/1", W1))
    with pytest.raises(BadNote, match="cosignature"):
        cosignatures_of(with_signatures(NOTE, [other]), [witness("w/1")])


def test_a_cosignature_says_what_c2sp_says() -> None:
    """The message, byte for byte."""
    message = f"cosignature/v1\ntime 1700000000\n{HEAD.text}".encode()
    W1.public_key.verify(cosigned().signature[8:], message)  # type: ignore[call-arg, arg-type]
    assert cosigned().signature[:8] == (1700000000).to_bytes(8, "big")


@given(st.sampled_from(["w", "witness.example/w1"]))
def test_the_key_of_a_witness_is_read_back(name: str) -> None:
    found = witness(name)
    assert WitnessKey.parse(str(found)) == found


_TEXT = str(witness("w/1"))


@pytest.mark.parametrize(
    "bad",
    [
        _TEXT[:-1],
        _TEXT.replace("w/1+", "w/2+"),
        f"{_TEXT.rpartition('+')[0]}+{base64.b64encode(bytes(33)).decode()}",
        "+".join(_TEXT.split("+")[:2]),
        f"{_TEXT}+",
        f"w 1{_TEXT[3:]}",
    ],
    ids=range(6),
)
def test_what_is_no_key_of_a_witness_is_refused(bad: str) -> None:
    with pytest.raises(BadNote):
        WitnessKey.parse(bad)


def test_a_witness_signs_by_ed25519_and_has_a_name() -> None:
    with pytest.raises(UnusableKey, match="Ed25519"):
        asyncio.run(cosign(HEAD.text, 1, "w", ONE.key))
    with pytest.raises(PkiError, match="no name of a witness"):
        cosigned("a b")
