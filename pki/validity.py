"""Times as the mesh writes them: validity periods, durations, RFC 3339."""

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from attrs import frozen

from pki.errors import Malformed, discreet

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: How long ``2026-11-23T10:00:00`` is: fractions and the offset come after.
_SECONDS = 19
#: Clocks that are no further apart agree, as far as an answer's Date can tell.
_ALIKE = timedelta(seconds=15)
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)


@frozen
class Validity:
    """A certificate's period, both ends included (RFC 5280 section 4.1.2.5), in UTC."""

    not_before: datetime
    not_after: datetime

    def contains(self, now: datetime) -> bool:
        """Whether ``now`` is in it, both ends included."""
        return self.not_before <= now <= self.not_after


def parse_duration(text: str) -> timedelta:
    """``90s``, ``15m``, ``1h`` or ``7d`` as a timedelta. Raises :class:`Malformed`."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise Malformed(
            f"{discreet(text, 40)!r} is not a duration: write a whole number and one of s, m, h, d, like 90s or 1h"
        )
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def parse_lifetime(text: str) -> timedelta:
    """A duration that a certificate can live: at least 1 s. Raises :class:`Malformed`."""
    lifetime = parse_duration(text)
    if not lifetime:
        raise Malformed("a certificate lives at least 1s")
    return lifetime


def format_duration(duration: timedelta) -> str:
    """The shortest text that :func:`parse_duration` reads back; whole seconds."""
    seconds = int(duration.total_seconds())
    for unit in "dhm":
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


def spoken_duration(duration: timedelta) -> str:
    """For people: ``59m 59s``, ``30 days 2h``; never negative."""
    seconds = max(0, math.floor(duration.total_seconds()))
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} days {hours}h" if hours else f"{days} days"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {seconds}s" if minutes else f"{seconds}s"


def compared(theirs: datetime, ours: datetime, whose: str) -> str:
    """What two clocks say at the same moment, for people. ``theirs`` has whole seconds and came over a network."""
    apart = abs(theirs - ours)
    if apart < _ALIKE:
        return f"{whose} agrees with ours"
    how = "ahead of" if theirs > ours else "behind"
    return f"{whose} is {spoken_duration(apart)} {how} ours: it says {rfc3339(theirs)}"


def rfc3339(moment: datetime) -> str:
    """``2026-11-23T10:00:00Z``: UTC, whole seconds."""
    return _to_the_second(moment)


@lru_cache(maxsize=256)
def _to_the_second(moment: datetime) -> str:
    # What begins or ends within one second is told again and again.
    return moment.astimezone(UTC).isoformat()[:_SECONDS] + "Z"


def rfc3339_exactly(moment: datetime) -> str:
    """``2026-11-23T10:00:00.000000Z``: UTC, always with microseconds."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """A time with its offset, fractions allowed. Raises :class:`Malformed`."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):  # an offset can lead out of the years 1 to 9999
        pass
    raise Malformed(
        f"{discreet(text, 40)!r} is not a time: write it like 2026-11-23T10:00:00Z (RFC 3339)"
    )


def whole_second_after(moment: datetime) -> datetime:
    """``moment`` rounded up to the whole seconds that certificates are written in."""
    if moment.microsecond:
        moment += timedelta(microseconds=1_000_000 - moment.microsecond)
    return moment
