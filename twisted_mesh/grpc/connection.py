"""An HTTP/2 connection under gRPC, of either side: frames by h2, what is sent by the peer's credit, floods ended."""

from typing import Any, ClassVar

from attrs import frozen
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    Event,
    RemoteSettingsChanged,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error, NoSuchStreamError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.errors import ANY_ERROR, printable
from twisted_mesh.grpc.frame_guard import BadFrame, FrameGuard
from twisted_mesh.grpc.stream import Headers, Outlet
from twisted_mesh.runtime.log import logger

log = logger("grpc")
#: Of the whole connection, in bytes: one stream that nobody reads must not stop the others.
_WINDOW = 1024 * 1024
#: The bytes with which a client begins (RFC 9113 section 3.4).
_PREFACE = 24
#: For the last words of a connection to be read.
_LEAVE_SECONDS = 5


@frozen
class Limits:
    """How much the other side may send and leave unread; bytes, seconds and counts."""

    message_bytes: int = 256 * 1024
    """Of one message that comes."""
    queued_bytes: int = 16 * 1024 * 1024
    """Of one call: messages that wait to be sent, as the peer reads none."""
    header_bytes: int = 16 * 1024
    """Of all headers of one call, as RFC 9113 section 6.5.2 counts them."""
    streams: int = 1024
    """Of one connection at once; more break the protocol, and end it."""
    idle_frames: int = 200
    """Of one second and connection: pings, resets, settings and others that carry nothing."""
    calls_of_caller: int = 100
    """Open at once, of one caller, over all its connections."""
    connections: int = 4096
    """At once, of everybody."""
    connections_of_caller: int = 16
    hello_seconds: float = 10.0
    """Until HTTP/2 is spoken."""
    request_seconds: float = 30.0
    """Until the first message of a call is there."""
    idle_seconds: float = 300.0
    """Of a connection without a call."""
    stalled_seconds: float = 120.0
    """Of a connection whose peer reads nothing, while its buffer is full."""


class _H2(H2Connection):
    #: Streams that are over and remembered, of each connection; h2's own number is 65,536.
    MAX_CLOSED_STREAMS = 1024


