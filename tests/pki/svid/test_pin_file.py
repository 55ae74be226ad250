"""The file of pins: what is in it, beside what is said by options."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.svid.pin_file import read_pins
from pki.svid.spki_pin import BadPin, PinMode, PinSet
from pki.validity import rfc3339
from tests.authorities import DAY, NOW

A, B = (f"sha256/{letter * 43}=" for letter in "AE")
FIRST, SECOND = (f"spiffe://mesh.local/service/{name}={A},{B}" for name in ("a", "b"))
UNTIL = rfc3339(NOW + DAY)


def read(text: str, *rules: str, mode: str | None = None, until: str | None = None) -> PinSet:
    return read_pins(text.encode(), rules, mode, until, now=NOW, what="--peer-pin-file pins")


def test_a_line_is_a_rule_or_says_what_all_of_them_do() -> None:
    pins = read(f"# ours\n\nmode enforce\nuntil {UNTIL}  # next quarter\n{FIRST}\n  {SECOND}\n")
    assert [str(rule) for rule in pins.rules] == [FIRST, SECOND]
    assert (pins.mode, pins.until) == (PinMode.ENFORCE, NOW + DAY)


def test_it_adds_to_the_options() -> None:
    pins = read(FIRST, SECOND, mode="enforce", until=UNTIL)
    assert [str(rule) for rule in pins.rules] == [SECOND, FIRST]
    assert pins.enforced_at(NOW)
    assert read(f"{FIRST}\nuntil {UNTIL}", mode="enforce").enforced_at(NOW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no pin"),
        ("# nothing\n", "has no pin"),
        ("mode report\n", "has no pin"),
        (f"{FIRST}\nmode\n", "line 2: mode takes one word"),
        (f"{FIRST}\nmode report enforce\n", "line 2: mode takes one word"),
        (f"{FIRST}\nmode report\nmode report\n", "line 3: mode is said twice"),
        (f"{FIRST}\nmode sometimes\n", "neither report nor enforce"),
        (f"{FIRST}\nmode enforce\n", "need an end"),
        (f"{FIRST}\nuntil 30d\n", "would begin anew at each start"),
        (f"{FIRST}\n{FIRST}\n", "has two rules"),
        (FIRST.replace(",", ", "), "line 1: .* in one word"),
        (FIRST[:-1], "44 characters of base64"),
        ("Mode enforce", "line 1"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(text: str, why: str) -> None:
    with pytest.raises(BadPin, match=f"--peer-pin-file pins.*{why}"):
        read(text)


@pytest.mark.parametrize("word", ["mode", "until"])
def test_what_an_option_says_is_not_said_in_the_file_too(word: str) -> None:
    value = {"mode": "report", "until": UNTIL}
    with pytest.raises(BadPin, match=f"{word} is said twice, here or by --peer-pin-{word}"):
        read(f"{FIRST}\n{word} {value[word]}", **{word: value[word]})


@given(st.binary() | st.text().map(str.encode))
def test_no_file_raises_anything_but_an_error_of_ours(data: bytes) -> None:
    try:
        assert read_pins(data, (), None, None, now=NOW, what="the file").rules
    except PkiError as error:
        assert str(error).isprintable()
