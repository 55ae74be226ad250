"""One call as the side sees it that serves: what it asked, and what it is answered, once or again and again."""

from collections.abc import Callable

from h2.errors import ErrorCodes
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from twisted_mesh.grpc.connection import GrpcConnection
from twisted_mesh.grpc.status import GrpcError, Status, encode_message
from twisted_mesh.grpc.stream import Headers, Inlet, Outlet

_HEAD: Headers = [
    (b":status", b"200"),
    (b"content-type", b"application/grpc"),
    (b"grpc-accept-encoding", b"identity"),
]


class Call:
    """What a handler gets. It may be used from anywhere until it is over, and does nothing after that."""

    def __init__(
        self,
        connection: GrpcConnection,
        gone: Callable[["Call"], object],
        stream_id: int,
        path: str,
        metadata: tuple[tuple[str, str], ...],
    ) -> None:
        self.path = path
        """``/package.Service/Method``."""
        self.metadata = metadata
        """All headers that are not HTTP/2's own, as they came: names in lower case, and each as often as it came."""
        self.caller: object = None
        """Who it is: what the server's ``admit`` made of the connection."""
        self.is_over = False
        self.stream_id = stream_id
        self.inlet = Inlet(connection.limits.message_bytes, self._credit)
        self.asked = 0
        """How many messages have come."""
        self.is_heard = False
        """Whether the caller has said that there are no more."""
        self.opened_at = connection.reactor.seconds()
        self.deadline: IDelayedCall | None = None
        self.over_at: float | None = None
        """When it ended; its last answer may not have been read yet."""
        self.released: Callable[[], None] | None = None
        """Gives back its place among its caller's calls."""
        self.task: Deferred[None] | None = None
        self._connection = connection
        self._tell_gone = gone
        self._outlet = Outlet()
        self._has_begun = False
        self._over: list[Deferred[None]] = []
        self._sent: list[Deferred[None]] = []
        self._outlet.drained = self._drained

    def values(self, name: str) -> list[str]:
        """All values of one header; binary ones (``-bin``) in their base64."""
        return [value for at, value in self.metadata if at == name]

    async def receive(self) -> bytes | None:
        """The next message; None once the caller has said that there are no more."""
        return await self.inlet.take()

    def send(self, message: bytes) -> None:
        """One more message, after those that wait; a caller who leaves too much unread has its call ended."""
        if self.is_over:
            return
        self._outlet.add(message)
        if self._outlet.size > self._connection.limits.queued_bytes:
            self.fail(GrpcError(Status.RESOURCE_EXHAUSTED, "the answers to this call are not read"))
            return
        self._go()

    def replace(self, message: bytes) -> None:
        """The newest state: in place of all that waits and of which no byte is sent yet."""
        if not self.is_over:
            self._outlet.replace(message)
            self._go()

    def _go(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            if not self._connection.headers(self.stream_id, _HEAD):
                return
        self._connection.send(self.stream_id, self._outlet)

    async def sent(self) -> None:
        """Go on once nothing waits any more; at once where the call is over."""
        if not self.is_over and self._outlet.has_data:
            waiting: Deferred[None] = Deferred()
            self._sent.append(waiting)
            await waiting

    async def over(self) -> None:
        """Wait for the end of the call, however it comes. A handler that is told of news waits here, and cleans up."""
        if not self.is_over:
            waiting: Deferred[None] = Deferred()
            self._over.append(waiting)
            await waiting

    def finish(self) -> None:
        """End it well, after all that waits."""
        self._end(Status.OK, "")

    def fail(self, error: GrpcError) -> None:
        """End it with that status now. What waits is not sent any more, and what is sent in part is cut short."""
        if not self.is_over:
            self._outlet.cut()
            self._end(error.status, error.text)

    def lost(self) -> None:
        """The caller has taken it back, or is gone, or reads nothing."""
        self._close(GrpcError(Status.CANCELLED, "the caller is gone"))
        self._outlet.cut()
        self._gone()

    def _end(self, status: Status, text: str) -> None:
        if self.is_over:
            return
        trailers: Headers = [(b"grpc-status", b"%d" % status)]
        if text:
            trailers.append((b"grpc-message", encode_message(text)))
        self._close(GrpcError(status, text))
        if self._has_begun:
            self._outlet.trailers = trailers
            self._connection.send(self.stream_id, self._outlet)
        else:
            self._connection.headers(self.stream_id, _HEAD + trailers, end=True)
            self._drained()
            self._connection.pump()

    def refuse(self, http_status: int, status: Status, text: str) -> None:
        """End what is no gRPC at all, with an HTTP status of its own."""
        trailers: Headers = [
            (b":status", b"%d" % http_status),
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % status),
            (b"grpc-message", encode_message(text)),
        ]
        self._close(GrpcError(status, text))
        self._connection.headers(self.stream_id, trailers, end=True)
        self._drained()

    def _drained(self) -> None:
        if self.is_over:
            if not self.is_heard:
                # It need not send the rest of what it asks (RFC 9113 section 8.1).
                self._connection.reset(self.stream_id, ErrorCodes.NO_ERROR)
            self._gone()
        else:
            _fire(self._sent)

    def _close(self, error: GrpcError) -> None:
        if self.is_over:
            return
        self.is_over = True
        self.over_at = self._connection.reactor.seconds()
        self.inlet.end(error)
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        _fire(self._sent)
        _fire(self._over)
        if self.task is not None:
            # Not now: it may be the handler itself that ends its call.
            self._connection.reactor.callLater(0, self.task.cancel)

    def _gone(self) -> None:
        """Nothing of it is left: its place is another's."""
        released, self.released = self.released, None
        if released is not None:
            released()
        self._tell_gone(self)

    def _credit(self, size: int) -> None:
        self._connection.credit(self.stream_id, size)


def _fire(waiting: list[Deferred[None]]) -> None:
    fired = waiting.copy()
    waiting.clear()
    for deferred in fired:
        if not deferred.called:
            deferred.callback(None)
