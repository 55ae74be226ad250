"""The kernel's own word: what a CA answers with is on the disk before a byte of the answer is written."""

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import dying
from tests.faults.ordeal import Ordeal
from tests.faults.tracing import strace
from tests.running import PATIENCE

_SYNC = re.compile(r"(fdatasync|fsync)(\(| resumed).* = 0$")
_ANSWER = re.compile(r'(sendto|sendmsg|write|writev)\(.*"HTTP/1\.1 201 ')


@contextmanager
def traced(pid: int, log: Path) -> Iterator[None]:
    """Meanwhile what a process syncs and writes is noted, in the order in which it happens."""
    calls = "trace=fdatasync,fsync,sendto,sendmsg,write,writev"
    command = (strace(), "-f", "-e", calls, "-s", "40", "-o", str(log), "-p", str(pid))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(PATIENCE)


def synced_before_answers(log: Path) -> list[int]:
    """How often was synced before each answer, since the one before."""
    found, count = [], 0
    for line in log.read_text().splitlines():
        if _SYNC.search(line):
            count += 1
        elif _ANSWER.search(line):
            found.append(count)
            count = 0
    return found


@pytest.mark.slow
def test_a_certificate_is_on_the_disk_before_its_answer_is_written(
    under: Ordeal, tmp_path: Path
) -> None:
    ca = under.start(wait=True)
    log = tmp_path / "strace"
    with traced(ca.process.pid, log):
        assert [under.sign().status for _ in range(10)] == [201] * 10
    assert ca.stop() == 0
    syncs = synced_before_answers(log)
    assert len(syncs) == 10
    assert min(syncs) >= 1


@pytest.mark.slow
def test_a_key_elsewhere_costs_two_syncs_each(under: Ordeal, tmp_path: Path) -> None:
    """The intent is on the disk, too; and the test above would notice an answer without."""
    # A pass that never comes: it lives, with its keys elsewhere.
    ca = under.start("tests.faults.dying", dying.ELSEWHERE[0], "1000000", wait=True)
    log = tmp_path / "strace"
    with traced(ca.process.pid, log):
        assert [under.sign().status for _ in range(10)] == [201] * 10
    assert ca.stop() == 0
    syncs = synced_before_answers(log)
    assert len(syncs) == 10
    assert min(syncs) >= 2
