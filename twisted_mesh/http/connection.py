"""A connection that speaks HTTP/1.1: whole requests of ordinary shape are read here, all else is left to Twisted."""

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.errors import ANY_ERROR, Problem
from twisted_mesh.http.channel import BoundedChannel
from twisted_mesh.http.deadline import Deadline
from twisted_mesh.http.request import broken
from twisted_mesh.http.whole_head import Head, read_head
from twisted_mesh.http.whole_request import WholeRequest
from twisted_mesh.interfaces import IFinishing
from twisted_mesh.limits.connection_limit import Place
from twisted_mesh.runtime.reach import spoken_in

if TYPE_CHECKING:
    from twisted_mesh.http.server import BoundedSite

#: What may come while an answer is on its way, before no more is read.
_EAGER = 16 * 1024


@implementer(IProtocol, IPushProducer, IFinishing)
class HttpConnection:
    """Every phase of it has an absolute deadline.

    Once something has been left to Twisted's channel, the rest of the connection is.
    """

    transport: Any
    connected = 0
    persistent = True
    """Whether it goes on after the present answer."""
    leave_by = inf
    """The POSIX time from which on each answer is the last: the caller is to come again before the connection ends."""
    producer: Any = None
    """What produces the present answer."""
    _channel: BoundedChannel | None = None
    """Twisted's, once it is needed."""
    _request: WholeRequest | None = None
    """What is being answered."""
    _waiting = b""
    """What has come and is not answered yet."""
    _head: Head | None = None
    """Of the request whose body is still to come."""
    _place: Place | None = None
    _host: IAddress | None = None
    _peer: IAddress | None = None
    _has_spoken = False
    _is_refused = False
    _is_idle = False
    """Whether an answer was the last thing."""
    _is_reading = False
    _is_full = False
    """Whether more is on its way to the caller than it reads."""
    _is_paused = False
    _is_kept = False
    """Whether one request was answered, and others are expected."""

    def __init__(self, site: "BoundedSite") -> None:
        self.site = site
        self.limits = site.limits
        self.deadline = Deadline(site.reactor, self._out_of_time)

    def makeConnection(self, transport: Any) -> None:
        """Take a place, and begin to count the seconds for the first head; without a place, hang up."""
        self.transport, self.connected = transport, 1
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self.site.connections.add(self)
        if self._find_place():
            self.deadline.within(self.limits.header_seconds)
            self.connectionMade()
        else:
            self._is_refused = True
            transport.abortConnection()

    def connectionMade(self) -> None:
        """It begins."""
        self.site.opened(self)

    def _find_place(self) -> bool:
        """Whether there is room for this connection. One over TLS has its place from below."""
        if self.site.is_over:
            return False
        self._place = getattr(self.transport, "place", None)
        if self._place is None and self.site.connection_limit is not None:
            key, is_proven = self.site.caller_key(self.transport)
            self._place = self.site.connection_limit.admit(key, is_proven=is_proven)
            if self._place is None:
                return False
            self._place.hang_up = self.transport.abortConnection
        return True

    # what comes

    def dataReceived(self, data: bytes | memoryview) -> None:
        """Answer what is whole by now."""
        data = bytes(data)
        if self._channel is not None:
            self._channel.dataReceived(data)
            return
        if self._is_refused or not self.persistent:
            return
        if not self._has_spoken:
            self._has_spoken = True
            if self._place is not None:
                self._place.speak()
            if spoken_in(data) == "TLS" and not ISSLTransport.providedBy(self.transport):
                self._left_to_twisted().refuse_tls()
                return
        self._waiting = self._waiting + data if self._waiting else data
        if self._request is not None:
            if len(self._waiting) > _EAGER:
                self._pause()
            return
        self._read()
        if self._is_idle and self._waiting:  # it may not be read yet
            self._is_idle = False
            self.deadline.within(self.limits.header_seconds)

    def _read(self) -> None:
        """Answer one request after the other, as long as each is whole and answered at once."""
        if self._is_reading:
            return
        self._is_reading = True
        data, at = self._waiting, 0
        try:
            while self._may_read and at < len(data):
                head = self._head or read_head(data, at)
                if (
                    head is None
                    or head.length > self.limits.body_bytes
                    or not self.site.reads_whole
                ):
                    self._waiting = data[at:]
                    self._leave_to_twisted()
                    return
                end = at + head.size + head.length
                if end > len(data):
                    self._wait_for_body(head)
                    break
                body = data[at + head.size : end] if head.length else b""
                at = end
                self._head = None
                self._answer(WholeRequest(self, head, body), head)
                if len(self._waiting) > len(data):  # more has come meanwhile
                    data = self._waiting
        finally:
            self._is_reading = False
            if self._channel is None:
                self._waiting = self._waiting[at:] if self.persistent else b""

    @property
    def _may_read(self) -> bool:
        return (
            self._request is None
            and self.persistent
            and not (self._is_refused or self._is_full or self.transport.disconnecting)
        )

    def _wait_for_body(self, head: Head) -> None:
        if self._head is None:
            self._head = head
            self._is_idle = False
            self.deadline.within(self.limits.body_seconds)

    def _answer(self, request: WholeRequest, head: Head) -> None:
        self._request = request
        self._is_idle = False  # also where it came in one piece with the request before
        if head.is_last or self.site.is_left(self.leave_by):
            request.close_after()
        self.deadline.within(None)
        try:
            self.site.resource.render(request)
        except ANY_ERROR:
            broken(request)
        if self._request is request and self._place is not None:
            self._place.serve()  # nobody can have been looking for room until now

    def request_done(self) -> None:
        """The answer is sent: the seconds until the next request begin."""
        self._request = None
        self._is_idle = True
        self.deadline.within(self.limits.idle_seconds)
        if self._place is not None:
            self._place.rest()
        if not self.persistent:
            self._close()
            return
        if self._is_paused and not self._is_full:
            self._resume()
        if not self._is_kept:
            self._is_kept = True
            lend = getattr(self.transport, "lend", None)
            if lend is not None:
                lend()
        if self._waiting:
            self._read()

    # what goes

    def write(self, data: bytes) -> None:
        """Send it."""
        self.transport.write(data)

    def begin_to_send(self, size: int) -> None:
        """A body that takes a while is on its way, and has so long to arrive."""
        self.deadline.within(self.limits.seconds_for(size))

    def pauseProducing(self) -> None:
        """The caller does not read: nothing more is answered, and nothing more is read."""
        self._is_full = True
        if self.producer is not None:
            self.producer.pauseProducing()
        if self._request is None:
            self._pause()

    def resumeProducing(self) -> None:
        """The caller has read."""
        self._is_full = False
        if self.producer is not None:
            self.producer.resumeProducing()
        if self._request is None:
            self._resume()
            self._read()

    def stopProducing(self) -> None:
        """The connection is gone."""
        if self.producer is not None:
            self.producer.stopProducing()

    def _pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self.transport.resumeProducing()

    # how it ends

    def _close(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def finish(self, refusal: Problem | None = None) -> None:
        """Serve what is being served, then close; at once where nothing is.

        A request that is still arriving is served too; after a ``refusal`` it gets 403 for an answer.
        """
        if self._channel is None and self._request is None and self._waiting:
            self._leave_to_twisted()
        if self._channel is not None:
            self._channel.finish(refusal)
        elif self._is_refused:
            return  # and closing
        elif self._request is not None:
            self._request.close_after()
        else:
            self.persistent = False
            self._close()

    def _out_of_time(self) -> None:
        if self._request is not None:  # its answer is not read
            self.transport.abortConnection()
            return
        self._left_to_twisted().out_of_time()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give back the place and the timer."""
        self.connected = 0
        self.deadline.stop()
        if self._place is not None:
            self._place.leave()
        if self._channel is not None:
            self._channel.connectionLost(reason)
        if self._request is not None:
            self._request.lost(reason)
        self.site.closed(self)

    # what is left to Twisted

    def _left_to_twisted(self) -> BoundedChannel:
        """Twisted's channel, which has the rest of the connection."""
        self.transport.unregisterProducer()
        channel = BoundedChannel(self.site, self.deadline, self._place, self.leave_by)
        self._channel = channel
        channel.makeConnection(self.transport)
        return channel

    def _leave_to_twisted(self) -> None:
        waiting, self._waiting = self._waiting, b""
        if self._is_idle:
            self.deadline.within(self.limits.header_seconds)
        self._left_to_twisted().dataReceived(waiting)

    def getHost(self) -> IAddress:
        """Our address."""
        if self._host is None:  # the system is asked once, not for each request
            self._host = self.transport.getHost()
        return self._host

    def getPeer(self) -> IAddress:
        """The caller's address."""
        if self._peer is None:
            self._peer = self.transport.getPeer()
        return self._peer
