"""Machines that fail under a running CA."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ordeal import Ordeal, ordeal
from tests.interop.house import House
from tests.interop.house import house as inhabited


@pytest.fixture
def under(tmp_path: Path) -> Iterator[Ordeal]:
    """A home without a CA, and callers without an answer; what was lost is told at the end."""
    with ordeal(tmp_path / "home", 20261124) as begun:
        yield begun
        assert begun.outcome.lost == ()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A CA's house, without a CA that kills itself."""
    with inhabited(tmp_path / "house") as house:
        yield house


@pytest.fixture
def small_disk(under: Ordeal) -> Iterator[Path]:
    """The state directory, on a disk of four megabytes."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    under.state.mkdir()
    mounting = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", under.state)
    done = subprocess.run(mounting, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield under.state
    finally:
        under.end()
        subprocess.run(["umount", "-l", under.state], check=True)
