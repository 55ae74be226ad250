"""Space kept back on the disk, so that there is still room to revoke when it is full."""

import errno
import os
from pathlib import Path

from attrs import frozen

_SIZE = 8 * 1024 * 1024
#: Of a small file system only so large a part is kept back.
_PART = 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@frozen(eq=False, repr=False)
class Reserve:
    """A file that is only there to be deleted."""

    path: Path

    def hold(self) -> bool:
        """Take the space, or find it taken; False where the disk has no room for it.

        Where it cannot be taken for another reason, that is the disk's own to tell: True.
        """
        temporary = self.path.with_name(f".{self.path.name}")
        try:
            if self.path.exists():
                return True
            size, free = self._measure()
            # As much again must be free: taken with the last of the space, it would be given up at once.
            if free < 2 * size:
                return False
            _fill(temporary, size)
            temporary.replace(self.path)
        except OSError as error:
            _remove(temporary)
            return error.errno not in _NO_ROOM
        return True

    def has_room(self) -> bool:
        """Whether as much again is free beside it. Where the disk does not say, it is for a write to find out."""
        try:
            size, free = self._measure()
        except OSError:
            return True
        return free >= size and self.hold()

    def _measure(self) -> tuple[int, int]:
        """How many bytes are to be kept back, and how many are free."""
        disk = os.statvfs(self.path.parent)
        return min(_SIZE, disk.f_blocks * disk.f_frsize // _PART), disk.f_bavail * disk.f_frsize

    def release(self) -> bool:
        """Give the space up; whether there was any."""
        return _remove(self.path)


def _fill(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.write(descriptor, bytes(size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # a disk that is mounted read-only says so of files that are not there, too
        return False
    return True
