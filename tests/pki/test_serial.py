"""Serial numbers."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.serial import new_serial, parse_serial, serial_hex, serial_pairs

serials = st.integers(0, 2**160 - 1)


@given(serials)
def test_hex_and_pairs_read_back(serial: int) -> None:
    assert parse_serial(serial_hex(serial)) == serial
    assert parse_serial(serial_pairs(serial)) == serial
    assert parse_serial(serial_hex(serial).upper()) == serial


@given(st.text() | st.text("0123456789abcdefABCDEF:", max_size=60))
def test_any_text_is_a_serial_or_malformed(text: str) -> None:
    try:
        serial = parse_serial(text)
    except PkiError:
        return
    assert 0 <= serial < 2**160
    assert serial_pairs(serial).replace(":", "").lower().strip("0") == text.replace(
        ":", ""
    ).lower().strip("0")


@pytest.mark.parametrize(
    "text",
    ["", ":", "1a:", ":1a", "1a:2", "1a::2b", "0x1a", "-1a", " 1a", "1a\n", "g1", "١٢", "1" * 41],
)
def test_what_is_no_serial_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Malformed, match="is not a serial number: write it in hex, like 1a2b3c"):
        parse_serial(text)


def test_pairs_are_written_for_people_and_hex_for_programs() -> None:
    assert serial_pairs(0x1A2B3C) == "1A:2B:3C"
    assert serial_hex(0x1A2B3C) == "1a2b3c"
    assert serial_hex(0xA2B) == "0a2b"
    assert serial_hex(0) == "00"


def test_new_serials_are_positive_random_and_of_one_length() -> None:
    made = [new_serial() for _ in range(500)]
    assert len(set(made)) == len(made)
    assert {serial.bit_length() for serial in made} == {127}
    assert {len(serial_hex(serial)) for serial in made} == {32}
    # Each of the 126 random bits is seen both set and clear.
    either, both = 0, 2**127 - 1
    for serial in made:
        either |= serial
        both &= serial
    assert either == 2**127 - 1
    assert both == 2**126


def test_a_child_makes_other_serials_than_its_parent() -> None:
    new_serial()  # some are drawn ahead by now
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, " ".join(str(new_serial()) for _ in range(40)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        theirs = told.read().split()
    os.waitpid(child, 0)
    assert len(theirs) == 40
    assert set(theirs).isdisjoint(str(new_serial()) for _ in range(40))


def test_a_negative_serial_is_shown_too() -> None:
    assert serial_pairs(-0x1A2B) == "-1A:2B"
