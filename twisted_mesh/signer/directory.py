"""Where a signer keeps what is its own: ``<state>/signer``, which one process owns."""

import errno
import fcntl
import os
import stat
from pathlib import Path

from attrs import define, field

from twisted_mesh.signer.errors import SignerStateError
from twisted_mesh.state.directory import refuse_changeable
from twisted_mesh.state.way import open_to_all


@define(eq=False)
class SignerDirectory:
    """The directory of one signer. Nobody else looks into it; others pass through it to the socket where they may."""

    state: Path
    _lock: int | None = field(default=None, init=False)

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
        path = self.private / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SignerStateError(f"{path} cannot be opened ({error.strerror})") from None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise SignerStateError(f"{path} cannot be locked ({error.strerror})") from None
            raise SignerStateError(
                f"another mesh-signer, PID {owner or 'unknown'}, owns {self.path}: stop it, or choose another "
                "--state-dir"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._lock = descriptor

    def unlock(self) -> None:
        """Let another process have it. May be said again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _refuse_foreign(path: Path, found: os.stat_result, *, may_be_roots: bool) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise SignerStateError(
            f"{path} is no directory of its own: choose another with --state-dir"
        )
    if found.st_uid != os.geteuid() and not (may_be_roots and found.st_uid == 0):
        raise SignerStateError(f"{path} belongs to another user: choose another with --state-dir")
