"""Which one process owns a directory."""

import errno
import fcntl
import os
from pathlib import Path

from attrs import define, field

from pki.errors import PkiError


@define(eq=False)
class OwnerLock:
    """A kernel lock on a file that holds the owner's PID: kill -9 releases it.

    It does not survive a fork, so take it after twistd's.
    """

    path: Path
    owned: Path
    """What whoever has the lock owns, as errors name it."""
    program: str
    """What the owner is called."""
    error: type[PkiError]
    """For a file that cannot be used."""
    already: type[PkiError]
    """For one that another process has."""
    _descriptor: int | None = field(default=None, init=False)

    def take(self) -> None:
        """Own it until this process ends, however it ends. Raises :attr:`error` or :attr:`already`."""
        path = self.path
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self.error(f"{path} cannot be opened ({error.strerror})") from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise self.error(f"{path} cannot be locked ({error.strerror})") from None
            raise self.already(
                f"another {self.program}, PID {owner or 'unknown'}, owns {self.owned}: stop it, or choose another "
                "--state-dir"
            ) from None
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise self.error(
                f"{path} cannot be written ({error.strerror}): free some space"
            ) from None

    def release(self) -> None:
        """Let another process have it. May be said again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
