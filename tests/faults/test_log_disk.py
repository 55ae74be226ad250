"""The disk under a log is full or slow: who waits, who does not, and that no receipt is for nothing."""

import http.client
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from attrs import define, field
from cryptography import x509

from pki.ct.sct import SignedCertificateTimestamp
from tests.ctlogs import RunningLog, chain_of, entry_of, precertificate, receipt, running_log
from tests.faults.test_disk import use_up
from tests.faults.tracing import interfered
from tests.running import until

#: Seconds that each sync takes on the slow disk.
SLOW = 0.15


@define(eq=False)
class Submitter:
    """What a CA remembers of a log: which receipts it has got."""

    log: RunningLog
    got: list[tuple[x509.Certificate, SignedCertificateTimestamp]] = field(factory=list)

    def submit(
        self, number: int = 0, connection: http.client.HTTPSConnection | None = None
    ) -> tuple[int, str]:
        """The status, and the code of a refusal."""
        pre = precertificate(self.log.of, f"s{number}", datetime.now(UTC))
        status, answer = self.log.post(chain_of(self.log.of, pre), connection=connection)
        if status != 200:
            return status, answer["code"]
        self.got.append((pre, receipt(answer)))
        return status, ""

    def until_refused(self) -> tuple[int, str]:
        """The first refusal: what room is left inside files that are there is used up first."""
        with closing(self.log.connect()) as connection:
            for number in range(200):
                said = self.submit(number, connection)
                if said[0] != 200:
                    return said
        raise AssertionError("it goes on taking what it has no room for")

    def check(self) -> None:
        """There is an entry for each receipt, and none at two places."""
        self.log.verified_size()
        entries = self.log.entries()
        for pre, sct in self.got:
            assert sct.leaf_index is not None
            entry = entries[sct.leaf_index]
            signed = entry_of(self.log.of, pre)
            assert (entry.timestamp, entry.signed) == (sct.timestamp, signed)
        assert len({entry.signed.digest for entry in entries}) == len(entries)


@pytest.fixture
def small_log(tmp_path: Path) -> Iterator[RunningLog]:
    """One with its state on a disk of two megabytes."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    made = RunningLog(tmp_path / "log")
    made.state.mkdir()
    mounting = ("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", made.state)
    done = subprocess.run(mounting, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield made
    finally:
        made.stop()
        subprocess.run(["umount", "-l", made.state], check=True)


@pytest.mark.slow
def test_on_a_full_disk_there_are_no_receipts_and_readers_and_a_kill_find_all_that_was(
    small_log: RunningLog,
) -> None:
    log, submitter = small_log, Submitter(small_log)
    log.start()
    assert submitter.submit() == (200, "")
    ballast = log.state / "ballast"
    use_up(ballast)
    assert submitter.until_refused() == (503, "state")
    submitter.check()
    assert log.running is not None
    log.running.wait_for("Nothing can be added to the log: .* free some space")
    ballast.unlink()
    until(lambda: submitter.submit() == (200, ""))
    log.running.wait_for("Entries are added to the log again")
    use_up(ballast)
    assert submitter.until_refused() == (503, "state")
    # What was answered is there, whatever becomes of the process meanwhile.
    log.running.stop(signal.SIGKILL)
    started = log.start(wait=False)
    assert started.wait() == 1
    assert "free some space" in started.text
    ballast.unlink()
    log.start()
    submitter.check()


@pytest.mark.parametrize("bytes_", [0, 1000, 60_000])
def test_files_that_may_not_grow_give_no_receipt_and_lose_nothing(
    bytes_: int, tmp_path: Path
) -> None:
    """By RLIMIT_FSIZE, which stops the record, a tile or the checkpoint by how long each is."""
    with running_log(tmp_path / "log") as log:
        submitter = Submitter(log)
        for number in range(3):
            assert submitter.submit(number) == (200, "")
        assert log.running is not None
        pid = log.running.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_, before[1]))
        assert submitter.until_refused() == (503, "state")
        assert log.head.size >= len(submitter.got)
        submitter.check()
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        until(lambda: submitter.submit() == (200, ""))
        submitter.check()


@pytest.mark.slow
def test_a_slow_disk_holds_up_receipts_and_nobody_who_reads(tmp_path: Path) -> None:
    with running_log(tmp_path / "log") as log:
        submitter = Submitter(log)
        assert submitter.submit() == (200, "")
        took: list[float] = []

        def submit(number: int) -> None:
            began = time.monotonic()
            assert submitter.submit(number) == (200, "")
            took.append(time.monotonic() - began)

        assert log.running is not None
        slow = f"delay_exit={int(SLOW * 1e6)}"
        with interfered(log.running, "fsync,fdatasync", slow):
            threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            longest = 0.0
            while any(thread.is_alive() for thread in threads):
                for path in ("checkpoint", "tile/data/000.p/1", "ct/v1/get-roots"):
                    began = time.monotonic()
                    assert log.get(path)[0] == 200
                    longest = max(longest, time.monotonic() - began)
            for thread in threads:
                thread.join()
        assert len(took) == 4 and min(took) > SLOW, "so it was slow"
        print(f"receipts took {max(took):.1f} s, and an answer to readers {longest * 1000:.0f} ms")
        assert longest < max(took) / 2
        submitter.check()
