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

from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IAddress, IReactorTime, ITransport
from twisted.internet.protocol import Factory

from twisted_mesh.grpc.admission import Admission
from twisted_mesh.grpc.call import Call
from twisted_mesh.grpc.connection import Limits, log
from twisted_mesh.grpc.method import Method, bidirectional, streaming, unary
from twisted_mesh.grpc.server_connection import ServerConnection
from twisted_mesh.grpc.status import GrpcError, Status
from twisted_mesh.runtime.tasks import Ticker, within

#: How often connections are looked at for what they have left undone, in seconds.
_LOOK = 1.0


async def _nobody(transport: ITransport) -> object:
    return transport


def _none(caller: object) -> Hashable:
    return None


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
        group_of: Callable[[object], Hashable] = _none,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        farewell: str = "this server is being stopped",
    ) -> None:
        """``admit`` says who is at the other end; its calls wait for that, and what it raises ends them.

        ``key_of`` is what makes two connections those of one caller, for what one caller may have open; ``group_of``
        what makes two callers those of one user, who may have three quarters of all connections.
        """
        self.reactor = reactor
        self.methods = methods
        self.connections: set[ServerConnection] = set()
        self._admission = Admission(
            limits, admit, key_of, group_of, GrpcError(Status.UNAVAILABLE, farewell)
        )
        self._emptied: Deferred[None] | None = None
        self._ticker = Ticker(reactor, _LOOK, self._look, "the gRPC server", log)

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection:
        """For one connection."""
        connection = ServerConnection(self.reactor, self.methods, self._admission, self._gone)
        self.connections.add(connection)
        return connection

    def _gone(self, connection: ServerConnection) -> None:
        self.connections.discard(connection)
        emptied = self._emptied
        if emptied is not None and not self.connections and not emptied.called:
            emptied.callback(None)

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

    def _look(self) -> None:
        for connection in list(self.connections):
            connection.look()

    async def drain(self, seconds: float = 5.0) -> None:
        """End all connections: calls with one answer may finish for so many seconds, others end with UNAVAILABLE."""
        self._admission.is_draining = True
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self._emptied = Deferred()
            with suppress(TimeoutError):
                await within(self.reactor, seconds, self._emptied)
        for connection in list(self.connections):
            connection.abort()


__all__ = ["Call", "GrpcServer", "Limits", "Method", "bidirectional", "streaming", "unary"]
