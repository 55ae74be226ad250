"""The rest of a connection whose requests are not of ordinary shape: Twisted's channel, with bounds."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IDelayedCall, ISSLTransport
from twisted.web import http

from pki.codes import Code
from pki.errors import Problem
from twisted_mesh.http.deadline import Deadline
from twisted_mesh.http.json import problem_body
from twisted_mesh.http.request import names_one_host, no_longer_accepted
from twisted_mesh.limits.connection_limit import Place

if TYPE_CHECKING:
    from twisted_mesh.http.server import BoundedSite

_TLS_HERE = Problem(
    Code.NOT_HTTP,
    "this port speaks plain HTTP, and the caller began with TLS",
    "write http://, or call the port that speaks TLS",
)


class BoundedChannel(http.HTTPChannel):
    """What of a connection is left to Twisted, within the same bounds.

    Its ``deadline`` and its ``place`` are the connection's, which gives them back.
    """

    transport: Any
    callLater: Callable[..., IDelayedCall]
    requestFactory: Any
    abortTimeout = 2
    refused = False
    _is_sending = False

    def __init__(
        self, site: "BoundedSite", deadline: Deadline, place: Place | None, leave_by: float
    ) -> None:
        super().__init__()
        self.factory = self.site = site
        self._leave_by = leave_by
        self.limits = site.limits
        self.callLater = site.reactor.callLater
        self.timeOut = None
        self.requestFactory = site.new_request
        self._deadline, self._place = deadline, place
        deadline.passed = self.out_of_time
        self._host: IAddress | None = None
        self._peer: IAddress | None = None
        self._is_idle = False

    def dataReceived(self, data: bytes) -> None:
        """Read what has come, line by line."""
        if self.refused:
            return
        if self._is_idle:
            self._is_idle = False
            self._deadline.within(self.limits.header_seconds)
        super().dataReceived(data)

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
        self._is_idle = False  # also where it came in one piece with the request before
        if self.length is not None and self.length > self.limits.body_bytes:
            self.refuse_body()
            return
        if not names_one_host(self._version, self.requests[-1].requestHeaders):
            self._respondToBadRequestAndDisconnect()
            return
        self._deadline.within(self.limits.body_seconds)
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
            self._deadline.within(None)
            if self._place is not None:
                self._place.serve()
            super().allContentReceived()

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """Whether the connection goes on after this request: not while the site drains, nor near the end."""
        if not self.site.is_left(self._leave_by):
            return bool(super().checkPersistence(request, version))
        request.setHeader(b"connection", b"close")
        return False

    def requestDone(self, request: http.Request) -> None:
        """The answer is sent: the seconds until the next request begin."""
        self._is_idle, self._is_sending = True, False
        self._deadline.within(self.limits.idle_seconds)
        if self._place is not None:
            self._place.rest()
        super().requestDone(request)

    def begin_to_send(self, size: int) -> None:
        """A body that takes a while is on its way, and has so long to arrive."""
        self._is_sending = True
        self._deadline.within(self.limits.seconds_for(size))

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

    def refuse_tls(self) -> None:
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
        self._deadline.within(self.abortTimeout)
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

    def out_of_time(self) -> None:
        """The present phase has not ended in time: 408, where anybody can still be told."""
        if self.refused or self._is_sending:
            self.transport.abortConnection()
            return
        self._refuse(b"408 Request Timeout", b"Content-Length: 0")


def _problem_head(body: bytes) -> bytes:
    return b"Content-Type: application/problem+json\r\nContent-Length: %d" % len(body)
