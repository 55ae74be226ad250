"""A disk that is slow or reports errors: strace, in the way of a running process's system calls."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.running import PATIENCE, Running


def strace() -> str:
    """Its path, where it may be attached to our children."""
    path = shutil.which("strace")
    if path is None or subprocess.run([path, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace")
    return path


@contextmanager
def interfered(running: Running, calls: str, how: str) -> Iterator[None]:
    """Meanwhile each of these system calls of a process comes out as ``how`` says (strace's ``inject``)."""
    program = strace()
    pid = running.process.pid
    inject = ("-e", f"trace={calls}", "-e", f"inject={calls}:{how}")
    with subprocess.Popen(
        [program, "-f", *inject, "-o", os.devnull, "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    ) as tracer:
        try:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(PATIENCE)
    state = Path(f"/proc/{pid}/status").read_text()
    assert "TracerPid:\t0" in state
