"""The wall clock, passed in as a function so that tests choose the time."""

from collections.abc import Callable
from datetime import UTC, datetime

Now = Callable[[], datetime]


def wall_clock() -> datetime:
    return datetime.now(UTC)
