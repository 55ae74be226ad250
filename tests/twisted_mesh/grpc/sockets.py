"""A reactor of a test's own, for real sockets in its process: it turns only while the test waits for something."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from tests.running import PATIENCE
from twisted_mesh.grpc.client import GrpcChannel
from twisted_mesh.grpc.server import GrpcServer

T = TypeVar("T")


@cache
def own_reactor() -> Any:
    """One for all tests of a process; nobody else's, so nobody else's calls run in it."""
    return SelectReactor()


def turn_until(is_so: Callable[[], object], otherwise: Callable[[], object] = str) -> None:
    """Let the reactor turn until something has come about."""
    reactor, deadline = own_reactor(), time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"it never came to that: {otherwise()}"
        reactor.iterate(0.02)


def run(work: Awaitable[T]) -> T:
    """What ``work`` comes to; raises what it raises."""

    async def whole() -> T:
        return await work

    outcome: list[Any] = []
    task = Deferred.fromCoroutine(whole())
    task.addBoth(outcome.append)
    turn_until(lambda: outcome)
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


@contextmanager
def served(server: GrpcServer) -> Iterator[Path]:
    """Where ``server`` listens; at the end it is drained."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "s")
        port = own_reactor().listenUNIX(str(path), server)
        try:
            yield path
        finally:
            run(server.drain(0.2))
            run(_closed(port))


async def _closed(port: Any) -> None:
    await port.stopListening()


@contextmanager
def channel_to(path: Path) -> Iterator[GrpcChannel]:
    """A client of what listens there."""
    channel = GrpcChannel(own_reactor(), UNIXClientEndpoint(own_reactor(), str(path)))
    try:
        yield channel
    finally:
        channel.close()
        run(_turns())


async def _turns() -> None:
    for _ in range(3):
        turned: Deferred[None] = Deferred()
        own_reactor().callLater(0, turned.callback, None)
        await turned
