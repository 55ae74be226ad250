"""A process that stays the one it is: what is read of it in ``/proc`` is its own, however PIDs are reused."""

import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Self, TypeVar

from attrs import define

from pki.codes import Code
from pki.errors import PkiError, printable

#: Of Linux from 6.5; Python does not name it yet.
SO_PEERPIDFD = 77

T = TypeVar("T")
_INT = struct.Struct("=i")
#: What is read at once: most files of ``/proc`` are shorter.
_PIECE = 8192
_NO_SUCH_OPTION = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_NO_SUCH_PROCESS = (errno.ESRCH, errno.EINVAL, errno.ENODATA)
#: Of the words after the name in /proc/PID/stat: when it was started, where its code begins and ends, and its stack.
_START_TIME, _START_CODE, _END_CODE, _START_STACK = 19, 23, 24, 25


class ProcessGone(PkiError):
    """The process has exited: what bears its PID now, if anything, is another."""

    code = Code.PROCESS_GONE


class Unreadable(PkiError):
    """The process is there, and may not be looked at, or not from here."""

    code = Code.PROCESS_UNREADABLE


class NoDescriptors(Unreadable):
    """We have no descriptor left to look at it with: in a moment there may be one."""


def read_file(path: str) -> bytes:
    """A file of ``/proc``; by hand, since Python's own files take several times as long to open."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _PIECE), b""))
    finally:
        os.close(descriptor)


@define(eq=False, repr=False)
class ProcessHandle:
    """A pidfd (pidfd_open(2)), to be used in a ``with``."""

    descriptor: int
    pid: int | None = None
    """Its PID where ``/proc`` was mounted, which is not always the namespace that we are in; found out once."""
    read_file: Callable[[str], bytes] = read_file

    @classmethod
    def of_peer(cls, connected: socket.socket, pid: int | None = None) -> Self | None:
        """The process that connected to a unix socket; None where no pidfd of it is to be had.

        The kernel may know none, or this process may have no descriptor left for one: then who is
        connected is served on what was recorded at connect, and nothing else is attested.

        ``pid``: its :attr:`pid` if that is known from an earlier handle of the same connection.
        Raises :class:`ProcessGone`, :class:`Unreadable`.
        """
        if not hasattr(socket, "SO_PEERCRED"):
            return None
        try:
            data = connected.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size)
        except OSError as error:
            if error.errno in (*_NO_SUCH_OPTION, *_NO_DESCRIPTORS):
                return None
            # Linux from 6.16 hands out a pidfd also of a process that is no more.
            if error.errno in _NO_SUCH_PROCESS:
                raise ProcessGone("the process has exited") from None
            raise Unreadable(f"the process cannot be looked at: {error.strerror}") from None
        (descriptor,) = _INT.unpack(data)
        return cls(descriptor, pid)

    @classmethod
    def of_pid(cls, pid: int) -> Self:
        """The process that has this PID now. Raises :class:`ProcessGone`, :class:`Unreadable`."""
        if not hasattr(os, "pidfd_open"):
            raise Unreadable("processes can be looked at on Linux only")
        try:
            return cls(os.pidfd_open(pid))
        except ProcessLookupError:
            raise ProcessGone(f"there is no process {pid}: it has exited, or never was") from None
        except OverflowError:
            raise ProcessGone(f"there is no process {pid}: no PID is that long") from None
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                raise NoDescriptors(
                    f"process {pid} cannot be looked at: {error.strerror}"
                ) from None
            if error.errno in (errno.EINVAL, errno.ENOENT):
                why = f"{pid} is not the PID of a process, but of a thread at most"
            else:
                why = f"process {pid} cannot be looked at: {error.strerror}"
            raise Unreadable(why) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back; once more is no harm."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def has_exited(self) -> bool:
        """Whether it is over with the process, also where nobody has waited for it yet."""
        waiting = select.poll()
        waiting.register(self.descriptor, select.POLLIN)
        return bool(waiting.poll(0))

    def must_live(self) -> None:
        """Raises :class:`ProcessGone`."""
        if self.has_exited:
            raise ProcessGone("the process has exited")

    def read(self, name: str) -> bytes:
        """A file of its directory in ``/proc``. Raises :class:`ProcessGone`, :class:`Unreadable`."""
        return self._guarded(lambda: self.read_file(f"/proc/{self._place()}/{name}"))

    def executable(self) -> str:
        """The program that it runs at the moment; for people. Raises :class:`ProcessGone`, :class:`Unreadable`."""
        return printable(self._guarded(lambda: os.readlink(f"/proc/{self._place()}/exe")))

    def program(self) -> tuple[object, ...]:
        """What changes when it becomes another program (execve(2)), as far as the kernel shows it to us.

        The file that it runs, and where its code and its stack lie: with addresses that are drawn anew by each
        execve also the same file is not the same program. Of somebody else's process an agent without
        privileges sees neither, and two values may be equal though there was an execve between them. Where the
        kernel comes to hide what it has shown, as of a set-user-ID program, that is a change too.
        Raises :class:`ProcessGone`, :class:`Unreadable`.
        """
        return self._guarded(self._program)

    def _program(self) -> tuple[object, ...]:
        home = f"/proc/{self._place()}"
        words = self.read_file(f"{home}/stat").rpartition(b")")[2].split()
        places = tuple(words[at] for at in (_START_TIME, _START_CODE, _END_CODE, _START_STACK))
        try:
            found = os.stat(f"{home}/exe")
        except PermissionError:
            return places
        except FileNotFoundError:  # a kernel's thread, or a process that is ending
            return places
        return *places, found.st_dev, found.st_ino

    def _guarded(self, look: Callable[[], T]) -> T:
        """What ``look`` finds, if the process is still there afterwards: then its PID was its own all the time."""
        try:
            found = look()
        except OSError as error:
            self.must_live()
            kind = NoDescriptors if error.errno in _NO_DESCRIPTORS else Unreadable
            raise kind(f"/proc does not show the process: {error.strerror}") from None
        self.must_live()
        return found

    def _place(self) -> int:
        if self.pid is None:
            for line in self.read_file(f"/proc/self/fdinfo/{self.descriptor}").split(b"\n"):
                if line.startswith(b"Pid:") and int(line[4:]) > 0:
                    self.pid = int(line[4:])
        if self.pid is None:
            raise FileNotFoundError(errno.ENOENT, "it is in another namespace")
        return self.pid


def has_peer_handles() -> bool:
    """Whether this kernel hands out pidfds of peers."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        handle = ProcessHandle.of_peer(ours)
        if handle is not None:
            handle.close()
    return handle is not None
