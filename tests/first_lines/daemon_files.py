"""PID files, logs, sockets and state directories as operators leave them: what a service says of them."""

import os
from collections.abc import Callable
from pathlib import Path

from tests.first_lines.row import FirstLine
from tests.running import BIN, run


def said_with(make: Callable[[Path], None], *options: str) -> Callable[[Path], str]:
    """What mesh-ca says in a directory that ``make`` has prepared; its state is in ``state``."""

    def say(directory: Path) -> str:
        make(directory)
        command = [BIN / "mesh-ca", "--port", "0", "--root-key", "ec-p256", *options]
        env = {"MESH_STATE_DIR": str(directory / "state")}
        done = run(*command, cwd=directory, env=env)
        assert done.returncode == 1, done
        # What comes before it in the log says how far the start came.
        sentence = next(line for line in done.stderr.splitlines() if line.startswith("mesh-ca: "))
        return sentence

    return say


def file(name: str) -> Callable[[Path], None]:
    def make(directory: Path) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody's\n")

    return make


def empty_directory(directory: Path) -> None:
    os.mkdir(directory / "there")


def nothing(directory: Path) -> None:
    pass


_WRITE_THERE = r"make its directory and let us write there, or give another"


def _row(setup: str, cause: str, cure: str, say: Callable[[Path], str]) -> FirstLine:
    return FirstLine(setup, "ca", cause, cure, say, starts_processes=True)


ROWS = (
    _row(
        "a PID file that is somebody's file",
        r"--pidfile /\S+/there is no PID file, but another file",
        r"give another, or remove it$",
        said_with(file("there"), "--pidfile", "there"),
    ),
    _row(
        "a PID file that is a directory",
        r"--pidfile /\S+/there cannot be written \(Is a directory\)",
        _WRITE_THERE,
        said_with(empty_directory, "--pidfile", "there"),
    ),
    _row(
        "a PID file in a directory that is missing",
        r"--pidfile /\S+/no/ca\.pid cannot be written \(No such file or directory\)",
        _WRITE_THERE,
        said_with(nothing, "--pidfile", "no/ca.pid"),
    ),
    _row(
        "a log that is a directory",
        r"the log /\S+/there cannot be opened \(Is a directory\)",
        _WRITE_THERE,
        said_with(empty_directory, "--logfile", "there"),
    ),
    _row(
        "a state directory that is a file",
        r"the state directory \S*state cannot be used \(File exists: it is a file",
        r"choose another with --state-dir$",
        said_with(file("state")),
    ),
    _row(
        "a file in the place of the CA's socket",
        r"the socket /\S+/ca\.sock cannot be listened on \(Address already in use\): a file that is no socket",
        r"remove it, or choose another path$",
        said_with(file("state/ca/ca.sock")),
    ),
)
