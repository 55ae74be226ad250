"""Clocks: the wall clock, passed in as a function so that tests choose the time, and a steady one."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Now = Callable[[], datetime]


def wall_clock() -> datetime:
    return datetime.now(UTC)


def steady(reactor: Any) -> Any:
    """``reactor``, its timers on a clock that never jumps.

    Twisted's count by the wall clock: put back an hour, it would hold every deadline and every
    tick of the rotation for that hour. Call it before anything is scheduled.
    """
    reactor.seconds = time.monotonic
    return reactor
