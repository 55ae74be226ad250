"""One log as the CA has found it: whether it answers, since when it does not, and whether it is to be asked now.

A log that does not answer is left alone for a while, and then asked once, for one certificate: what is shown to logs
and does not get its SCTs is written off, so nobody is to find out by many that a log is still away.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from attrs import define, field, frozen
from cryptography import x509

from pki.ct.log_list import Log
from pki.ct.sct import SignedCertificateTimestamp
from pki.errors import PkiError, Problem

#: Seconds until a log is asked again: first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: Of one log. Whoever comes then does without it, rather than have a log that hangs keep a thousand connections.
MOST_UNDER_WAY = 256


#: What is said of a CA that shows its certificates to nobody.
SHOWN_TO_NOBODY = "certificates are shown to no log"


@frozen
class LogsStanding:
    """How all logs stand, in words, what is wrong, and whether nothing is issued for that."""

    told: str
    problem: Problem | None = None
    is_blocking: bool = False


class LogDoor(Protocol):
    """What asks one log."""

    log: Log

    async def add_pre_chain(self, chain: Sequence[x509.Certificate]) -> SignedCertificateTimestamp:
        """The SCT of a precertificate, which is the first of its chain, verified. Raises :class:`PkiError`."""
        ...

    async def get_roots(self) -> Sequence[x509.Certificate]:
        """The roots that it takes chains to. Raises :class:`PkiError`."""
        ...

    def hang_up(self) -> None:
        """Keep no connection."""
        ...


@define(eq=False, repr=False)
class LogStanding:
    """A log that certificates are shown to."""

    door: LogDoor
    problem: PkiError | None = field(default=None, init=False)
    """Why it gave no SCT the last time; None while it does."""
    since: datetime | None = field(default=None, init=False)
    """Since when it has not."""
    is_unreached: bool = field(default=False, init=False)
    """Whether that was found out without a certificate."""
    is_slow: bool = field(default=False, init=False)
    """Whether its last answer came when others had been enough for long: nobody waits for it then."""
    roots_problem: str = field(default="", init=False)
    """Why it will not take what this CA issues, by the roots that it takes; empty while it will."""
    under_way: int = field(default=0, init=False)
    outcomes: Counter[str] = field(factory=Counter, init=False)
    """How many of each: ``sct``, ``away``, ``refused``, ``bad-sct``."""
    _pause: float = field(default=FIRST_PAUSE, init=False)
    _again_at: float = field(default=0.0, init=False)
    _is_on_trial: bool = field(default=False, init=False)

    @property
    def trouble(self) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        if self.problem is not None:
            return str(self.problem)
        return self.roots_problem or ("it answers late" if self.is_slow else "")

    @property
    def log(self) -> Log:
        """What it is."""
        return self.door.log

    @property
    def name(self) -> str:
        """For people and metrics."""
        return self.log.description or self.log.submission_url

    def may_be_asked(self, at: float) -> bool:
        """Whether it may be shown a certificate now."""
        if self.under_way >= MOST_UNDER_WAY:
            return False
        return self.problem is None or (not self._is_on_trial and at >= self._again_at)

    def seconds_away(self, at: float) -> float:
        """In how long it is to be asked again."""
        return max(0.0, self._again_at - at) if self.problem is not None else 0.0

    def begin(self) -> bool:
        """It is asked; whether it is on trial by that."""
        self.under_way += 1
        is_trial = self.problem is not None
        self._is_on_trial |= is_trial
        return is_trial

    def end(self, *, is_trial: bool) -> None:
        """It has answered, or is not waited for any more."""
        self.under_way -= 1
        if is_trial:
            self._is_on_trial = False

    def answered(self, *, is_slow: bool) -> bool:
        """It gave an SCT; whether that is news."""
        was_away, self.problem, self.since = self.problem is not None, None, None
        self.is_unreached = False
        self.is_slow, self._pause = is_slow, FIRST_PAUSE
        return was_away

    def failed(self, error: PkiError, at: float, now: datetime, *, is_trial: bool) -> bool:
        """It gave none; whether that is news. Of many that failed together, the first says when to ask again."""
        is_news, self.problem = self.problem is None, error
        if is_news:
            self.since = now
        if is_news or is_trial:
            self._again_at = at + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return is_news

    def takes_roots(self, problem: str) -> bool:
        """Why it would not take what this CA issues, or nothing; whether that is news."""
        is_news, self.roots_problem = self.roots_problem != problem, problem
        return is_news

    def reachable(self) -> bool:
        """It answers, though nothing was shown to it; whether it is well by that, and that is news.

        Where a certificate has found it away, only a certificate finds out whether it is back: that one may come now.
        """
        self._again_at = 0.0
        return self.is_unreached and self.answered(is_slow=False)

    def unreachable(self, error: PkiError, at: float, now: datetime) -> bool:
        """It does not answer, though nothing was shown to it; whether that is news."""
        is_news = self.failed(error, at, now, is_trial=True)
        self.is_unreached |= is_news
        return is_news
