"""Our programs as processes of their own, forked from one that has all imports behind it (Linux only).

What a test starts this way has its own arguments, environment, directory, descriptors, signals and exit
status, and ends as the interpreter ends. It only does not spend most of a second on being a Python with
Twisted and cryptography in it. The server has no reactor, no thread and no open file: each child makes its own.

A request is its length and JSON, with four descriptors: standard input, output and error, and a pipe on which
the server says the child's PID and, once it has ended, its status as ``waitpid`` has it.
"""

import atexit
import gc
import importlib
import json
import os
import re
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NoReturn, Self

from attrs import define, field

CHECKOUT = Path(__file__).resolve().parent.parent
#: As a real process, for a comparison or where one does not believe this: MESH_REAL_PROCESSES=1.
AVAILABLE = sys.platform == "linux" and os.environ.get("MESH_REAL_PROCESSES") != "1"

_LENGTH = struct.Struct("!I")
#: What an interpreter or a library has read by the time that it runs: with another value the process must be real.
_READ_AT_START = (
    "PYTHON",
    "LC_",
    "LANG",
    "LD_",
    "COVERAGE_",
    "FAKETIME",
    "OPENSSL_",
    "MALLOC_",
    "TZ",
)
#: But these a child can still follow.
_FOLLOWED = {"PYTHONUNBUFFERED", "PYTHONPATH"}
_BIN = Path(sys.executable).parent
_PROGRAMS = (
    "mesh-agent",
    "mesh-ca",
    "mesh-client",
    "mesh-ctl",
    "mesh-ctlog",
    "mesh-proxy",
    "mesh-server",
    "mesh-signer",
    "mesh-witness",
    "pki-inspect",
    "twistd",
)
#: A statement at the left margin: where from, and (the first of) what.
_IMPORTED = re.compile(r"^from ([\w.]+) import \(?\s*(\w+)", re.MULTILINE)


# --- what tests use -------------------------------------------------------------------------------


@define(eq=False)
class Forked:
    """A child of the server's, with the part of :class:`subprocess.Popen` that tests use."""

    pid: int
    returncode: int | None = None
    _status: int = field(default=-1, kw_only=True)

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        cwd: str | Path,
        env: Mapping[str, str],
    ) -> Self:
        """Needs :func:`can_fork`. The descriptors stay the caller's."""
        request = {"command": list(command), "cwd": str(cwd), "env": dict(env)}
        ours, theirs = os.pipe()
        try:
            _server().send(json.dumps(request).encode(), [stdin, stdout, stderr, theirs])
        finally:
            os.close(theirs)
        (pid,) = _LENGTH.unpack(_read(ours, _LENGTH.size))
        return cls(pid, status=ours)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            (status,) = _LENGTH.unpack(_read(self._status, _LENGTH.size))
            os.close(self._status)
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether this is one of our programs, or of our modules, in an environment that a running Python can take on."""
    if not AVAILABLE:
        return False
    ours = [_BIN / name for name in _PROGRAMS] + [CHECKOUT / "bin" / name for name in _PROGRAMS]
    words = command[1:] if command[0] == str(_BIN / "python") else command
    is_ours = bool(words) and (words[0] == "-m" or Path(words[0]) in ours)
    return is_ours and _decisive(env) == _decisive(os.environ)


def run(
    command: Sequence[str],
    *,
    stdin: str,
    timeout: float,
    cwd: str | Path,
    env: Mapping[str, str],
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself, as :func:`subprocess.run`. Needs :func:`can_fork`."""
    with ExitStack() as stack:
        asked, out, err = (stack.enter_context(TemporaryFile("w+")) for _ in range(3))
        asked.write(stdin)
        asked.seek(0)
        files = {"stdin": asked.fileno(), "stdout": out.fileno(), "stderr": err.fileno()}
        child = Forked.start(command, cwd=cwd, env=env, **files)
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise
        for said in (out, err):
            said.seek(0)
        return subprocess.CompletedProcess(list(command), status, out.read(), err.read())


def _decisive(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in env.items()
        if name.startswith(_READ_AT_START) and name not in _FOLLOWED
    }


