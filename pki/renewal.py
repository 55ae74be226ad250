"""When to renew: a pure function that the rotation loop asks at each tick, and the pause after a failure."""

import random
from datetime import datetime, timedelta
from enum import Enum, auto

from attrs import frozen

#: How far around the renewal point a fleet spreads: a tenth of the lifetime, in all.
JITTER = 0.1
#: How long an attempt may be retried at the soonest and at the latest, in seconds.
BACKOFF_FIRST, BACKOFF_LAST = 0.25, 30.0


class Action(Enum):
    """What is to be done about a certificate now."""

    WAIT = auto()
    RENEW = auto()
    EXPIRED = auto()
    """Renew, and do no new work until that has succeeded."""


@frozen
class RenewalPlan:
    """When one certificate is to be renewed. Made once per certificate, so its jitter is drawn once."""

    renew_at: datetime
    expires_at: datetime


def plan(
    issued_at: datetime, expires_at: datetime, rotate_at: float, draw: random.Random
) -> RenewalPlan:
    """``rotate_at`` is the share of the lifetime to use up (0.5: half), spread by :data:`JITTER`.

    The lifetime counts from ``issued_at``, not from the backdated notBefore: that would make a
    short-lived certificate due at once.
    """
    lifetime = max(expires_at - issued_at, timedelta())
    share = rotate_at * (1 + JITTER * (draw.random() - 0.5))
    return RenewalPlan(issued_at + lifetime * share, expires_at)


def next_action(plan: RenewalPlan | None, now: datetime) -> Action:
    """What to do now; without a plan there is no certificate yet."""
    if plan is None or now > plan.expires_at:
        return Action.EXPIRED
    return Action.RENEW if now >= plan.renew_at else Action.WAIT


def backoff(failures: int, draw: random.Random, remaining: timedelta | None = None) -> timedelta:
    """How long to wait after so many failures in a row: doubling, bounded, with full jitter above half.

    ``remaining`` is what is left of the certificate's life: while it is positive the pause is at most
    a tenth of it, or :data:`BACKOFF_FIRST` where that is more, so a short-lived certificate gets
    many attempts.
    """
    longest = min(BACKOFF_LAST, BACKOFF_FIRST * 2 ** min(failures, 16))
    if remaining is not None and remaining > timedelta():
        longest = min(longest, max(BACKOFF_FIRST, remaining.total_seconds() / 10))
    return timedelta(seconds=longest * (0.5 + draw.random() / 2))
