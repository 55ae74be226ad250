"""A request that has arrived whole: what a resource of ours needs of Twisted's, and no more."""

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.http import parse_qs
from twisted.web.http_headers import Headers

from twisted_mesh.http.answer import THE_LAST, respond
from twisted_mesh.http.whole_head import Head

if TYPE_CHECKING:
    from twisted_mesh.http.connection import HttpConnection


class WholeRequest:
    """See :class:`~twisted_mesh.http.request.SiteRequest`."""

    clientproto = b"HTTP/1.1"
    is_gone = False

    def __init__(self, channel: "HttpConnection", head: Head, body: bytes) -> None:
        self.channel = channel
        self.method = head.method
        self.uri = head.target
        self._body = body
        self.path, self._question, self._asked = head.target.partition(b"?")
        self._head = head
        self._answers_with: Headers | None = None
        self._finished: list[Deferred[None]] = []

    @property
    def body(self) -> bytes:
        """All of it."""
        return self._body

    @property
    def args(self) -> dict[bytes, list[bytes]]:
        """The parameters, each with its values; read anew each time."""
        found: dict[bytes, list[bytes]] = parse_qs(self._asked, 1) if self._question else {}
        return found

    @property
    def requestHeaders(self) -> Headers:
        """All that is said before the body."""
        return self._head.shared

    def getHeader(self, name: bytes) -> bytes | None:
        """The last of what is said under ``name``, which is in lower case."""
        return self._head.last.get(name)

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Say it before the answer."""
        if self._answers_with is None:
            self._answers_with = Headers()
        elif self._answers_with is THE_LAST:
            self._answers_with = THE_LAST.copy()
        self._answers_with.setRawHeaders(name, [value])

    def close_after(self) -> None:
        """Let this answer be the last one on the connection."""
        if self._answers_with is None:
            self._answers_with = THE_LAST
        else:
            self.setHeader(b"connection", b"close")
        self.channel.persistent = False

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        """Send one whole answer in one piece, and be done."""
        respond(self, self._answers_with, status, body, content_type)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """What produces the body; it is always streaming."""
        self.channel.producer = producer

    def unregisterProducer(self) -> None:
        """The body is whole."""
        self.channel.producer = None

    def finish(self) -> None:
        """The answer is given."""
        finished, self._finished = self._finished, []
        for deferred in finished:
            deferred.callback(None)
        self.channel.request_done()

    def notifyFinish(self) -> "Deferred[None]":
        """Fires with the answer; fails where the connection is lost before it."""
        deferred: Deferred[None] = Deferred()
        self._finished.append(deferred)
        return deferred

    def lost(self, reason: Failure) -> None:
        """The caller has gone: what is answered from now on goes nowhere."""
        self.is_gone = True
        finished, self._finished = self._finished, []
        for deferred in finished:
            deferred.errback(reason)