def _read(descriptor: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = os.read(descriptor, size - len(found))
        if not more:
            raise AssertionError("the fork server has died")
        found += more
    return found


@define(eq=False)
class _Server:
    """The one server of this process; it ends with us."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def start(cls) -> Self:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return cls(process, ours)

    def send(self, request: bytes, descriptors: list[int]) -> None:
        socket.send_fds(self.control, [_LENGTH.pack(len(request))], descriptors)
        self.control.sendall(request)

    def stop(self) -> None:
        self.control.close()
        self.process.wait()


@cache
def _server() -> _Server:
    server = _Server.start()
    atexit.register(server.stop)
    return server


# --- the server -----------------------------------------------------------------------------------


@define(eq=False)
class _Request:
    command: list[str]
    cwd: str
    env: dict[str, str]
    descriptors: list[int]

    def begin(self) -> None:
        """Take on all that makes this process the one that was asked for."""
        for number, descriptor in enumerate(self.descriptors[:3]):
            os.dup2(descriptor, number)
        for descriptor in self.descriptors:
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.cwd)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        unbuffered = bool(self.env.get("PYTHONUNBUFFERED"))
        sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = _text(1, unbuffered, os.isatty(1), "strict")
        sys.stderr = sys.__stderr__ = _text(2, unbuffered, True, "backslashreplace")
        for place in reversed(self.env.get("PYTHONPATH", "").split(os.pathsep)):
            if place and place not in sys.path:
                sys.path.insert(0, place)

    def become(self) -> None:
        words = self.command[1:] if Path(self.command[0]).name == "python" else self.command
        if words[0] == "-m":
            sys.argv = words[1:]
            sys.path[0] = self.cwd
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path[0] = str(Path(words[0]).parent)
            runpy.run_path(words[0], run_name="__main__")


def _text(descriptor: int, unbuffered: bool, by_line: bool, errors: str) -> Any:
    stream = open(descriptor, "w", closefd=False, errors=errors)  # noqa: SIM115
    stream.reconfigure(line_buffering=by_line, write_through=unbuffered)
    return stream


def _import_all() -> None:
    """All that our programs import, but what imports the reactor: its descriptors must not be shared."""
    for name in ("twisted.scripts.twistd", "twisted.internet.epollreactor", *_without_reactor()):
        importlib.import_module(name)
    from twisted.application.service import IServiceMaker
    from twisted.plugin import getPlugins

    list(getPlugins(IServiceMaker))
    assert "twisted.internet.reactor" not in sys.modules


def _without_reactor() -> list[str]:
    """The modules of twisted_mesh that can be imported without installing a reactor."""
    imports = {
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts): _IMPORTED.findall(
            path.read_text()
        )
        for path in (CHECKOUT / "twisted_mesh").rglob("*.py")
        if path.stem != "__init__"
    }
    installing = {"twisted.internet.reactor"}
    while found := {
        name
        for name, imported in imports.items()
        if name not in installing
        and any(
            f"{origin}.{what}" in installing or origin in installing for origin, what in imported
        )
    }:
        installing |= found
    return sorted(set(imports) - installing)


def _serve(control: socket.socket) -> _Request | None:
    """In the server until the last caller has gone: None. In each child: its request."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([control, *running], [], [])
        for pidfd in set(ready) & set(running):
            pid, told = running.pop(pidfd)
            _, status = os.waitpid(pid, 0)
            with suppress(BrokenPipeError):
                os.write(told, _LENGTH.pack(status))
            os.close(told)
            os.close(pidfd)
        if control not in ready:
            continue
        head, descriptors, _, _ = socket.recv_fds(control, _LENGTH.size, 4)
        if not head:
            for pidfd in running:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return None
        (size,) = _LENGTH.unpack(head)
        request = _Request(**json.loads(_read(control.fileno(), size)), descriptors=descriptors)
        pid = os.fork()
        if pid == 0:
            control.close()
            for pidfd, (_, told) in running.items():
                os.close(pidfd)
                os.close(told)
            return request
        *standard, told = descriptors
        for descriptor in standard:
            os.close(descriptor)
        os.write(told, _LENGTH.pack(pid))
        running[os.pidfd_open(pid)] = (pid, told)


def _end(code: object) -> NoReturn:
    """As the interpreter ends, but for the taking apart of a thousand modules, which costs more than all else."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def main() -> None:
    # A Ctrl-C is for those who are tested, and for pytest: the server ends when that does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(control.fileno(), False)
    _import_all()
    gc.collect()
    gc.freeze()
    request = _serve(control)
    if request is not None:
        request.begin()
        try:
            request.become()
        except SystemExit as ended:
            _end(ended.code)
        _end(0)


if __name__ == "__main__":
    main()
