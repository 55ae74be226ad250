"""A wall clock in UTC, and timers that a jump of it does not move."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from twisted.internet.selectreactor import SelectReactor

from twisted_mesh.runtime.clock import steady, wall_clock


def test_the_wall_clock_is_in_utc() -> None:
    now = wall_clock()
    assert now.tzinfo is UTC
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0])
def test_timers_neither_wait_nor_hurry_when_the_wall_clock_jumps(
    jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reactor = steady(SelectReactor())
    assert reactor.seconds is time.monotonic
    calls: list[str] = []
    soon = reactor.callLater(0, calls.append, "soon")
    late = reactor.callLater(1800, calls.append, "late")
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump)
    reactor.runUntilCurrent()
    assert calls == ["soon"]
    assert not soon.active()
    assert 1700 < reactor.timeout() <= 1800
    late.cancel()
    reactor.removeAll()
