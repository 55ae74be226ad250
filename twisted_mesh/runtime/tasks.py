"""Coroutines on the reactor: one way to start them, one to wait."""

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")
_log = Logger(namespace="mesh.tasks")


def spawn(coroutine: Coroutine[Any, Any, None], what: str, log: Logger = _log) -> Deferred[None]:
    """Run ``coroutine`` by itself; if it breaks, that is logged under ``what`` and goes no further."""
    task = Deferred.fromCoroutine(coroutine)

    def broke(failure: Any) -> None:
        if not failure.check(CancelledError):
            log.failure("{what} broke", failure=failure, what=what)

    return task.addErrback(broke)


async def sleep(clock: IReactorTime, seconds: float) -> None:
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
