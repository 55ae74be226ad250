"""Whether a target can be reached: what its connections tell, and a look at it where they tell nothing."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from pki.errors import PkiError, Problem
from twisted_mesh.runtime.tasks import within

#: Seconds for which a connection that came about says that the next one will, and one that did not, the contrary.
_GOOD, _BAD = 5.0, 1.0
#: Seconds that whoever asks waits for a look.
_PATIENCE = 2.0


@define(eq=False)
class Health:
    """Of one target."""

    clock: IReactorTime
    dial: Callable[[IProtocolFactory], "Deferred[IProtocol]"]
    """Reaches the target; fails with a :class:`PkiError`."""
    problem: Problem | None = field(default=None, init=False)
    """Why the last connection did not come about; None where it did, or where there was none."""
    is_known: bool = field(default=False, init=False)
    _told_at: float = field(default=0.0, init=False)
    _askers: list["Deferred[None]"] = field(factory=list, init=False)
    """Who waits for a look that is under way."""

    def hear(self, dialing: "Deferred[IProtocol]") -> "Deferred[IProtocol]":
        """Learn from a connection of somebody's."""
        return dialing.addCallbacks(self._reached, self._unreached)

    def forget(self) -> None:
        """It is another target now."""
        self.problem, self.is_known = None, False

    def _reached(self, protocol: IProtocol) -> IProtocol:
        self._tell(None)
        return protocol

    def _unreached(self, failure: Failure) -> Any:
        if isinstance(failure.value, PkiError):
            self._tell(failure.value.problems[0])
        return failure

    def _tell(self, problem: Problem | None) -> None:
        self.problem, self.is_known, self._told_at = problem, True, self.clock.seconds()

    @property
    def _is_fresh(self) -> bool:
        age = self.clock.seconds() - self._told_at
        return self.is_known and age < (_GOOD if self.problem is None else _BAD)

    async def look(self) -> None:
        """Know how it stands: by connecting once, if nobody has done so for a while. Never raises."""
        if self._is_fresh:
            return
        waiting: Deferred[None] = Deferred()
        self._askers.append(waiting)
        if len(self._askers) == 1:
            _ = self.hear(self.dial(_Glances())).addBoth(self._looked)
        with suppress(TimeoutError):  # it takes its time, and what was known stays
            await within(self.clock, _PATIENCE, waiting)

    def _looked(self, outcome: Any) -> None:
        if not isinstance(outcome, Failure):
            outcome.transport.loseConnection()
        askers, self._askers = self._askers, []
        for asker in askers:
            if not asker.called:
                asker.callback(None)


class _Glance(Protocol):
    """Connects, and says nothing."""


class _Glances(Factory):
    protocol = _Glance
    noisy = False
