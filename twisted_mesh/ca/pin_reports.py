"""What endpoints tell the CA of their pins, so that a change of its keys can be held against them before.

Whoever may read trust may tell, and nothing proves it true. It is only shown, and used to refuse: a liar holds up a
rotation at most, until an administrator forces it. What is remembered is bounded: in all, by each teller's share of it,
and in time.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection

from attrs import define, field, frozen

from pki.spiffe import TrustDomain
from pki.svid.pin_conflict import BrokenPin, ReportedPins, broken_by
from pki.svid.spki_pin import PinSet, SpkiHash
from twisted_mesh.runtime.clock import Now

#: Characters of rules that are remembered in all; of these one caller has a quarter at most.
MOST = 8 * 1024 * 1024
_SHARE = 4
#: Seconds that pins count after they were told last: an endpoint that is being restarted still has them.
LASTS = 900.0


@frozen
class _Told:
    pins: PinSet
    until: float
    size: int


@define(eq=False, repr=False)
class PinReports:
    """The pins of the moment, as far as they were told."""

    seconds: Callable[[], float]
    """A clock that does not go back."""
    now: Now
    trust_domain: TrustDomain
    _told: OrderedDict[tuple[str, str], _Told] = field(factory=OrderedDict, init=False)
    """By who told and by its instance, the one that ends first before the others."""
    _sizes: Counter[str] = field(factory=Counter, init=False)
    """By who told."""
    _all: int = field(default=0, init=False)

    def tell(self, who: str, instance: str, pins: PinSet) -> None:
        """Take in what an endpoint says, in place of what it said before: ``instance`` of whoever has proven ``who``.

        What there is no room for is passed over.
        """
        self._forget()
        self._drop((who, instance))
        size = sum(len(line) for line in pins.lines)
        is_too_much = self._sizes.get(who, 0) + size > MOST // _SHARE or self._all + size > MOST
        if not pins or is_too_much:
            return
        self._told[who, instance] = _Told(pins, self.seconds() + LASTS, size)
        self._sizes[who] += size
        self._all += size

    def all(self) -> list[ReportedPins]:
        """Who has told, and what, in order."""
        self._forget()
        return [ReportedPins(who, self._told[who, at].pins) for who, at in sorted(self._told)]

    def broken_by(self, keys: Collection[SpkiHash]) -> tuple[BrokenPin, ...]:
        """Enforced rules that our workloads break where these are the keys above them, the root's too."""
        return broken_by(self.all(), keys, self.trust_domain, self.now())

    def _forget(self) -> None:
        now = self.seconds()
        while self._told:
            key, told = next(iter(self._told.items()))
            if told.until >= now:
                return
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        told = self._told.pop(key, None)
        if told is None:
            return
        who, _ = key
        self._all -= told.size
        self._sizes[who] -= told.size
        if not self._sizes[who]:
            del self._sizes[who]
