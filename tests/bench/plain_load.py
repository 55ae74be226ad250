"""The load on a sidecar, as its users see it: plain connections to one port, and what came of them on standard output.

One job, as JSON on standard input, done by one process with one thread. ``python -m tests.bench.plain_load backend``
is what stands behind the sidecar instead: sixteen bytes that are a number get so many bytes back.
"""

import json
import selectors
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attrs import define

from tests.bench.load import Broken, Outcome

FRAME = 16
_ROOM = 1024 * 1024
#: Seconds without anything from anybody, after which something is broken.
_TIMEOUT = 20.0
_ASK = b"%16d"


def _connected(job: Mapping[str, Any]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", job["port"]), timeout=_TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


@define(eq=False)
class _Asked:
    """One connection, and what is still to come on it."""

    connection: socket.socket
    left: int
    since: float = 0.0


def _ready(selector: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
    ready = selector.select(_TIMEOUT)
    if not ready:
        raise Broken("nobody said anything in time")
    return ready


def exchanges(job: Mapping[str, Any]) -> tuple[Outcome, list[float]]:
    """For ``seconds``, over each of ``clients`` connections that stay: ask for ``size`` bytes again and again.

    How many answers came whole, and how many seconds each has taken.
    """
    size, took, buffer = job["size"], list[float](), bytearray(_ROOM)
    question, outcome, clock = _ASK % size, Outcome(), time.perf_counter
    with selectors.DefaultSelector() as selector:
        for _ in range(job["clients"]):
            asked = _Asked(_connected(job), size)
            selector.register(asked.connection, selectors.EVENT_READ, asked)
        end = clock() + job["seconds"]
        for key in tuple(selector.get_map().values()):
            key.data.since = clock()
            key.data.connection.sendall(question)
        busy = job["clients"]
        while busy:
            for key, _ in _ready(selector):
                asked = key.data
                got = asked.connection.recv_into(buffer)
                if not got:
                    raise Broken("closed in the middle")
                asked.left -= got
                if asked.left:
                    continue
                now = clock()
                took.append(now - asked.since)
                outcome.done += 1
                if now < end:
                    asked.left, asked.since = size, now
                    asked.connection.sendall(question)
                else:
                    selector.unregister(asked.connection)
                    asked.connection.close()
                    busy -= 1
    return outcome, took


def connections(job: Mapping[str, Any]) -> tuple[Outcome, list[float]]:
    """For ``seconds``, ``clients`` at a time: connect, ask for ``size`` bytes, read them, and close."""
    size, took, buffer, outcome = job["size"], list[float](), bytearray(_ROOM), Outcome()
    end = time.perf_counter() + job["seconds"]
    with selectors.DefaultSelector() as selector:

        def begin() -> None:
            since = time.perf_counter()
            asked = _Asked(_connected(job), size, since)
            asked.connection.sendall(_ASK % size)
            selector.register(asked.connection, selectors.EVENT_READ, asked)

        for _ in range(job["clients"]):
            begin()
        while selector.get_map():
            for key, _ in _ready(selector):
                asked, got = key.data, 0
                try:
                    got = asked.connection.recv_into(buffer)
                except OSError as error:
                    outcome.failures[type(error).__name__] += 1
                asked.left -= got
                if asked.left and got:
                    continue
                if not asked.left:
                    took.append(time.perf_counter() - asked.since)
                    outcome.done += 1
                elif not got:
                    outcome.failures["closed"] += 1
                selector.unregister(asked.connection)
                asked.connection.close()
                if time.perf_counter() < end:
                    begin()
    return outcome, took


@define(eq=False)
class _Answering:
    """One of the backend's connections."""

    connection: socket.socket
    asked: bytes = b""
    left: int = 0


def backend() -> None:
    """Answers for ever. The first line on its standard output is its port."""
    room = memoryview(bytes(_ROOM))
    with (
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listening,
        selectors.DefaultSelector() as selector,
    ):
        listening.setblocking(False)
        selector.register(listening, selectors.EVENT_READ)
        print(listening.getsockname()[1], flush=True)
        while True:
            for key, _ in selector.select():
                if key.data is None:
                    with suppress(BlockingIOError):
                        while True:
                            _take(listening, selector)
                    continue
                try:
                    _answer(key, selector, room)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError:
                    selector.unregister(key.fileobj)
                    key.data.connection.close()


def _take(listening: socket.socket, selector: selectors.BaseSelector) -> None:
    connection, _ = listening.accept()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    selector.register(connection, selectors.EVENT_READ, _Answering(connection))


def _answer(key: selectors.SelectorKey, selector: selectors.BaseSelector, room: memoryview) -> None:
    of: _Answering = key.data
    if not of.left:
        said = of.connection.recv(FRAME - len(of.asked))
        if not said:
            raise ConnectionError
        of.asked += said
        if len(of.asked) < FRAME:
            return
        of.left, of.asked = int(of.asked), b""
    of.left -= of.connection.send(room[: of.left])
    wanted = selectors.EVENT_WRITE if of.left else selectors.EVENT_READ
    if key.events != wanted:
        selector.modify(of.connection, wanted, of)


def _main() -> None:
    if sys.argv[1:] == ["backend"]:
        backend()
    job = json.load(sys.stdin)
    kinds: dict[str, Callable[[Mapping[str, Any]], tuple[Outcome, list[float]]]] = {
        "exchanges": exchanges,
        "connections": connections,
    }
    start = time.perf_counter()
    outcome, took = kinds[job["kind"]](job)
    seconds = time.perf_counter() - start
    took.sort()
    at = {"p50": 0.5, "p99": 0.99}
    told = {
        "seconds": seconds,
        "done": outcome.done * job.get("each", 1),
        "failures": dict(outcome.failures),
        **{name: took[int(share * len(took))] if took else None for name, share in at.items()},
    }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    _main()