@implementer(IPushProducer)
class GrpcConnection(Protocol):
    """What both sides share. A subclass has :meth:`happened` for each event, and :meth:`ended` for the end."""

    transport: Any
    client_side: ClassVar[bool]
    is_lost = False
    has_spoken = False
    """Whether a frame has come."""

    def __init__(self, reactor: IReactorTime, limits: Limits) -> None:
        self.reactor = reactor
        self.limits = limits
        self.h2 = _H2(H2Configuration(client_side=self.client_side, header_encoding=None))
        self.h2.local_settings = Settings(
            client=self.client_side,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            },
        )
        self.h2.decoder.max_header_list_size = limits.header_bytes
        self._ready: dict[int, Outlet] = {}
        self._blocked: dict[int, Outlet] = {}
        """Without credit."""
        self._is_full = False
        self.full_since: float | None = None
        """Since when the peer has read nothing while there was much for it."""
        self._guard = FrameGuard(
            0 if self.client_side else _PREFACE, limits.header_bytes, limits.idle_frames
        )
        self._is_pumping = False
        self._abort: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Say that HTTP/2 is spoken here."""
        self.transport.registerProducer(self, True)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(_WINDOW)
        self.pump()

    def dataReceived(self, data: bytes) -> None:
        """Whatever comes: a peer that breaks the protocol is told by GOAWAY, and hung up on."""
        if self.is_lost:
            return
        try:
            self._guard.feed(data, self.reactor.seconds())
            for event in self.h2.receive_data(data):
                if not self._note(event):
                    return
        except BadFrame as error:
            log.debug("a gRPC peer goes too far: {error}", event="grpc-limit", error=str(error))
            self.close(error.code)
        except H2Error as error:
            self.broken(error)
        except ANY_ERROR:
            log.failure("a gRPC connection broke", event="grpc-broke")
            self.abort()
        else:
            self.pump()

    def _note(self, event: Event) -> bool:
        """Whether there is still a connection after it."""
        self.has_spoken = True
        if isinstance(event, WindowUpdated):
            if event.stream_id:
                if outlet := self._blocked.pop(event.stream_id, None):
                    self._ready[event.stream_id] = outlet
            else:
                self._unblock()
        elif isinstance(event, RemoteSettingsChanged):
            self._unblock()
        else:
            if isinstance(event, StreamReset):
                self.forget(event.stream_id)
            self.happened(event)
        return not self.is_lost

    def _unblock(self) -> None:
        self._ready.update(self._blocked)
        self._blocked.clear()

    def broken(self, error: H2Error) -> None:
        """The peer broke the protocol; h2 has its GOAWAY ready where it is to be told."""
        log.debug(
            "a gRPC peer broke HTTP/2: {error}", event="grpc-protocol", error=printable(str(error))
        )
        self._leave()

    def happened(self, event: Event) -> None:
        """An event of HTTP/2 that is about a call, or about the connection as a whole."""
        raise NotImplementedError

    def ended(self) -> None:
        """The connection is over: end whatever is open. Called once."""
        raise NotImplementedError

    def headers(self, stream_id: int, headers: Headers, *, end: bool = False) -> bool:
        """Send headers now. False where the stream is over already."""
        self._guard.earn()
        try:
            self.h2.send_headers(stream_id, headers, end_stream=end)
        except (StreamClosedError, NoSuchStreamError, ProtocolError):
            return False
        return True

    def send(self, stream_id: int, outlet: Outlet) -> None:
        """Have what is in ``outlet`` go out, as far as the peer lets it, from now on."""
        if not self.is_lost and stream_id not in self._blocked:
            self._ready[stream_id] = outlet
            self.pump()
        elif not self.is_lost and not outlet.has_data:
            self._ready[stream_id] = self._blocked.pop(stream_id)
            self.pump()

    def forget(self, stream_id: int) -> None:
        """Nothing more goes out on that stream."""
        self._ready.pop(stream_id, None)
        self._blocked.pop(stream_id, None)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        """End a stream at once, where it is not over already."""
        self.forget(stream_id)
        try:
            self.h2.reset_stream(stream_id, code)
        except (StreamClosedError, NoSuchStreamError, ProtocolError):
            return

    def credit(self, stream_id: int, size: int) -> None:
        """Let the peer send so many bytes more."""
        if self.is_lost:
            return
        try:
            self.h2.acknowledge_received_data(size, stream_id)
        except (StreamClosedError, NoSuchStreamError, ProtocolError):
            return
        self.pump()

    def pump(self) -> None:
        """Send what can be sent now: a frame of each stream in turn."""
        if self._is_pumping or self.is_lost:
            return
        self._is_pumping = True
        try:
            self._write()
            while self._ready and not self._is_full and not self.is_lost:
                for stream_id, outlet in list(self._ready.items()):
                    if stream_id in self._ready:
                        self._step(stream_id, outlet)
                self._write()
        finally:
            self._is_pumping = False

    def _step(self, stream_id: int, outlet: Outlet) -> None:
        try:
            if outlet.has_data:
                room = min(
                    self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size
                )
                if room <= 0:
                    self._blocked[stream_id] = self._ready.pop(stream_id)
                    return
                chunk = outlet.take(room)
                is_more = outlet.has_more
                last = outlet.is_closing and not is_more
                self.h2.send_data(stream_id, chunk, end_stream=last)
                self._guard.earn()
                if is_more:
                    return
            elif outlet.trailers is not None:
                self.h2.send_headers(stream_id, outlet.trailers, end_stream=True)
            elif outlet.is_closing:
                self.h2.end_stream(stream_id)
        except (StreamClosedError, NoSuchStreamError, ProtocolError):
            outlet.drop()
        self._ready.pop(stream_id, None)
        if outlet.drained is not None:
            outlet.drained()

    def _write(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.is_lost:
            self.transport.write(data)

    def pauseProducing(self) -> None:
        """The transport's buffer is full. A server then reads nothing either: answers to it could only pile up."""
        self._is_full = True
        self.full_since = self.reactor.seconds()
        if not self.client_side:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The peer has read: go on."""
        self._is_full, self.full_since = False, None
        if not self.is_lost:
            if not self.client_side:
                self.transport.resumeProducing()
            self.pump()

    def stopProducing(self) -> None:
        """The transport is over; connectionLost tells the rest."""

    def close(self, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Say why, and hang up once that is sent; what is open ends now."""
        if self.is_lost:
            return
        try:
            self.h2.close_connection(code)
        except ProtocolError:
            self.abort()
            return
        self._leave()

    def _leave(self) -> None:
        self._write()
        if not self.is_lost:
            self._over()
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            # Who reads nothing would otherwise hold the rest for ever.
            self._abort = self.reactor.callLater(_LEAVE_SECONDS, self.transport.abortConnection)

    def abort(self) -> None:
        """Hang up at once."""
        self._over()
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The peer is gone, or we are."""
        if self._abort is not None and self._abort.active():
            self._abort.cancel()
        self._over()

    def _over(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._ready.clear()
            self._blocked.clear()
            self.ended()
