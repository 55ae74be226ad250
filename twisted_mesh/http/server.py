"""A site: what its connections have in common, and how it drains."""

from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IAddress, IReactorTime, ITransport
from twisted.web import http, resource, server

from twisted_mesh.http.channel import BoundedChannel
from twisted_mesh.http.connection import HttpConnection
from twisted_mesh.http.request import BoundedRequest
from twisted_mesh.limits.connection_limit import ConnectionLimit
from twisted_mesh.limits.rate_limit import LimitedLog, Rate, address_key
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import within
from twisted_mesh.tls.spoken_address import spoken_address

#: Whoever takes fewer bytes a second is not waited for.
_SLOWEST = 32 * 1024
#: Lines of the log for those who speak something else: they must not be able to fill the disk.
_LOGGED = Rate(1, 10)


@frozen
class Limits:
    """How long and how large a request may be; seconds and bytes."""

    header_seconds: float = 10.0
    """For the request line and all headers, counted from the first moment, not from the last byte."""
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    """How long a kept-alive connection may wait for its next request."""
    body_bytes: int = 64 * 1024

    def seconds_for(self, size: int) -> float:
        """How long an answer of ``size`` bytes may take to arrive."""
        return self.body_seconds + size / _SLOWEST


#: From a connection's transport to the key that it is counted by, and whether that was proven.
CallerKey = Callable[[ITransport], tuple[str, bool]]


def address_of_peer(transport: ITransport) -> tuple[str, bool]:
    """The :data:`CallerKey` of who has proven nothing: where it calls from."""
    return address_key(transport.getPeer()), False


class BoundedSite(server.Site):
    """A site of :class:`.HttpConnection`; nothing is logged per request but what resources log.

    ``connection_limit`` bounds its connections, which are counted by ``caller_key``. Over TLS it is
    :class:`~twisted_mesh.tls.security.Security` that has one, since handshakes count too.
    """

    requestFactory = BoundedRequest
    noisy = False
    answers_promptly = True
    """Whether what is sent on plain TCP is worth trying at once: answers are short."""

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
        self.connections: set[HttpConnection] = set()
        self.reads_whole = bool(getattr(root, "takes_whole_requests", False))
        """Whether requests of ordinary shape go to the resource past Twisted."""
        self.draining = False
        self.is_over = False
        """Whether nothing more is answered, also not to who was shaking hands until now."""
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
        """A connection within our limits, not Twisted's."""
        return HttpConnection(self)

    def is_left(self, leave_by: float) -> bool:
        """Whether answers are the last by now on a connection that is left then, a POSIX time."""
        return self.draining or time() >= leave_by

    def opened(self, connection: HttpConnection) -> None:
        """``connection`` has begun."""

    async def drain(self, seconds: float) -> int:
        """Let requests finish within so many seconds, then abort; how many had to be aborted."""
        self.draining = True
        for connection in tuple(self.connections):
            connection.finish()
        if self.connections:
            done: Deferred[None] = Deferred()
            self._drained.append(done)
            with suppress(TimeoutError):
                await within(self.reactor, seconds, done)
        self.is_over = True
        late = tuple(self.connections)
        for connection in late:
            connection.transport.abortConnection()
        return len(late)

    def closed(self, connection: HttpConnection) -> None:
        """``connection`` is gone."""
        self.connections.discard(connection)
        if not self.connections:
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
