"""A log file that outlives whoever rotates it: logrotate in both its ways, or ourselves.

Opened with O_APPEND, so that copytruncate leaves no hole; looked up again by its name, so that a rename is noticed with
and without a signal; and bounded in size and number where nobody else rotates it.
"""

import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress

from attrs import define, field

from twisted_mesh.runtime.planted import open_own

#: Bytes after which a file is put aside, and how many of those are kept.
MOST = 16 * 1024 * 1024
KEPT = 9
#: What a file of ours is made with, whatever the umask: its group may read it.
MODE = 0o640
#: Seconds between two looks whether the name is still this file's.
_PAUSE = 1.0


@define(eq=False, repr=False)
class LogFile:
    """The file at ``path``, for one thread. Raises :class:`OSError` where it cannot be opened for writing."""

    path: str
    most: int = MOST
    kept: int = KEPT
    now: Callable[[], float] = time.monotonic
    _descriptor: int = field(init=False)
    _looked_at: float = field(init=False)
    _was_missing: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._descriptor = _opened(self.path)
        self._looked_at = self.now()

    def ready(self) -> int:
        """The descriptor to write to; at times after looking whether it is still the right one."""
        if self.now() - self._looked_at >= _PAUSE:
            self._looked_at = self.now()
            with suppress(OSError):  # then it goes on where it is: better there than nowhere
                self._look()
        return self._descriptor

    def reopen(self) -> None:
        """Go on in whatever has the name now. Raises :class:`OSError`, and goes on where it was."""
        opened = _opened(self.path)
        os.close(self._descriptor)
        self._descriptor, self._was_missing = opened, False

    def close(self) -> None:
        """Write no more."""
        os.close(self._descriptor)

    def _look(self) -> None:
        ours = os.fstat(self._descriptor)
        if not stat.S_ISREG(ours.st_mode):
            return
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            # Whoever has moved it away may be about to make the next one: that is for them to do, for a while.
            if self._was_missing:
                self.reopen()
            self._was_missing = True
            return
        self._was_missing = False
        if not os.path.samestat(ours, named):
            self.reopen()
        elif ours.st_size >= self.most:
            self._rotate()

    def _rotate(self) -> None:
        """``log`` becomes ``log.1``, that becomes ``log.2``, and so on; the oldest are removed."""
        for number in sorted(self._numbers(), reverse=True):
            old = f"{self.path}.{number}"
            if number >= self.kept:
                os.remove(old)
            else:
                os.rename(old, f"{self.path}.{number + 1}")
        os.rename(self.path, f"{self.path}.1")
        self.reopen()

    def _numbers(self) -> set[int]:
        directory, name = os.path.split(self.path)
        numbered = re.compile(re.escape(name) + r"\.([1-9]\d{0,5})", re.ASCII)
        found = map(numbered.fullmatch, os.listdir(directory or "."))
        return {int(match[1]) for match in found if match}


def _opened(path: str) -> int:
    # Not to wait for whoever is to read a FIFO: one that nobody reads is refused (ENXIO).
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    descriptor, is_new = open_own(path, flags, MODE)
    if is_new:
        with suppress(OSError):  # of a file system without modes
            os.fchmod(descriptor, MODE)
    os.set_blocking(descriptor, True)
    return descriptor
