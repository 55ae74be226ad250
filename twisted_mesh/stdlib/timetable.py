"""When a certificate is renewed, and when that is tried again."""

import random
import time
from datetime import datetime

from attrs import define, evolve, field

from pki import renewal
from pki.renewal import RenewalPlan
from twisted_mesh.runtime.clock import Now


@define(eq=False)
class Timetable:
    """Of one identity. Whoever shares it among threads does so under a lock."""

    _now: Now
    _rotate_at: float
    _draw: random.Random
    failures: int = field(default=0, init=False)
    """Attempts in a row that failed."""
    retry_at: float = field(default=0.0, init=False)
    """No attempt before this, by ``time.monotonic``."""
    _plan: RenewalPlan | None = field(default=None, init=False)

    def renewed(self, issued_at: datetime, not_after: datetime) -> None:
        """There is another certificate, of that time."""
        self._plan = renewal.plan(issued_at, not_after, self._rotate_at, self._draw)
        self.failures, self.retry_at = 0, 0.0

    def fail(self) -> float:
        """An attempt has failed; the seconds to the next."""
        left = None if self._plan is None else self._plan.expires_at - self._now()
        pause = renewal.backoff(self.failures, self._draw, left).total_seconds()
        self.failures += 1
        self.retry_at = time.monotonic() + pause
        return pause

    @property
    def is_due(self) -> bool:
        """Whether another certificate is wanted by now."""
        return renewal.next_action(self._plan, self._now()) is not renewal.Action.WAIT

    @property
    def is_time(self) -> bool:
        """Whether it is to be tried now."""
        return self.is_due and self.retry_at <= time.monotonic()

    @property
    def seconds_left(self) -> float:
        """Until it is to be tried."""
        if self.is_due or self._plan is None:
            return self.retry_at - time.monotonic()
        return (self._plan.renew_at - self._now()).total_seconds()

    def bring_forward(self) -> None:
        """Be due now."""
        if self._plan is not None:
            self._plan = evolve(self._plan, renew_at=min(self._plan.renew_at, self._now()))

    def spread(self) -> None:
        """Not all processes that were forked of one at the moment that was drawn for that."""
        if self._plan is None:
            return
        left = self._plan.renew_at - self._now()
        if left.total_seconds() > 0:
            share = self._draw.uniform(0.8, 1.0)
            self._plan = evolve(self._plan, renew_at=self._now() + left * share)
