"""HTTP servers in the test's own hands, for whatever downloads: no sockets, no waiting."""

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Cooperator
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer
from zope.interface import implementer

from twisted_mesh.http import fetch


@frozen
class Request:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes


#: From a request to a response, raw; None says nothing at all.
Answering = Callable[[Request], bytes | None]


def response(body: bytes = b"", status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Wire(StringTransport):
    def __init__(self, places: "HttpPlaces") -> None:
        super().__init__()
        self.places = places
        self.protocol: Any = None
        self.served = False

    def write(self, data: bytes) -> None:
        super().write(data)
        self.places.reactor.callLater(0, self._serve)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no delay here."""

    def _serve(self) -> None:
        head, end, body = self.value().partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines if end)}
        if not end or self.served or len(body) < int(headers.get("content-length", "0")):
            return
        self.served = True
        request = Request(first.rpartition(" ")[0], headers, body)
        self.places.asked.append(request)
        answer = self.places.answer(request)
        if answer is not None:
            self.protocol.dataReceived(answer)
            self.lose()

    def loseConnection(self) -> None:
        self.places.reactor.callLater(0, self.lose)

    abortConnection = loseConnection

    def lose(self) -> None:
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


@define(eq=False)
class HttpPlaces:
    """All the HTTP servers that there are."""

    reactor: Any = field(factory=MemoryReactorClock)
    answer: Answering = lambda request: response(status=404)
    is_down: bool = False
    asked: list[Request] = field(factory=list)
    addresses: list[tuple[str, int]] = field(factory=list)

    def result(self, coroutine: Any) -> Any:
        """What ``coroutine`` comes to, without time passing."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(outcome.append)
        for _ in range(50):
            self.reactor.advance(0)
        (found,) = outcome
        if isinstance(found, Failure):
            found.raiseException()
        return found


@implementer(IStreamClientEndpoint)
@frozen
class _Endpoint:
    places: HttpPlaces

    def connect(self, factory: IProtocolFactory) -> "Deferred[Any]":
        connected: Deferred[Any] = Deferred()
        if self.places.is_down:
            connected.errback(Failure(ConnectionRefusedError()))
            return connected
        wire = _Wire(self.places)
        wire.protocol = factory.buildProtocol(None)
        wire.protocol.makeConnection(wire)
        connected.callback(wire.protocol)
        return connected


class _Now:
    def __init__(self, call: Callable[[], None]) -> None:
        call()

    def cancel(self) -> None:
        """There is nothing left to cancel."""


def reach(monkeypatch: pytest.MonkeyPatch, places: HttpPlaces) -> None:
    """Have every download end at ``places``."""

    def endpoint(reactor: Any, host: str, port: int, timeout: float) -> _Endpoint:
        places.addresses.append((host, port))
        return _Endpoint(places)

    monkeypatch.setattr(fetch, "HostEndpoint", endpoint)
    monkeypatch.setattr(
        fetch,
        "FileBodyProducer",
        lambda file: FileBodyProducer(file, Cooperator(scheduler=_Now)),  # type: ignore[arg-type]
    )
