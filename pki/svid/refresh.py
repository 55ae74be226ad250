"""When a federated bundle is asked for again, and how old one may be (SPIFFE Federation sections 4.1 and 6.2)."""

import random
from datetime import datetime, timedelta

from attrs import frozen

#: Seconds between two questions where the bundle gives no hint (section 4.1 recommends five minutes).
DEFAULT_HINT = 300
#: A share of the pause by which questions are spread.
JITTER = 0.1
#: After so many failures the pause grows no more.
_LONGEST_BACKOFF = 3


@frozen
class Refresh:
    """How often a federated domain is asked, and for how long it is believed without an answer."""

    least: float = 5.0
    """Seconds between two questions, however short the hint."""
    most: float = 3600.0
    """The same, however long the hint: what a peer has removed has to be heard of."""
    together: float = 10.0
    """Questions a second, to all domains together."""
    max_age: timedelta | None = None
    """How old a bundle may be, whatever its hint; None for the rule of :meth:`oldest`."""

    def interval(self, hint: int | None, followed: int = 1) -> float:
        """Seconds from one question to the next, by the bundle's hint, where so many domains are followed."""
        wanted = DEFAULT_HINT if hint is None else min(hint, self.most)
        return min(self.most, max(wanted, self.least, followed / self.together))

    def pause(
        self, hint: int | None, failures: int, draw: random.Random, followed: int = 1
    ) -> float:
        """Seconds to the next question, after so many failures in a row.

        Never sooner than without a failure: who cannot answer is not asked more often for it (section 6.2). It grows
        to eight times that and no longer than :attr:`most`. It is only ever shortened by its jitter, so that what is
        published in time for a hint is heard of in time.
        """
        interval = self.interval(hint, followed)
        doubled = interval * 2.0 ** min(max(failures - 1, 0), _LONGEST_BACKOFF)
        return max(
            self.least, min(doubled, max(interval, self.most)) * (1 - JITTER * draw.random())
        )

    def oldest(self, hint: int | None) -> timedelta:
        """How old a bundle may be and still be believed, counted from the last time that its server had it.

        Ten times the pause between two questions, and three days at least. Keys are published three to five pauses
        before they are used, so a bundle that is older than ten verifies less and less; and whoever holds a key that
        the peer has removed, and keeps us from hearing it, gains no more than this. Three days are a weekend: an
        endpoint that fails on Friday evening is seen on Monday before anybody is cut off.
        """
        if self.max_age is not None:
            return self.max_age
        return max(timedelta(days=3), 10 * timedelta(seconds=self.interval(hint)))

    def is_too_old(self, hint: int | None, confirmed_at: datetime, now: datetime) -> bool:
        """Whether a bundle that was had from its server at ``confirmed_at`` is not to be believed any more."""
        return now - confirmed_at > self.oldest(hint)
