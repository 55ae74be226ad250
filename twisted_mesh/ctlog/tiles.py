"""The log as plain files, for any web server to serve: tiles, entries, issuers, and the checkpoint.

Each is written under another name, synced, and renamed: a reader sees all of it or nothing. What a checkpoint says is
on the disk before the checkpoint is.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from attrs import define, field

from twisted_mesh.ctlog.errors import CtLogStateError

#: The newest signed head, with the cosignatures that have come of it.
CHECKPOINT = "checkpoint"
#: The newest one that every witness has signed: on a busy log the checkpoint is always ahead of them.
COSIGNED = "checkpoint.cosigned"
#: In it files are written before they get their name: it is on the same file system, and nothing in it is a resource.
_NEW = ".new"
_LARGEST = 64 * 1024 * 1024


@define(eq=False, repr=False)
class TileFiles:
    """The directory that is served. Used in one thread at a time, but for reading."""

    root: Path
    _ready: set[Path] = field(factory=set, init=False)
    """Directories that are there, and synced."""

    def prepare(self) -> None:
        """Make it, and remove what a kill has left half written. Raises :class:`CtLogStateError`."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.root / _NEW)
        try:
            self._directory(self.root, 0o755)
            self._directory(self.root / _NEW, 0o700)
        except OSError as error:
            raise _unwritten(self.root, error) from None

    def read(self, path: str) -> bytes | None:
        """What the file holds; None where there is none. Raises :class:`CtLogStateError`."""
        try:
            with (self.root / path).open("rb") as file:
                return file.read(_LARGEST)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CtLogStateError(f"{self.root / path} cannot be read ({error.strerror})") from None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Have them all on the disk. Raises :class:`CtLogStateError`, and then some may be there."""
        opened: list[tuple[int, Path, Path]] = []
        directories: dict[Path, None] = {}
        try:
            for number, (path, data) in enumerate(files.items()):
                target = self.root / path
                self._directory(target.parent, 0o755)
                new = self.root / _NEW / str(number)
                descriptor = os.open(
                    new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
                )
                opened.append((descriptor, new, target))
                os.fchmod(descriptor, 0o644)
                _write_all(descriptor, data)
            # All of them are written by now: the first sync takes most of the others along.
            for descriptor, new, target in opened:
                os.fsync(descriptor)
                os.replace(new, target)
                directories[target.parent] = None
            for directory in directories:
                _sync(directory)
        except OSError as error:
            self._ready.clear()  # one may have been taken away
            raise _unwritten(self.root, error) from None
        finally:
            for descriptor, new, _ in opened:
                os.close(descriptor)
                with suppress(OSError):
                    new.unlink()

    def remove_partial(self, path: str) -> None:
        """Drop what the full tile there has made superfluous; what cannot be removed stays."""
        partial = self.root / f"{path}.p"
        self._ready.discard(partial)
        shutil.rmtree(partial, ignore_errors=True)

    def _directory(self, path: Path, mode: int) -> None:
        if path in self._ready:
            return
        if path != self.root:
            self._directory(path.parent, 0o755)
        try:
            path.mkdir(mode=mode, parents=path == self.root)
        except FileExistsError:
            if not path.is_dir():
                raise
        path.chmod(mode)
        _sync(path.parent)
        self._ready.add(path)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritten(root: Path, error: OSError) -> CtLogStateError:
    where = error.filename or root
    return CtLogStateError(
        f"{where} cannot be written ({error.strerror}): no receipt is given until it can; free some space, or look at "
        "its owner and mode"
    )
