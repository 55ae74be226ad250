"""A file that is remembered in and cannot be written: told at once, counted, tried again, and told when it is well."""

import errno
import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from twisted.internet.task import Clock

from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.state.directory import StateError, write_whole
from twisted_mesh.state.memory import AGAIN, Memories, Memory, reading_of


def failures() -> float:
    return REGISTRY.get_sample_value("mesh_memory_write_failures_total", {"memory": "test"}) or 0.0


class Kept:
    """Something that remembers in a file."""

    def __init__(self, path: Path, log: RecordingLog) -> None:
        self.path = path
        self.memory = Memory("test", path, "It is lost", "test-not-kept", self.write, log=log)

    def write(self) -> None:
        with self.memory.writing():
            write_whole(self.path, b"all", 0o600)


@pytest.fixture
def log() -> RecordingLog:
    return RecordingLog()


def test_a_failure_is_told_at_once_with_the_path_and_what_to_do(
    tmp_path: Path, log: RecordingLog
) -> None:
    kept = Kept(tmp_path / "gone" / "memory", log)
    before = failures()
    kept.write()
    told = log.text("test-not-kept")
    assert told.startswith("It is lost: ") and str(kept.path) in told
    assert "No such file" in told and "free space or mend" in told
    assert "again" not in told, "nobody tries again for a command that ends"
    assert failures() == before + 1
    assert reading_of([kept.memory]).read(None) == {"test": 1.0}


def test_the_same_trouble_is_counted_and_not_told_again(tmp_path: Path, log: RecordingLog) -> None:
    kept = Kept(tmp_path / "gone" / "memory", log)
    before = failures()
    for _ in range(3):
        kept.write()
    assert failures() == before + 3
    assert len(log.events) == 1
    (tmp_path / "gone").write_text("no directory")
    kept.write()
    assert "Not a directory" in log.all_text()


def test_it_is_tried_again_until_it_can_be_written(tmp_path: Path, log: RecordingLog) -> None:
    kept, clock = Kept(tmp_path / "gone" / "memory", log), Clock()
    memories = Memories(clock, [kept.memory])
    memories.startService()
    kept.write()
    assert memories.unwritten == [kept.memory]
    clock.advance(AGAIN)
    assert memories.unwritten == [kept.memory]
    (tmp_path / "gone").mkdir()
    clock.advance(AGAIN)
    assert kept.path.read_bytes() == b"all"
    assert memories.unwritten == []
    assert "can be written again" in log.text("memory-kept-again")
    kept.path.unlink()
    clock.advance(AGAIN)
    assert not kept.path.exists(), "what is well is left alone"
    memories.stopService()
    assert not clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "mount it"),
        (errno.EACCES, "chown"),
        (errno.EPERM, "chown"),
        (errno.ENOENT, "make its directory again"),
        (errno.EIO, "look at that file"),
    ],
)
def test_each_cause_has_its_cure(log: RecordingLog, number: int, cure: str) -> None:
    memory = Memory("test", Path("/a/memory"), "It is lost", "test-not-kept", log=log)
    with memory.writing():
        raise OSError(number, os.strerror(number), "/a/memory")
    assert memory.problem is not None
    assert memory.problem.detail == f"/a/memory cannot be written ({os.strerror(number)})"
    assert cure in memory.problem.remedy
    assert cure in log.text("test-not-kept")


def test_who_cannot_go_on_hears_of_it_too(log: RecordingLog) -> None:
    memory = Memory("test", Path("/a/memory"), "It is lost", "test-not-kept", log=log)
    with pytest.raises(StateError), memory.watched():
        raise StateError("/a/memory cannot be written")
    assert memory.problem is not None


def test_what_is_no_failure_to_write_is_passed_on(log: RecordingLog) -> None:
    memory = Memory("test", Path("/a/memory"), "It is lost", "test-not-kept", log=log)
    with pytest.raises(ZeroDivisionError), memory.writing():
        raise ZeroDivisionError
    assert memory.problem is None
