"""Directories of our own, for keys and for what is remembered: no links, nobody else's, and open to nobody else."""

import grp
import os
import pwd
import stat
from pathlib import Path

from twisted_mesh.state.directory import StateError
from twisted_mesh.state.way import on_the_way

_LARGEST = 1024 * 1024
_ROOT = 0


def make_private(directory: Path) -> None:
    """The directory and the one above it, for their owner alone. Raises :class:`StateError` and OSError."""
    directory.parent.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    for path in (directory.parent, directory):
        path.mkdir(mode=0o700, exist_ok=True)
        refuse_open(path)


def make_private_in_state(directory: Path) -> None:
    """One that is directly in the state directory, which is made too. Raises :class:`StateError` and OSError."""
    # Who asks another user's CA, or that of another machine, may have none yet.
    directory.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    refuse_open(directory)


def refuse_open(path: Path) -> None:
    """Raises :class:`StateError` for a directory that others may have put something in, or may look into."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{path} is no directory")
    _refuse_foreign(path, found)
    if found.st_mode & 0o077:
        raise StateError(f"{path} is open to others: chmod 700 {path}")


def read_private(path: Path, *, secret: bool = False) -> bytes:
    """A file of our own. Raises :class:`StateError`."""
    try:
        # What is no file is not waited for: a pipe, say.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            found = os.fstat(opened)
            _refuse_foreign(path, found)
            if secret and found.st_mode & 0o077:
                raise StateError(
                    f"{path} can be read by others: remove it, and think about who may have read it"
                )
            return file.read(_LARGEST)
    except OSError as error:
        raise StateError(f"{path} cannot be read ({error.strerror})") from None


def refuse_shared(path: Path, found: os.stat_result) -> None:
    """Raises :class:`StateError` for a directory that is not our own, or that others can write to.

    Whoever can put links there chooses what a key is written over. ``found`` is of what was opened. Root's
    own directories are in other people's way least of all: there all that is above must be root's too.
    """
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{path} belongs to another user, who could change what is written there: {_REMEDY}"
        )
    if _others_write(found):
        raise StateError(f"{path} can be changed by others: chmod go-w {path}, or {_REMEDY}")
    _refuse_way(path)


def refuse_swappable(path: Path) -> None:
    """Raises :class:`StateError` for a directory in which others could put something in the place of ours.

    In a sticky one, like ``/tmp``, they cannot. Raises OSError where it is not to be looked at.
    """
    found = path.stat()
    if found.st_uid not in (os.geteuid(), _ROOT):
        raise StateError(
            f"{path} belongs to another user, who could change what is written there: {_REMEDY}"
        )
    if _others_write(found) and not found.st_mode & stat.S_ISVTX:
        raise StateError(f"{path} can be changed by others: chmod go-w {path}, or {_REMEDY}")
    _refuse_way(path)


def _refuse_way(path: Path) -> None:
    if os.geteuid() == _ROOT:
        for above in on_the_way(path):
            way = above.lstat()
            shared = _others_write(way) and not way.st_mode & stat.S_ISVTX
            if way.st_uid != _ROOT or (shared and not stat.S_ISLNK(way.st_mode)):
                raise StateError(
                    f"{above} is another user's, or can be changed by others: {_REMEDY}"
                )


_REMEDY = "name a directory of your own"


def _others_write(found: os.stat_result) -> bool:
    if found.st_mode & stat.S_IWOTH:
        return True
    return bool(found.st_mode & stat.S_IWGRP) and not _is_private_group(found)


def _is_private_group(found: os.stat_result) -> bool:
    """Whether the group is the owner's alone, as many systems make one for each user."""
    try:
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return owner.pw_gid == group.gr_gid and set(group.gr_mem) <= {owner.pw_name}


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise StateError(f"{path} belongs to another user: remove it")
