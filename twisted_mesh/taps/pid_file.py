"""The file with the number of our process, and the lock on it that says whether it is true.

A file that a crash has left behind stops no start, whatever number is in it, and whoever has that number by now: only a
process that lives holds a lock.
"""

import fcntl
import os
import re
from contextlib import suppress

from attrs import define, field

from pki.errors import printable
from twisted_mesh.runtime.planted import open_own
from twisted_mesh.state.directory import StateError

#: What a PID file holds, and what may be left of it when the power was: nothing, spaces, zeros.
_OURS = re.compile(rb"[\s\0]*\d{0,10}[\s\0]*")


@define(eq=False)
class PidFile:
    """``--pidfile``, from :meth:`take` to :meth:`remove`."""

    path: str
    _descriptor: int | None = field(default=None, init=False)

    def take(self, program: str) -> None:
        """Write our PID. Raises :class:`StateError`, also where a process that lives has its own there."""
        while self._descriptor is None:
            descriptor = self._opened()
            try:
                self._lock(descriptor, program)
                found = os.read(descriptor, 64)
                if not _OURS.fullmatch(found):
                    raise StateError(
                        f"--pidfile {self.path} is no PID file, but another file that would be overwritten: give "
                        "another, or remove it"
                    )
                if self._is_there(descriptor):
                    with suppress(OSError):  # of another user's file
                        os.fchmod(descriptor, 0o644)  # whatever the umask
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
                    self._descriptor = descriptor
            except OSError as error:
                raise StateError(
                    f"--pidfile {self.path} cannot be written ({error.strerror})"
                ) from None
            finally:
                if self._descriptor is None:
                    os.close(descriptor)

    def remove(self) -> None:
        """Give it up, if we had it. May be said again."""
        if self._descriptor is not None:
            with suppress(OSError):
                # Another user's directory, once we have shed our rights: an empty file hurts nobody.
                os.ftruncate(self._descriptor, 0)
                if self._is_there(self._descriptor):
                    os.unlink(self.path)
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        try:
            # Whoever owns the file says which process is stopped by it.
            flags = os.O_RDWR | os.O_CLOEXEC
            return open_own(self.path, flags, 0o644, may_be_link=False)[0]
        except OSError as error:
            raise StateError(
                f"--pidfile {self.path} cannot be written ({error.strerror}): make its directory and let us write "
                "there, or give another"
            ) from None

    def _lock(self, descriptor: int, program: str) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = printable(os.read(descriptor, 64).decode("ascii", "replace").strip(), 20)
            raise StateError(
                f"another process{f', PID {pid},' if pid else ''} holds --pidfile {self.path}: stop that one, or give "
                f"this {program} another"
            ) from None

    def _is_there(self, descriptor: int) -> bool:
        """Whether the path still names this file: who had it may have removed it while we looked."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        return False
