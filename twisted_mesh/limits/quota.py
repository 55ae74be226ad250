"""How many certificates one ID, and one registration entry, may have an hour: each is a row that is kept for long."""

import re
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Self

from attrs import define, field, frozen

from pki.codes import Code
from pki.errors import Malformed, discreet
from twisted_mesh.limits.rate_limit import TryLater
from twisted_mesh.runtime.clock import Now

_HOUR = timedelta(hours=1)
_LARGEST = 100_000_000
_ALLOWANCE = re.compile(r"([0-9]{1,9}):([0-9]{1,9})", re.ASCII)


class QuotaUsedUp(TryLater):
    """There were as many certificates this hour as there may be (HTTP 429)."""

    code = Code.QUOTA


@frozen
class Allowance:
    """So many certificates an hour. ``Allowance.parse(str(x)) == x``."""

    of_id: int
    """0 for no limit."""
    of_entry: int
    """Of all IDs together that one registration entry buys."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``10000:100000`` or ``off``. Raises :class:`Malformed`."""
        if text == "off":
            return cls(0, 0)
        match = _ALLOWANCE.fullmatch(text)
        if match is not None:
            of_id, of_entry = int(match[1]), int(match[2])
            if 1 <= of_id <= of_entry <= _LARGEST:
                return cls(of_id, of_entry)
        raise Malformed(
            f"{discreet(text, 40)!r} is no quota: write certificates an hour for one ID and for all of one entry, "
            f"like {DEFAULT_ALLOWANCE}, each from 1 to {_LARGEST}, or off"
        )

    def __str__(self) -> str:
        return f"{self.of_id}:{self.of_entry}" if self.of_id else "off"


#: Hundreds of replicas of one service with certificates of minutes; at some 3 kB each it is a gigabyte a day.
DEFAULT_ALLOWANCE = Allowance(10_000, 100_000)


@define(eq=False)
class Quota:
    """Counts what is issued in the present hour of the clock, in memory.

    What was issued in it before the start is told by :meth:`recall`.
    """

    now: Now
    allowance: Allowance = DEFAULT_ALLOWANCE
    of: str = "certificates"
    """What is counted, for people."""
    _begin: datetime = field(default=datetime.min.replace(tzinfo=UTC), init=False)
    _of_id: "Counter[str]" = field(factory=Counter, init=False)
    _of_entry: "Counter[str]" = field(factory=Counter, init=False)

    @property
    def hour(self) -> datetime:
        """When the hour that is counted began."""
        now = self.now()
        if not self._begin <= now < self._begin + _HOUR:
            self._begin = now.replace(minute=0, second=0, microsecond=0)
            self._of_id.clear()
            self._of_entry.clear()
        return self._begin

    def recall(self, issued: Iterable[tuple[str, str | None, int]]) -> None:
        """What the record says of the present :attr:`hour`: IDs, entries, and how many of both."""
        for spiffe_id, entry, count in issued:
            self._of_id[spiffe_id] += count
            if entry is not None:
                self._of_entry[entry] += count

    def charge(self, spiffe_id: str, entry: str | None) -> None:
        """Count one more. Raises :class:`QuotaUsedUp`, and has counted nothing then."""
        if not self.allowance.of_id:
            return
        _ = self.hour
        if self._of_id[spiffe_id] >= self.allowance.of_id:
            raise self._used_up(spiffe_id, "one ID", self.allowance.of_id)
        if entry is not None:
            if self._of_entry[entry] >= self.allowance.of_entry:
                whose = f"the registration entry {entry}"
                raise self._used_up(whose, "one entry", self.allowance.of_entry)
            self._of_entry[entry] += 1
        self._of_id[spiffe_id] += 1

    def give_back(self, spiffe_id: str, entry: str | None) -> None:
        """What was charged has come to nothing."""
        for counts, key in ((self._of_id, spiffe_id), (self._of_entry, entry)):
            if key is not None and counts[key] > 0:
                counts[key] -= 1

    def _used_up(self, whose: str, what: str, most: int) -> QuotaUsedUp:
        left = (self._begin + _HOUR - self.now()).total_seconds()
        return QuotaUsedUp(
            f"{whose} has had {most} {self.of} since {self._begin:%H:%M}Z, as many as {what} may have an hour: keep "
            "those for as long as they live, and look what asks so often, or raise mesh-ca's --quota",
            left,
        )
