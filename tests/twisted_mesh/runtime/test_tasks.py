"""Coroutines run by themselves without getting lost, and nothing is waited for longer than was said."""

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import TimeoutError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.runtime.tasks import Ticker, sleep, spawn, within


def outcome_of(coroutine: Any) -> list[Any]:
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    return found


def test_what_is_spawned_runs_at_once() -> None:
    log = RecordingLog()
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    spawn(work(), "working", log)
    assert done == [1]
    assert log.events == []


def test_what_breaks_is_logged_under_its_name_and_goes_no_further() -> None:
    log = RecordingLog()

    async def work() -> None:
        raise RuntimeError("no luck")

    results: list[Any] = []
    spawn(work(), "working", log).addBoth(results.append)
    (event,) = log.events
    assert log.all_text() == "working broke"
    assert event["log_failure"].check(RuntimeError)
    assert results == [None]


def test_what_breaks_later_is_logged_too() -> None:
    log, clock = RecordingLog(), Clock()

    async def work() -> None:
        await sleep(clock, 5)
        raise RuntimeError("no luck")

    spawn(work(), "working", log)
    clock.advance(4)
    assert log.events == []
    clock.advance(1)
    assert len(log.events) == 1


def test_what_is_cancelled_did_not_break() -> None:
    log, clock = RecordingLog(), Clock()
    spawn(sleep(clock, 5), "sleeping", log).cancel()
    assert log.events == []
    assert clock.getDelayedCalls() == []


async def a_number() -> int:
    return 5


@pytest.mark.parametrize("make", [a_number, lambda: succeed(5)])
def test_a_result_in_time_is_handed_on_and_leaves_no_timer(make: Any) -> None:
    clock = Clock()
    assert outcome_of(within(clock, 10, make())) == [5]
    assert clock.getDelayedCalls() == []


def test_an_error_in_time_is_handed_on_as_it_is() -> None:
    async def work() -> None:
        raise KeyError("mine")

    clock = Clock()
    (failure,) = outcome_of(within(clock, 10, work()))
    assert failure.check(KeyError)
    assert clock.getDelayedCalls() == []


def test_what_takes_too_long_is_cancelled_and_said_so() -> None:
    clock = Clock()
    cancelled: list[Any] = []
    found = outcome_of(within(clock, 2.5, Deferred(cancelled.append)))
    clock.advance(2.4)
    assert found == []
    clock.advance(0.2)
    (failure,) = found
    assert failure.check(TimeoutError)
    assert "not done within 2.5 s" in str(failure.value)
    assert len(cancelled) == 1


def test_a_coroutine_that_takes_too_long_is_told_where_it_waits() -> None:
    clock = Clock()
    told: list[str] = []

    async def work() -> None:
        try:
            await sleep(clock, 100)
        except CancelledError:
            told.append("cancelled")
            raise

    found = outcome_of(within(clock, 1, work()))
    clock.advance(1)
    assert told == ["cancelled"]
    assert found[0].check(TimeoutError)
    assert clock.getDelayedCalls() == []


def test_whatever_the_cancelled_work_makes_of_its_end_it_was_too_late() -> None:
    clock = Clock()
    found = outcome_of(
        within(clock, 1, Deferred(lambda waiting: waiting.errback(OSError("torn down"))))
    )
    clock.advance(1)
    assert found[0].check(TimeoutError)


def test_work_that_is_done_nevertheless_is_not_thrown_away() -> None:
    clock = Clock()
    found = outcome_of(within(clock, 1, Deferred(lambda waiting: waiting.callback("just so"))))
    clock.advance(1)
    assert found == ["just so"]


def test_who_gives_up_waiting_gives_up_the_work() -> None:
    clock = Clock()
    cancelled: list[Any] = []
    waiting = Deferred.fromCoroutine(within(clock, 10, Deferred(cancelled.append)))
    found: list[Failure] = []
    waiting.addErrback(found.append)
    waiting.cancel()
    assert len(cancelled) == 1
    assert found[0].check(CancelledError)
    assert clock.getDelayedCalls() == []


# What is done again and again.


def test_a_ticker_calls_at_once_and_then_in_its_pace_until_it_is_stopped() -> None:
    clock, log = Clock(), RecordingLog()
    calls: list[float] = []
    ticker = Ticker(clock, 0.5, lambda: calls.append(clock.seconds()), "a test", log)
    ticker.stop()
    ticker.start()
    clock.pump([0.5] * 3)
    ticker.stop()
    ticker.stop()
    clock.pump([0.5] * 3)
    assert calls == [0.0, 0.5, 1.0, 1.5]
    assert clock.getDelayedCalls() == []


def test_a_ticker_may_wait_before_its_first_call() -> None:
    clock = Clock()
    calls: list[float] = []
    ticker = Ticker(clock, 1, lambda: calls.append(clock.seconds()), "a test", RecordingLog())
    ticker.start(now=False)
    assert calls == []
    clock.advance(1)
    assert calls == [1.0]


def test_a_tick_that_breaks_is_logged_and_the_next_one_comes() -> None:
    clock, log = Clock(), RecordingLog()
    ticker = Ticker(clock, 1, lambda: 1 / 0, "the review", log)
    ticker.start()
    clock.advance(1)
    assert log.text("tick-broke") == "a tick of the review broke\na tick of the review broke"
