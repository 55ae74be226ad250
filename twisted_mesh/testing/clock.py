"""A clock that tests turn."""

from datetime import UTC, datetime, timedelta

from twisted.internet.task import Clock as TwistedClock


class Clock(TwistedClock):
    """A clock of Twisted that also tells the time of day: ``now`` is what :mod:`pki` and a judge are given.

    OpenSSL looks at the machine's own clock: a certificate that has ended by this one alone is refused by our
    verdict, as it is in production.
    """

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__()
        self._start = start or datetime.now(UTC).replace(microsecond=0)

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return self._start + timedelta(seconds=self.seconds())
