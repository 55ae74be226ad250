"""HTTP/1.1 with bounds: absolute deadlines, capped bodies, whole answers."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from time import time
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes as unquote

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, TimeoutError
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import http, resource, server
from twisted.web.client import ResponseDone
from twisted.web.http import NOT_MODIFIED, RESPONSES, datetimeToString
from twisted.web.iweb import IResponse
from zope.interface import implementer

from pki.errors import Problem
from twisted_mesh._tasks import within
from twisted_mesh.admission import Admission, Place
from twisted_mesh.documents import problem_body
from twisted_mesh.interfaces import IFinishing
from twisted_mesh.limits import stranger
from twisted_mesh.whole_request import read_whole

T = TypeVar("T")
#: Bodies are sent in pieces of so many bytes.
_PIECE = 64 * 1024
#: Whoever takes fewer bytes a second is not waited for.
_SLOWEST = 32 * 1024


@frozen
class Limits:
    """How long and how large a request may be; seconds and bytes."""

    header_seconds: float = 10.0
    """For the request line and all headers, counted from the first moment, not from the last byte."""
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    """How long a kept-alive connection may wait for its next request."""
    body_bytes: int = 64 * 1024


class BoundedRequest(server.Request):
    """A request whose body is capped while it arrives, chunked or not."""

    channel: "BoundedChannel"
    is_gone = False
    """Whether the connection was lost before the answer."""
    _received = 0

    def process(self) -> None:
        """Straight to a resource that is the site's only one; the detour is for trees of them."""
        root = self.channel.site.resource
        if not root.isLeaf or self.path == b"*":
            super().process()
            return
        self.site = self.channel.site
        self.prepath, self.postpath = [], [*map(unquote, self.path[1:].split(b"/"))]
        try:
            self.render(root)
        except Exception:
            self.processingFailed(Failure())

    def connectionLost(self, reason: Failure) -> None:
        self.is_gone = True
        super().connectionLost(reason)

    def write(self, data: bytes) -> None:
        """For Twisted's own answers; ours are written by :meth:`respond`."""
        if not self.startedWriting:
            self.setHeader(b"server", server.version)
            self.setHeader(b"date", _date(int(time())))
        super().write(data)

    def close_after(self) -> None:
        """Let this answer be the last one on the connection."""
        self.setHeader(b"connection", b"close")
        self.channel.persistent = False

    def respond(self, status: int, body: bytes, content_type: str) -> None:
        """Send one whole answer in one piece, and be done."""
        lines = [
            b"%s %d %s" % (self.clientproto, status, RESPONSES.get(status, b"Unknown Status")),
            b"Server: " + server.version,
            b"Date: " + _date(int(time())),
        ]
        for name, values in self.responseHeaders.getAllRawHeaders():
            lines += [b"%s: %s" % (name, value) for value in values]
        if not self.responseHeaders.hasHeader(b"cache-control"):
            lines.append(b"Cache-Control: no-store")
        if status != NOT_MODIFIED:  # which is about what the caller has
            lines.append(b"Content-Type: " + content_type.encode("ascii"))
            lines.append(b"Content-Length: %d" % len(body))
        lines.append(b"\r\n")
        self.code = status
        self.startedWriting = 1
        head = b"\r\n".join(lines)
        if self.method == b"HEAD" or status == NOT_MODIFIED:
            self.channel.write(head)
        elif len(body) <= _PIECE:
            self.channel.write(head + body)
        else:
            self.channel.write(head)
            self.channel.begin_to_send(len(body))
            pieces = _Pieces(self, body)
            self.registerProducer(pieces, True)
            pieces.resumeProducing()
            return
        self.finish()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self.channel.refused:
            return
        if self._received > self.channel.limits.body_bytes:
            self.channel.refuse_body()
        else:
            super().handleContentChunk(data)


@implementer(IPushProducer)
class _Pieces:
    """A long body on its way, in pieces: its callers share it, however slowly they read."""

    def __init__(self, request: BoundedRequest, body: bytes) -> None:
        self._request: BoundedRequest | None = request
        self._left = memoryview(body)
        self._is_paused = False

    def resumeProducing(self) -> None:
        self._is_paused = False
        while (request := self._request) is not None and not self._is_paused:
            if request.is_gone:
                return
            piece, self._left = self._left[:_PIECE], self._left[_PIECE:]
            request.channel.write(bytes(piece))
            if not self._left:
                self._request = None
                request.unregisterProducer()
                request.finish()

    def pauseProducing(self) -> None:
        self._is_paused = True

    def stopProducing(self) -> None:
        """The connection is gone."""
        self._request = None


