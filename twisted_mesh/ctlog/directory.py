"""Where a log keeps what is its own: ``<state>/ctlog``, which one process owns; a part of it is for everybody."""

import os
import stat
from pathlib import Path

from attrs import define, field

from twisted_mesh.ctlog.errors import CtLogStateError
from twisted_mesh.state.directory import refuse_changeable
from twisted_mesh.state.owner_lock import OwnerLock
from twisted_mesh.state.way import open_to_all


@define(eq=False)
class LogDirectory:
    """The directory of one log."""

    state: Path
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
        return self.private / "ctlog.db"

    @property
    def public(self) -> Path:
        """What is read of the log, as any web server may serve it."""
        return self.path / "public"

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
        if (above := open_to_all(self.state)) is not None:
            raise CtLogStateError(
                f"everybody can rename what is in {above}, and put another directory in the place of {self.state}: "
                f"chmod o-w {above}, or choose another with --state-dir"
            )
        for path, mode in ((self.state, 0o711), (self.path, 0o711), (self.private, 0o700)):
            try:
                path.mkdir(mode=mode, parents=path == self.state, exist_ok=True)
                found = path.stat() if path == self.state else path.lstat()
                _refuse_foreign(path, found, may_be_roots=path == self.state)
                if path != self.state and not found.st_mode & stat.S_ISVTX:
                    path.chmod(mode)
            except OSError as error:
                raise CtLogStateError(
                    f"the directory {path} cannot be used ({error.strerror}): choose another with --state-dir"
                ) from None
        refuse_changeable(*(Path(f"{self.record}{tail}") for tail in ("", "-wal", "-shm")))

    def lock(self) -> None:
        """Own it until this process ends. Not before twistd's fork. Raises :class:`CtLogStateError`."""
        self._lock.take()

    def unlock(self) -> None:
        """Let another process have it. May be said again."""
        self._lock.release()


def _refuse_foreign(path: Path, found: os.stat_result, *, may_be_roots: bool) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise CtLogStateError(f"{path} is no directory of its own: choose another with --state-dir")
    if found.st_uid != os.geteuid() and not (may_be_roots and found.st_uid == 0):
        raise CtLogStateError(f"{path} belongs to another user: choose another with --state-dir")
