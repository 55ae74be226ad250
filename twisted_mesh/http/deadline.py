"""When the present phase of a connection has to be over."""

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime


@define(eq=False)
class Deadline:
    """Absolute: whatever trickles in moves it no further.

    Most phases are over long before. So a timer that goes off too soon is set anew then, which is seldom, and not at
    each phase.
    """

    clock: IReactorTime
    passed: Callable[[], None]
    """What is done when it passes."""
    _at: float | None = field(default=None, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def within(self, seconds: float | None) -> None:
        """The phase that begins now ends within so many seconds; None is for one that may last."""
        if seconds is None:
            self._at = None
            return
        self._at = at = self.clock.seconds() + seconds
        if self._timer is not None:
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self.clock.callLater(seconds, self._look)

    def stop(self) -> None:
        """There are no phases any more."""
        self._at, self.passed = None, _nothing
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self.clock.seconds()
        if left > 0:
            self._timer = self.clock.callLater(left, self._look)
            return
        self._at = None
        self.passed()


def _nothing() -> None:
    """Nothing is done."""
