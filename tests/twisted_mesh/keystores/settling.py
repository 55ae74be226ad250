"""What is awaited, for stores that answer at once."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def result_now(work: Awaitable[T]) -> T:
    """The result, which is there at once; raises what was raised."""
    results: list[Any] = []
    Deferred.fromCoroutine(_awaited(work)).addBoth(results.append)
    assert results, "it waits"
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result  # type: ignore[no-any-return]
