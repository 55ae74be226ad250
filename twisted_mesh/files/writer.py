"""The directory that an identity's files are in: one process writes there, and each time all of them at once."""

import errno
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

from twisted_mesh.state.directory import StateError
from twisted_mesh.state.generation import OPEN_DIRECTORY, publish_in
from twisted_mesh.state.memory import cure_of
from twisted_mesh.state.private import refuse_shared
from twisted_mesh.state.reading import why_not

_LOCKS = Path("/proc/locks")


class InUse(StateError):
    """Another process writes there."""


@define(eq=False)
class FilesWriter:
    """Writes to one directory, for as long as it has the kernel's lock of it, which kill -9 releases.

    Its calls may be made on a thread, one at a time.
    """

    directory: Path
    _held: int | None = field(default=None, init=False)

    def take(self) -> None:
        """Be the only one that writes there, where it is made if need be.

        Raises :class:`InUse`, and :class:`StateError` where it is somebody else's, or others can write there.
        """
        try:
            self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise self._unusable(error) from None

    def write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Replace all of ``files`` (bytes and mode by name) by one rename. Raises :class:`StateError`.

        A directory that has vanished is made again; the one above it is not, lest files lie below an empty
        mount point.
        """
        try:
            if not self._is_there():
                self.release()
                self.directory.mkdir(mode=0o755, exist_ok=True)
            publish_in(self._held or self._open(), self.directory, files)
        except OSError as error:
            raise self._unusable(error) from None

    def release(self) -> None:
        """Let others write there. May be said again."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _open(self) -> int:
        descriptor = os.open(self.directory, OPEN_DIRECTORY)
        try:
            refuse_shared(self.directory, os.fstat(descriptor))
            _lock(descriptor, self.directory)
        except BaseException:
            os.close(descriptor)
            raise
        self._held = descriptor
        return descriptor

    def _is_there(self) -> bool:
        """Whether the name still leads to what was locked."""
        if self._held is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._held), os.stat(self.directory))
        except OSError:
            return False

    def _unusable(self, error: OSError) -> StateError:
        why, number = why_not(self.directory, error), error.errno or 0
        cure = "" if ":" in why else f": {cure_of(number)}"
        return StateError(f"{self.directory} cannot be written to ({why}){cure}")


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise InUse(
            f"another process{_holder(os.fstat(descriptor))} keeps files in {directory}: stop it, or name another "
            "directory"
        ) from None


def _holder(found: os.stat_result) -> str:
    """Who has the lock, as far as the kernel says (proc_locks(5))."""
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place and words[4] != "-1":
            return f", PID {words[4]},"
    return ""
