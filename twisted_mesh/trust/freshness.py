"""Freshness: how old what is known of revocations is, and what follows once it is too old."""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import define, field

from pki.codes import Code
from pki.errors import Malformed, Problem
from pki.validity import format_duration, parse_duration, rfc3339, spoken_duration
from twisted_mesh.runtime.clock import since_boot

#: With less, one answer that takes its time would be the end.
LEAST_MAX_AGE = timedelta(seconds=3)


class OnStale(StrEnum):
    """What follows once revocations are too old."""

    FAIL_CLOSED = "fail-closed"
    """Nobody is let in, and who is in has to go: they may be revoked."""
    GRACE = "grace"
    """It is told, and all goes on."""

    @classmethod
    def parse(cls, text: str) -> "OnStale":
        """Raises :class:`Malformed`."""
        try:
            return cls(text)
        except ValueError:
            raise Malformed(f"--on-stale is one of {', '.join(cls)}") from None


@define(eq=False, repr=False)
class Freshness:
    """Knows the moment, on a clock that does not jump, at which all that was revoked was known here.

    Without a ``max_age`` revocations are good for as long as our own certificate is: whoever has
    none calls :meth:`lapse`.
    """

    max_age: timedelta | None = None
    on_stale: OnStale = OnStale.FAIL_CLOSED
    seconds: Callable[[], float] | None = None
    """The clock; None where nobody asks for revocations."""
    doubts: list[Callable[[], Problem | None]] = field(factory=list, init=False)
    """Of other sources than the CA: each may say why it is out of date."""
    as_of: float | None = field(default=None, init=False)
    """That moment; None before the first answer."""
    _moment: datetime | None = field(default=None, init=False)
    """The same by the wall clock, for people."""
    _has_lapsed: bool = field(default=False, init=False)

    def refresh(self, as_of: float, now: datetime) -> None:
        """All that had been revoked at ``as_of`` is known ``now``."""
        if self.as_of is None or as_of >= self.as_of:
            self.as_of = as_of
            self._moment = now - timedelta(seconds=self.age or 0.0)
        self._has_lapsed = False

    def lapse(self) -> None:
        """Our own certificate has ended."""
        self._has_lapsed = self.max_age is None

    @property
    def age(self) -> float | None:
        """In seconds; None before the first answer."""
        if self.seconds is None or self.as_of is None:
            return None
        return max(0.0, self.seconds() - self.as_of)

    @property
    def is_stale(self) -> bool:
        """Whether what the CA last said of revocations is too old by now."""
        if self.max_age is None:
            return self._has_lapsed
        age = self.age
        return age is not None and age > self.max_age.total_seconds()

    @property
    def refuses(self) -> bool:
        """Whether nobody may be let in now. It is asked for each request."""
        if self.on_stale is not OnStale.FAIL_CLOSED:
            return False
        is_stale = self._has_lapsed if self.max_age is None else self.is_stale
        return is_stale or (bool(self.doubts) and self.doubt is not None)

    @property
    def doubt(self) -> Problem | None:
        """Why another source than the CA is out of date, if one is."""
        return next((problem for doubt in self.doubts if (problem := doubt())), None)

    def problem(self) -> Problem:
        """Why nobody may be let in, where that is so."""
        if not self.is_stale and (doubt := self.doubt):
            return doubt
        since = "at all" if self._moment is None else f"after {rfc3339(self._moment)}"
        age = spoken_duration(timedelta(seconds=self.age or 0.0))
        limit = (
            "our own certificate has ended"
            if self.max_age is None
            else f"--revocation-max-age is {format_duration(self.max_age)}"
        )
        return Problem(
            Code.STALE_REVOCATION,
            f"what was revoked {since} is not known here, which is {age} ago, and {limit}",
            "restore the connection to the CA; --on-stale grace goes on without it",
            "--revocation-max-age",
        )


def freshness(max_age: str | None, on_stale: str) -> Freshness:
    """By ``--revocation-max-age`` and ``--on-stale``. Raises :class:`Malformed`."""
    age = None if max_age is None else parse_duration(max_age)
    if age is not None and age < LEAST_MAX_AGE:
        raise Malformed(f"--revocation-max-age is at least {format_duration(LEAST_MAX_AGE)}")
    return Freshness(age, OnStale.parse(on_stale), since_boot)
