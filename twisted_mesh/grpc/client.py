"""A gRPC client on Twisted: one connection to one server, made when it is needed and again after it was lost.

::

    channel = GrpcChannel(reactor, UNIXClientEndpoint(reactor, path))
    answer = await channel.unary("/pkg.Service/Fetch", request, metadata=[("name", "value")], seconds=5)
    call = await channel.stream("/pkg.Service/Follow", request)      # channel.open(path) for both directions
    while (message := await call.receive()) is not None: ...          # None: ended well
    call.cancel()
    channel.close()

Everything that goes wrong is a :class:`GrpcError`: a connection that cannot be made, or is lost, is UNAVAILABLE; a time
that is over DEADLINE_EXCEEDED. Nothing is tried again by itself: the next call connects anew.
"""

from collections.abc import Sequence
from typing import ClassVar, cast

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory

from pki.errors import printable
from twisted_mesh.grpc.connection import GrpcConnection, Limits
from twisted_mesh.grpc.framing import format_timeout
from twisted_mesh.grpc.status import GrpcError, Status, decode_message
from twisted_mesh.grpc.stream import Headers, Inlet, Outlet

Metadata = Sequence[tuple[str, str]]
#: What a client takes: bundles of many trust domains and their CRLs come in one message.
#: One stream of the server's own, which is refused all the same: with none h2 takes the end of an answer that has
#: crossed our reset for a stream too many, and the connection is lost with all calls on it.
CLIENT_LIMITS = Limits(message_bytes=16 * 1024 * 1024, header_bytes=32 * 1024, streams=1)
_OF_HTTP = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    429: Status.UNAVAILABLE,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}
_OF_RESET = {
    ErrorCodes.REFUSED_STREAM: Status.UNAVAILABLE,
    ErrorCodes.CANCEL: Status.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: Status.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: Status.PERMISSION_DENIED,
}
_LOST = "the connection was lost"
#: What the text of an UNAVAILABLE begins with where nobody was reached at all.
NOT_MADE = "the connection could not be made"


class ClientCall:
    """One call under way."""

    def __init__(self, connection: "ClientConnection", stream_id: int) -> None:
        self.metadata: list[tuple[str, str]] = []
        """The headers of the answer, and then its trailers."""
        self.is_over = False
        self.stream_id = stream_id
        self.inlet = Inlet(connection.limits.message_bytes, self._credit)
        self.deadline: IDelayedCall | None = None
        self.has_status = False
        self._connection = connection
        self._outlet = Outlet()

    def send(self, message: bytes) -> None:
        """One more message."""
        if not self.is_over:
            self._outlet.add(message)
            self._connection.send(self.stream_id, self._outlet)

    def done(self) -> None:
        """There are no more messages."""
        if not self.is_over:
            self._outlet.is_closing = True
            self._connection.send(self.stream_id, self._outlet)

    async def receive(self) -> bytes | None:
        """The next message as soon as it is there; None where the call has ended well. Raises :class:`GrpcError`."""
        return await self.inlet.take()

    def cancel(self) -> None:
        """Take it back: nothing more comes."""
        self.abandon(GrpcError(Status.CANCELLED, "the call was given up"))

    def abandon(self, error: GrpcError) -> None:
        """End it from here, with that."""
        if not self.is_over:
            self._connection.reset(self.stream_id, ErrorCodes.CANCEL)
            self.end(error)
            self._connection.pump()

    def end(self, error: GrpcError | None) -> None:
        """It is over: well, or with that."""
        if self.is_over:
            return
        self.is_over = True
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self._connection.closed(self)
        self.inlet.end(error)

    def _credit(self, size: int) -> None:
        self._connection.credit(self.stream_id, size)


