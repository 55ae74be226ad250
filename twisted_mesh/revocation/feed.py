"""The feed: a standing question to the CA for what has been revoked, and what becomes of its answers.

The CA answers as soon as there is something, and else after a while. Where it cannot wait, or does
not answer, it is asked again and again: revoking has to arrive as soon as anything does.
"""

import random
from collections.abc import Callable
from datetime import timedelta

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem, printable
from pki.validity import format_duration, spoken_duration
from twisted_mesh.interfaces import ISource, TrustUpdate
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import reasons
from twisted_mesh.runtime.tasks import Ticker, sleep, spawn, within
from twisted_mesh.trust.freshness import Freshness, OnStale
from twisted_mesh.trust.store import TICK

#: Seconds for which the CA may wait for news: the fewer questions the better, and nothing on the way may take a
#: connection on which nothing is said for dead, which many do after a minute.
WAIT = 45
#: Seconds from one question to the next where the CA does not wait.
POLL = 1.0
#: Seconds between two attempts at most while there is no answer.
LONGEST_PAUSE = 3.0
#: Seconds from one question to the next at least, whatever comes.
_LEAST = 0.02
#: So many questions without an answer are told.
_ALARM = 3
#: How many pages are read before anything else is done; each may hold 100,000.
_MOST_PAGES = 100


