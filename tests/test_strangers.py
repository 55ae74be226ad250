"""What a stranger's bytes cost grows with them and with nothing else, and docs/SECURITY.md has the table."""

import re
import sys
from pathlib import Path

import pytest

from tests.strangers import READERS, Reader, counted_checks, refused, seconds

SECURITY = Path(__file__).parent.parent / "docs" / "SECURITY.md"
#: No input may keep the reactor for longer, on a machine that is busy with other tests.
LONGEST = 0.5


def calls(reader: Reader, data: bytes) -> int:
    """Of functions, Python's and C's, while it is read."""
    counted = 0

    def note(frame: object, event: str, given: object) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        refused(reader.read, data)
    finally:
        sys.setprofile(None)
    return counted


each = pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)


@each
def test_twice_the_bytes_cost_twice_as_much(reader: Reader) -> None:
    small, large = reader.make(reader.size // 4), reader.make(reader.size // 2)
    refused(reader.read, small)  # what is done once is done
    assert calls(reader, large) <= 2.6 * calls(reader, small) + 300
    assert seconds(reader, large) <= 5 * seconds(reader, small) + 0.02


@each
def test_the_largest_input_is_read_in_time(reader: Reader) -> None:
    data = reader.make(reader.size)
    assert seconds(reader, data, 1) < LONGEST
    with counted_checks() as checked:
        refused(reader.read, data)
    assert len(checked) <= reader.checks


def test_the_table_names_every_reader() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([\d,]+) \| (\d+) \| [\d.,]+ \| [\d.,]+ \|$",
        SECURITY.read_text(),
        re.M,
    )
    found = [
        (name, dearest, int(most.replace(",", "")), int(checks))
        for name, dearest, most, checks in rows
    ]
    assert found == [(r.name, r.dearest, r.most // 1024, r.checks) for r in READERS]
