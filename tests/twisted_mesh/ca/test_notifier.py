"""Whoever waits for news is woken once for a burst of it, and nobody waits who would be in others' way."""

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.ca.notifier import PAUSE, Notifier


@define(eq=False)
class Rig:
    clock: Clock = field(factory=Clock)
    woken: list[tuple[str, bool]] = field(factory=list)
    notifier: Notifier = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.notifier = Notifier(self.clock, most=2000, most_of_one=1500)

    def wait(
        self,
        who: str = "a",
        seconds: float = 25,
        gone: "Deferred[Any] | None" = None,
        holder: str | None = None,
    ) -> None:
        waiting = self.notifier.wait(self.notifier.number, who, seconds, gone, holder)
        Deferred.fromCoroutine(waiting).addCallback(lambda news: self.woken.append((who, news)))

    def turns(self) -> None:
        """What is to be done now, and what that leaves for the next turn."""
        self.clock.advance(0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_who_waits_is_woken_by_the_next_issue(rig: Rig) -> None:
    rig.wait("a")
    rig.wait("b")
    assert (len(rig.notifier), rig.woken) == (2, [])
    rig.notifier.announce()
    rig.turns()
    assert rig.woken == [("a", True), ("b", True)]
    assert len(rig.notifier) == 0
    assert rig.clock.getDelayedCalls() == []


def test_a_wait_ends_without_news(rig: Rig) -> None:
    rig.wait("a", 3)
    rig.clock.advance(2.9)
    assert rig.woken == []
    rig.clock.advance(0.1)
    assert rig.woken == [("a", False)]


def test_what_came_out_meanwhile_is_not_waited_for(rig: Rig) -> None:
    seen = rig.notifier.number
    rig.notifier.announce()
    rig.turns()
    assert result_of(rig.notifier.wait(seen, "a", 25)) is True


def test_nobody_waits_for_no_time(rig: Rig) -> None:
    assert result_of(rig.notifier.wait(rig.notifier.number, "a", 0)) is False


def test_a_burst_is_told_at_once_and_then_together(rig: Rig) -> None:
    for _ in range(1000):
        rig.notifier.announce()
        rig.clock.advance(0.001)
    rig.clock.advance(PAUSE)
    assert 1 / PAUSE / 2 <= rig.notifier.number <= 1 / PAUSE + 2


def test_after_a_pause_news_are_told_at_once(rig: Rig) -> None:
    rig.notifier.announce()
    rig.turns()
    rig.clock.advance(PAUSE)
    rig.wait()
    rig.notifier.announce()
    rig.turns()
    assert rig.woken == [("a", True)]


def test_the_more_are_told_the_rarer_and_never_all_in_one_turn(rig: Rig) -> None:
    for number in range(1000):
        rig.wait(str(number))
    rig.notifier.announce()
    between: list[int] = []
    rig.clock.callLater(0, lambda: between.append(len(rig.woken)))
    rig.turns()
    assert 0 < between[0] < 100
    assert len(rig.woken) == 1000
    rig.wait("again")
    rig.notifier.announce()
    rig.clock.advance(5 * PAUSE)
    assert len(rig.woken) == 1000, "those have to be answered first"
    rig.clock.advance(0.5)
    assert rig.woken[-1] == ("again", True)


def test_who_hangs_up_is_forgotten(rig: Rig) -> None:
    gone: Deferred[None] = Deferred()
    rig.wait("a", gone=gone)
    gone.callback(None)
    assert len(rig.notifier) == 0
    assert rig.clock.getDelayedCalls() == []


def test_who_hangs_up_in_a_later_wait_is_forgotten_too(rig: Rig) -> None:
    gone: Deferred[None] = Deferred()
    rig.wait("a", 1, gone=gone)
    rig.clock.advance(1)
    rig.wait("a", gone=gone)
    gone.callback(None)
    assert len(rig.notifier) == 0


def test_so_many_may_wait_and_so_many_of_one(rig: Rig) -> None:
    rig.notifier.most, rig.notifier.most_of_one = 3, 2
    for who in ("a", "a"):
        assert rig.notifier.has_room(who)
        rig.wait(who, 5)
    assert not rig.notifier.has_room("a")
    assert rig.notifier.has_room("b")
    rig.wait("b")
    assert not rig.notifier.has_room("b")
    rig.clock.advance(5)
    assert rig.notifier.has_room("a")


def test_where_all_places_are_taken_whoever_holds_most_makes_room(rig: Rig) -> None:
    rig.notifier.most = 6
    for number in range(5):
        rig.wait(f"many-{number}", holder="entry:any")
    rig.wait("b")
    assert rig.woken == []
    assert not rig.notifier.has_room("many-9", "entry:any")
    assert rig.notifier.has_room("c"), "one ID, and one holder"
    rig.wait("c")
    assert rig.woken == [("many-0", False)]
    rig.wait("c")
    assert rig.woken == [("many-0", False), ("many-1", False)]
    assert not rig.notifier.has_room("c"), "which has as many as there are to share"
    assert len(rig.notifier) == 6
    rig.notifier.announce()
    rig.turns()
    assert len(rig.woken) == 8
    assert rig.notifier.has_room("many-9", "entry:any")


def test_closing_lets_everybody_go_and_nobody_wait(rig: Rig) -> None:
    rig.wait("a")
    rig.notifier.announce()
    rig.notifier.close()
    assert rig.woken == [("a", True)]
    rig.wait("b")
    rig.notifier.announce()
    assert rig.woken[1:] == [("b", True)]
    assert not rig.notifier.has_room("c")
    assert rig.clock.getDelayedCalls() == []


def test_who_asks_the_same_shares_what_is_made_until_the_next_issue(rig: Rig) -> None:
    making: list[Deferred[str]] = []

    async def make() -> str:
        making.append(Deferred())
        return await making[-1]

    got: list[Any] = []

    def ask(key: object) -> None:
        Deferred.fromCoroutine(rig.notifier.shared(key, make)).addBoth(got.append)

    ask(1)
    ask(1)
    ask(2)
    assert len(making) == 2
    making[0].callback("one")
    assert got == ["one", "one"]
    ask(1)
    assert (got, len(making)) == (["one"] * 3, 2)
    rig.notifier.announce()
    rig.turns()
    ask(1)
    assert len(making) == 3


def test_what_could_not_be_made_is_made_anew_by_each(rig: Rig) -> None:
    making: list[Deferred[str]] = []

    async def make() -> str:
        making.append(Deferred())
        return await making[-1]

    got: list[Any] = []
    for _ in range(2):
        Deferred.fromCoroutine(rig.notifier.shared(1, make)).addBoth(got.append)
    making[0].errback(ValueError("the disk"))
    assert [type(found).__name__ for found in got] == ["Failure"]
    making[1].callback("one")
    assert got[1:] == ["one"]


def test_not_everything_that_is_asked_for_is_kept(rig: Rig) -> None:
    made: list[int] = []

    async def make() -> int:
        made.append(1)
        return len(made)

    for _ in range(2):
        for key in range(100):
            result_of(rig.notifier.shared(key, make))
    assert len(made) > 150


@define(eq=False)
class Maker:
    """Makes what the test says, when it says so."""

    making: list["Deferred[Any]"] = field(factory=list)
    got: list[Any] = field(factory=list)

    async def make(self) -> Any:
        self.making.append(Deferred())
        return await self.making[-1]

    def ask(self, rig: Rig, key: object = 1) -> None:
        Deferred.fromCoroutine(rig.notifier.fresh(key, self.make)).addBoth(self.got.append)


def test_what_is_to_be_new_is_made_once_for_all_who_come_meanwhile(rig: Rig) -> None:
    maker = Maker()
    for _ in range(1000):
        maker.ask(rig)
    assert len(maker.making) == 1
    maker.making[0].callback("old")
    assert maker.got == ["old"], "begun before the others asked: it is not theirs"
    assert len(maker.making) == 2
    maker.ask(rig)
    maker.making[1].callback("new")
    assert maker.got == ["old"] + ["new"] * 999
    maker.making[2].callback("newest")
    assert maker.got[-1] == "newest"
    maker.ask(rig)
    assert len(maker.making) == 4, "nothing is kept"


def test_what_is_to_be_new_and_cannot_be_made_fails_all_who_wait_for_it(rig: Rig) -> None:
    maker = Maker()
    for _ in range(3):
        maker.ask(rig)
    maker.making[0].callback("one")
    maker.making[1].errback(ValueError("the disk"))
    assert maker.got[0] == "one"
    assert [found.type for found in maker.got[1:]] == [ValueError] * 2
    maker.ask(rig)
    maker.making[2].callback("two")
    assert maker.got[-1] == "two"


def test_however_many_things_are_asked_for_few_are_made_at_once(rig: Rig) -> None:
    maker = Maker()
    for key in range(1000):
        maker.ask(rig, key)
    assert len(maker.making) < 100
    while len(maker.got) < 1000:
        maker.making[len(maker.got)].callback(None)
    assert len(maker.making) == 1000


def test_what_is_announced_is_in_what_is_asked_for_then(rig: Rig) -> None:
    """Though nobody is told of it before the next issue."""
    made: list[int] = []

    async def make() -> int:
        made.append(1)
        return len(made)

    assert result_of(rig.notifier.shared(1, make)) == 1
    rig.notifier.announce()
    assert result_of(rig.notifier.shared(1, make)) == 2


def test_what_was_made_a_moment_ago_serves_who_is_told_how_old_it_is(rig: Rig) -> None:
    made: list[int] = []

    async def make() -> int:
        made.append(1)
        return len(made)

    def recent(seconds: float = 1) -> Any:
        return result_of(rig.notifier.recent(1, make, seconds))

    assert recent() == (1, 0.0)
    rig.clock.advance(0.5)
    assert recent() == (1, 0.0)
    assert recent(0.25) == (2, 0.5)
    rig.clock.advance(1.25)
    assert recent() == (3, 1.75)
    rig.notifier.announce()
    assert recent() == (4, 1.75), "it is news"


def test_what_was_being_made_when_news_came_is_not_kept(rig: Rig) -> None:
    maker = Maker()

    def ask() -> None:
        Deferred.fromCoroutine(rig.notifier.recent(1, maker.make, 1)).addBoth(maker.got.append)

    ask()
    rig.notifier.announce()
    maker.making[0].callback("old")
    ask()
    maker.making[1].callback("new")
    ask()
    assert maker.got == [("old", 0.0), ("new", 0.0), ("new", 0.0)]
