"""Files that are replaced all at once: certificate, key and roots that belong together, for whoever reads them.

All is done in the directory that was opened and looked at, not by its name: a name can be given to another
directory meanwhile.
"""

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from twisted_mesh.state.directory import StateError, write_in
from twisted_mesh.state.private import refuse_shared
from twisted_mesh.state.reading import why_not

_GENERATION = ".generation-"
#: How a directory is opened that is written to.
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def publish(directory: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Replace all of ``files`` (bytes and mode by name) in ``directory`` by one rename.

    Each name is a link through ``current``, which is switched from one complete generation to the
    next: a key never stands beside another key's certificate. The generation that was replaced stays
    until the next time, for whoever is reading it. Raises :class:`StateError`, also where others can write.
    """
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(directory, OPEN_DIRECTORY)
        try:
            publish_in(descriptor, directory, files)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StateError(
            f"{directory} cannot be written to ({why_not(directory, error)})"
        ) from None


def publish_in(descriptor: int, directory: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """The same in a directory that is open, and was opened as ``directory``. Raises OSError too."""
    refuse_shared(directory, os.fstat(descriptor))
    _publish(descriptor, files)


def _publish(directory: int, files: Mapping[str, tuple[bytes, int]]) -> None:
    replaced = os.path.basename(_target(directory, "current") or "")
    generation = _generation(directory, files)
    _relink(directory, "current", generation)
    for name in files:
        if _target(directory, name) != f"current/{name}":
            _relink(directory, name, f"current/{name}")
    for old in os.listdir(directory):
        # Of a generation that had more files.
        if old not in files and _target(directory, old) == f"current/{old}":
            os.unlink(old, dir_fd=directory)
    os.fsync(directory)
    for old in os.listdir(directory):
        if old.startswith(_GENERATION) and old not in (generation, replaced):
            shutil.rmtree(old, ignore_errors=True, dir_fd=directory)


def _generation(directory: int, files: Mapping[str, tuple[bytes, int]]) -> str:
    """A new directory with all of ``files``; nothing is left of it if one cannot be written."""
    name = _GENERATION + secrets.token_hex(4)
    os.mkdir(name, 0o700, dir_fd=directory)
    try:
        made = os.open(name, OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            os.fchmod(made, 0o755)
            for file, (data, mode) in files.items():
                write_in(made, file, data, mode)
        finally:
            os.close(made)
    except BaseException:
        shutil.rmtree(name, ignore_errors=True, dir_fd=directory)
        raise
    return name


def _target(directory: int, link: str) -> str | None:
    """Where a link leads; None for what is none."""
    try:
        return os.readlink(link, dir_fd=directory)
    except OSError:
        return None


def _relink(directory: int, link: str, target: str) -> None:
    temporary = f".{link}.new"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory)
    os.symlink(target, temporary, dir_fd=directory)
    os.replace(temporary, link, src_dir_fd=directory, dst_dir_fd=directory)
