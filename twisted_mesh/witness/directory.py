"""Where a witness keeps what is its own: ``<state>/log-witness``, which one process owns."""

from pathlib import Path

from attrs import define, field

from twisted_mesh.state.directory import StateError, refuse_changeable
from twisted_mesh.state.owner_lock import OwnerLock
from twisted_mesh.state.private import make_private
from twisted_mesh.state.way import open_to_all
from twisted_mesh.witness.errors import WitnessStateError


@define(eq=False)
class WitnessDirectory:
    """The directory of one witness, for its owner alone. What endpoints remember is in ``<state>/witness``."""

    state: Path
    _lock: OwnerLock = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        lock, error = self.private / "lock", WitnessStateError
        self._lock = OwnerLock(lock, self.path, "mesh-witness", error, error)

    @property
    def path(self) -> Path:
        """The directory."""
        return self.state / "log-witness"

    @property
    def private(self) -> Path:
        """For keys and the record."""
        return self.path / "private"

    @property
    def record(self) -> Path:
        """What was cosigned."""
        return self.private / "witness.db"

    @property
    def evidence(self) -> Path:
        """What contradicts what was cosigned, a file each."""
        return self.path / "evidence"

    @property
    def public_key(self) -> Path:
        """The witness's key, for whoever is to believe it."""
        return self.path / "witness.pub"

    def prepare(self) -> None:
        """Make the directories. Raises :class:`WitnessStateError`."""
        if (above := open_to_all(self.state)) is not None:
            raise WitnessStateError(
                f"everybody can rename what is in {above}, and put another directory in the place of {self.state}: "
                f"chmod o-w {above}, or choose another with --state-dir"
            )
        try:
            make_private(self.private)
            make_private(self.evidence)
        except OSError as error:
            raise WitnessStateError(
                f"the directory {self.path} cannot be used ({error.strerror}): choose another with --state-dir"
            ) from None
        except StateError as error:
            raise WitnessStateError(str(error)) from None
        tails = ("", "-wal", "-shm")
        refuse_changeable(*(Path(f"{self.record}{tail}") for tail in tails))

    def lock(self) -> None:
        """Own it until this process ends. Not before twistd's fork. Raises :class:`WitnessStateError`."""
        self._lock.take()

    def unlock(self) -> None:
        """Let another process have it. May be said again."""
        self._lock.release()
