"""A gRPC server on Twisted: a factory to listen with, and the methods that it serves.

How a service is registered. A service is a mapping of paths to methods, each a handler and how it is called; several
are put together into one mapping, and the server is listened with on any stream endpoint::

    async def fetch(call: Call, request: bytes) -> bytes: ...          # one answer
    async def follow(call: Call, request: bytes) -> None:              # answers as they come
        following = workloads.follow(call.caller, lambda snapshot: call.replace(encode(snapshot)))
        try:
            await call.over()                                          # until the caller goes, or call.fail(...)
        finally:
            following.stop()
    async def talk(call: Call) -> None:                                # both as they come
        while (request := await call.receive()) is not None:
            call.send(answer(request))

    methods = {"/pkg.Service/Fetch": unary(fetch), "/pkg.Service/Follow": streaming(follow),
               "/pkg.Service/Talk": bidirectional(talk)}
    server = GrpcServer(reactor, methods, admit=workloads.caller, key_of=lambda caller: caller.pid)
    reactor.listenUNIX(path, server)                                   # … and await server.drain() at the end

A handler that returns has ended its call well; one that raises :class:`GrpcError` ends it with that status, any other
:class:`PkiError` with UNKNOWN and its text. The handler of a call that was taken back, or is past its deadline, is
cancelled.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping
from functools import partial
from typing import ClassVar

from attrs import frozen
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, ITransport
from twisted.internet.protocol import Factory

from pki.errors import PkiError, printable
from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.connection import GrpcConnection, Limits, log
from twisted_mesh.grpc.framing import parse_timeout
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.runtime.tasks import Ticker, sleep, spawn

#: How often connections are looked at for what they have left undone, in seconds.
_LOOK = 1.0


@frozen
class Method:
    """A handler, and how it is called."""

    run: Callable[[Call], Awaitable[None]]
    is_unary: bool
    """Answered once, and soon: at the end of the server it may still finish."""
    takes_one: bool
    """Begun once its one message is there."""


def unary(handler: Callable[[Call, bytes], Awaitable[bytes]]) -> Method:
    """One message, one answer: what ``handler`` returns."""

    async def run(call: Call) -> None:
        call.send(await handler(call, call.inlet.take_now()))

    return Method(run, is_unary=True, takes_one=True)


def streaming(handler: Callable[[Call, bytes], Awaitable[None]]) -> Method:
    """One message, and answers by ``call.send`` or ``call.replace`` until ``handler`` returns."""

    async def run(call: Call) -> None:
        await handler(call, call.inlet.take_now())

    return Method(run, is_unary=False, takes_one=True)


def bidirectional(handler: Callable[[Call], Awaitable[None]]) -> Method:
    """Messages by ``call.receive``, answers by ``call.send`` or ``call.replace``, until ``handler`` returns."""

    async def run(call: Call) -> None:
        await handler(call)

    return Method(run, is_unary=False, takes_one=False)


class ServerConnection(GrpcConnection):
    """One caller's connection."""

    client_side: ClassVar[bool] = False

    def __init__(self, server: "GrpcServer") -> None:
        super().__init__(server.reactor, server.limits)
        self.server = server
        self.calls: dict[int, Call] = {}
        self.caller: object = None
        self.key: Hashable = self
        self._refusal: GrpcError | None = None
        self._is_admitted = False
        self._waiting: list[tuple[Call, Method]] = []
        """Calls that came before it was known whose they are."""
        self._has_spoken = False
        self._since = server.reactor.seconds()
        """When it was made, or its last call ended."""
        self._is_leaving = False
        self._admitting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Find out who it is, while it speaks."""
        if not self.server.has_room(self):
            self.is_lost = True
            self.transport.abortConnection()
            return
        super().connectionMade()
        self._admitting = spawn(self._admit(), "the admission of a gRPC caller", log)

    async def _admit(self) -> None:
        try:
            self.caller = await self.server.admit(self.transport)
            self.key = self.server.key_of(self.caller)
            self._refusal = self.server.too_many_connections(self)
        except GrpcError as error:
            self._refusal = error
        except PkiError as error:
            self._refusal = GrpcError(Status.UNAVAILABLE, str(error))
        except Exception:
            log.failure("a gRPC caller could not be admitted", event="grpc-broke")
            self._refusal = GrpcError(Status.INTERNAL, "the caller could not be attested")
        self._is_admitted = True
        waiting, self._waiting = self._waiting, []
        for call, method in waiting:
            self._begin(call, method)

    def happened(self, event: Event) -> None:
        """What concerns a call."""
        self._has_spoken = True
        if isinstance(event, RequestReceived):
            self._opened(event)
        elif isinstance(event, DataReceived):
            self._received(event)
        elif isinstance(event, StreamEnded):
            if call := self.calls.get(event.stream_id):
                self._heard(call)
        elif isinstance(event, StreamReset):
            if call := self.calls.get(event.stream_id):
                call.is_heard = True
                call.lost()
        elif isinstance(event, ConnectionTerminated):
            # h2 reads no frame after that word, and no client has more to say.
            self.abort()

    def _opened(self, event: RequestReceived) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
        ]
        http = {name: value for name, value in headers if name.startswith(":")}
        metadata = tuple((name, value) for name, value in headers if not name.startswith(":"))
        call = Call(self, event.stream_id, http.get(":path", ""), metadata)
        call.is_heard = event.stream_ended is not None
        kind = "".join(call.values("content-type")[:1])
        if http.get(":method") != "POST":
            call.refuse(405, Status.INTERNAL, "gRPC is spoken by POST")
            return
        if not (
            kind == "application/grpc"
            or kind.startswith(("application/grpc+", "application/grpc;"))
        ):
            call.refuse(
                415, Status.INVALID_ARGUMENT, "gRPC is spoken with content-type application/grpc"
            )
            return
        self.calls[event.stream_id] = call
        try:
            self._check(call)
        except GrpcError as error:
            call.fail(error)

    def _check(self, call: Call) -> None:
        if self.server.is_draining:
            raise GrpcError(Status.UNAVAILABLE, self.server.farewell)
        if call.path not in self.server.methods:
            raise GrpcError(Status.UNIMPLEMENTED, f"there is no {printable(call.path, 100)} here")
        encodings = call.values("grpc-encoding")
        if any(encoding != "identity" for encoding in encodings):
            raise GrpcError(
                Status.UNIMPLEMENTED,
                "messages are taken uncompressed only (grpc-encoding: identity)",
            )
        for timeout in call.values("grpc-timeout")[:1]:
            call.deadline = self.reactor.callLater(
                parse_timeout(timeout),
                call.fail,
                GrpcError(Status.DEADLINE_EXCEEDED, "it took longer than the caller waits"),
            )
        method = self.server.methods[call.path]
        if not method.takes_one:
            self._start(call, method)
        elif call.is_heard:
            raise GrpcError(Status.UNIMPLEMENTED, "this method takes one message, and none came")

    def _received(self, event: DataReceived) -> None:
        call = self.calls.get(event.stream_id)
        if call is None:
            self.credit(event.stream_id, event.flow_controlled_length)
            return
        try:
            came = call.inlet.feed(event.data, event.flow_controlled_length)
            first = came and not call.asked
            call.asked += came
            method = self.server.methods[call.path]
            if method.takes_one and call.asked > 1:
                raise GrpcError(
                    Status.UNIMPLEMENTED, "this method takes one message, and several came"
                )
            if first and method.takes_one:
                self._start(call, method)
        except GrpcError as error:
            call.fail(error)

    def _heard(self, call: Call) -> None:
        call.is_heard = True
        if not call.inlet.is_between:
            call.fail(GrpcError(Status.INTERNAL, "the request ends within a message"))
        elif self.server.methods[call.path].takes_one and not call.asked:
            call.fail(
                GrpcError(Status.UNIMPLEMENTED, "this method takes one message, and none came")
            )
        else:
            call.inlet.end()

    def _start(self, call: Call, method: Method) -> None:
        if self._is_admitted:
            self._begin(call, method)
        else:
            self._waiting.append((call, method))

    def _begin(self, call: Call, method: Method) -> None:
        if call.is_over:
            return
        refusal = self._refusal or self.server.take_place(self, call)
        if refusal is not None:
            call.fail(refusal)
            return
        call.caller = self.caller
        call.task = Deferred.fromCoroutine(self._run(call, method))

    async def _run(self, call: Call, method: Method) -> None:
        try:
            await method.run(call)
            call.finish()
        except GrpcError as error:
            call.fail(error)
        except PkiError as error:
            call.fail(GrpcError(Status.UNKNOWN, str(error)))
        except CancelledError:
            call.fail(GrpcError(Status.CANCELLED, "the call was given up"))
        except Exception:
            log.failure("a gRPC method broke: {path}", event="grpc-broke", path=call.path)
            call.fail(
                GrpcError(Status.INTERNAL, "there is a fault in the server: its log has more")
            )

    def closed(self, call: Call) -> None:
        """One of its calls is over."""
        if self.calls.pop(call.stream_id, None) is not None and not self.calls:
            self._since = self.reactor.seconds()
            self.reactor.callLater(0, self._leave_if_done)

    def _leave_if_done(self) -> None:
        if self._is_leaving and not self.calls and not self._ready and not self._blocked:
            self.close()

    def look(self) -> None:
        """End what has taken too long."""
        now = self.reactor.seconds()
        silent = 0.0 if self._has_spoken else now - self._since
        stalled = 0.0 if self.full_since is None else now - self.full_since
        if silent > self.limits.hello_seconds or stalled > self.limits.stalled_seconds:
            self.abort()
        elif not self.calls and now - self._since > self.limits.idle_seconds:
            self.close()
        else:
            for call in [call for call in self.calls.values() if not call.asked]:
                if now - call.opened_at > self.limits.request_seconds:
                    call.fail(GrpcError(Status.DEADLINE_EXCEEDED, "the request did not come"))
            self._leave_if_done()

    def drain(self, farewell: GrpcError) -> None:
        """Open no more calls; answer those that are nearly done, end the others, and then hang up."""
        self._is_leaving = True
        if not self.is_lost:
            for call in list(self.calls.values()):
                method = self.server.methods[call.path]
                if not method.is_unary or call.task is None:
                    call.fail(farewell)
            self.pump()
            self._leave_if_done()

    def ended(self) -> None:
        """All its calls are over with it."""
        self.server.gone(self)
        if self._admitting is not None:
            self._admitting.cancel()
        for call in list(self.calls.values()):
            call.is_heard = True
            call.lost()


async def _nobody(transport: ITransport) -> object:
    return transport


class GrpcServer(Factory):
    """Listens for gRPC, without TLS: for unix sockets, or behind what has done the handshake."""

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        methods: Mapping[str, Method],
        *,
        admit: Callable[[ITransport], Awaitable[object]] = _nobody,
        key_of: Callable[[object], Hashable] = id,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        farewell: str = "this server is being stopped",
    ) -> None:
        self.reactor = reactor
        self.methods = methods
        self.admit = admit
        """Who is at the other end; its calls wait for that. What it raises ends them (PkiError: UNAVAILABLE)."""
        self.key_of = key_of
        """What makes two connections those of one caller, for what one caller may have open."""
        self.limits = limits
        self.farewell = farewell
        self.is_draining = False
        self.connections: set[ServerConnection] = set()
        self._calls: Counter[Hashable] = Counter()
        self._connections: Counter[Hashable] = Counter()
        self._ticker = Ticker(reactor, _LOOK, self._look, "the gRPC server", log)

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        """For one connection."""
        return ServerConnection(self)

    def startFactory(self) -> None:
        """The first port listens."""
        self._ticker.start(now=False)

    def stopFactory(self) -> None:
        """The last port is closed; connections stay until :meth:`drain`."""
        self._ticker.stop()

    @property
    def open_calls(self) -> int:
        """How many calls are open."""
        return sum(len(connection.calls) for connection in self.connections)

    def has_room(self, connection: ServerConnection) -> bool:
        """Take the connection in, where there is room."""
        if self.is_draining or len(self.connections) >= self.limits.connections:
            log.warn(
                "a gRPC connection was hung up on: {count} are open",
                event="grpc-full",
                count=len(self.connections),
            )
            return False
        self.connections.add(connection)
        return True

    def too_many_connections(self, connection: ServerConnection) -> GrpcError | None:
        """Count it as its caller's; what to say where that has as many as it may."""
        self._connections[connection.key] += 1
        if self._connections[connection.key] <= self.limits.connections_of_caller:
            return None
        return GrpcError(
            Status.RESOURCE_EXHAUSTED,
            f"this process has {self.limits.connections_of_caller} connections open already: use one for all calls",
        )

    def take_place(self, connection: ServerConnection, call: Call) -> GrpcError | None:
        """Count it among its caller's calls; what to say where that has as many as it may."""
        key = connection.key
        if self._calls[key] >= self.limits.calls_of_caller:
            return GrpcError(
                Status.RESOURCE_EXHAUSTED,
                f"this process has {self.limits.calls_of_caller} calls open already: end some, or share a stream",
            )
        self._calls[key] += 1
        call.released = partial(self._release, self._calls, key)
        return None

    def _release(self, counts: Counter[Hashable], key: Hashable) -> None:
        counts[key] -= 1
        if counts[key] <= 0:
            del counts[key]

    def gone(self, connection: ServerConnection) -> None:
        """It is over."""
        if connection in self.connections:
            self.connections.discard(connection)
            if connection.key in self._connections:
                self._release(self._connections, connection.key)

    def _look(self) -> None:
        for connection in list(self.connections):
            connection.look()

    async def drain(self, seconds: float = 5.0) -> None:
        """End all connections: calls with one answer may finish for so many seconds, others end with UNAVAILABLE."""
        self.is_draining = True
        farewell = GrpcError(Status.UNAVAILABLE, self.farewell)
        for connection in list(self.connections):
            connection.drain(farewell)
        until = self.reactor.seconds() + seconds
        while self.connections and self.reactor.seconds() < until:
            await sleep(self.reactor, 0.05)
        for connection in list(self.connections):
            connection.abort()


__all__ = [
    "Call",
    "GrpcServer",
    "Limits",
    "Method",
    "ServerConnection",
    "bidirectional",
    "streaming",
    "unary",
]
