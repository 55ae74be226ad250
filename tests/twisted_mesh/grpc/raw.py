"""A gRPC caller by hand: every frame as a test wants it, over a wire of the test's own, on a clock."""

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from twisted.internet.task import Clock

from tests.twisted_mesh.talking import Wire
from twisted_mesh.grpc.framing import MessageReader, frame
from twisted_mesh.grpc.server import Call, GrpcServer, Limits, bidirectional, streaming, unary
from twisted_mesh.grpc.server_connection import ServerConnection
from twisted_mesh.grpc.status import Status, decode_message

ECHO = "/a.A/Echo"
FOLLOW = "/a.A/Follow"
TALK = "/a.A/Talk"


@define(eq=False)
class Served:
    """A server whose ``Follow`` answers as the test says, on the test's clock."""

    limits: Limits = field(factory=Limits)
    admit: Callable[[Any], Awaitable[object]] | None = None
    key_of: Callable[[object], Hashable] = id
    group_of: Callable[[object], Hashable] = lambda _: None
    clock: Clock = field(factory=Clock)
    followed: list[Call] = field(factory=list)
    ended: list[Call] = field(factory=list)
    """Those whose handler has cleaned up."""
    server: GrpcServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        more = {} if self.admit is None else {"admit": self.admit}
        methods = {
            ECHO: unary(self._echo),
            FOLLOW: streaming(self._follow),
            TALK: bidirectional(self._talk),
        }
        self.server = GrpcServer(
            self.clock,
            methods,
            limits=self.limits,
            key_of=self.key_of,
            group_of=self.group_of,
            **more,
        )
        self.server.doStart()

    async def _echo(self, call: Call, request: bytes) -> bytes:
        if request == b"break":
            raise RuntimeError("secret words")
        return request

    async def _follow(self, call: Call, request: bytes) -> None:
        self.followed.append(call)
        try:
            await call.over()
        finally:
            self.ended.append(call)

    async def _talk(self, call: Call) -> None:
        self.followed.append(call)
        while (message := await call.receive()) is not None:
            call.send(message.upper())


@define
class Outcome:
    """What has come of one call."""

    headers: dict[str, str] = field(factory=dict)
    data: bytes = b""
    trailers: dict[str, str] = field(factory=dict)
    reset: int | None = None
    is_ended: bool = False

    @property
    def status(self) -> Status | None:
        said = {**self.headers, **self.trailers}.get("grpc-status")
        return None if said is None else Status(int(said))

    @property
    def text(self) -> str:
        said = {**self.headers, **self.trailers}.get("grpc-message", "")
        return decode_message(said.encode())

    @property
    def messages(self) -> list[bytes]:
        return list(MessageReader(2**24).feed(self.data))


@define(eq=False)
class Caller:
    """One connection to it."""

    served: Served
    settings: Mapping[int, int] = field(factory=dict)
    reads: bool = True
    """Whether what comes is credited."""
    wire: Wire = field(init=False)
    h2: H2Connection = field(init=False)
    outcomes: dict[int, Outcome] = field(factory=dict)
    goaway: int | None = None

    def __attrs_post_init__(self) -> None:
        self.wire = Wire(self.served.clock)
        self.wire.join(self.served.server.buildProtocol(None))
        # Nothing that it is told to send is too wrong to be sent.
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        if self.settings:
            self.h2.update_settings(dict(self.settings))
            self.h2.clear_outbound_data_buffer()
            self.h2.local_settings.update(self.settings)
            self.h2.local_settings.acknowledge()
        self.h2.initiate_connection()
        self.turn()

    @property
    def protocol(self) -> ServerConnection:
        found: Any = self.wire.protocol
        return found  # type: ignore[no-any-return]

    def say(self, data: bytes) -> None:
        """These bytes as they are."""
        if self.wire.connected and not self.wire.disconnecting:
            self.protocol.dataReceived(data)
        self.read()

    def turn(self) -> None:
        """Send what is to be sent, and read what has come, until nothing moves."""
        while data := self.h2.data_to_send():
            self.say(data)
        self.served.clock.advance(0)
        self.read()
        if data := self.h2.data_to_send():
            self.say(data)

    def read(self) -> None:
        data = self.wire.value()
        self.wire.clear()
        for event in self.h2.receive_data(data) if data else ():
            self._note(event)

    def _note(self, event: Any) -> None:
        if isinstance(event, ConnectionTerminated):
            self.goaway = int(event.error_code or 0)
            return
        outcome = self.outcomes.setdefault(getattr(event, "stream_id", 0) or 0, Outcome())
        if isinstance(event, ResponseReceived):
            outcome.headers = _texts(event.headers)
        elif isinstance(event, TrailersReceived):
            outcome.trailers = _texts(event.headers)
        elif isinstance(event, DataReceived):
            outcome.data += event.data
            if self.reads and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamReset):
            outcome.reset = int(event.error_code)
        elif isinstance(event, StreamEnded):
            outcome.is_ended = True

    def open(
        self, path: str = ECHO, *more: tuple[str, str], end: bool = False, **other: str
    ) -> int:
        """Begin a call, with those headers besides the usual ones; ``method="GET"`` has another of these."""
        usual = {"method": "POST", "scheme": "http", "authority": "a", **other}
        usual.setdefault("type", "application/grpc")
        stream_id: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream_id,
            [
                (":method", usual["method"]),
                (":scheme", usual["scheme"]),
                (":path", path),
                (":authority", usual["authority"]),
                ("te", "trailers"),
                ("content-type", usual["type"]),
                *more,
            ],
            end_stream=end,
        )
        self.outcomes[stream_id] = Outcome()
        return stream_id

    def call(
        self, path: str = ECHO, message: bytes = b"hello", *more: tuple[str, str], end: bool = True
    ) -> Outcome:
        """A call with one message, which is sent whole."""
        stream_id = self.open(path, *more)
        self.send(stream_id, frame(message), end=end)
        return self.outcomes[stream_id]

    def send(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Bytes of a call, as its window lets them."""
        for at in range(0, max(len(data), 1), 16000):
            is_last = at + 16000 >= len(data)
            self.h2.send_data(stream_id, data[at : at + 16000], end_stream=end and is_last)
            self.turn()


def _texts(headers: Any) -> dict[str, str]:
    return {
        (name if isinstance(name, str) else name.decode()): (
            value if isinstance(value, str) else value.decode()
        )
        for name, value in headers
    }
