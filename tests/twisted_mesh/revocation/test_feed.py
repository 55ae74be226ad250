"""The standing question: asked again at once, or soon, or with pauses, and never in a busy loop."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pki.errors import Malformed, PkiError, Problem
from pki.keys import KeyAlgorithm
from pki.svid.revocation_set import Reason, Revocation
from tests.authorities import HOUR, NOW
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.interfaces import Identity, ISource, TrustUpdate
from twisted_mesh.revocation.feed import LONGEST_PAUSE, POLL, WAIT, Feed
from twisted_mesh.tls.alerts import Unreachable
from twisted_mesh.trust.freshness import Freshness, OnStale

AWAY = Unreachable(Problem("unreachable", "nobody answers", "start it"))
NOTHING = TrustUpdate()


def revocation(serial: int) -> Revocation:
    return Revocation("ab", serial, NOW, Reason.UNSPECIFIED, NOW + HOUR)


@implementer(ISource)
@define(eq=False, slots=False)
class Source:
    """Answers what the test says; else it waits, as a CA does."""

    clock: Clock
    answers: list[TrustUpdate | Exception] = field(factory=list)
    knows_to_wait: bool = True
    hangs: bool = False
    away: Exception | None = None
    asked: list[tuple[float, int]] = field(factory=list)
    standing: "Deferred[TrustUpdate] | None" = None
    renewals: int = 0
    where: str = "the test"

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        raise AssertionError("nobody asks for that here")

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        self.asked.append((self.clock.seconds(), wait))
        return await self._answer(wait)

    def _answer(self, wait: int) -> "Deferred[TrustUpdate]":
        if self.away is not None:
            return fail(self.away)
        if self.answers:
            answer = self.answers.pop(0)
            return fail(answer) if isinstance(answer, Exception) else succeed(answer)
        if self.hangs:
            return Deferred()
        if not wait or not self.knows_to_wait:
            return succeed(NOTHING)
        self.standing = standing = Deferred[TrustUpdate]()
        self.clock.callLater(wait, self.tell, TrustUpdate(waited=wait), standing)
        return standing

    def tell(self, news: TrustUpdate, standing: "Deferred[TrustUpdate] | None" = None) -> None:
        waiting = standing or self.standing
        assert waiting is not None
        if not waiting.called:
            waiting.callback(news)

    def renewed(self) -> None:
        self.renewals += 1


@define(eq=False)
class Rig:
    """A feed on a clock of the test's own."""

    max_age: timedelta | None = None
    on_stale: OnStale = OnStale.FAIL_CLOSED
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    believed: list[int] = field(factory=list)
    returns: list[float] = field(factory=list)
    source: Source = field(init=False)
    feed: Feed = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.source = Source(self.clock)
        self.feed = Feed(
            self.source,
            self.believe,
            Freshness(self.max_age, self.on_stale, self.clock.seconds),
            self.clock,
            self.now,
            self.log,
            random.Random(7),
            [lambda: self.returns.append(self.clock.seconds())],
        )

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    def believe(self, news: TrustUpdate) -> bool:
        fresh = [r.serial for r in news.revocations if r.serial not in self.believed]
        self.believed += fresh
        return bool(fresh)

    def pass_time(self, seconds: float, step: float = 0.1) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end - 1e-9:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.feed.look_at_the_clock()

    def start(self) -> None:
        self.feed.start()
        self.clock.advance(0)

    @property
    def gaps(self) -> Sequence[float]:
        moments = [moment for moment, _ in self.source.asked]
        return [b - a for a, b in pairwise(moments)]

    @property
    def age(self) -> float:
        age = self.feed.freshness.age
        assert age is not None
        return age


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_source_of_these_tests_is_one(rig: Rig) -> None:
    assert verifyObject(ISource, rig.source)


# While the CA answers.


def test_one_question_stands_for_as_long_as_there_is_nothing(rig: Rig) -> None:
    rig.start()
    rig.pass_time(4 * WAIT + 1)
    assert len(rig.source.asked) == 5
    assert {wait for _, wait in rig.source.asked} == {WAIT}


def test_news_are_believed_as_they_come_and_the_next_question_is_asked_at_once(rig: Rig) -> None:
    rig.start()
    rig.pass_time(3)
    rig.source.tell(TrustUpdate([revocation(1), revocation(2)], waited=3))
    assert rig.believed == [1, 2]
    rig.pass_time(0.1, 0.02)
    assert len(rig.source.asked) == 2
    assert rig.age == pytest.approx(0.1)


