"""What was acknowledged is on the disk: after kill -9, and by the order of system calls."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pki.audit.log import Act
from tests.running import CHECKOUT, PATIENCE
from tests.twisted_mesh.stores.certificates import acts, signed
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
    """How many of 30 commands, one after the other, were acknowledged with no sync since the last; and of how many."""
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
    assert acknowledgements_without_fdatasync(tmp_path) == (0, 30)


def test_the_test_above_notices_synchronous_off(tmp_path: Path) -> None:
    without, seen = acknowledgements_without_fdatasync(tmp_path, "unsafe")
    assert seen == 30
    assert without > 20


INSISTING = (sys.executable, "-m", "tests.twisted_mesh.stores.insisting")


def insist(tmp_path: Path, clients: int, pairs: int, injected: str) -> list[list[str]]:
    """What a program says that issues while strace makes system calls fail or last."""
    log = tmp_path / "strace"
    tracing = (strace(), "-f", "-o", log, "-e", "trace=fdatasync,pwrite64", "-e", injected)
    result = subprocess.run(
        [*tracing, *INSISTING, tmp_path / "state", str(clients), str(pairs)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
        text=True,
    )
    return [line.split(" ", 1) for line in result.stdout.splitlines()]


def assert_all_kept(tmp_path: Path, calls: ThreadCalls, told: list[list[str]], count: int) -> None:
    """All that was acknowledged, and nothing else."""
    acknowledged = [int(text) for what, *text in told if what == "certificate" for text in text]
    assert sorted(acknowledged) == list(range(count))
    store = open_store("", tmp_path / "state", calls)
    store.start()
    for serial in acknowledged:
        assert calls.result(store.find(serial)) == signed(serial)
    assert calls.result(store.open_intents()) == ()
    assert sorted(acts(store, calls)) == sorted((Act.ISSUE, f"{n:x}") for n in range(count))
    calls.result(store.stop())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("pwrite64", "EROFS"),
        ("pwrite64", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("fdatasync", "EIO"),
    ],
)
def test_a_disk_that_fails_for_a_while_loses_nothing(
    tmp_path: Path, calls: ThreadCalls, call: str, error: str
) -> None:
    span = "105..135" if call == "pwrite64" else "12..20"
    told = insist(tmp_path, 1, 20, f"inject={call}:error={error}:when={span}")
    refusals = [text for what, *text in told if what == "refused" for text in text]
    assert len(refusals) >= 2
    for text in refusals:
        assert text.startswith(f"store {tmp_path}/state/ca/mesh.db: ")
        assert ("the disk is full" if error == "ENOSPC" else "the disk reports errors") in text
    assert_all_kept(tmp_path, calls, told, 20)


@pytest.mark.slow
def test_a_slow_disk_makes_larger_commits(tmp_path: Path, calls: ThreadCalls) -> None:
    told = insist(tmp_path, 64, 4, "inject=fdatasync:delay_exit=30000")
    assert_all_kept(tmp_path, calls, sorted(told), 256)
    commits = (tmp_path / "strace").read_text().count("fdatasync(")
    assert commits < 512 / 8
