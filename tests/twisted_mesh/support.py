"""A reactor's stand-in for objects with a thread of their own: their calls wait until the test asks for a result."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.running import PATIENCE

T = TypeVar("T")


@implementer(IReactorFromThreads)
class ThreadCalls:
    """Keeps what threads hand over with ``callFromThread``; :meth:`result` runs it, in the test's thread.

    Nothing sleeps: ``result`` wakes up with each call, and gives up after ``PATIENCE``.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()

    def callFromThread(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._calls.put(lambda: f(*args, **kwargs))

    def turn(self) -> None:
        """Run what has been handed over by now, as one turn of a reactor does."""
        for _ in range(self._calls.qsize()):
            self._calls.get()()

    def wait(self) -> None:
        """Until a thread has handed something over; that is run."""
        self._calls.get(timeout=PATIENCE)()

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with, once it does; raises what it errs with."""
        answers: list[Any] = []
        deferred.addBoth(answers.append)
        while not answers:
            try:
                self._calls.get(timeout=PATIENCE)()
            except Empty:
                raise AssertionError(f"{deferred} never fired") from None
        (answer,) = answers
        if isinstance(answer, Failure):
            answer.raiseException()
        return answer  # type: ignore[no-any-return]

    def outcome(self, deferred: Deferred[T]) -> T | Exception:
        """Like :meth:`result`, with an error returned instead of raised."""
        try:
            return self.result(deferred)
        except Exception as error:
            return error