def test_pages_are_read_one_after_the_other(rig: Rig) -> None:
    rig.source.answers = [TrustUpdate([revocation(n)], more=True) for n in range(10)]
    rig.start()
    rig.pass_time(0.5, 0.02)
    assert rig.believed == list(range(10))
    assert rig.feed.freshness.age is None, "before the last page it is not fresh"
    rig.pass_time(WAIT)
    assert rig.age < WAIT


def test_the_first_fill_reads_all_there_is(rig: Rig) -> None:
    rig.source.answers = [TrustUpdate([revocation(n)], more=n < 4) for n in range(5)]
    filled: list[object] = []
    Deferred.fromCoroutine(rig.feed.fill()).addBoth(filled.append)
    assert filled == [None]
    assert rig.believed == [0, 1, 2, 3, 4]
    assert {wait for _, wait in rig.source.asked} == {0}
    assert rig.age == 0


def test_a_fill_that_fails_says_so(rig: Rig) -> None:
    rig.source.answers = [TrustUpdate([revocation(1)], more=True), AWAY]
    filled: list[object] = []
    Deferred.fromCoroutine(rig.feed.fill()).addErrback(lambda f: filled.append(f.value))
    assert filled == [AWAY]
    assert rig.feed.freshness.age is None


def test_age_counts_from_when_the_ca_looked_and_not_from_when_it_is_heard(rig: Rig) -> None:
    rig.start()
    rig.pass_time(10)
    rig.source.tell(TrustUpdate([revocation(1)], waited=4))
    assert rig.age == pytest.approx(6)


@pytest.mark.parametrize(("waited", "age"), [(1e9, 0), (-5, 10), (0, 10)])
def test_a_ca_that_has_waited_for_longer_than_it_took_is_not_believed(
    rig: Rig, waited: float, age: float
) -> None:
    rig.start()
    rig.pass_time(10)
    rig.source.tell(TrustUpdate([revocation(1)], waited=waited))
    assert rig.age == pytest.approx(age)


# A CA that cannot wait.


def test_a_ca_that_answers_at_once_is_asked_each_second(rig: Rig) -> None:
    rig.source.knows_to_wait = False
    rig.start()
    rig.pass_time(60)
    assert 60 <= len(rig.source.asked) <= 76
    assert min(rig.gaps) > 0.79 * POLL
    assert max(rig.gaps) <= POLL + 0.1


def test_a_ca_that_repeats_itself_is_not_asked_in_a_busy_loop(rig: Rig) -> None:
    rig.source.answers = [TrustUpdate([revocation(1)])] * 1000
    rig.start()
    rig.pass_time(10, 0.01)
    assert len(rig.source.asked) <= 15


def test_a_flood_of_news_is_taken_in_some_fifty_times_a_second(rig: Rig) -> None:
    rig.source.answers = [TrustUpdate([revocation(n)]) for n in range(1000)]
    rig.start()
    rig.pass_time(1, 0.001)
    assert 40 <= len(rig.source.asked) <= 51


# A CA that does not answer.


def test_a_ca_that_is_away_is_asked_with_pauses_of_a_few_seconds(rig: Rig) -> None:
    rig.source.away = AWAY
    rig.start()
    rig.pass_time(300)
    assert min(rig.gaps) >= POLL / 2
    assert max(rig.gaps) <= LONGEST_PAUSE + 0.1
    assert len(set(rig.gaps[5:])) > 5, "endpoints do not come back in step"


def test_the_alarm_is_given_once_after_three_misses(rig: Rig) -> None:
    rig.start()
    rig.source.away = AWAY
    rig.pass_time(WAIT + 1.4)
    assert rig.log.count("revocations-stale") == 0
    rig.pass_time(200)
    assert rig.log.count("revocations-stale") == 1
    assert "nobody answers" in rig.log.text("revocations-stale")
    rig.source.away = None
    rig.pass_time(LONGEST_PAUSE)
    assert rig.log.count("revocations-fresh") == 1
    assert len(rig.returns) == 1
    rig.pass_time(100)
    assert rig.log.count("revocations-fresh") == 1


def test_one_miss_is_no_alarm(rig: Rig) -> None:
    rig.source.answers = [AWAY, AWAY]
    rig.start()
    rig.pass_time(100)
    assert rig.log.count("revocations-stale") == rig.log.count("revocations-fresh") == 0


def test_after_a_miss_the_ca_is_asked_what_it_knows_before_it_is_waited_for(rig: Rig) -> None:
    rig.start()
    rig.source.answers = [AWAY, TrustUpdate([revocation(1)])]
    rig.pass_time(WAIT + 5)
    waits = [wait for _, wait in rig.source.asked]
    assert waits == [WAIT, WAIT, 0, WAIT]
    assert rig.believed == [1]


