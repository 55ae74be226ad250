"""Clocks: the wall clock, passed in as a function so that tests choose the time, and a steady one."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

#: Linux's clocks stand still while the machine sleeps, but for this one.
_SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

Now = Callable[[], datetime]


def wall_clock() -> datetime:
    """The time of day, in UTC. It may jump."""
    return datetime.now(UTC)


def since_boot() -> float:
    """Seconds on a clock that never jumps and, where the system has one, goes on while the machine sleeps."""
    return time.clock_gettime(_SINCE_BOOT)


def steady(reactor: Any) -> Any:
    """``reactor``, its timers on a clock that never jumps.

    Twisted's count by the wall clock: put back an hour, it would hold every deadline and every
    tick of the rotation for that hour. Call it before anything is scheduled.
    """
    reactor.seconds = time.monotonic
    return reactor
