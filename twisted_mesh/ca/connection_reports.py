"""What endpoints tell the CA of their open connections: how many rest on each certificate. Only ever shown.

Whoever may read trust may tell, and nothing proves it true. What is remembered is bounded: in rows, by
each teller's share of them, and in time.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from twisted_mesh.trust.connections import ConnectionRegistry

Credential = tuple[str, int]
"""Issuer and serial."""

#: So many rows of one endpoint are remembered, and so many in all; of the latter one caller has a quarter at most.
MOST_EACH = 10_000
MOST = 200_000
#: So many instances of one caller are remembered; their names are its own word.
MOST_INSTANCES = 1000
_SHARE = 4
#: Seconds between two reports of an endpoint, while there are few of them.
PACE = 10.0
#: Where there are many, the CA is told so many reports a second.
_A_SECOND = 10
#: A report counts for so many times the pace.
_LASTS = 3


@define(eq=False, repr=False)
class _Report:
    until: float
    counts: dict[Credential, int] = field(factory=dict)


@frozen
class Told:
    """What one endpoint has told."""

    who: str
    """Its proof."""
    credentials: int
    connections: int


@define(eq=False, repr=False)
class ConnectionReports:
    """The reports of the moment, and the CA's own connections."""

    seconds: Callable[[], float]
    """A clock that does not go back."""
    own: ConnectionRegistry | None = None
    """Of the CA's TLS port."""
    _reports: dict[tuple[str, str], _Report] = field(factory=dict, init=False)
    _totals: Counter[Credential] = field(factory=Counter, init=False)
    _rows: Counter[str] = field(factory=Counter, init=False)
    """By who told them."""
    _instances: Counter[str] = field(factory=Counter, init=False)
    """How many of each caller have told."""
    _ends: list[tuple[float, tuple[str, str]]] = field(factory=list, init=False)
    """When to look whether a report has ended, once for each: a heap."""
    _looked_for: set[tuple[str, str]] = field(factory=set, init=False)
    """Whose reports stand in it."""
    _all: int = field(default=0, init=False)

    def pace(self, who: str) -> float:
        """Seconds until an instance of ``who`` is to tell again.

        Of the reports that the CA takes in a second each caller has the same share, so that whoever has
        many instances, or invents them, slows nobody else.
        """
        return max(PACE, len(self._instances) * self._instances.get(who, 1) / _A_SECOND)

    @property
    def lasts(self) -> float:
        """Seconds that a report counts at most."""
        return _LASTS * max(map(self.pace, self._instances), default=PACE)

    def tell(
        self, who: str, instance: str, counts: Mapping[Credential, int], *, goes_on: bool = False
    ) -> None:
        """Take in what an endpoint says: ``instance`` of whoever is proven to be ``who``.

        It takes the place of what that one said before, unless it ``goes_on``. What there is no room
        for is passed over.
        """
        self._forget()
        key = who, instance
        if not goes_on:
            self._drop(key)
        report = self._reports.get(key)
        if report is None:
            if self._instances[who] >= MOST_INSTANCES:
                return
            report = _Report(0.0)
        for credential, count in counts.items():
            if credential in report.counts:
                self._totals[credential] -= report.counts[credential]
            elif self._has_room(who, report):
                self._rows[who] += 1
                self._all += 1
            else:
                continue
            report.counts[credential] = count
            self._totals[credential] += count
        if report.counts:
            self._instances[who] += key not in self._reports
            self._reports[key] = report
            report.until = self.seconds() + _LASTS * self.pace(who)
            self._look_for(key, report)
        elif not self._instances[who]:
            del self._instances[who]

    def now(self) -> Callable[[str, int], int]:
        """How many connections are known to rest on a certificate, by issuer and serial."""
        self._forget()
        return self._count

    def all(self) -> list[Told]:
        """Who has told, and how much."""
        self._forget()
        return [
            Told(who, len(report.counts), sum(report.counts.values()))
            for (who, _), report in sorted(self._reports.items())
        ]

    def _count(self, issuer: str, serial: int) -> int:
        own = len(self.own.resting_on(issuer, serial)) if self.own is not None else 0
        return self._totals.get((issuer, serial), 0) + own

    def _has_room(self, who: str, report: _Report) -> bool:
        return (
            len(report.counts) < MOST_EACH and self._rows[who] < MOST // _SHARE and self._all < MOST
        )

    def _forget(self) -> None:
        now = self.seconds()
        while self._ends and self._ends[0][0] < now:
            _, key = heapq.heappop(self._ends)
            self._looked_for.discard(key)
            report = self._reports.get(key)
            if report is None:
                continue
            if report.until < now:
                self._drop(key)
            else:
                self._look_for(key, report)

    def _look_for(self, key: tuple[str, str], report: _Report) -> None:
        if key not in self._looked_for:
            self._looked_for.add(key)
            heapq.heappush(self._ends, (report.until, key))

    def _drop(self, key: tuple[str, str]) -> None:
        report = self._reports.pop(key, None)
        if report is None:
            return
        for credential, count in report.counts.items():
            self._totals[credential] -= count
            if not self._totals[credential]:
                del self._totals[credential]
        who, _ = key
        self._rows[who] -= len(report.counts)
        self._all -= len(report.counts)
        if not self._rows[who]:
            del self._rows[who]
        self._instances[who] -= 1
        if not self._instances[who]:
            del self._instances[who]
