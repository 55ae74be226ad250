"""Work on the reactor: one way to start coroutines, one to wait, and one to do something again and again."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
_log = Logger(namespace="mesh.tasks")


def spawn(coroutine: Coroutine[Any, Any, None], what: str, log: Logger = _log) -> Deferred[None]:
    """Run ``coroutine`` by itself; if it breaks, that is logged under ``what`` and goes no further."""
    task = Deferred.fromCoroutine(coroutine)

    def broke(failure: Failure) -> None:
        if not failure.check(CancelledError):
            log.failure("{what} broke", failure=failure, what=what)

    return task.addErrback(broke)


class Defer(Protocol):
    """Has a function called somewhere else, as :func:`twisted.internet.threads.deferToThread` does on a thread."""

    def __call__(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]:
        """What it returns, or raises, comes here by the Deferred."""


@define(eq=False, repr=False)
class Ticker:
    """Calls ``look`` every so many seconds of ``clock``, while it runs.

    What it raises is logged as a broken tick of ``what``, and it is called again all the same.
    """

    clock: IReactorTime
    seconds: float
    look: Callable[[], object]
    what: str
    log: Logger
    _loop: LoopingCall | None = field(default=None, init=False)

    def start(self, *, now: bool = True) -> None:
        """Begin: with the first call at once, or after so many seconds."""
        self._loop = LoopingCall(self._tick)
        self._loop.clock = self.clock
        _ = self._loop.start(self.seconds, now=now)

    def stop(self) -> None:
        """Call no more. May be said again, and before it was started."""
        if self._loop is not None and self._loop.running:
            self._loop.stop()

    def _tick(self) -> None:
        try:
            self.look()
        except Exception:  # a LoopingCall that fails once never runs again
            self.log.failure("a tick of {what} broke", event="tick-broke", what=self.what)


async def sleep(clock: IReactorTime, seconds: float) -> None:
    """Go on after so many seconds of ``clock``."""
    await deferLater(clock, seconds)


async def within(clock: IReactorTime, seconds: float, work: Awaitable[T] | Deferred[T]) -> T:
    """The result of ``work``; after so many seconds it is cancelled, and error.TimeoutError raised."""
    deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(_as_coroutine(work))
    deferred.addTimeout(seconds, clock, _too_late)
    return await deferred


def _too_late(outcome: Any, seconds: float) -> Any:
    # Twisted has two TimeoutErrors, and by itself raises the one that is no network error; it also
    # lets through whatever else the cancelled work made of its end.
    if isinstance(outcome, Failure):
        raise TimeoutError(string=f"not done within {seconds:g} s")
    return outcome


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work
