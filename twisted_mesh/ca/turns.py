"""One at a time of those who ask for what can be had once: an agent's ID, a claim, the answer to one request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from attrs import define, field
from twisted.internet.defer import Deferred


@define(eq=False, repr=False)
class Turns:
    """Who is at it now, by key, and who waits for the end of that."""

    _taken: dict[str, list[Deferred[None]]] = field(factory=dict, init=False)

    @asynccontextmanager
    async def take(self, key: str) -> AsyncIterator[None]:
        """Until then nobody else has a turn of the same ``key``."""
        while (earlier := self._taken.get(key)) is not None:
            await _end_of(earlier)
        self._taken[key] = []
        try:
            yield
        finally:
            for waiting in self._taken.pop(key):
                waiting.callback(None)


async def _end_of(waiting: list[Deferred[None]]) -> None:
    """Until whoever has this list is done."""
    done: Deferred[None] = Deferred()
    waiting.append(done)
    await done
