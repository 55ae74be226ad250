"""The wall clock held against the record: where that knows of a later time, the clock is behind.

A machine that comes up with a dead battery begins years ago, and one act of it would be the newest on record: so
it is the latest time that counts, and it is looked for once, at the start.
"""

from datetime import UTC, datetime, timedelta

from attrs import define, field

from pki.codes import Code
from pki.errors import PkiError, Problem
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.interface import IStore

_log = logger("ca")
#: What two clocks, or one that is slewed, may differ by.
SKEW = timedelta(seconds=60)
_CURE = "set this machine's clock right; if it is right, and was ahead in an earlier life, start with --clock-is-right"


class ClockBehind(PkiError):
    """What would be signed now would have ended before the latest act on record."""

    code = Code.CLOCK_BEHIND


@define(eq=False, repr=False)
class RecordClock:
    """What time it is at least, as far as the record knows."""

    now: Now
    latest: datetime | None = field(default=None, init=False)
    """Of all acts of earlier lives."""
    _is_told: bool = field(default=False, init=False)

    async def recall(self, store: IStore) -> None:
        """Look for the latest time on record, and say at once where it is still to come."""
        at = await store.latest_act()
        if at is not None:
            self.latest = datetime.fromtimestamp(at / 1e6, UTC)
        self._look()

    @property
    def behind(self) -> timedelta | None:
        """By how much the clock is behind; None where it is not, within :data:`SKEW`."""
        left = self.latest - self.now() if self.latest is not None else timedelta()
        return left if left > SKEW else None

    def problem(self) -> Problem | None:
        """That the clock is behind, for whoever asks how the CA is; None where it is not."""
        behind = self._look()
        if behind is None or self.latest is None:
            return None
        return Problem(
            Code.UNHEALTHY_CLOCK,
            f"the clock is {spoken_duration(behind)} behind the latest act on record: here it is "
            f"{rfc3339(self.now())}, and something was recorded at {rfc3339(self.latest)}",
            _CURE,
        )

    def demand_life(self, not_after: datetime) -> None:
        """Raises :class:`ClockBehind` for what would be dead on arrival."""
        if self._look() is None or self.latest is None or not_after > self.latest:
            return
        raise ClockBehind(
            f"the CA's clock is behind its own record: what is signed now would have ended by "
            f"{rfc3339(self.latest)}, when something was recorded already; {_CURE}"
        )

    def is_right(self) -> bool:
        """Whether it is not behind (any more); the log hears of it where it was."""
        return self._look() is None

    def _look(self) -> timedelta | None:
        """By how much it is behind. The log hears when that begins, and when it is over."""
        behind = self.behind
        if behind is not None and not self._is_told and self.latest is not None:
            self._is_told = True
            _log.warn(
                "This machine's clock is {behind} behind the record: here it is {now}, and something was recorded at "
                "{latest}. The CA is not ready, and signs nothing that would end before then: {cure}",
                event="clock-behind",
                behind=spoken_duration(behind),
                now=rfc3339(self.now()),
                latest=rfc3339(self.latest),
                cure=_CURE,
            )
        elif behind is None and self._is_told:
            self._is_told = False
            _log.info("This machine's clock is not behind the record any more", event="clock-right")
        return behind
