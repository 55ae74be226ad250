"""What was written in one round of the reactor is sent at its end, by all connections one after the other.

Each send may have to wake whoever waits for it, which costs more than the sending. Those that are sent together find
it awake.
"""

from collections.abc import Callable
from weakref import WeakKeyDictionary

from attrs import define, field
from twisted.internet.interfaces import IReactorTime


@define(eq=False)
class Flush:
    """One reactor's."""

    clock: IReactorTime
    _waiting: list[Callable[[], object]] = field(factory=list, init=False)
    _is_scheduled: bool = field(default=False, init=False)
    """Whether the reactor calls, or whoever holds it back does."""

    def at_the_end(self, send: Callable[[], object]) -> None:
        """Call ``send`` when this round is over. It must not raise."""
        self._waiting.append(send)
        if not self._is_scheduled:
            self._is_scheduled = True
            self.clock.callLater(0, self._run)

    def hold(self) -> bool:
        """Leave the end of this round to :meth:`release`; whether it is left to that."""
        is_free = not self._is_scheduled
        self._is_scheduled = True
        return is_free

    def release(self) -> None:
        """The round is over."""
        self._run()

    def _run(self) -> None:
        self._is_scheduled = False
        waiting, self._waiting = self._waiting, []
        for send in waiting:
            send()


_of: "WeakKeyDictionary[IReactorTime, Flush]" = WeakKeyDictionary()


def flush_of(clock: IReactorTime) -> Flush:
    """The one that all connections of a reactor share."""
    found = _of.get(clock)
    if found is None:
        found = _of[clock] = Flush(clock)
    return found
