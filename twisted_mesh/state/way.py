"""What leads to a file: whoever can rename something on the way to it can put another in its place."""

import os
import stat
from pathlib import Path


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
