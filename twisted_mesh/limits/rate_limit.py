"""How often one caller may ask: rates, token buckets in bounded memory, and the errors that say when to come back."""

import ipaddress
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Self

from attrs import frozen
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import Malformed, PkiError, discreet, printable

#: Buckets of one set at most. Each is some 200 bytes, so a full set has about 2 MB.
MOST_BUCKETS = 8192
#: A burst is so many seconds' worth, unless it is given.
BURST_SECONDS = 5
_LARGEST = 1_000_000
#: How many of the longest unasked buckets a new caller may have looked at.
_LOOKS = 4
_RATE = re.compile(r"([0-9]{1,7})(?::([0-9]{1,7}))?", re.ASCII)
#: An IPv6 customer has a network of so many bits, and all addresses in it.
_IPV6_PREFIX = 64


class TryLater(PkiError):
    """There is nothing wrong with the request but its time."""

    def __init__(self, text: str, seconds: float) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        """Whole seconds, as the header of that name has them (RFC 9110 section 10.2.3)."""
        super().__init__(text)


class RateLimited(TryLater):
    """This caller asks too often (HTTP 429)."""

    code = Code.RATE_LIMITED


class Busy(TryLater):
    """Too much is under way (HTTP 503)."""

    code = Code.BUSY


@frozen
class Rate:
    """So many a second, and so many at once after a pause. ``Rate.parse(str(x)) == x``."""

    per_second: int
    """0 for no limit."""
    burst: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``200``, ``200:1000`` or ``off``. Raises :class:`Malformed`."""
        if text == "off":
            return cls(0, 0)
        match = _RATE.fullmatch(text)
        if match is not None:
            per_second = int(match[1])
            burst = int(match[2]) if match[2] else min(per_second * BURST_SECONDS, _LARGEST)
            if 1 <= per_second <= _LARGEST and 1 <= burst <= _LARGEST:
                return cls(per_second, burst)
        raise Malformed(
            f"{discreet(text, 40)!r} is no rate: write requests a second and a burst, like 200:1000, "
            f"each from 1 to {_LARGEST}, or off"
        )

    def __str__(self) -> str:
        return f"{self.per_second}:{self.burst}" if self.per_second else "off"


#: What one caller may do: a hundred clients that start at once, with all that each of them asks, and then again
#: every few seconds.
DEFAULT_RATE = Rate(200, 1000)
_ONCE_A_SECOND = Rate(1, 1)


class TokenBuckets:
    """A bucket of ``rate`` for each caller, in memory that a flood of callers cannot grow.

    A bucket is one number: when it will be full again. A full one is the same as none, so only full
    ones are forgotten, and nobody gets fresh credit by being forgotten. Where no place is left, new
    callers share one bucket; who then gets a bucket begins with the debt of the shared one.
    ``seconds`` is a clock that does not go back.
    """

    def __init__(self, rate: Rate, seconds: Callable[[], float], most: int = MOST_BUCKETS) -> None:
        self.rate = rate
        self._seconds = seconds
        self._most = most
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._shared_full_at = 0.0
        self._interval = 1 / rate.per_second if rate.per_second else 0.0
        self._depth = self._interval * rate.burst
        """Seconds that an empty bucket takes to be full."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, key: str) -> float:
        """0.0 where ``key`` may go on, else the seconds until it may."""
        if not self._interval:
            return 0.0
        now = self._seconds()
        full_at = self._full_at.get(key)
        has_place = full_at is not None or self._make_place(now)
        if full_at is None:
            full_at = self._shared_full_at
        # Without a tolerance, a caller that comes just when it was told to is early by a rounding.
        after = max(full_at, now) + self._interval
        wait = after - now - self._depth
        if wait > 1e-9:
            return wait
        if has_place:
            self._full_at[key] = after
        else:
            self._shared_full_at = after
        return 0.0

    def charge(self, key: str) -> None:
        """Raises :class:`RateLimited`."""
        wait = self.take(key)
        if wait:
            raise RateLimited(
                f"you ask more than {self.rate.per_second} times a second: ask again in {math.ceil(wait)} s",
                wait,
            )

    def _make_place(self, now: float) -> bool:
        """Whether one more bucket may be kept; full ones are forgotten for it, a few looks a time."""
        buckets = self._full_at
        if len(buckets) < self._most:
            return True
        for _ in range(min(_LOOKS, len(buckets))):
            key, full_at = buckets.popitem(last=False)
            if full_at > now:
                buckets[key] = full_at  # to the end: the next look is at another
        return len(buckets) < self._most


class LimitedLog:
    """A log whose warnings come at a limited rate, so that no peer can fill the disk; the rest is for debugging.

    ``seconds`` is a clock that does not go back. ``count`` is called once a second at most, before a warning,
    with how many of its kind were none since then.
    """

    def __init__(
        self,
        log: Logger,
        rate: Rate,
        seconds: Callable[[], float],
        count: Callable[[int], None] | None = None,
    ) -> None:
        self._log = log
        self._buckets = TokenBuckets(rate, seconds)
        self._count = count
        self._counts = TokenBuckets(_ONCE_A_SECOND, seconds)
        self._left_out: Counter[str] = Counter()

    def warn(self, text: str, *, event: str, **facts: object) -> None:
        """Log as a warning while there have not been too many of this ``event``, and as debug after that."""
        if self._buckets.take(event):
            self._left_out[event] += 1
            self._log.debug(text, event=event, **facts)
            return
        if self._count is not None and self._left_out[event] and not self._counts.take(event):
            self._count(self._left_out.pop(event))
        self._log.warn(text, event=event, **facts)


@lru_cache(maxsize=1024)
def network_of(host: str | None) -> str:
    """What counts as one stranger: an IPv4 address, an IPv6 network of 64 bits, or whoever has neither."""
    if host is None:
        return "address:local"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"address:{printable(host, 60)}"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return f"address:{address.ipv4_mapped}"
        # Through the number: a scope (fe80::1%eth0) is no part of a network.
        return f"address:{ipaddress.IPv6Network((int(address), _IPV6_PREFIX), strict=False)}"
    return f"address:{address}"


def address_key(address: IAddress | None) -> str:
    """By what is counted who calls from there and has proven nothing: see :func:`network_of`."""
    return network_of(getattr(address, "host", None))
