"""Where a log keeps what is its own: ``<state>/ctlog``, which one process owns; a part of it is for everybody."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from attrs import define, field

from twisted_mesh.ctlog.errors import CtLogStateError
from twisted_mesh.ctlog.place import LogPlace
from twisted_mesh.state.directory import refuse_changeable
from twisted_mesh.state.owner_lock import OwnerLock
from twisted_mesh.state.way import open_to_all


@define(eq=False)
class LogDirectory:
    """The directory of one log."""

    state: Path
    place: LogPlace = field(factory=LogPlace)
    """Where record and files are, if not here."""
    _lock: OwnerLock = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        lock, error = self.private / "lock", CtLogStateError
        self._lock = OwnerLock(lock, self.path, "mesh-ctlog", error, error)

    @property
    def path(self) -> Path:
        """The directory."""
        return self.state / "ctlog"

    @property
    def private(self) -> Path:
        """For its owner alone: keys and the record."""
        return self.path / "private"

    @property
    def record(self) -> Path:
        """The head, and what is in no full tile yet."""
        if self.place.record is not None:
            return self.place.record
        return (self.place.directory or self.path) / "private" / "ctlog.db"

    @property
    def public(self) -> Path:
        """What is read of the log, as any web server may serve it."""
        return (self.place.directory or self.path) / "public"

    @property
    def certificate(self) -> Path:
        """Its own, in PEM, for curl and whoever else has no pins."""
        return self.path / "tls.crt"

    @property
    def list_entry(self) -> Path:
        """What a list of logs says of this one."""
        return self.path / "log-list.json"

    @property
    def ca(self) -> Path:
        """Of a CA in the same state directory."""
        return self.state / "ca"

    def prepare(self) -> None:
        """Make the directories. Raises :class:`CtLogStateError`."""
        _make(self.state, ((self.path, 0o711), (self.private, 0o700)), "--state-dir")
        if (directory := self.place.directory) is not None:
            _make(directory, ((self.record.parent, 0o700),), "--store")
        elif self.place.record is not None:
            _make(self.record.parent, (), "--store")
        refuse_changeable(*(Path(f"{self.record}{tail}") for tail in ("", "-wal", "-shm")))

    def lock(self) -> None:
        """Own it until this process ends. Not before twistd's fork. Raises :class:`CtLogStateError`."""
        self._lock.take()

    def unlock(self) -> None:
        """Let another process have it. May be said again."""
        self._lock.release()


def _make(top: Path, below: Iterable[tuple[Path, int]], option: str) -> None:
    """A directory that may be there with what is in it, and our own in it."""
    if (above := open_to_all(top)) is not None:
        raise CtLogStateError(
            f"everybody can rename what is in {above}, and put another directory in the place of {top}: "
            f"chmod o-w {above}, or choose another with {option}"
        )
    for path, mode in ((top, 0o711), *below):
        try:
            path.mkdir(mode=mode, parents=path == top, exist_ok=True)
            found = path.stat() if path == top else path.lstat()
            _refuse_foreign(path, found, option, may_be_roots=path == top)
            if path != top and not found.st_mode & stat.S_ISVTX:
                path.chmod(mode)
        except OSError as error:
            raise CtLogStateError(
                f"the directory {path} cannot be used ({error.strerror}): choose another with {option}"
            ) from None


def _refuse_foreign(path: Path, found: os.stat_result, option: str, *, may_be_roots: bool) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise CtLogStateError(f"{path} is no directory of its own: choose another with {option}")
    if found.st_uid != os.geteuid() and not (may_be_roots and found.st_uid == 0):
        raise CtLogStateError(f"{path} belongs to another user: choose another with {option}")
