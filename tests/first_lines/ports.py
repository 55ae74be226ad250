"""Addresses that cannot be listened on: what the CA and the server say before they end."""

import os
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.first_lines.row import FirstLine
from tests.running import BIN, free_port, run
from tests.tools import require_tool

_NOBODY = 65534
_ME = rf"PID {os.getpid()} \(\S.*\) listens there"


def started(directory: Path, *arguments: str, as_nobody: bool = False) -> str:
    """The first words of a service that cannot start."""
    state = directory / "state"
    env = {"MESH_STATE_DIR": str(state), "NO_COLOR": "1"}
    command = [str(BIN / "twistd"), "-n", *arguments]
    if as_nobody:
        if os.getuid() != 0:
            pytest.skip("only root can become somebody else")
        state.mkdir()
        os.chown(state, _NOBODY, _NOBODY)
        for above in (directory, *directory.parents[:2]):
            above.chmod(above.stat().st_mode | 0o711)
        become = (f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        command = [require_tool("setpriv"), *become, *command]
        env["HOME"] = str(state)
    done = run(*command, cwd=state if as_nobody else directory, env=env)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("mesh-"))


def server(listen: Callable[[], str], **options: bool) -> Callable[[Path], str]:
    return lambda directory: started(directory, "mesh-server", "--listen", listen(), **options)


def ca(*options: str) -> Callable[[Path], str]:
    usual = ("mesh-ca", "--port", "0", "--root-key", "ec-p256")
    return lambda directory: started(directory, *usual, *(o.format(directory) for o in options))


def port_in_use(directory: Path) -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        return started(directory, "mesh-server", "--listen", f"127.0.0.1:{port}")


def port_in_use_on_all(directory: Path) -> str:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        return started(directory, "mesh-server", "--listen", f"127.0.0.1:{port}")


def port_of_somebody_else(directory: Path) -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        return started(directory, "mesh-server", "--listen", f"127.0.0.1:{port}", as_nobody=True)


def socket_in_use(directory: Path) -> str:
    with closing(socket.socket(socket.AF_UNIX)) as taken:
        taken.bind(str(directory / "s"))
        taken.listen()
        return ca("--socket", "{}/s")(directory)


def file_in_the_way(directory: Path) -> str:
    (directory / "s").write_text("")
    return ca("--socket", "{}/s")(directory)


def locked(directory: Path) -> str:
    (directory / "s.lock").symlink_to(str(os.getpid()))
    return started(directory, "mesh-server", "--listen", f"unix:{directory}/s")


ROWS = (
    FirstLine(
        "the port is in use",
        "server",
        rf"127\.0\.0\.1:\d+ cannot be listened on \(Address already in use\): {_ME}",
        "stop that, or choose another address",
        port_in_use,
    ),
    FirstLine(
        "the port is in use on all addresses",
        "server",
        rf"127\.0\.0\.1:\d+ cannot be listened on \(Address already in use\): {_ME}",
        "stop that, or choose another address",
        port_in_use_on_all,
        starts_processes=True,
    ),
    FirstLine(
        "the port is in use by another user",
        "server",
        r"127\.0\.0\.1:\d+ cannot be listened on \(Address already in use\): ",
        "stop what uses it, .*root sees who that is with ss",
        port_of_somebody_else,
        starts_processes=True,
        never="PID",
    ),
    FirstLine(
        "the port is root's",
        "server",
        r"127\.0\.0\.1:80 cannot be listened on \(Permission denied\): ports below \d+ are for root here",
        r"choose a higher port, or give this program the capability CAP_NET_BIND_SERVICE",
        server(lambda: "127.0.0.1:80", as_nobody=True),
        starts_processes=True,
        never="stop what uses it",
    ),
    FirstLine(
        "the address is another machine's",
        "server",
        r"192\.0\.2\.1 is no address of this machine",
        r"0\.0\.0\.0 or \[::\] for all",
        server(lambda: f"192.0.2.1:{free_port()}"),
        never="stop what uses it",
    ),
    FirstLine(
        "nobody has the name to listen on",
        "server",
        r"no address of no-such-host\.invalid can be found",
        "check how it is spelt",
        server(lambda: f"no-such-host.invalid:{free_port()}"),
        starts_processes=True,
        never="stop what uses it",
    ),
    FirstLine(
        "the socket is in use",
        "ca",
        rf"the socket \S+/s is another program's \(PID {os.getpid()} \(",
        "stop that, or choose another --socket",
        socket_in_use,
    ),
    FirstLine(
        "a file is where the socket is to be",
        "ca",
        r"the socket \S+/s cannot be listened on .*: a file that is no socket is there",
        "remove it, or choose another path",
        file_in_the_way,
    ),
    FirstLine(
        "the socket's directory is missing",
        "ca",
        r"the socket /nowhere/at/all/s cannot be listened on .*: there is no directory /nowhere:",
        "make it, or choose another path",
        ca("--socket", "/nowhere/at/all/s"),
    ),
    FirstLine(
        "the directory of the server's socket is missing",
        "server",
        r"unix:/nowhere/s cannot be listened on \(No such file or directory\): there is no directory /nowhere:",
        "make it, or choose another path",
        server(lambda: "unix:/nowhere/s"),
    ),
    FirstLine(
        "the lock beside the socket is a process's that runs",
        "server",
        rf"cannot be listened on \(Cannot acquire lock\): \S+/s\.lock says that it is process {os.getpid()}'s",
        "stop that; or, where .* has nothing to do with it, remove that file",
        locked,
    ),
    FirstLine(
        "the socket's path is too long",
        "ca",
        r"/tmp/x+ is too long for a unix socket: 125 bytes, and 103 are the most",
        "choose a shorter --socket",
        ca("--socket", f"/tmp/{'x' * 120}"),
    ),
)
