"""A witness: remembers where the CA's audit log stood, and notices if it ever stands elsewhere.

What an endpoint has seen signed it keeps in ``<state>/witness``; a CA that was put back to an older
state, or tells different callers different things, cannot show a proof that leads on from there.
"""

import hashlib
import os
from pathlib import Path

import msgspec
from attrs import define, field, frozen

from pki.audit.advance import Replaced, advance
from pki.audit.log import Checkpoint, Verifier
from pki.errors import PkiError
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import read_file, write_whole
from twisted_mesh.state.memory import Memory
from twisted_mesh.state.private import make_private_in_state, read_private, refuse_open

_log = logger("witness")
#: Seconds between two writes of what was seen.
_WRITING = 60.0


@frozen
class LogStatement:
    """What the CA says of its log: a signed note, and the proof that leads to it from what we saw."""

    verifier: str
    note: str
    proof: tuple[bytes, ...]


class _Remembered(msgspec.Struct):
    verifier: str
    note: str


@define(eq=False, repr=False)
class LogWitness:
    """Remembers one CA's log: by what it is verified, and its latest checkpoint."""

    path: Path | None
    """Where it is kept between two runs; None keeps it in memory."""
    verifier: Verifier | None = field(default=None, init=False)
    seen: Checkpoint | None = field(default=None, init=False)
    problem: PkiError | None = field(default=None, init=False)
    """What is wrong with the log; None while it only grows."""
    _note: str = field(default="", init=False)
    _written_at: float | None = field(default=None, init=False)
    memory: Memory = field(init=False)
    """Whether that can be written."""
    _kept: bool = field(default=False, init=False)
    """Whether the file was there once."""

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "witness",
            self.path,
            "What was seen of the CA's audit log is kept in memory only",
            event="witness-not-kept",
            again=self.remember,
            log=_log,
        )

    def recall(self, *, is_ours: bool = True) -> None:
        """Read what was seen in an earlier life; what cannot be read is told, and begun anew.

        What others may have put there is not believed, unless it need not be ours.
        """
        if self.path is None or not os.path.exists(self.path):
            return
        try:
            kept = msgspec.json.decode(self._read(self.path, is_ours=is_ours), type=_Remembered)
            verifier = Verifier.parse(kept.verifier)
            self.seen, self.verifier = verifier.open(kept.note), verifier
            self._note, self._kept = kept.note, True
        except (PkiError, msgspec.DecodeError, msgspec.ValidationError) as error:
            _log.warn(
                "{path} cannot be used, so the CA's audit log is believed anew: {error}",
                event="witness-lost",
                path=str(self.path),
                error=str(error),
            )

    @staticmethod
    def _read(path: Path, *, is_ours: bool) -> bytes:
        if not is_ours:
            return read_file(path, "the witness")
        refuse_open(path.parent)
        return read_private(path)

    @property
    def size(self) -> int:
        """Of the log as it was seen; 0 before that."""
        return self.seen.size if self.seen else 0

    def compare(self, statement: LogStatement, now: float) -> None:
        """Compare with what was seen; what does not fit is told once, and nothing is forgotten for it.

        The first log that is heard of is believed: over a channel that proved to be the CA's. So is another
        one, once somebody has removed the file: they say by it that they know why it does not fit.
        """
        if self._is_given_up():
            _log.warn(
                "{path} was removed, so the CA's audit log is believed anew",
                event="witness-lost",
                path=str(self.path),
            )
            self.verifier, self.seen, self._written_at, self._kept = None, None, None, False
        try:
            verifier = self.verifier or Verifier.parse(statement.verifier)
            if str(verifier) != statement.verifier and self.seen is not None:
                where = f"remove {self.path}" if self.path else "start this witness again"
                raise Replaced(
                    f"the CA's audit log has another key or name now ({statement.verifier}): if the CA was "
                    f"restored from a backup or made anew, {where}; if not, look into it"
                )
            checkpoint = verifier.open(statement.note)
            self.seen = advance(self.seen, checkpoint, statement.proof)
            self.verifier, self._note = verifier, statement.note
        except PkiError as error:
            self._complain(error)
            return
        if self.problem is not None:
            _log.info("The CA's audit log fits again what was seen of it", event="log-fits-again")
            self.problem = None
        if self._written_at is None or now - self._written_at >= _WRITING:
            self._written_at = now
            self.remember()

    def remember(self) -> None:
        """Write what was seen; a service does not stop because it cannot."""
        if self.path is None or self.verifier is None or self._is_given_up():
            return
        with self.memory.writing():
            make_private_in_state(self.path.parent)
            kept = _Remembered(str(self.verifier), self._note)
            write_whole(self.path, msgspec.json.encode(kept), 0o600)
            self._kept = True

    def _is_given_up(self) -> bool:
        """Whether the log does not fit, and the file that says so was removed."""
        if self.path is None or self.problem is None or not self._kept:
            return False
        try:
            self.path.lstat()
        except FileNotFoundError:
            return True
        except OSError:
            pass
        return False

    def _complain(self, error: PkiError) -> None:
        if self.problem is None or str(self.problem) != str(error):
            _log.error(
                "The CA's audit log does not fit what was seen of it: {error}",
                event="log-contradicts",
                code=error.code,
                error=str(error),
            )
        self.problem = error


def witness_path(state_dir: Path, who: str) -> Path:
    """Where the witness of one endpoint keeps what it saw."""
    return state_dir / "witness" / f"{hashlib.sha256(who.encode()).hexdigest()[:16]}.json"


def witnesses(state_dir: Path, verifier: Verifier) -> list[Checkpoint]:
    """What all the witnesses of a state directory have seen of one log. Never raises."""
    found = []
    try:
        paths = sorted((state_dir / "witness").glob("*.json"))
    except OSError:
        return []
    for path in paths:
        witness = LogWitness(path)
        witness.recall(is_ours=False)
        if witness.seen is not None and witness.verifier == verifier:
            found.append(witness.seen)
    return found