@pytest.mark.parametrize("error", [Malformed("that is no answer"), ValueError("a bug")])
def test_a_malformed_answer_and_a_bug_count_as_missed(rig: Rig, error: Exception) -> None:
    rig.source.away = error
    rig.start()
    rig.pass_time(20)
    assert rig.feed.missed > 3
    assert rig.log.count("revocations-stale") == 1
    assert min(rig.gaps) >= POLL / 2
    assert rig.log.count("feed-broke") == (
        0 if isinstance(error, PkiError) else len(rig.source.asked)
    )


# Freshness.


def test_with_a_limit_of_age_the_ca_waits_for_a_third_of_it() -> None:
    for seconds, wait in ((3, 1), (10, 3), (60, 20), (3600, WAIT)):
        assert Rig(timedelta(seconds=seconds)).feed.wait == wait


def test_a_healthy_feed_never_gets_near_its_limit() -> None:
    rig = Rig(timedelta(seconds=3))
    rig.start()
    for _ in range(1000):
        rig.pass_time(0.1)
        assert rig.feed.freshness.age is None or rig.age < 1.3
    assert rig.log.events == []


def test_too_old_is_told_once_and_so_is_the_recovery() -> None:
    rig = Rig(timedelta(seconds=9))
    rig.start()
    rig.pass_time(3.1)
    rig.source.away = AWAY
    rig.pass_time(60)
    assert rig.log.count("revocations-too-old") == 1
    assert "nobody is let in" in rig.log.text("revocations-too-old")
    assert rig.feed.freshness.refuses
    rig.source.away = None
    rig.source.answers = [TrustUpdate([revocation(1)], more=True), TrustUpdate([revocation(2)])]
    rig.pass_time(LONGEST_PAUSE + 0.2)
    assert rig.believed == [1, 2]
    assert not rig.feed.freshness.refuses
    assert rig.log.count("revocations-fresh") == 1


def test_what_is_back_is_read_to_its_end_before_anybody_is_let_in() -> None:
    rig = Rig(timedelta(seconds=9))
    rig.start()
    rig.pass_time(3.1)
    rig.source.away = AWAY
    rig.pass_time(20)
    rig.source.away = None
    rig.source.answers = [TrustUpdate([revocation(n)], more=True) for n in range(100)]
    rig.source.hangs = True
    rig.pass_time(LONGEST_PAUSE + 3, 0.02)
    assert len(rig.believed) == 100
    assert rig.feed.freshness.refuses


def test_with_grace_it_is_a_warning() -> None:
    rig = Rig(timedelta(seconds=9), OnStale.GRACE)
    rig.start()
    rig.pass_time(3.1)
    rig.source.away = AWAY
    rig.pass_time(60)
    (event,) = [e for e in rig.log.events if e["event"] == "revocations-too-old"]
    assert event["log_level"].name == "warn"
    assert "--on-stale grace" in rig.log.text("revocations-too-old")


def test_where_time_is_short_a_dead_connection_is_given_up_in_time() -> None:
    rig = Rig(timedelta(seconds=30))
    rig.start()
    rig.pass_time(10.1)
    rig.source.hangs = True
    rig.pass_time(19.5)
    rig.source.hangs = False
    rig.pass_time(2)
    assert not rig.feed.freshness.is_stale
    assert rig.log.count("revocations-too-old") == 0


# The identity changes, and the end.


def test_a_fresh_identity_asks_again_at_once_and_that_is_no_miss(rig: Rig) -> None:
    rig.start()
    rig.pass_time(5)
    rig.feed.renew()
    rig.pass_time(0.1, 0.02)
    assert (len(rig.source.asked), rig.source.renewals) == (2, 1)
    assert {wait for _, wait in rig.source.asked} == {WAIT}
    assert rig.feed.missed == 0


def test_a_fresh_identity_between_two_questions_changes_nothing(rig: Rig) -> None:
    rig.source.away = AWAY
    rig.start()
    rig.feed.renew()
    rig.pass_time(0.4)
    assert len(rig.source.asked) == 1


def test_it_is_started_once(rig: Rig) -> None:
    rig.start()
    rig.start()
    assert len(rig.source.asked) == 1


def test_stopped_it_asks_nothing_and_tells_nothing(rig: Rig) -> None:
    for state in ("waiting", "pausing"):
        rig.source.away = AWAY if state == "pausing" else None
        rig.start()
        rig.feed.stop()
        before = len(rig.source.asked)
        rig.pass_time(2 * WAIT)
        assert len(rig.source.asked) == before
    assert rig.log.events == []
