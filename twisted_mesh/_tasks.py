"""Coroutines on the reactor: one way to start them, one to wait."""

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

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
    """The result of ``work``; it is cancelled and TimeoutError raised after so many seconds."""
    deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(_as_coroutine(work))
    deferred.addTimeout(seconds, clock)
    return await deferred


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work
