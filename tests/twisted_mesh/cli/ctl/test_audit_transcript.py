"""A log in a file: read back whatever was written, and nothing but our own errors for the rest."""

import asyncio
import errno
import io
import sqlite3
from datetime import timedelta

import pytest
from attrs import field, frozen
from hypothesis import example, given
from hypothesis import strategies as st

from pki.audit.auditor import examine
from pki.audit.log import Act, Checkpoint, Entry, LogKey
from pki.errors import PkiError
from pki.tlog.merkle import GrowingTree, leaf_hash
from tests.authorities import NOW
from twisted_mesh.api.log_messages import Checkpoints, LogEntries, LogEntry, LogHead
from twisted_mesh.api.log_transcript import BadTranscript, Transcript
from twisted_mesh.cli.ctl import audit_transcript
from twisted_mesh.state.directory import StateError

KEY = LogKey.generate("mesh.local/audit/test")


@frozen
class Log:
    """Stands for a CA: answers with so many entries, some of them pruned, by small pages."""

    size: int
    pruned: int = 0
    page: int = 3

    def leaves(self) -> list[bytes]:
        return [leaf_hash(self.text(n)) for n in range(self.size)]

    def text(self, number: int) -> bytes:
        at = NOW + timedelta(seconds=number)
        return Entry(at, Act.ISSUE, "self", str(number), {"n": "ü"}).to_bytes()

    def note(self, size: int) -> str:
        tree = GrowingTree()
        for leaf in self.leaves()[:size]:
            tree.add(leaf)
        return asyncio.run(KEY.sign(Checkpoint(KEY.name, size, tree.root, NOW)))

    async def head(self) -> LogHead:
        return LogHead(str(KEY.verifier), _notes(self)[-1] if self.size else None)

    async def checkpoints(self, start: int) -> Checkpoints:
        sizes = [n for n in range(1, self.size + 1) if n >= start]
        notes = [_notes(self)[n - 1] for n in sizes[: self.page]]
        return Checkpoints(notes, sizes[self.page] if sizes[self.page :] else None)

    async def entries(self, start: int) -> LogEntries:
        # One more than was signed for has come in the meantime.
        found = [
            LogEntry(n, leaf_hash(self.text(n)).hex(), self._kept(n))
            for n in range(start, min(start + self.page, self.size + 1))
        ]
        following = start + len(found)
        return LogEntries(found, self.size + 1, following if following <= self.size else None)

    def _kept(self, number: int) -> str | None:
        return None if number < self.pruned else self.text(number).decode()


@frozen
class Growing(Log):
    """It is signed anew while it is fetched."""

    asked: list[int] = field(factory=list, eq=False)

    async def head(self) -> LogHead:
        return LogHead(str(KEY.verifier), _notes(self)[-1 if self.asked else -3])

    async def checkpoints(self, start: int) -> Checkpoints:
        self.asked.append(start)
        return await Log.checkpoints(self, start)


_made: dict[Log, list[str]] = {}


def _notes(log: Log) -> list[str]:
    return _made[log]


def written(log: Log) -> bytes:
    _made[log] = [log.note(size) for size in range(1, log.size + 1)]
    file = io.BytesIO()
    assert asyncio.run(audit_transcript.write(log, file)) == log.size  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("log", [Log(0), Log(1), Log(7), Log(9, pruned=4), Log(6, page=1)])
def test_what_was_written_is_read_and_holds(log: Log) -> None:
    read = Transcript.open(io.BytesIO(written(log)))
    checkpoints, wrong = read.checkpoints(KEY.verifier)
    rows = list(read.rows())
    assert (len(rows), len(checkpoints), wrong) == (log.size, log.size, [])
    assert read.pruned == log.pruned
    assert list(examine(rows, checkpoints)) == []


def test_a_checkpoint_of_another_key_is_a_finding() -> None:
    stranger = LogKey.generate(KEY.name)
    read = Transcript.open(io.BytesIO(written(Log(2))))
    checkpoints, wrong = read.checkpoints(stranger.verifier)
    assert checkpoints == []
    assert [finding.code for finding in wrong] == ["bad-checkpoint"] * 2


def test_what_was_signed_before_a_restore_holds_under_the_new_name() -> None:
    renamed = LogKey("mesh.local/audit/new", KEY.private_key).verifier
    read = Transcript.open(io.BytesIO(written(Log(2))))
    checkpoints, wrong = read.checkpoints(renamed)
    assert (len(checkpoints), wrong) == (2, [])
    assert list(examine(read.rows(), checkpoints)) == []


GOOD = written(Log(3))


@given(st.integers(0, len(GOOD)), st.binary(max_size=40), st.integers(0, 40))
@example(0, b"", len(GOOD))
@example(0, b"[" * 10_000 + b"\n", 0)
@example(len(GOOD), b'{"position":-1,"leaf":"zz","entry":null}\n', 0)
@example(len(GOOD), b'{"position":3,"leaf":"","entry":"\\ud800"}\n', 0)
def test_damage_is_told_with_its_line(at: int, noise: bytes, gone: int) -> None:
    try:
        read = Transcript.open(io.BytesIO(GOOD[:at] + noise + GOOD[at + gone :]))
        list(examine(read.rows(), read.checkpoints(KEY.verifier)[0]))
    except BadTranscript as error:
        assert "line " in str(error) or "version" in str(error)
    except PkiError:
        raise AssertionError("only one kind of error is for a damaged file") from None


def test_a_log_that_is_signed_anew_meanwhile_was_not_rolled_back() -> None:
    read = Transcript.open(io.BytesIO(written(Growing(7))))
    signed, wrong = read.checkpoints(KEY.verifier)
    assert wrong == []
    assert list(examine(read.rows(), signed)) == []


def test_where_nothing_can_be_put_aside_is_told_with_a_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(audit_transcript, "TemporaryFile", full)
    with pytest.raises(StateError, match=r"No space left on device.*set TMPDIR"):
        asyncio.run(audit_transcript.fetched(Log(1)))  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"full.*set TMPDIR"), audit_transcript.telling_scratch():
        raise sqlite3.OperationalError("database or disk is full")
