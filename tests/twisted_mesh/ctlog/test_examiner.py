"""The look through all tiles: whatever somebody has done to one of them is found, and mended is believed again."""

from collections.abc import Iterator

import pytest
from twisted.internet.defer import execute

from tests.ctlogs import LogRig
from twisted_mesh.ctlog.examiner import Examiner
from twisted_mesh.runtime.log import logger


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogRig]:
    """A log with three full tiles."""
    rig = LogRig(tmp_path_factory.mktemp("log"))
    rig.fill(800, 256)
    yield rig
    rig.close()


def look(rig: LogRig, examiner: Examiner | None = None) -> Examiner:
    made = examiner or Examiner(rig.ledger.files, rig.clock, execute, logger("ctlog"))
    made.start(rig.ledger.head.size)
    rig.clock.pump([0.1] * 8)
    return made


def test_a_log_as_it_was_written_is_whole(full: LogRig) -> None:
    found = look(full)
    assert found.problem is None
    assert found.examined == 768
    assert not full.clock.getDelayedCalls()


@pytest.mark.parametrize("path", ["tile/data/000", "tile/data/001", "tile/0/002", "tile/1/000.p/3"])
@pytest.mark.parametrize("how", ["gone", "changed", "short", "another"])
def test_what_was_done_to_a_tile_is_found_and_what_is_mended_believed(
    full: LogRig, path: str, how: str
) -> None:
    file = full.home / "public" / path
    before = file.read_bytes()
    match how:
        case "gone":
            file.unlink()
        case "changed":
            file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        case "short":
            file.write_bytes(before[: len(before) // 2])
        case "another":
            file.write_bytes((full.home / "public" / "tile/0/000").read_bytes()[::-1])
    try:
        found = look(full)
        assert found.problem is not None
        assert "back from a backup" in str(found.problem)
        assert look(full, found).problem is not None
    finally:
        file.write_bytes(before)
    assert look(full, found).problem is None
    assert found.examined >= 768
