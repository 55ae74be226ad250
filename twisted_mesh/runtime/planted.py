"""Files that somebody else may have put where one of ours is to be: a log, a PID file, in a directory like ``/tmp``."""

import errno
import os
import stat
from contextlib import suppress

#: So often a file may come or go between two looks.
_TRIES = 5


def open_own(path: str, flags: int, mode: int, *, may_be_link: bool = True) -> tuple[int, bool]:
    """Open a file that is ours to write, and say whether it was made just now. Raises :class:`OSError`.

    What another user has put in our way is refused: a link, and in a directory that all can write to a file. The
    kernel does the same where ``fs.protected_symlinks`` and ``fs.protected_regular`` say so.
    """
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            return _opened(path, flags, may_be_link=may_be_link), False
        with suppress(FileExistsError):
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, mode), True
        if may_be_link and os.path.islink(path):  # to what is not there yet
            return os.open(path, flags | os.O_CREAT, mode), True
    raise FileExistsError(errno.EEXIST, "it comes and goes", path)


def _opened(path: str, flags: int, *, may_be_link: bool) -> int:
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP or not may_be_link:
            raise
        if os.lstat(path).st_uid not in (os.geteuid(), 0):
            raise _planted(path) from None
        return os.open(path, flags)
    if _is_planted(path, os.fstat(descriptor)):
        os.close(descriptor)
        raise _planted(path)
    return descriptor


def _is_planted(path: str, found: os.stat_result) -> bool:
    directory = os.stat(os.path.dirname(path) or ".")
    if not directory.st_mode & stat.S_IWOTH:
        return False
    return found.st_uid not in (os.geteuid(), 0, directory.st_uid)


def _planted(path: str) -> OSError:
    return PermissionError(errno.EACCES, "another user has put it there", path)
