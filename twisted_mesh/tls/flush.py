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

    def at_the_end(self, send: Callable[[], object]) -> None:
        """Call ``send`` when this round is over. It must not raise."""
        if not self._waiting:
            self.clock.callLater(0, self._run)
        self._waiting.append(send)

    def _run(self) -> None:
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
