"""What endpoints say that they believe and serve: who is to be waited for before a root is used, and before one goes.

It is their own word, and it is asked for before an outage, not against a liar: whoever may read trust can hold up a
step that waits for all, by name, and an administrator who sees the name can go on without it. What is remembered is
bounded, and where there was no room that is remembered too.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from attrs import define, field, frozen

from pki.svid.pin import Fingerprint

#: So many are remembered, and so many of one caller; its instances are its own word.
MOST, MOST_INSTANCES = 100_000, 1000
#: How long one counts whose caller has shown no certificate, after it has asked for the last time.
WITHOUT_CERTIFICATE = timedelta(minutes=2)


@frozen
class Acknowledged:
    """What one endpoint has said last."""

    who: str
    """Its proof."""
    instance: str
    """Of which there may be many that prove the same."""
    holds: int
    """The sequence of the bundle that it believes."""
    top: Fingerprint | None
    """Of the root that its own chain leads to; None while it serves none."""
    until: datetime
    """From then on it does not count any more."""


@define(eq=False, repr=False)
class Acknowledgements:
    """Those that count at this moment."""

    now: Callable[[], datetime]
    _known: dict[tuple[str, str], Acknowledged] = field(factory=dict, init=False)
    _instances: Counter[str] = field(factory=Counter, init=False)
    """How many of each caller there are."""
    _unheard_until: datetime | None = field(default=None, init=False)
    """Until when one would count for which there was no room."""
    _swept_at: datetime | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._known)

    def take(
        self,
        who: str,
        instance: str,
        holds: int,
        top: Fingerprint | None,
        until: datetime | None = None,
    ) -> None:
        """``instance`` of whoever is proven to be ``who`` says that, in place of what it said before.

        ``until`` is the end of the certificate that proved it.
        """
        now = self.now()
        ends = now + WITHOUT_CERTIFICATE if until is None else until
        key = who, instance
        if key not in self._known:
            if not self._has_room(who):
                self._sweep(now)
            if not self._has_room(who):
                before = self._unheard_until
                self._unheard_until = ends if before is None else max(ends, before)
                return
            self._instances[who] += 1
        self._known[key] = Acknowledged(who, instance, holds, top, ends)

    def known(self) -> list[Acknowledged]:
        """All that count now, by who said it."""
        return sorted(self._current(), key=lambda one: (one.who, one.instance))

    def lagging(self, sequence: int) -> list[Acknowledged]:
        """Who believes an earlier bundle than the one of that sequence."""
        return [one for one in self.known() if one.holds < sequence]

    def not_serving(self, root: Fingerprint) -> list[Acknowledged]:
        """Whose chain leads to another root, or who serves none now."""
        return [one for one in self.known() if one.top != root]

    @property
    def is_whole(self) -> bool:
        """Whether there was room for all: else nobody can say of all that they are known."""
        return self._unheard_until is None or self._unheard_until < self.now()

    def _current(self) -> Iterator[Acknowledged]:
        now = self.now()
        self._sweep(now)
        return iter([one for one in self._known.values() if one.until >= now])

    def _has_room(self, who: str) -> bool:
        return self._instances[who] < MOST_INSTANCES and len(self._known) < MOST

    def _sweep(self, now: datetime) -> None:
        """Forget those that have ended; once a second at most, since strangers choose how often it is asked for."""
        if self._swept_at is not None and timedelta(0) <= now - self._swept_at < timedelta(
            seconds=1
        ):
            return
        self._swept_at = now
        for key in [key for key, one in self._known.items() if one.until < now]:
            del self._known[key]
        self._instances = Counter(who for who, _ in self._known)
