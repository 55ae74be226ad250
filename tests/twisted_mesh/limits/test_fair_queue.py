"""Callers take turns: whoever brings much work waits for it, not everybody else."""

from typing import Any

from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred

from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.rate_limit import Busy


@define(eq=False)
class Job:
    """A piece of work that lasts until the test says so."""

    fair_queue: FairQueue
    caller: str
    holder: str | None = None
    is_inside: bool = False
    ended: list[Any] = field(factory=list)
    work: "Deferred[None]" = field(factory=Deferred)
    task: "Deferred[None]" = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.task = Deferred.fromCoroutine(self._run())
        self.task.addBoth(self.ended.append)

    async def _run(self) -> None:
        async with self.fair_queue.enter(self.caller, self.holder):
            self.is_inside = True
            try:
                await self.work
            finally:
                self.is_inside = False

    @property
    def error(self) -> Any:
        return self.ended[0].value if self.ended and self.ended[0] is not None else None

    def finish(self) -> None:
        self.work.callback(None)


def jobs(fair_queue: FairQueue, callers: str) -> list[Job]:
    return [Job(fair_queue, caller) for caller in callers]


def inside(found: list[Job]) -> str:
    return "".join(job.caller for job in found if job.is_inside)


def finish_all(found: list[Job]) -> str:
    """Let each piece finish as soon as it is inside; in which order they came in."""
    order = ""
    while running := [job for job in found if job.is_inside and not job.work.called]:
        order += running[0].caller
        running[0].finish()
    return order


def test_so_many_are_at_work_and_the_others_in_line() -> None:
    fair_queue = FairQueue(2, 10, 10)
    found = jobs(fair_queue, "aaaa")
    assert (fair_queue.at_work, fair_queue.in_line) == (2, 2)
    found[0].finish()
    assert [job.is_inside for job in found] == [False, True, True, False]
    finish_all(found)
    assert (fair_queue.at_work, fair_queue.in_line) == (0, 0)
    assert [job.ended for job in found] == [[None]] * 4


def test_callers_take_turns_however_much_each_brings() -> None:
    found = jobs(FairQueue(1, 20, 20), "x" + "a" * 5 + "bb" + "c")
    assert finish_all(found) == "x" + "abc" + "ab" + "aaa"


def held(fair_queue: FairQueue, *callers: str) -> list[Job]:
    """Callers by letters: those in upper case are all of one holder."""
    return [
        Job(fair_queue, caller, "H" if caller.isupper() else None) for caller in "".join(callers)
    ]


def test_all_names_of_one_holder_share_the_turns_of_one() -> None:
    found = held(FairQueue(1, 20, 20), "x", "ABCDEF", "a", "bb")
    assert finish_all(found) == "x" + "Aab" + "Bb" + "CDEF"


def test_in_a_full_line_the_holder_who_has_most_makes_room() -> None:
    fair_queue = FairQueue(1, 6, 20)
    found = held(fair_queue, "x", "ABCDE", "a", "b")
    assert [job.caller for job in found if isinstance(job.error, Busy)] == ["A"]
    assert finish_all(found) == "x" + "Bab" + "CDE"


def test_within_a_holder_callers_are_treated_as_others_are() -> None:
    fair_queue = FairQueue(1, 6, 20)
    found = held(fair_queue, "x", "AAAAAA", "B")
    assert [job.caller for job in found if isinstance(job.error, Busy)] == ["A"]
    assert finish_all(found) == "x" + "AB" + "AAAA"
    assert (fair_queue.at_work, fair_queue.in_line, len(fair_queue._line)) == (0, 0, 0)


def test_a_full_line_turns_a_newcomer_away_who_has_as_much_in_it() -> None:
    fair_queue = FairQueue(1, 2, 10)
    found = jobs(fair_queue, "xab")
    (late,) = jobs(fair_queue, "a")
    assert isinstance(late.error, Busy)
    assert late.error.code == "busy" and late.error.retry_after == 1
    assert (fair_queue.at_work, fair_queue.in_line) == (1, 2)
    assert finish_all(found) == "xab"


