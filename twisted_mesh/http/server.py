"""HTTP/1.1 connections with bounds: absolute deadlines, capped bodies."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web import http, resource, server
from zope.interface import implementer

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.http.fast_request import can_be_handed_over, read_fast
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.request import BoundedRequest, names_one_host, no_longer_accepted
from twisted_mesh.interfaces import IFinishing
from twisted_mesh.limits.connection_limit import ConnectionLimit, Place
from twisted_mesh.limits.rate_limit import LimitedLog, Rate, address_key
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.reach import spoken_in
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.connection import spoken_address

T = TypeVar("T")
#: Whether whole requests are read at once; else line by line, where Twisted's own names are not those we know.
reads_whole = can_be_handed_over(http.HTTPChannel, LineReceiver)
#: Whoever takes fewer bytes a second is not waited for.
_SLOWEST = 32 * 1024
#: Lines of the log for those who speak something else: they must not be able to fill the disk.
_LOGGED = Rate(1, 10)
_TLS_HERE = Problem(
    Code.NOT_HTTP,
    "this port speaks plain HTTP, and the caller began with TLS",
    "write http://, or call the port that speaks TLS",
)


@frozen
class Limits:
    """How long and how large a request may be; seconds and bytes."""

    header_seconds: float = 10.0
    """For the request line and all headers, counted from the first moment, not from the last byte."""
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    """How long a kept-alive connection may wait for its next request."""
    body_bytes: int = 64 * 1024


@implementer(IFinishing)
class BoundedChannel(http.HTTPChannel):
    """An HTTP/1.1 connection whose every phase has an absolute deadline."""

    transport: Any
    callLater: Callable[..., IDelayedCall]
    seconds: Callable[[], float]
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
    _host: IAddress | None = None
    _peer: IAddress | None = None

    def serve(self, site: "BoundedSite", reactor: IReactorTime) -> None:
        """What http.HTTPFactory.buildProtocol sets, but for its idle timer."""
        self.factory = self.site = site
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.timeOut = None
        self.requestFactory = site.new_request

    def connectionMade(self) -> None:
        """Take a place, and begin to count the seconds for the first header; without a place, hang up."""
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
        if self._place is None and self.site.connection_limit is not None:
            key, is_proven = self.site.caller_key(self.transport)
            self._place = self.site.connection_limit.admit(key, is_proven=is_proven)
            if self._place is None:
                return False
            self._place.hang_up = self.transport.abortConnection
        return True

    def dataReceived(self, data: bytes) -> None:
        """Read what has come: as one whole request where it is one, else line by line."""
        if self.refused:
            return
        if self._idle:
            self._idle = False
            self._within(self.limits.header_seconds)
        elif not self._has_spoken:
            self._has_spoken = True
            if self._place is not None:
                self._place.speak()
            if spoken_in(data) == "TLS" and not ISSLTransport.providedBy(self.transport):
                self._refuse_tls()
                return
        if not self._received_whole(data):
            super().dataReceived(data)

    def _received_whole(self, data: bytes) -> bool:
        """Whether this was a request in one piece between two others, which has been handled now.

        What Twisted does with each of its lines is done with all of them; the rest is Twisted's.
        """
        if not reads_whole:
            return False
        if self.requests or self._buffer or self._busyReceiving or not self.persistent:
            return False
        whole = None if self.transport.disconnecting else read_fast(data)
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

    def getHost(self) -> IAddress:
        """Our address."""
        if self._host is None:  # the system is asked once, not for each request
            self._host = super().getHost()
        return self._host

    def getPeer(self) -> IAddress:
        """The caller's address."""
        if self._peer is None:
            self._peer = super().getPeer()
        return self._peer

    def lineReceived(self, line: bytes) -> None:
        """A line of a head, unless the caller was refused already. None continues another (RFC 9112 section 5.2)."""
        if line[:1] in (b" ", b"\t"):
            self._respondToBadRequestAndDisconnect()
        elif not self.refused:
            super().lineReceived(line)

    def headerReceived(self, line: bytes) -> bool:
        """A header; whether it can be used. Else the answer is 400."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length of more digits than int() takes
            self._respondToBadRequestAndDisconnect()
            return False

    def allHeadersReceived(self) -> None:
        """The head is whole: the seconds for the body begin, unless it is said to be too long."""
        self._idle = False  # also where it came in one piece with the request before
        if self.length is not None and self.length > self.limits.body_bytes:
            self.refuse_body()
            return
        if not names_one_host(self._version, self.requests[-1].requestHeaders):
            self._respondToBadRequestAndDisconnect()
            return
        self._within(self.limits.body_seconds)
        super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        """A part of a body, unless the caller was refused already, or says itself that more is to come than we take."""
        if self.refused:
            return
        super().rawDataReceived(data)
        if self._announced() > self.limits.body_bytes and not self.refused:
            self.refuse_body()

    def _announced(self) -> int:
        """How much of the present chunk is still to come (RFC 9112 section 7.1). Without these names of Twisted's
        nobody is refused before it has come."""
        left: int = getattr(getattr(self, "_transferDecoder", None), "length", None) or 0
        return left

    def allContentReceived(self) -> None:
        """The request is whole: no deadline while it is served, and no time to make room."""
        if not self.refused:
            self._within(None)
            if self._place is not None:
                self._place.serve()
            super().allContentReceived()

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Whether the connection goes on after this request: not while the site drains."""
        if not self.site.draining:
            return bool(super().checkPersistence(request, version))
        request.setHeader(b"connection", b"close")
        return False

    def requestDone(self, request: http.Request) -> None:
        """The answer is sent: the seconds until the next request begin."""
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
        # Without that name of Twisted's, what arrives is served like what has arrived.
        is_served = getattr(self, "_handlingRequest", True)
        if refusal is not None and self.requests and not is_served:
            body = no_longer_accepted(refusal)
            self._refuse(b"403 Forbidden", _problem_head(body), body)
            return
        for request in self.requests:
            request.setHeader(b"connection", b"close")
        self.persistent = False
        if not self.requests:
            self.loseConnection()

    def _refuse_tls(self) -> None:
        """Answer 400 to a ClientHello, which has no end of a line to be waited for."""
        self.site.log_tls(self.getPeer())
        body = problem_body(400, _TLS_HERE.code, _TLS_HERE.detail, [_TLS_HERE])
        self._refuse(b"400 Bad Request", _problem_head(body), body)

    def refuse_body(self) -> None:
        """Answer 413 now, and use no more of what comes."""
        limit = self.limits.body_bytes
        body = problem_body(413, Code.TOO_LARGE, f"a request body has at most {limit} bytes here")
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
        """Answer 400 to a line that is too long."""
        self._respondToBadRequestAndDisconnect()

    def _respondToBadRequestAndDisconnect(self) -> None:
        if not self.refused:
            self._refuse(b"400 Bad Request", b"Content-Length: 0")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give back the place and the timer."""
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


#: From a connection's transport to the key that it is counted by, and whether that was proven.
CallerKey = Callable[[ITransport], tuple[str, bool]]


def address_of_peer(transport: ITransport) -> tuple[str, bool]:
    """The :data:`CallerKey` of who has proven nothing: where it calls from."""
    return address_key(transport.getPeer()), False


class BoundedSite(server.Site):
    """A site of :class:`BoundedChannel`; nothing is logged per request but what resources log.

    ``connection_limit`` bounds its connections, which are counted by ``caller_key``. Over TLS it is
    :class:`~twisted_mesh.tls.security.Security` that has one, since handshakes count too.
    """

    requestFactory = BoundedRequest
    channelClass: type[BoundedChannel] = BoundedChannel
    noisy = False

    def __init__(
        self,
        root: resource.IResource,
        reactor: IReactorTime,
        limits: Limits | None = None,
        connection_limit: ConnectionLimit | None = None,
        caller_key: CallerKey = address_of_peer,
    ) -> None:
        # We take JSON; else Twisted makes a mail message of every POST, to see whether it is a form.
        super().__init__(root, reactor=reactor, parsePOSTFormSubmission=False)
        self.limits = limits or Limits()
        self.connection_limit = connection_limit
        self.caller_key = caller_key
        self.timeOut = None  # an idle timer is no bound; ours are
        self.displayTracebacks = False
        self.channels: set[BoundedChannel] = set()
        self.draining = False
        self._drained: list[Deferred[None]] = []
        self._strangers = LimitedLog(logger("http"), _LOGGED, reactor.seconds)

    def log_tls(self, address: IAddress) -> None:
        """Say that somebody speaks TLS here, where nobody else does."""
        self._strangers.warn(
            "Connection from {address} refused: it speaks TLS, and this port plain HTTP: it should call the port that "
            "speaks TLS, or write http://",
            event="tls-on-plain-port",
            address=spoken_address(address),
        )

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A channel within our limits, not Twisted's."""
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
        """A request of ``channel``; Twisted says besides whether others are queued."""
        request = BoundedRequest(channel, parsePOSTFormSubmission=False)
        request.site = self
        return request

    def log(self, request: http.Request) -> None:
        """No access log: formatting a line nobody reads costs a third of a request."""


def _problem_head(body: bytes) -> bytes:
    return b"Content-Type: application/problem+json\r\nContent-Length: %d" % len(body)
