"""A thread that does what it is given, one batch after the other, and hands the outcomes to the reactor."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from twisted_mesh.stores.records import StoreError

T = TypeVar("T")

_log = Logger(namespace="mesh.store")


class Worker(Generic[T]):
    """Runs ``work`` on a thread of its own, and ``done`` with its outcomes on the reactor's.

    ``work`` gives an outcome for each of a batch. Should it raise instead, that is a bug, and each
    gets a :class:`StoreError`: whoever waits is never left waiting.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        work: Callable[[Sequence[T]], Sequence[Any]],
        done: Callable[[Sequence[T], Sequence[Any]], None],
        close: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._work = work
        self._done = done
        self._close = close
        self._given: SimpleQueue[Sequence[T] | None] = SimpleQueue()
        self._ended: Deferred[None] = Deferred()
        self._thread = threading.Thread(target=self._run, name="mesh-store", daemon=True)
        self._thread.start()

    def give(self, batch: Sequence[T]) -> None:
        self._given.put(batch)

    def end(self) -> Deferred[None]:
        """Once all that it was given is done, and the thread is gone."""
        self._given.put(None)
        return self._ended

    def _run(self) -> None:
        while (batch := self._given.get()) is not None:
            self._reactor.callFromThread(self._done, batch, self._outcomes(batch))
        try:
            self._close()
        except Exception:
            _log.failure("the store did not close cleanly")
        finally:
            self._reactor.callFromThread(self._end)

    def _outcomes(self, batch: Sequence[T]) -> Sequence[Any]:
        try:
            return self._work(batch)
        except Exception:
            _log.failure("the store broke")
            return [StoreError("the store broke, its log says how: ask again") for _ in batch]

    def _end(self) -> None:
        self._thread.join()
        self._ended.callback(None)
