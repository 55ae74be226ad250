"""Real processes at the other end of a unix socket: other users, groups, programs; alive, exiting, replaced."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.running import PATIENCE
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.process import ProcessAttestor
from twisted_mesh.attest.users import UserNames

T = TypeVar("T")

NOBODY = 65534
#: A user and groups that no machine has names for.
STRANGER, STRANGE_GROUP = 4_000_001_000, 4_000_002_000

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only: /proc and pidfds")
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

#: Becomes somebody, connects, and then is, leaves, or becomes another program, until its input ends.
_CHILD = """
import os, socket, sys
path, uid, gid, groups, then = sys.argv[1:]
if groups:
    os.setgroups([int(group) for group in groups.split(",") if group != "none"])
if gid:
    os.setgid(int(gid))
if uid:
    os.setuid(int(uid))
connected = socket.socket(socket.AF_UNIX)
connected.connect(path)
if then == "exec":
    connected.set_inheritable(True)
    os.execvp("cat", ["cat"])
if then == "demote":
    os.setuid(65534)
if then == "leave" and os.fork():
    os._exit(0)
print("here", flush=True)
if then == "become":
    connected.set_inheritable(True)
    sys.stdin.readline()
    again = "import sys; print('another', flush=True); sys.stdin.read()"
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", again])
sys.stdin.read()
"""


@frozen
class Transport:
    """What Twisted hands out for a connection on a unix socket."""

    socket: Any


@define(eq=False)
class Caller:
    """A process that has connected, and our end of the connection."""

    process: subprocess.Popen[str]
    connected: socket.socket
    evidence: Evidence = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.evidence = Evidence.of(Transport(self.connected))

    @property
    def pid(self) -> int:
        return self.process.pid

    def become(self) -> None:
        """Have one that was made to ``become`` run its own program anew: an execve of the very same file."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "another\n"

    def exit(self) -> None:
        """Have it exit, and somebody wait for it, so that its PID is free."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def exit_unnoticed(self) -> None:
        """Have it exit while nobody has waited for it yet: a zombie."""
        self.process.kill()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def calling(
    *,
    uid: int | None = None,
    gid: int | None = None,
    groups: Sequence[int] | None = None,
    then: str = "stay",
) -> Iterator[Caller]:
    """A caller that is somebody, and stays, leaves its connection to a child, execs ``cat``, becomes nobody, or
    waits for :meth:`Caller.become`."""
    # pytest's own directories are closed to other users.
    directory = Path(tempfile.mkdtemp(prefix="mesh-attest-"))
    directory.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "ca"))
        (directory / "ca").chmod(0o666)
        listening.listen()
        listening.settimeout(PATIENCE)
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", _CHILD, str(directory / "ca")),
                *("" if value is None else str(value) for value in (uid, gid)),
                "" if groups is None else ",".join(map(str, groups)) or "none",
                then,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            connected, _ = listening.accept()
            with connected:
                if then == "exec":
                    process.stdin.write("here\n")
                    process.stdin.flush()
                # What answers now is what it has become.
                assert process.stdout.readline() == "here\n"
                if then == "leave":
                    process.wait(PATIENCE)
                yield Caller(process, connected)
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.kill()
            process.wait(PATIENCE)
            shutil.rmtree(directory)


@define(eq=False)
class Names:
    """A directory of users that the test wrote."""

    known: dict[int, str | None] = field(factory=dict)
    asked: list[int] = field(factory=list)

    def look_up(self, uid: int) -> str | None:
        self.asked.append(uid)
        return self.known.get(uid)


def process_attestor(known: dict[int, str | None] | None = None) -> ProcessAttestor:
    """One whose users have those names; looked up at once."""
    names = Names({os.geteuid(): "tester"} if known is None else known)
    return ProcessAttestor(UserNames(Clock(), lambda f, *args: succeed(f(*args)), names.look_up))


def outcome(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that waits for nobody returns; raises what it raises."""
    answers: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(answers.append)
    (answer,) = answers
    if isinstance(answer, Failure):
        answer.raiseException()
    return answer  # type: ignore[no-any-return]


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@contextmanager
def process_with_pid(pid: int) -> Iterator[None]:
    """Another process that has this PID, as it can come to by chance: clone3(2) lets root choose one."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = ctypes.c_int32(pid)
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, its size
    arguments = (ctypes.c_uint64 * 10)(
        *(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), ctypes.addressof(wanted), 1
    )
    got = libc.syscall(435, ctypes.byref(arguments), ctypes.sizeof(arguments))
    if got == 0:
        libc.pause()
        os._exit(0)
    if got < 0:
        pytest.skip(f"no PID can be chosen here: {os.strerror(ctypes.get_errno())}")
    assert got == pid
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
