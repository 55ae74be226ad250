"""PostgreSQL's programs, and the user that they run as."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.tools import IN_CI, require_tool

_PLACES = Path("/usr/lib/postgresql")
POSTGRES = "postgres"
#: Its programs refuse to run as root, and to become its user takes root.
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL has a user of its own")


def program(name: str) -> Path:
    found = sorted(_PLACES.glob(f"*/bin/{name}"))
    if not found and not IN_CI:
        pytest.skip("PostgreSQL is not installed")
    return found[-1]


def become() -> list[str]:
    """What runs a command as that user."""
    as_them = (f"--reuid={POSTGRES}", f"--regid={POSTGRES}", "--clear-groups")
    return [require_tool("setpriv"), *as_them]


def as_postgres(*words: str | Path, cwd: Path) -> None:
    command = [*become(), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