class ClientConnection(GrpcConnection):
    """One connection to a server."""

    client_side: ClassVar[bool] = True

    def __init__(self, reactor: IReactorTime, limits: Limits) -> None:
        super().__init__(reactor, limits)
        self.calls: dict[int, ClientCall] = {}
        self.is_leaving = False
        """Whether the server takes no more calls here."""

    def begin(self, headers: Headers) -> ClientCall:
        """Open a call. Raises :class:`GrpcError`."""
        try:
            stream_id = self.h2.get_next_available_stream_id()
            self.h2.send_headers(stream_id, headers)
            self._guard.earn()
        except H2Error as error:
            raise GrpcError(Status.UNAVAILABLE, f"no call could be begun: {error}") from None
        call = self.calls[stream_id] = ClientCall(self, stream_id)
        self.pump()
        return call

    def happened(self, event: Event) -> None:
        """What concerns a call."""
        if isinstance(event, ConnectionTerminated):
            self._leaving()
            return
        call = self.calls.get(getattr(event, "stream_id", None) or 0)
        if call is None:
            if isinstance(event, DataReceived):
                self.credit(event.stream_id, event.flow_controlled_length)
        elif isinstance(event, ResponseReceived):
            self._answered(call, event)
        elif isinstance(event, TrailersReceived):
            self._trailed(call, event.headers)
        elif isinstance(event, DataReceived):
            try:
                call.inlet.feed(event.data, event.flow_controlled_length)
            except GrpcError as error:
                call.abandon(error)
        elif isinstance(event, StreamEnded):
            # One with trailers, or with nothing but a head, has its status and is over already.
            call.end(GrpcError(Status.INTERNAL, "the call ended without a status"))
        elif isinstance(event, StreamReset):
            try:
                code = ErrorCodes(event.error_code)
            except ValueError:
                code = ErrorCodes.INTERNAL_ERROR
            status = _OF_RESET.get(code, Status.INTERNAL)
            call.end(GrpcError(status, f"the server reset the call ({code.name})"))

    def _answered(self, call: ClientCall, event: ResponseReceived) -> None:
        headers = [(name.decode("latin-1"), value) for name, value in event.headers]
        known = dict(headers)
        if "grpc-status" in known and event.stream_ended is not None:
            self._trailed(call, event.headers)
            return
        http = known.get(":status", b"")
        kind = known.get("content-type", b"")
        if http != b"200":
            number = int(http) if http.isdigit() else 0
            shown = printable(http.decode("latin-1"), 20)
            call.abandon(
                GrpcError(
                    _OF_HTTP.get(number, Status.UNKNOWN),
                    f"the answer is HTTP {shown}, and not gRPC",
                )
            )
        elif not kind.startswith(b"application/grpc"):
            shown = printable(kind.decode("latin-1"), 60)
            call.abandon(
                GrpcError(Status.UNKNOWN, f"the answer is {shown or 'nothing'}, and not gRPC")
            )
        else:
            self._keep(call, event.headers)

    def _keep(self, call: ClientCall, headers: Sequence[tuple[bytes, bytes]]) -> None:
        call.metadata += [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers
        ]

    def _trailed(self, call: ClientCall, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._keep(call, headers)
        trailers = dict(headers)
        status = Status.parse(trailers.get(b"grpc-status", b"").decode("latin-1"))
        text = decode_message(trailers.get(b"grpc-message", b""))
        if status is not Status.OK:
            call.end(GrpcError(status, text))
        elif not call.inlet.is_between:
            call.end(GrpcError(Status.INTERNAL, "the answer ends within a message"))
        else:
            call.end(None)

    def closed(self, call: ClientCall) -> None:
        """One of its calls is over."""
        self.forget(call.stream_id)
        self.calls.pop(call.stream_id, None)
        if self.is_leaving and not self.calls and not self.is_lost:
            self.close()

    def _leaving(self) -> None:
        """The server takes no more calls. h2 reads no frame after that word, so those under way end as well."""
        self.is_leaving = True
        for call in list(self.calls.values()):
            call.end(GrpcError(Status.UNAVAILABLE, "the server is leaving"))
        self.abort()

    def ended(self) -> None:
        """All its calls are over with it."""
        for call in list(self.calls.values()):
            call.end(GrpcError(Status.UNAVAILABLE, _LOST))


class GrpcChannel:
    """Calls to one server, over one connection at a time."""

    def __init__(
        self,
        reactor: IReactorTime,
        endpoint: IStreamClientEndpoint,
        *,
        authority: str = "localhost",
        limits: Limits = CLIENT_LIMITS,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._authority = authority
        self._limits = limits
        self._connection: ClientConnection | None = None
        self._connecting: Deferred[ClientConnection] | None = None
        self._waiting: list[Deferred[ClientConnection]] = []
        self._is_closed = False

    async def unary(
        self, path: str, message: bytes, *, metadata: Metadata = (), seconds: float | None = None
    ) -> bytes:
        """The one answer. Raises :class:`GrpcError`."""
        call = await self.stream(path, message, metadata=metadata, seconds=seconds)
        try:
            answer = await call.receive()
            if answer is None:
                raise GrpcError(Status.INTERNAL, "there is no answer in the answer")
            if await call.receive() is not None:
                raise GrpcError(Status.INTERNAL, "there are several answers in place of one")
        finally:
            call.cancel()
        return answer

    async def stream(
        self, path: str, message: bytes, *, metadata: Metadata = (), seconds: float | None = None
    ) -> ClientCall:
        """A call with one message, whose answers come by ``receive``. Raises :class:`GrpcError`."""
        call = await self.open(path, metadata=metadata, seconds=seconds)
        call.send(message)
        call.done()
        return call

    async def open(
        self, path: str, *, metadata: Metadata = (), seconds: float | None = None
    ) -> ClientCall:
        """A call in both directions, for so many seconds or without an end. Raises :class:`GrpcError`."""
        until = None if seconds is None else self._reactor.seconds() + seconds
        connection = await self._connected(seconds)
        headers: Headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", self._authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-accept-encoding", b"identity"),
            *((name.encode(), value.encode()) for name, value in metadata),
        ]
        if until is None:
            return connection.begin(headers)
        left = until - self._reactor.seconds()
        call = connection.begin([*headers, (b"grpc-timeout", format_timeout(left).encode())])
        call.deadline = self._reactor.callLater(max(left, 0), call.abandon, _late(seconds))
        return call

    def close(self) -> None:
        """End the connection and all its calls. No call may follow."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.close()

    async def _connected(self, seconds: float | None) -> ClientConnection:
        if self._is_closed:
            raise GrpcError(Status.CANCELLED, "the channel is closed")
        connection = self._connection
        if connection is not None and not (connection.is_lost or connection.is_leaving):
            return connection
        waiting: Deferred[ClientConnection] = Deferred()
        self._waiting.append(waiting)
        if self._connecting is None:
            self._connect()
        timer = None
        if seconds is not None:
            timer = self._reactor.callLater(seconds, _give_up, waiting, _late(seconds))
        try:
            return await waiting
        finally:
            if timer is not None and timer.active():
                timer.cancel()

    def _connect(self) -> None:
        factory = _Connections(self._reactor, self._limits)
        connecting = self._connecting = cast(
            "Deferred[ClientConnection]", self._endpoint.connect(factory)
        )
        _ = connecting.addCallbacks(self._made, self._failed)

    def _made(self, connection: ClientConnection) -> None:
        self._connecting, self._connection = None, connection
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            if not deferred.called:
                deferred.callback(connection)

    def _failed(self, failure: object) -> None:
        self._connecting = None
        why = printable(str(getattr(failure, "value", failure)))
        error = GrpcError(Status.UNAVAILABLE, f"{NOT_MADE}: {why}")
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            _give_up(deferred, error)


class _Connections(Factory):
    noisy = False

    def __init__(self, reactor: IReactorTime, limits: Limits) -> None:
        self._made = reactor, limits

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection:
        return ClientConnection(*self._made)


def _give_up(waiting: Deferred[ClientConnection], error: GrpcError) -> None:
    if not waiting.called:
        waiting.errback(error)


def _late(seconds: float | None) -> GrpcError:
    return GrpcError(Status.DEADLINE_EXCEEDED, f"not done within {seconds:g} s")
