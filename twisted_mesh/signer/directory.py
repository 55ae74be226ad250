"""Where a signer keeps what is its own: ``<state>/signer``, which one process owns."""

import os
import stat
from pathlib import Path

from attrs import define, field

from twisted_mesh.signer.errors import SignerStateError
from twisted_mesh.state.directory import refuse_changeable
from twisted_mesh.state.owner_lock import OwnerLock
from twisted_mesh.state.way import open_to_all


@define(eq=False)
class SignerDirectory:
    """The directory of one signer. Nobody else looks into it; others pass through it to the socket where they may."""

    state: Path
    _lock: OwnerLock = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        lock, error = self.private / "lock", SignerStateError
        self._lock = OwnerLock(lock, self.path, "mesh-signer", error, error)

    @property
    def path(self) -> Path:
        """The directory."""
        return self.state / "signer"

    @property
    def private(self) -> Path:
        """For its owner alone: keys, the record, the log."""
        return self.path / "private"

    @property
    def record(self) -> Path:
        """What was signed, as the policy has to know it."""
        return self.private / "signer.db"

    @property
    def log(self) -> Path:
        """What was signed, and may not be forgotten."""
        return self.private / "signatures.log"

    @property
    def socket(self) -> Path:
        """Where it listens for this machine's processes."""
        return self.path / "signer.sock"

    def prepare(self, *, is_shared: bool) -> None:
        """Make the directories, open on the way to the socket where other users may call.

        Raises :class:`SignerStateError`.
        """
        if (above := open_to_all(self.state)) is not None:
            raise SignerStateError(
                f"everybody can rename what is in {above}, and put another directory in the place of {self.state}: "
                f"chmod o-w {above}, or choose another with --state-dir"
            )
        for path, mode in (
            (self.state, 0o711),
            (self.path, 0o711 if is_shared else 0o700),
            (self.private, 0o700),
        ):
            try:
                path.mkdir(mode=mode, parents=path == self.state, exist_ok=True)
                found = path.stat() if path == self.state else path.lstat()
                _refuse_foreign(path, found, may_be_roots=path == self.state)
                is_shared_on_purpose = bool(found.st_mode & stat.S_ISVTX)
                if path != self.state and not is_shared_on_purpose:
                    path.chmod(mode)
            except OSError as error:
                raise SignerStateError(
                    f"the directory {path} cannot be used ({error.strerror}): choose another with --state-dir"
                ) from None
        tails = ("", "-wal", "-shm")
        refuse_changeable(self.log, *(Path(f"{self.record}{tail}") for tail in tails))

    def lock(self) -> None:
        """Own it until this process ends. Not before twistd's fork. Raises :class:`SignerStateError`."""
        self._lock.take()

    def unlock(self) -> None:
        """Let another process have it. May be said again."""
        self._lock.release()


def _refuse_foreign(path: Path, found: os.stat_result, *, may_be_roots: bool) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise SignerStateError(
            f"{path} is no directory of its own: choose another with --state-dir"
        )
    if found.st_uid != os.geteuid() and not (may_be_roots and found.st_uid == 0):
        raise SignerStateError(f"{path} belongs to another user: choose another with --state-dir")
