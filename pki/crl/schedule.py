"""When CRLs and OCSP answers are made anew, how long each holds, and for how long a CRL lists what has expired."""

from datetime import datetime, timedelta
from typing import Self

from attrs import frozen

from pki.issuing.profile import BACKDATE
from pki.validity import Validity

#: How long an OCSP answer holds.
ANSWER_LIFE = timedelta(hours=1)
#: How long a responder's certificate holds: nobody looks whether it is revoked.
RESPONDER_LIFE = timedelta(hours=24)
_SHORTEST, _LONGEST = timedelta(hours=1), timedelta(hours=24)
#: The share of its life that an offline CA's list has left when it is time to fetch the key.
_LATE = 6


@frozen
class Span:
    """From when, and until when, a CRL or an answer is to be believed; whole seconds."""

    this_update: datetime
    next_update: datetime

    @classmethod
    def starting(cls, now: datetime, life: timedelta) -> Self:
        """A life from ``now``; it begins a little before, for those whose clocks are behind."""
        return cls.until(now, now + life)

    @classmethod
    def until(cls, now: datetime, end: datetime) -> Self:
        """From a little before ``now``, as :meth:`starting`, and to ``end``."""
        return cls(now.replace(microsecond=0) - BACKDATE, end.replace(microsecond=0))

    @property
    def life(self) -> timedelta:
        """How long it is believed in all, backdating included."""
        return self.next_update - self.this_update

    def is_due(self, now: datetime) -> bool:
        """Whether it is time for the next one: half of its life is over, or the clock was ahead."""
        return not self.this_update <= now < self.this_update + self.life / 2

    def is_late(self, now: datetime) -> bool:
        """Whether there is little time left until nobody believes it any more."""
        return now > self.next_update - self.life / _LATE

    def is_over(self, now: datetime) -> bool:
        """Whether nobody believes it any more."""
        return now > self.next_update


def list_life(usual_leaf: timedelta) -> timedelta:
    """How long a CRL holds, by how long certificates live.

    As long as these, within an hour and a day: whoever reads CRLs is then cut off by a CA that is
    away no sooner than those who cannot renew, and a mesh of short lives hears of news soon.
    """
    return min(max(usual_leaf, _SHORTEST), _LONGEST)


def listed_from(now: datetime, life: timedelta, served: datetime | None) -> datetime:
    """A CRL that is made ``now`` lists what is revoked and did not expire before that.

    ``served`` is when the CRL before it was made, if one was. What expires stays for a whole life of
    a CRL, and on one that was made after that and served (RFC 5280 section 3.3).
    """
    a_life_ago = now - life
    return a_life_ago if served is None else min(a_life_ago, served)


def is_worth_renewing(responder: Validity, issuer: Validity, now: datetime) -> bool:
    """Whether a responder's certificate is to be replaced: half of it is over, and a new one lives longer."""
    if not responder.contains(now):
        return True
    half = responder.not_before + (responder.not_after - responder.not_before) / 2
    return now >= half and responder.not_after < issuer.not_after
