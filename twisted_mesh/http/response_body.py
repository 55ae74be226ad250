"""The body of an answer, for a client: whole and not too long."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse


def read_body(response: IResponse, limit: int) -> "Deferred[bytes]":
    """A client's view of a response: its whole body, at most ``limit`` bytes."""
    collector = _BodyCollector(limit)
    response.deliverBody(collector)
    return collector.done


class _BodyCollector(Protocol):
    transport: Any

    def __init__(self, limit: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._abort())
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            self._abort()
        else:
            self._chunks.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, http.PotentialDataLoss):
            self.done.callback(b"".join(self._chunks))
        else:
            self.done.errback(reason)

    def _abort(self) -> None:
        if not self.done.called:
            self.done.errback(ConnectionAborted("the answer was too long, or came too late"))
        if self.transport is not None:
            self.transport.loseConnection()  # what twisted.web hands out here cannot abort
