"""What shows that a log breaks its promise, in files that anybody can verify, and never too many."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from attrs import define, field, frozen
from twisted.logger import Logger

from pki.codes import Code
from pki.ct.errors import BadLog
from pki.ct.evidence import Evidence, parse_evidence
from pki.ct.log_list import LogList
from pki.errors import PkiError, Problem, printable
from twisted_mesh.state.directory import StateError, write_whole
from twisted_mesh.state.private import make_private_in_state, read_private, refuse_open

#: Files of one log and one kind: a log that is forked contradicts itself with each head anew.
MOST_OF_A_KIND = 8
#: Files in all.
MOST = 256


@frozen
class Alarm:
    """A log has broken its promise; it stands until somebody removes the file."""

    code: Code
    log: str
    """Its origin."""
    text: str
    path: Path

    @property
    def problem(self) -> Problem:
        """For whoever asks how we are."""
        return Problem(self.code, self.text, f"the proof is in {self.path}: {self.code.remedy}")


@define(eq=False, repr=False)
class EvidenceFiles:
    """A directory of them. What cannot be written is logged all the same, and raised."""

    directory: Path
    log: Logger
    _alarms: dict[Path, Alarm] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._alarms)

    @property
    def alarms(self) -> Sequence[Alarm]:
        """Those whose files are still there."""
        for path in [path for path in self._alarms if not path.exists()]:
            del self._alarms[path]
        return tuple(self._alarms.values())

    def recall(self, logs: LogList) -> None:
        """Raise again what was found in an earlier life and is still there. Never raises."""
        try:
            if not self.directory.is_dir():
                return
            refuse_open(self.directory)
            paths = sorted(self.directory.glob("*.json"))[:MOST]
        except (OSError, PkiError) as error:
            self._unread(self.directory, error)
            return
        for path in paths:
            try:
                found = parse_evidence(read_private(path))
                self._raise(found.origin, found.verify(logs), path)
            except PkiError as error:
                self._unread(path, error)

    def _unread(self, path: Path, error: Exception) -> None:
        self.log.warn(
            "{path} is no evidence against a log that is known here: {error}",
            event="ct-evidence-unread",
            path=str(path),
            error=str(error),
        )

    def keep(self, found: Evidence, logs: LogList) -> Path | None:
        """Write it where there are not enough of its kind, and raise the alarm; the file, where one was written.

        Verified first, as anybody would: raises :class:`PkiError` for what proves nothing, and where it cannot be
        written. May be called on any thread, one at a time.
        """
        shown, data = found.verify(logs), found.to_bytes()
        prefix = f"{shown.code}-{sha256(found.origin.encode()).hexdigest()[:16]}-"
        path = self.directory / f"{prefix}{sha256(data).hexdigest()[:16]}.json"
        if path in self._alarms and path.exists():
            return path
        same = [alarm.path for alarm in self.alarms if alarm.path.name.startswith(prefix)]
        if len(same) >= MOST_OF_A_KIND or len(self._alarms) >= MOST:
            return None
        try:
            make_private_in_state(self.directory)
            write_whole(path, data, 0o600)
        except (OSError, StateError) as error:
            self.log.error(
                "{text}; the proof could not be written to {path}: {error}",
                event="ct-alarm",
                code=str(shown.code),
                ct_log=found.origin,
                text=printable(str(shown), 600),
                path=str(path),
                error=str(error),
            )
            raise StateError(f"{path} cannot be written: {error}") from None
        self._raise(found.origin, shown, path)
        return path

    def _raise(self, origin: str, shown: BadLog, path: Path) -> None:
        alarm = Alarm(shown.code, printable(origin, 200), printable(str(shown), 600), path)
        self._alarms[path] = alarm
        self.log.error(
            "{text}; anybody can verify that by {path}",
            event="ct-alarm",
            code=str(alarm.code),
            ct_log=alarm.log,
            text=alarm.text,
            path=str(path),
        )
