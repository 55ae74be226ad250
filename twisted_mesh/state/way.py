"""What leads to a file: whoever can rename something on the way to it can put another in its place."""

import errno
import os
import stat
from pathlib import Path

#: As many links as the kernel follows (path_resolution(7)).
_MOST_LINKS = 40


def on_the_way(path: Path) -> list[Path]:
    """All that leads there, by its name and where its links lead."""
    try:
        named = Path(os.path.abspath(path))
        return [named, *named.parents, *path.resolve().parents]
    except (
        FileNotFoundError
    ):  # the directory that we were started in is gone: whoever uses the path says so
        return [path, *path.parents]


def open_to_all(path: Path) -> Path | None:
    """The nearest directory above ``path`` in which everybody can rename what is another's; None where there is none.

    In a sticky one, like ``/tmp``, they cannot.
    """
    for above in on_the_way(path)[1:]:
        try:
            found = above.lstat()
        except OSError:  # whoever goes that way is told
            continue
        if not stat.S_ISDIR(found.st_mode):
            continue
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            return above
    return None


def open_with_links(path: Path) -> tuple[int, frozenset[int]]:
    """A descriptor of a file to be read, and the users whose links led to it: they have chosen it.

    It goes from name to name by itself, so that nobody puts a link in place of what was looked at. Linux only.
    Raises OSError.
    """
    owners: set[int] = set()
    left, links = _names(os.path.abspath(path)), 0
    at = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        while left:
            name = left.pop()
            step = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            found = os.fstat(step)
            if stat.S_ISLNK(found.st_mode):
                target = os.readlink("", dir_fd=step)
                os.close(step)
                owners.add(found.st_uid)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                left += _names(target)
                if not target.startswith("/"):
                    continue
                step = os.open("/", os.O_PATH | os.O_CLOEXEC)
            os.close(at)
            at = step
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        return os.open(f"/proc/self/fd/{at}", flags), frozenset(owners)
    finally:
        os.close(at)


def _names(path: str) -> list[str]:
    """What a path is made of, the last name first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