@define(eq=False, repr=False, slots=False)
class Feed(Service):
    """Asks one source what is revoked and whom it believes, and has what it says believed.

    Whoever owns the identity that it is asked under says when there is one: :meth:`fill` before the
    first handshake, :meth:`renew` and :meth:`start` once it is in use. As a service it watches how
    old the last answer is, and ends what is under way when it is stopped.
    """

    source: ISource
    believe: Callable[[TrustUpdate], bool]
    """Believes it; whether anything in it was new."""
    freshness: Freshness
    """Learns how old the last answer is; its clock must be the one that answers are timed by."""
    clock: IReactorTime
    now: Now
    log: Logger
    draw: random.Random = field(factory=random.SystemRandom)
    recovery_listeners: list[Callable[[], object]] = field(factory=list)
    """Called when the source answers again."""
    giver: str = "the CA"
    """What the source is, for people."""
    missed: int = field(default=0, init=False)
    """Questions in a row that got no answer."""
    _is_running: bool = field(default=False, init=False)
    _question: "Deferred[TrustUpdate] | None" = field(default=None, init=False)
    _is_superseded: bool = field(default=False, init=False)
    _loop: "Deferred[None] | None" = field(default=None, init=False)
    _ticker: Ticker = field(init=False)
    _has_warned: bool = field(default=False, init=False)
    _was_stale: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, TICK, self.look_at_the_clock, "the feed", self.log)

    def startService(self) -> None:
        """Watch how old the last answer is, from now on."""
        super().startService()
        self._ticker.start()

    def stopService(self) -> None:
        """Watch no more, and ask no more."""
        super().stopService()
        self._ticker.stop()
        self.stop()

    @property
    def wait(self) -> int:
        """For how long the CA may wait: with a limit of age, so that there is time for two more questions."""
        limit = self.freshness.max_age
        return WAIT if limit is None else max(1, min(WAIT, int(limit.total_seconds() / 3)))

    async def fill(self) -> None:
        """Ask until all that was revoked is known. Raises what the source does."""
        for _ in range(_MOST_PAGES):
            asked_at = self._seconds()
            update = await self.source.revocations()
            _ = self.believe(update)
            if not update.more:
                self._is_fresh(asked_at, update)
                break

    def start(self) -> None:
        """Ask from now on. May be said again."""
        if not self._is_running:
            self._is_running = True
            self._loop = spawn(self._run(), "asking for revocations", self.log)

    def stop(self) -> None:
        """Ask no more, until :meth:`start` is said again."""
        self._is_running = False
        # The loop's end ends its question. One that is being called off already is not called off again:
        # Twisted would resume its coroutine twice. The loop ends when that is done.
        if self._loop is not None and not self._is_superseded:
            self._loop.cancel()

    def renew(self) -> None:
        """There is a fresh identity: what stands is asked again under that one."""
        self.source.renewed()
        if self._question is not None:
            self._is_superseded = True
            self._question.cancel()

    def look_at_the_clock(self) -> None:
        """Tell once when revocations have become too old."""
        is_stale = self.freshness.is_stale
        if is_stale and not self._was_stale:
            closes = self.freshness.on_stale is OnStale.FAIL_CLOSED
            (self.log.error if closes else self.log.warn)(
                "What has been revoked for {age} is not known here: {consequence}",
                event="revocations-too-old",
                codes=Code.STALE_REVOCATION,
                age=self._age(),
                consequence=f"nobody is let in, and open connections are closed, until {self.giver} answers"
                if closes
                else "who was revoked meanwhile is let in (--on-stale grace)",
                ca=self.source.where,
            )
        self._was_stale = self._was_stale or is_stale

    async def _run(self) -> None:
        while self._is_running:
            started = self.clock.seconds()
            pause = await self._ask()
            if self._is_running:
                await sleep(self.clock, max(pause - (self.clock.seconds() - started), _LEAST))

    async def _ask(self) -> float:
        """Put one question; the seconds from this one to the next."""
        wait = 0 if self.missed else self.wait
        asked_at, started = self._seconds(), self.clock.seconds()
        self._question = Deferred.fromCoroutine(self._answer(wait))
        try:
            update = await self._question
            is_new = self.believe(update)
        except (PkiError, TimeoutError) as error:
            return self._unanswered(error)
        except ANY_ERROR as error:
            if self._is_running and not self._is_superseded:
                self.log.failure("asking for revocations broke", event="feed-broke")
            return self._unanswered(error)
        finally:
            self._question = None
        is_back = self.missed > 0
        self._answered(asked_at, update)
        has_waited = wait and self.clock.seconds() - started >= wait / 2
        if is_new or update.more or has_waited or is_back:
            return 0.0
        return POLL * self.draw.uniform(0.8, 1.0)

    async def _answer(self, wait: int) -> TrustUpdate:
        asked = self.source.revocations(wait)
        limit = self.freshness.max_age
        if not wait or limit is None:
            return await asked
        # Where time is short a connection that has gone dead is not waited for as long as usually.
        return await within(self.clock, wait + max(1.0, limit.total_seconds() / 3), asked)

    def _answered(self, asked_at: float, update: TrustUpdate) -> None:
        had_missed, self.missed = self.missed, 0
        if not update.more:
            self._is_fresh(asked_at, update)
        if had_missed:
            for answered_again in self.recovery_listeners:
                answered_again()

    def _is_fresh(self, asked_at: float, update: TrustUpdate) -> None:
        """All was known that had been revoked when the source looked, however long its answer took."""
        waited = min(max(0.0, update.waited), self._seconds() - asked_at)
        self.freshness.refresh(asked_at + waited, self.now())
        if (self._has_warned or self._was_stale) and not self.freshness.is_stale:
            self._has_warned = self._was_stale = False
            self.log.info("Revocations are fresh again", event="revocations-fresh")

    def _unanswered(self, error: BaseException) -> float:
        """Count a question without an answer, and tell if there have been several."""
        if self._is_superseded or not self._is_running:
            self._is_superseded = False
            return 0.0
        self.missed += 1
        if self.missed >= _ALARM and not self._has_warned:
            self._has_warned = True
            self.log.warn(
                "Revocations cannot be refreshed from {ca}: {reasons} (what is known is {age} old{limit})",
                event="revocations-stale",
                ca=self.source.where,
                reasons=reasons(_problems(error)),
                age=self._age(),
                limit=self._limit(),
            )
        return min(LONGEST_PAUSE, POLL * 2.0 ** min(self.missed - 1, 8)) * self.draw.uniform(0.5, 1)

    def _age(self) -> str:
        return spoken_duration(timedelta(seconds=self.freshness.age or 0.0))

    def _limit(self) -> str:
        limit = self.freshness.max_age
        return "" if limit is None else f", and may be {format_duration(limit)}"

    def _seconds(self) -> float:
        """By the clock that freshness is measured on."""
        seconds = self.freshness.seconds
        return self.clock.seconds() if seconds is None else seconds()


def _problems(error: BaseException) -> tuple[Problem, ...]:
    if isinstance(error, PkiError):
        return tuple(error.problems)
    if isinstance(error, TimeoutError):
        return (Problem(Code.UNREACHABLE, "there was no answer in time"),)
    return (Problem(Code.INTERNAL, f"{type(error).__name__}: {printable(str(error), 200)}"),)
