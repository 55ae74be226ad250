"""A witness notices a log that was rolled back, forked or replaced, remembers over restarts, and tells once."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from pki.audit.log import Checkpoint, LogKey, Verifier
from pki.tlog import merkle
from tests.authorities import NOW
from twisted_mesh.trust.log_witness import LogStatement, LogWitness, witness_path

KEY = LogKey.generate("mesh.local/audit/1")


class Log:
    """A log that its owner can falsify."""

    def __init__(self, key: LogKey = KEY) -> None:
        self.key = key
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.size = 0

    def read(self, level: int, number: int) -> bytes:
        return self.tiles.get((level, number), b"")

    def grow(self, *entries: bytes) -> "Log":
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        self.tiles |= merkle.append(self.size, leaves, self.read)
        self.size += len(entries)
        return self

    def since(self, size: int) -> LogStatement:
        at = NOW + timedelta(seconds=self.size)
        checkpoint = Checkpoint(self.key.name, self.size, merkle.root(self.size, self.read), at)
        note = asyncio.run(self.key.sign(checkpoint))
        proof = (
            merkle.consistency_proof(size, self.size, self.read) if 0 < size <= self.size else ()
        )
        return LogStatement(str(self.key.verifier), note, proof)


@pytest.fixture
def told() -> Any:
    events: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if event.get("log_namespace") == "mesh.witness":
            events.append(event)

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


def codes(told: list[LogEvent]) -> list[str]:
    return [event["code"] for event in told if event["event"] == "log-contradicts"]


def hear(witness: LogWitness, log: Log, now: float = 0.0) -> None:
    witness.compare(log.since(witness.size), now)


def test_a_log_that_grows_is_followed_in_silence(told: list[LogEvent]) -> None:
    witness, log = LogWitness(None), Log()
    for entry in (b"a", b"b", b"c"):
        hear(witness, log.grow(entry))
    assert witness.size == 3
    assert told == []
    assert witness.problem is None


def test_a_log_that_was_rolled_back_is_told_once_and_not_believed(told: list[LogEvent]) -> None:
    witness = LogWitness(None)
    hear(witness, Log().grow(b"a", b"b", b"c"))
    for _ in range(3):
        hear(witness, Log().grow(b"a", b"b"))
    assert codes(told) == ["log-rolled-back"]
    assert witness.size == 3


@pytest.mark.parametrize("entries", [(b"a", b"X", b"c"), (b"a", b"X", b"c", b"d")])
def test_another_history_is_told(told: list[LogEvent], entries: tuple[bytes, ...]) -> None:
    witness = LogWitness(None)
    hear(witness, Log().grow(b"a", b"b", b"c"))
    hear(witness, Log().grow(*entries))
    assert codes(told) == ["log-forked"]
    assert witness.size == 3


def test_a_log_of_another_key_is_told(told: list[LogEvent]) -> None:
    witness = LogWitness(None)
    hear(witness, Log().grow(b"a"))
    hear(witness, Log(LogKey.generate("mesh.local/audit/2")).grow(b"a", b"b"))
    assert codes(told) == ["log-replaced"]


def test_a_note_signed_by_nobody_is_told(told: list[LogEvent]) -> None:
    witness = LogWitness(None)
    told_by = Log().grow(b"a").since(0)
    witness.compare(LogStatement(told_by.verifier, told_by.note.replace("\n1\n", "\n2\n"), ()), 0.0)
    assert codes(told) == ["bad-checkpoint"]
    assert witness.size == 0


def test_a_log_that_fits_again_is_told_too(told: list[LogEvent]) -> None:
    witness, log = LogWitness(None), Log().grow(b"a", b"b")
    hear(witness, log)
    hear(witness, Log().grow(b"a"))
    hear(witness, log.grow(b"c"))
    assert [event["event"] for event in told] == ["log-contradicts", "log-fits-again"]


def test_what_was_seen_is_seen_in_the_next_life(tmp_path: Path, told: list[LogEvent]) -> None:
    path = witness_path(tmp_path, "unix:/x spiffe://mesh.local/service/a")
    first = LogWitness(path)
    first.recall()
    hear(first, Log().grow(b"a", b"b"))
    second = LogWitness(path)
    second.recall()
    assert second.seen == first.seen
    hear(second, Log().grow(b"a"))
    assert codes(told) == ["log-rolled-back"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("stops_first", [False, True])
def test_who_removes_the_file_has_another_log_believed(
    tmp_path: Path, told: list[LogEvent], stops_first: bool
) -> None:
    path = tmp_path / "witness.json"
    witness = LogWitness(path)
    hear(witness, Log().grow(b"a", b"b"))
    restored = Log(LogKey.generate("mesh.local/audit/2")).grow(b"a")
    hear(witness, restored)
    assert f"remove {path}; if not, look into it" in told[0]["error"]
    path.unlink()
    if stops_first:
        witness.remember()
        assert not path.exists(), "what was removed does not come back"
    hear(witness, restored.grow(b"c"))
    events = [event["event"] for event in told]
    assert events == ["log-contradicts", "witness-lost", "log-fits-again"]
    again = LogWitness(path)
    again.recall()
    assert again.verifier == restored.key.verifier
    hear(witness, Log().grow(b"a", b"b", b"c"))
    assert codes(told) == ["log-replaced", "log-replaced"]


def test_a_file_that_vanishes_while_all_is_well_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "witness.json"
    witness = LogWitness(path)
    hear(witness, Log().grow(b"a"))
    path.unlink()
    witness.remember()
    assert path.exists()


def test_it_is_written_at_most_once_a_minute_and_at_the_end(tmp_path: Path) -> None:
    path = witness_path(tmp_path, "x")
    witness, log = LogWitness(path), Log()
    hear(witness, log.grow(b"a"), 0.0)
    written = path.read_bytes()
    hear(witness, log.grow(b"b"), 59.0)
    assert path.read_bytes() == written
    hear(witness, log.grow(b"c"), 60.0)
    assert path.read_bytes() != written
    hear(witness, log.grow(b"d"), 61.0)
    witness.remember()
    again = LogWitness(path)
    again.recall()
    assert again.size == 4


@pytest.mark.parametrize("content", [b"", b"{}", b'{"verifier":"x","note":"y"}', b"\xff" * 100])
def test_a_file_that_cannot_be_used_is_told_and_begun_anew(
    tmp_path: Path, told: list[LogEvent], content: bytes
) -> None:
    path = tmp_path / "witness.json"
    path.write_bytes(content)
    witness = LogWitness(path)
    witness.recall()
    assert witness.size == 0
    assert [event["event"] for event in told] == ["witness-lost"]
    hear(witness, Log().grow(b"a"))
    assert witness.size == 1


def test_a_place_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    witness = LogWitness(tmp_path / "file" / "below" / "w.json")
    hear(witness, Log().grow(b"a"))
    assert witness.size == 1


def test_the_first_log_that_is_heard_of_is_believed() -> None:
    witness = LogWitness(None)
    hear(witness, Log().grow(b"a"))
    assert witness.verifier == Verifier.parse(str(KEY.verifier))
