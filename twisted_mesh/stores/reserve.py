"""Space kept back on the disk, so that there is still room to revoke when it is full."""

import os
from pathlib import Path

from attrs import define

_SIZE = 8 * 1024 * 1024
#: Of a small file system only so large a part is kept back.
_PART = 20


@define(eq=False)
class Reserve:
    """A file that is only there to be deleted."""

    path: Path

    @property
    def is_held(self) -> bool:
        return self.path.exists()

    def hold(self) -> bool:
        """Take the space, or find it taken; False where there is none to take."""
        if self.is_held:
            return True
        temporary = self.path.with_name(f".{self.path.name}")
        try:
            found = os.statvfs(self.path.parent)
            size = min(_SIZE, found.f_blocks * found.f_frsize // _PART)
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, size)
                else:
                    os.write(descriptor, bytes(size))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(self.path)
        except OSError:
            temporary.unlink(missing_ok=True)
            return False
        return True

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
