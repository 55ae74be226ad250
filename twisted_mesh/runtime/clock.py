"""Clocks: the wall clock, passed in as a function so that tests choose the time, and a steady one."""

import ctypes
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

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


@frozen
class Release:
    """When a version of this program came out: no clock that is right is earlier than that."""

    version: str
    at: datetime


#: Of this version. A test holds it against the package's version and the changelog.
RELEASE = Release("0.1.0", datetime(2026, 11, 23, tzinfo=UTC))


class _Timex(ctypes.Structure):
    """The beginning of the kernel's ``struct timex``, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


_STA_UNSYNC = 0x0040


def is_unsynchronised() -> bool:
    """Whether the kernel says that nothing keeps its clock right (adjtimex(2)); False where it does not say."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        timex = _Timex()
        answered = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return False
    return answered >= 0 and bool(timex.status & _STA_UNSYNC)
