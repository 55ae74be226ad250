"""What a log asks a witness, read and written."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from tests.twisted_mesh.ct.paper_log import PaperLog
from twisted_mesh.witness.request import AddCheckpoint

LOG = PaperLog("asking")
LOG.fill(3)
NOTE = LOG.sign()


def body(old: str = "0", proof: str = "", note: str = NOTE) -> bytes:
    return f"old {old}\n{proof}\n{note}".encode()


def parts() -> Any:
    found = AddCheckpoint.parse(body())
    return found.note, found.head


def test_it_is_read_and_written() -> None:
    line = "A" * 43 + "="
    asked = AddCheckpoint.parse(body("2", f"{line}\n{line}\n"))
    assert (asked.old_size, asked.proof, asked.head.size) == (2, (bytes(32), bytes(32)), 3)
    assert AddCheckpoint.parse(asked.to_bytes()) == asked


@given(st.integers(0, 1 << 40), st.lists(st.binary(min_size=32, max_size=32), max_size=63))
def test_it_comes_back_as_it_was(old: int, proof: list[bytes]) -> None:
    asked = AddCheckpoint(old, tuple(proof), *parts())
    assert AddCheckpoint.parse(asked.to_bytes()) == asked


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        NOTE.encode(),
        body("-1"),
        body("01"),
        body("+1"),
        body("9" * 13),
        body("9" * 20),
        body("1", "AAAA\n"),
        body("1", "?\n"),
        body("1", ("A" * 43 + "=\n") * 64),
        body("1", "A" * 42 + "B=\n"),
        body(note="words\n"),
        body(note=NOTE.replace("\n3\n", "\n03\n")),
        body(note=NOTE.replace("\n3\n", "\n3\nmore\n", 1)),
        body(note=NOTE[:-9]),
        b"old 0\r\n\r\n" + NOTE.encode(),
    ],
    ids=lambda _: "body",  # which has a signature, another one each time
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(PkiError) as refused:
        AddCheckpoint.parse(data)
    assert str(refused.value).isprintable()


@given(st.binary() | st.binary().map(lambda data: b"old 0\n\n" + data))
def test_nothing_else_is_raised(data: bytes) -> None:
    with suppress(PkiError):
        AddCheckpoint.parse(data)
