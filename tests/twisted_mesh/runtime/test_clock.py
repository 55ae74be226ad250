"""A wall clock in UTC, and timers that a jump of it does not move."""

import re
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import pytest
from twisted.internet.selectreactor import SelectReactor

from tests.running import CHECKOUT
from twisted_mesh.runtime import clock
from twisted_mesh.runtime.clock import RELEASE, steady, wall_clock


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


def test_the_release_is_of_this_version_and_of_its_day_in_the_changelog() -> None:
    assert version("twisted-mesh") == RELEASE.version
    assert wall_clock() >= RELEASE.at
    changes = (CHECKOUT / "CHANGELOG.md").read_text()
    told = re.search(rf"^## {re.escape(RELEASE.version)} \((\d{{4}}-\d\d-\d\d)\)", changes, re.M)
    if told is not None:
        assert told[1] == f"{RELEASE.at:%Y-%m-%d}"


@pytest.mark.parametrize(("status", "said"), [(0x0001, False), (0x0041, True)])
def test_the_kernels_word_on_its_clock_is_heard(
    status: int, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        @staticmethod
        def adjtimex(timex: Any) -> int:
            timex._obj.status = status
            return 0

    monkeypatch.setattr(clock.ctypes, "CDLL", lambda name, use_errno: Library)
    monkeypatch.setattr(clock.sys, "platform", "linux")
    assert clock.is_unsynchronised() is said
    monkeypatch.setattr(clock.sys, "platform", "darwin")
    assert clock.is_unsynchronised() is False


@pytest.mark.parametrize("broken", [AttributeError("adjtimex"), OSError("no libc")])
def test_a_kernel_that_says_nothing_is_taken_for_right(
    broken: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: object, use_errno: bool) -> Any:
        raise broken

    monkeypatch.setattr(clock.ctypes, "CDLL", fail)
    assert clock.is_unsynchronised() is False