@implementer(IFinishing)
class BoundedChannel(http.HTTPChannel):
    """An HTTP/1.1 connection whose every phase has an absolute deadline."""

    transport: Any
    callLater: Any
    seconds: Any
    requestFactory: Any
    limits: Limits
    site: "BoundedSite"
    abortTimeout = 2
    refused = False
    _deadline: float | None = None
    """When the present phase has to be over, in the reactor's time; None for one that may last."""
    _timer: IDelayedCall | None = None
    """Goes off at the deadline or before."""
    _idle = False
    _is_sending = False
    _place: Place | None = None
    _has_spoken = False
    _host: Any = None
    _peer: Any = None

    def serve(self, site: "BoundedSite", reactor: Any) -> None:
        """What http.HTTPFactory.buildProtocol sets, but for its idle timer."""
        self.factory = self.site = site
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.timeOut = None
        self.requestFactory = site.new_request

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.channels.add(self)
        if self._find_place():
            self._within(self.limits.header_seconds)
        else:
            self.refused = True
            self.transport.abortConnection()

    def _find_place(self) -> bool:
        """Whether there is room for this connection. One over TLS has its place from below."""
        self._place = getattr(self.transport, "place", None)
        if self._place is None and self.site.admission is not None:
            key, is_proven = self.site.whose(self.transport)
            self._place = self.site.admission.admit(key, is_proven=is_proven)
            if self._place is None:
                return False
            self._place.hang_up = self.transport.abortConnection
        return True

    def dataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        if self._idle:
            self._idle = False
            self._within(self.limits.header_seconds)
        elif not self._has_spoken:
            self._has_spoken = True
            if self._place is not None:
                self._place.speak()
        if not self._received_whole(data):
            super().dataReceived(data)

    def _received_whole(self, data: bytes) -> bool:
        """Whether this was a request in one piece between two others, which has been handled now.

        What Twisted does with each of its lines is done with all of them; the rest is Twisted's.
        """
        if self.requests or self._buffer or self._busyReceiving or not self.persistent:
            return False
        whole = None if self.transport.disconnecting else read_whole(data)
        if whole is None:
            return False
        request = self.requestFactory(self)
        self.requests.append(request)
        for name, value in whole.headers:
            request.requestHeaders.addRawHeader(name, value)
        self._command, self._path, self._version = whole.method, whole.target, b"HTTP/1.1"
        self.length = len(whole.body)
        self.allHeadersReceived()
        if whole.body and not self.refused:
            request.handleContentChunk(whole.body)
        self.allContentReceived()
        return True

    def getHost(self) -> Any:
        if self._host is None:  # the system is asked once, not for each request
            self._host = super().getHost()
        return self._host

    def getPeer(self) -> Any:
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than int() takes
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        self._idle = False  # also where it came in one piece with the request before
        if self.length is not None and self.length > self.limits.body_bytes:
            self.refuse_body()
            return
        self._within(self.limits.body_seconds)
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self.refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if not self.refused:
            self._within(None)
            if self._place is not None:
                self._place.serve()
            super().allContentReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        if not self.site.draining:
            return bool(super().checkPersistence(request, version))
        request.setHeader(b"connection", b"close")
        return False

    def requestDone(self, request: Any) -> None:
        self._idle, self._is_sending = True, False
        self._within(self.limits.idle_seconds)
        if self._place is not None:
            self._place.rest()
        super().requestDone(request)

    def begin_to_send(self, size: int) -> None:
        """A body that takes a while is on its way, and has so long to arrive."""
        self._is_sending = True
        self._within(self.limits.body_seconds + size / _SLOWEST)

    def finish(self, refusal: Problem | None = None) -> None:
        """Serve what is being served, then close; at once where nothing is.

        A request that is still arriving is served too; after a ``refusal`` it gets 403 for an answer.
        """
        if self.refused:
            return  # and closing
        if refusal is not None and self.requests and not self._handlingRequest:
            body = no_longer_accepted(refusal)
            self._refuse(b"403 Forbidden", _problem_head(body), body)
            return
        for request in self.requests:
            request.setHeader(b"connection", b"close")
        self.persistent = False
        if not self.requests:
            self.loseConnection()

    def refuse_body(self) -> None:
        """Answer 413 now, and use no more of what comes."""
        limit = self.limits.body_bytes
        body = problem_body(413, "too-large", f"a request body has at most {limit} bytes here")
        self._refuse(b"413 Content Too Large", _problem_head(body), body)

    def _refuse(self, status: bytes, head: bytes, body: bytes = b"") -> None:
        """Answer, and hang up once the peer has, or is given up.

        Until then what it still sends is read and dropped: a socket that is closed with bytes
        unread resets the connection, and the reset may overtake the answer.
        """
        self.refused = True
        self.transport.write(
            b"HTTP/1.1 %s\r\nConnection: close\r\n%s\r\n\r\n%s" % (status, head, body)
        )
        self._within(self.abortTimeout)
        if ISSLTransport.providedBy(self.transport):
            self.loseConnection()  # TLS reads on until the peer has said goodbye too
        else:
            self.transport.loseWriteConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if not self.refused:
            self._refuse(b"400 Bad Request", b"Content-Length: 0")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._within(None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._place is not None:
            self._place.leave()
        super().connectionLost(reason)
        self.site.closed(self)

    def _within(self, seconds: float | None) -> None:
        """The present phase ends within so many seconds, or the connection does.

        Most phases are over long before: a timer that goes off too soon is set anew then, which is
        seldom, and not at each phase.
        """
        if seconds is None:
            self._deadline = None
            return
        self._deadline = deadline = self.seconds() + seconds
        if self._timer is not None:
            if self._timer.getTime() <= deadline:
                return
            self._timer.cancel()
        self._timer = self.callLater(seconds, self._timed)

    def _timed(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self.seconds()
        if left > 0:
            self._timer = self.callLater(left, self._timed)
        else:
            self._out_of_time()

    def _out_of_time(self) -> None:
        self._deadline = None
        if self.refused or self._is_sending:
            self.transport.abortConnection()
            return
        self._refuse(b"408 Request Timeout", b"Content-Length: 0")


#: From a connection's transport to whose it is, and whether that is proven.
Whose = Callable[[Any], tuple[str, bool]]


def a_strangers(transport: Any) -> tuple[str, bool]:
    return stranger(transport.getPeer()), False


class BoundedSite(server.Site):
    """A site of :class:`BoundedChannel`; nothing is logged per request but what resources log.

    ``admission`` bounds its connections, which are those of ``whose`` word. Over TLS it is
    :class:`~twisted_mesh.tls.transport.Security` that has one, since handshakes count too.
    """

    requestFactory = BoundedRequest
    channelClass: type[BoundedChannel] = BoundedChannel
    noisy = False

    def __init__(
        self,
        root: resource.IResource,
        reactor: Any,
        limits: Limits | None = None,
        admission: Admission | None = None,
        whose: Whose = a_strangers,
    ) -> None:
        # We take JSON; else Twisted makes a mail message of every POST, to see whether it is a form.
        super().__init__(root, reactor=reactor, parsePOSTFormSubmission=False)
        self.limits = limits or Limits()
        self.admission = admission
        self.whose = whose
        self.timeOut = None  # an idle timer is no bound; ours are
        self.displayTracebacks = False
        self.channels: set[BoundedChannel] = set()
        self.draining = False
        self._drained: list[Deferred[None]] = []

    def buildProtocol(self, addr: Any) -> Any:
        channel = self.channelClass()
        channel.limits = self.limits
        channel.serve(self, self.reactor)
        return channel

    async def drain(self, seconds: float) -> int:
        """Let requests finish within so many seconds, then abort; how many had to be aborted."""
        self.draining = True
        for channel in tuple(self.channels):
            channel.finish()
        if self.channels:
            done: Deferred[None] = Deferred()
            self._drained.append(done)
            with suppress(TimeoutError):
                await within(self.reactor, seconds, done)
        late = tuple(self.channels)
        for channel in late:
            channel.transport.abortConnection()
        return len(late)

    def closed(self, channel: BoundedChannel) -> None:
        """A channel is gone."""
        self.channels.discard(channel)
        if not self.channels:
            waiting, self._drained = self._drained, []
            for deferred in waiting:
                deferred.callback(None)

    def new_request(self, channel: BoundedChannel, queued: object = None) -> BoundedRequest:
        request = BoundedRequest(channel, parsePOSTFormSubmission=False)
        request.site = self
        return request

    def log(self, request: Any) -> None:
        """No access log: formatting a line nobody reads costs a third of a request."""


def answer(
    request: BoundedRequest,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send one whole answer."""
    for name, value in (headers or {}).items():
        request.setHeader(name.encode(), value.encode())
    request.respond(status, body, content_type)


def no_longer_accepted(problem: Problem) -> bytes:
    """What a caller reads on a connection that was opened while its certificate was still good."""
    detail = (
        "the certificate of this connection is no longer accepted here: connect with a good one"
    )
    return problem_body(403, problem.code, detail)


def _problem_head(body: bytes) -> bytes:
    return b"Content-Type: application/problem+json\r\nContent-Length: %d" % len(body)


@lru_cache(maxsize=4)
def _date(moment: int) -> bytes:
    """A POSIX time as HTTP writes it (RFC 9110 section 5.6.7)."""
    date: bytes = datetimeToString(moment)
    return date


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
