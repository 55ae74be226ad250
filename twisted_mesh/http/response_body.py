"""The body of an answer, for a client: whole and not too long."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.client import ResponseDone
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from twisted_mesh.http.answer_reader import AnswerTooLong


def read_body(response: IResponse, limit: int, address: str) -> "Deferred[bytes]":
    """A client's view of a response: its whole body, at most ``limit`` bytes.

    Errs with :class:`AnswerTooLong`, which names the ``address``, before more has come, and at once where the answer
    says itself how long it is.
    """
    collector = _BodyCollector(limit, f"{address} answers with more than {limit} bytes")
    response.deliverBody(collector)
    if response.length is not UNKNOWN_LENGTH and response.length > limit:
        collector.refuse()
    return collector.done


class _BodyCollector(Protocol):
    transport: Any

    def __init__(self, limit: int, too_long: str) -> None:
        self.done: Deferred[bytes] = Deferred(
            lambda _: self._abort(ConnectionAborted("the answer came too late"))
        )
        self._limit = limit
        self._too_long = too_long
        # In one piece: how many it comes in is the server's choice.
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._limit:
            self.refuse()
        else:
            self._body += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, http.PotentialDataLoss):
            self.done.callback(bytes(self._body))
        else:
            self.done.errback(reason)

    def refuse(self) -> None:
        """Take no more of it."""
        self._abort(AnswerTooLong(self._too_long))

    def _abort(self, error: Exception) -> None:
        if not self.done.called:
            self._body.clear()
            self.done.errback(error)
        if self.transport is not None:
            self.transport.loseConnection()  # what twisted.web hands out here cannot abort
