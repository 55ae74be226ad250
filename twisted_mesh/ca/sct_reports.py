"""What receipts of logs endpoints say that they demand, so that what the CA gathers can be held against it before.

Whoever may read trust may tell, and nothing proves it true: a liar holds up a start or a change of the quorum at most,
until somebody looks. Which demands there are outlives the process, in a file: the next start is judged by it.
"""

import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec
from attrs import define, field, frozen

from pki.errors import Malformed, PkiError
from pki.svid.spki_pin import SpkiHash
from twisted_mesh.api.messages import RequiredScts
from twisted_mesh.ca.report_table import ReportTable
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import write_whole
from twisted_mesh.state.memory import Memory
from twisted_mesh.state.private import read_private

#: The most receipts that are demanded of one certificate, and the most logs that one endpoint holds keys for.
MOST_REQUIRED, MOST_LOGS = 16, 500
#: So many different demands outlive the process, those of the most receipts first.
_MOST_KEPT = 64
#: Seconds between two looks for demands that nobody has any more.
_LOOK = 60.0
_log = logger("ca")


@frozen
class ReportedScts:
    """What one endpoint says that it demands."""

    who: str
    """Its proof."""
    required: int
    logs: frozenset[str]
    """Ids in base64."""

    def surely_counted(self, logs: Collection[str], quorum: int) -> int:
        """How many receipts it counts at the least, where a certificate has ``quorum`` of whichever of ``logs``."""
        return max(0, quorum - len(set(logs) - self.logs))


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    who: str
    required: int
    logs: list[str]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    demands: list[_Kept]


@define(eq=False, repr=False)
class SctReports:
    """The demands of the moment, as far as they were told."""

    seconds: Callable[[], float]
    """A clock that does not go back."""
    path: Path | None = None
    """The file; None for a CA that keeps nothing."""
    memory: Memory = field(init=False)
    _table: ReportTable[ReportedScts] = field(init=False)
    _kept: frozenset[tuple[int, frozenset[str]]] = field(factory=frozenset, init=False)
    """Those that were written, or would have been."""
    _looked_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._table = ReportTable(self.seconds)
        self._looked_at = self.seconds()
        self.memory = Memory(
            "required-scts",
            self.path,
            "Which receipts of logs endpoints demand is known to this process only",
            event="required-scts-not-kept",
            again=self._remember,
            log=_log,
        )

    def recall(self) -> None:
        """Read which demands there were when this CA ran last; they count until endpoints have had time to say so anew.

        Raises :class:`pki.errors.PkiError`: a start that cannot be judged is none.
        """
        if self.path is None or not os.path.lexists(self.path):
            return
        try:
            kept = msgspec.json.decode(read_private(self.path), type=_File).demands
            for number, one in enumerate(kept):
                self.tell(one.who, f"before {number}", RequiredScts(one.required, one.logs))
        except (PkiError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Malformed(
                f"{self.path}, which says how many receipts of logs endpoints demand, cannot be used ({error}): remove "
                "it if you know that --ct-quorum is enough for them"
            ) from None

    def tell(self, who: str, instance: str, told: RequiredScts | None) -> None:
        """Take in what an endpoint says, in place of what it said before: ``instance`` of whoever has proven ``who``.

        What there is no room for is passed over. Raises :class:`Malformed`.
        """
        report = None if told is None else _read(who, told)
        size = 0 if told is None else 100 + sum(map(len, told.logs))
        self._table.tell(who, instance, report, size)
        is_late = self.seconds() - self._looked_at >= _LOOK
        if is_late or (report is not None and _essence(report) not in self._kept):
            self._look()

    def all(self) -> list[ReportedScts]:
        """Who has told, and what, in order."""
        return [report for _, report in self._table.all()]

    @property
    def most_required(self) -> int:
        """The most that anybody demands; 0 where nobody does."""
        return max((one.required for one in self.all()), default=0)

    def refused_by(self, logs: Collection[str], quorum: int) -> list[ReportedScts]:
        """Who would refuse some certificate that has ``quorum`` receipts of whichever of the logs with these ids."""
        return [one for one in self.all() if one.surely_counted(logs, quorum) < one.required]

    def _look(self) -> None:
        self._looked_at = self.seconds()
        found = frozenset(map(_essence, self.all()))
        if found != self._kept:
            self._kept = found
            self._remember()

    def _remember(self) -> None:
        if self.path is not None:
            with self.memory.writing():
                write_whole(self.path, msgspec.json.encode(_File(_few(self.all()))), 0o600)


def _essence(report: ReportedScts) -> tuple[int, frozenset[str]]:
    return report.required, report.logs


def _few(reports: Iterable[ReportedScts]) -> list[_Kept]:
    """Each demand once, with one of those whose it is."""
    by_demand = {_essence(one): one for one in reports}
    first = sorted(by_demand.values(), key=lambda one: (-one.required, one.who, sorted(one.logs)))
    return [_Kept(one.who, one.required, sorted(one.logs)) for one in first[:_MOST_KEPT]]


def _read(who: str, told: RequiredScts) -> ReportedScts:
    """Raises :class:`Malformed`."""
    if not 0 < told.required <= MOST_REQUIRED:
        raise Malformed(f"require_sct.required is a number from 1 to {MOST_REQUIRED}")
    if len(told.logs) > MOST_LOGS:
        raise Malformed(f"{MOST_LOGS} logs are the most in require_sct.logs")
    if not all(SpkiHash.is_written(f"sha256/{log}") for log in told.logs):
        raise Malformed("require_sct.logs are ids of logs, each 32 bytes in base64")
    return ReportedScts(who, told.required, frozenset(told.logs))
