"""What was acknowledged is on the disk: after kill -9, and by the order of system calls."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import CHECKOUT, PATIENCE
from tests.twisted_mesh.stores.certificates import signed
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.opening import open_store

PROGRAM = (sys.executable, "-m", "tests.twisted_mesh.stores.acknowledging")


@pytest.mark.parametrize("acknowledged", [1, 40, 2000])
def test_every_acknowledged_certificate_survives_kill_9(
    tmp_path: Path, calls: ThreadCalls, acknowledged: int
) -> None:
    with subprocess.Popen([*PROGRAM, tmp_path], cwd=CHECKOUT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(acknowledged + 1)]
        child.kill()
        lines += child.stdout.readlines()
    assert lines[0] == b"started\n"
    told = [line.split() for line in lines[1:] if line.endswith(b"\n")]
    assert len(told) >= acknowledged
    store = open_store("", tmp_path, calls)
    store.start()
    for what, text in told:
        serial = int(text)
        found = calls.result(store.find(serial))
        assert found is not None
        if what == b"certificate":
            assert found == signed(serial)
    calls.result(store.stop())


def strace() -> str:
    """Its path, where it may trace our children."""
    path = shutil.which("strace")
    if path is None or subprocess.run([path, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace")
    return path


def acknowledgements_without_fdatasync(tmp_path: Path, *unsafe: str) -> tuple[int, int]:
    """How many of 40 commands, one after the other, were acknowledged with no sync since the last; and of how many."""
    log = tmp_path / "strace"
    tracing = (strace(), "-f", "-o", log, "-e", "trace=fdatasync,fsync,write")
    subprocess.run(
        [*tracing, *PROGRAM, tmp_path / "state", "1", "20", *unsafe],
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=True,
    )
    synced, without, seen, started = False, 0, 0, False
    for line in log.read_text().splitlines():
        # Where another thread's call comes in between, only its second half says that it is done.
        if re.search(r"(fdatasync|fsync)(\(| resumed).* = 0$", line):
            synced = True
        elif 'write(1, "started' in line:
            started, synced = True, False
        elif started and re.search(r'write\(1, "(intent|certificate) ', line):
            without += not synced
            synced, seen = False, seen + 1
    return without, seen


def test_fdatasync_comes_before_each_acknowledgement(tmp_path: Path) -> None:
    assert acknowledgements_without_fdatasync(tmp_path) == (0, 40)


def test_the_test_above_notices_synchronous_off(tmp_path: Path) -> None:
    without, seen = acknowledgements_without_fdatasync(tmp_path, "unsafe")
    assert seen == 40
    assert without > 30