def test_in_a_full_line_the_one_with_most_makes_room_for_one_with_less() -> None:
    fair_queue = FairQueue(1, 4, 10)
    found = jobs(fair_queue, "xaaaa")
    (quiet,) = jobs(fair_queue, "b")
    assert quiet.error is None
    assert isinstance(found[4].error, Busy), "its newest"
    assert finish_all([*found, quiet]) == "xabaa"
    assert (fair_queue.at_work, fair_queue.in_line) == (0, 0)


def test_one_caller_has_so_many_pieces_and_not_more() -> None:
    fair_queue = FairQueue(1, 10, 3)
    found = jobs(fair_queue, "aaaa")
    assert isinstance(found[3].error, Busy)
    assert "3 requests under way" in str(found[3].error)
    found[0].finish()
    assert jobs(fair_queue, "a")[0].error is None


def test_whoever_is_cancelled_in_line_leaves_it() -> None:
    fair_queue = FairQueue(1, 2, 2)
    found = jobs(fair_queue, "xab")
    found[1].task.cancel()
    assert isinstance(found[1].error, CancelledError)
    assert fair_queue.in_line == 1
    assert finish_all(found) == "xb"


def test_whoever_is_cancelled_at_work_makes_room() -> None:
    fair_queue = FairQueue(1, 2, 2)
    found = jobs(fair_queue, "ab")
    found[0].task.cancel()
    assert found[1].is_inside
    assert fair_queue.at_work == 1


def test_work_that_breaks_makes_room() -> None:
    fair_queue = FairQueue(1, 2, 2)
    found = jobs(fair_queue, "ab")
    found[0].work.errback(RuntimeError("broken"))
    assert isinstance(found[0].error, RuntimeError)
    assert found[1].is_inside


def test_a_thousand_pieces_that_are_done_at_once_need_no_deep_stack() -> None:
    fair_queue = FairQueue(1, 5000, 5000)
    (first,) = jobs(fair_queue, "x")
    found = jobs(fair_queue, "a" * 5000)
    for job in found:
        job.finish()
    first.finish()
    assert [job.ended for job in found] == [[None]] * 5000
    assert (fair_queue.at_work, fair_queue.in_line) == (0, 0)


def test_by_default_a_hundred_pieces_of_one_caller_are_taken_in() -> None:
    found = jobs(FairQueue(), "a" * 100)
    assert not any(job.error for job in found)
    assert len(finish_all(found)) == 100


class Comings(RuleBasedStateMachine):
    """Whatever comes, goes and gives up: the counts are right, and nobody is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.fair_queue = FairQueue(2, 4, 3)
        self.found: list[Job] = []

    @rule(caller=st.sampled_from("abcd"))
    def come(self, caller: str) -> None:
        self.found.append(Job(self.fair_queue, caller, "h" if caller in "cd" else None))

    @precondition(lambda self: any(job.is_inside for job in self.found))
    @rule(number=st.integers(0, 5))
    def finish(self, number: int) -> None:
        running = [job for job in self.found if job.is_inside]
        running[number % len(running)].finish()

    @precondition(lambda self: any(not job.ended for job in self.found))
    @rule(number=st.integers(0, 9))
    def give_up(self, number: int) -> None:
        living = [job for job in self.found if not job.ended]
        living[number % len(living)].task.cancel()

    @invariant()
    def counts(self) -> None:
        working = [job for job in self.found if job.is_inside and not job.ended]
        waiting = [job for job in self.found if not job.is_inside and not job.ended]
        assert self.fair_queue.at_work == len(working) <= 2
        assert self.fair_queue.in_line == len(waiting) <= 4
        assert not waiting or len(working) == 2, "nobody waits while there is room"
        for caller in "abcd":
            held = [job for job in (*working, *waiting) if job.caller == caller]
            assert len(held) <= 3


TestComings = Comings.TestCase


def test_nothing_is_kept_of_callers_who_are_gone() -> None:
    fair_queue = FairQueue(1, 10, 10)
    finish_all(jobs(fair_queue, "abcabc"))
    assert not fair_queue._held and not fair_queue._line


def test_there_need_not_be_a_line_at_all() -> None:
    found = jobs(FairQueue(1, 0, 1), "ab")
    assert isinstance(found[1].error, Busy)
