"""A client's connection that is kept: one question at a time in HTTP/1.1, and then the next on the same one."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from pki.errors import PkiError
from twisted_mesh.http.answer_reader import Answer, NotHttp
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.runtime.wire import Cut


@frozen
class Answered:
    """What was answered, with whatever status."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(factory=dict)
    """By their names in lower case: of several the last."""


class KeptConnection(Protocol):
    """Answers come whole and bounded, or not at all. What has failed once is asked nothing more."""

    transport: Any
    is_open = False

    def __init__(self, reach: Reach, limit: int) -> None:
        self.reach = reach
        """Of the attempt that has led here."""
        self._limit = limit
        """Bytes of an answer, where a question says nothing else."""
        self._answer: Answer | None = None
        self._asking: Deferred[Answered] | None = None

    def connectionMade(self) -> None:
        """It begins."""
        self.is_open = True
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def ask(self, request: bytes, limit: int | None = None) -> "Deferred[Answered]":
        """The answer to ``request``, which is a whole one. To cancel it ends the connection."""
        if not self.is_open or self._asking is not None:
            raise AssertionError("this connection is not free")
        self._answer = Answer(self._limit if limit is None else limit, self.reach.where)
        asking = self._asking = Deferred(self._give_up)
        self.transport.write(request)
        return asking

    def dataReceived(self, data: bytes) -> None:
        """Some bytes of an answer."""
        answer = self._answer
        if answer is None:
            self.close()  # nobody has asked
            return
        try:
            if not answer.feed(data):
                return
        except NotHttp as error:
            self._fail(ResponseFailed([Failure(error)]))
            return
        except PkiError as error:
            self._fail(error)
            return
        self._done(answer)

    def _done(self, answer: Answer) -> None:
        is_last = answer.headers.get("connection", "").lower() == "close" or answer.is_followed
        self._answer = None
        if is_last:
            self.close()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.callback(Answered(answer.status, bytes(answer.body), answer.headers))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over; an answer that goes on to the end is whole now."""
        self.is_open = False
        answer = self._answer
        if answer is not None and reason.check(ConnectionDone):
            try:
                answer.end()
            except Cut:
                pass
            else:
                self._done(answer)
                return
        self._fail(reason)

    def close(self) -> None:
        """End it, without waiting for anybody."""
        self.is_open = False
        self.transport.abortConnection()

    def _give_up(self, asking: "Deferred[Answered]") -> None:
        self._asking = self._answer = None
        self.close()

    def _fail(self, error: Failure | Exception) -> None:
        asking, self._asking, self._answer = self._asking, None, None
        if self.is_open:
            self.close()
        if asking is not None:
            asking.errback(error)
