"""Calls over real sockets: what comes back, what ends them, and servers that are hostile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport

from tests.twisted_mesh.grpc.raw import ECHO, FOLLOW, TALK, Served
from tests.twisted_mesh.grpc.sockets import channel_to, own_reactor, run, served, turn_until
from twisted_mesh.grpc.client import CLIENT_LIMITS, ClientConnection, GrpcChannel
from twisted_mesh.grpc.framing import frame
from twisted_mesh.grpc.server import Limits
from twisted_mesh.grpc.status import GrpcError, Status


def serving(limits: Limits | None = None) -> Served:
    """On the reactor of the sockets."""
    return Served(limits=limits or Limits(), clock=own_reactor())


def test_an_answer_comes_back_also_a_large_one() -> None:
    ours = serving(Limits(message_bytes=2**21))
    with served(ours.server) as path, channel_to(path) as channel:
        assert run(channel.unary(ECHO, b"hello", seconds=20)) == b"hello"
        large = bytes(range(256)) * 4000
        assert run(channel.unary(ECHO, large)) == large
        assert run(channel.unary(ECHO, b"")) == b""


def test_answers_are_streamed_and_the_end_has_a_reason() -> None:
    ours = serving()

    async def follow(channel: GrpcChannel) -> list[bytes | None]:
        call = await channel.stream(FOLLOW, b"")
        while not ours.followed:
            await _turn()
        ours.followed[0].send(b"1")
        got = [await call.receive()]
        ours.followed[0].replace(b"2")
        got.append(await call.receive())
        ours.followed[0].fail(GrpcError(Status.UNAVAILABLE, "the CA is away: 100 % schade ü"))
        with pytest.raises(GrpcError, match="100 % schade ü") as ended:
            await call.receive()
        assert ended.value.status is Status.UNAVAILABLE
        return got

    with served(ours.server) as path, channel_to(path) as channel:
        assert run(follow(channel)) == [b"1", b"2"]


async def _turn() -> None:
    turned: Deferred[None] = Deferred()
    own_reactor().callLater(0.001, turned.callback, None)
    await turned


def test_both_directions_flow_at_once() -> None:
    async def talk(channel: GrpcChannel) -> None:
        call = await channel.open(TALK, metadata=[("x-name", "value")])
        for text in (b"a", b"b"):
            call.send(text)
            assert await call.receive() == text.upper()
        call.done()
        assert await call.receive() is None

    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        run(talk(channel))
        assert ours.followed[0].values("x-name") == ["value"]


def test_a_call_that_is_cancelled_is_over_at_both_ends() -> None:
    async def cancel(channel: GrpcChannel) -> None:
        call = await channel.stream(FOLLOW, b"")
        call.cancel()
        with pytest.raises(GrpcError) as ended:
            await call.receive()
        assert ended.value.status is Status.CANCELLED

    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        run(cancel(channel))
        turn_until(lambda: ours.ended or not ours.server.open_calls)


def test_whoever_waits_for_an_answer_may_be_cancelled() -> None:
    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        task = Deferred.fromCoroutine(channel.unary(FOLLOW, b""))
        turn_until(lambda: ours.followed)
        ended: list[Any] = []
        task.addErrback(ended.append)
        task.cancel()
        assert ended[0].check(CancelledError)
        turn_until(lambda: ours.ended)


def test_a_call_ends_by_its_deadline_at_both_ends() -> None:
    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        with pytest.raises(GrpcError) as late:
            run(channel.unary(FOLLOW, b"", seconds=0.05))
        assert late.value.status is Status.DEADLINE_EXCEEDED
        turn_until(lambda: ours.ended)


def test_a_lost_connection_ends_its_calls_and_the_next_call_makes_another() -> None:
    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        call = run(channel.stream(FOLLOW, b""))
        turn_until(lambda: ours.followed)
        for connection in list(ours.server.connections):
            connection.abort()
        with pytest.raises(GrpcError, match="the connection was lost") as lost:
            run(call.receive())
        assert lost.value.status is Status.UNAVAILABLE
        assert run(channel.unary(ECHO, b"again")) == b"again"


def test_a_server_that_leaves_ends_the_call_with_its_own_words() -> None:
    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        call = run(channel.stream(FOLLOW, b""))
        turn_until(lambda: ours.followed)
        run(ours.server.drain(1))
        with pytest.raises(GrpcError, match="this server is being stopped"):
            run(call.receive())


def test_where_nobody_listens_the_call_says_so(tmp_path: Path) -> None:
    with channel_to(tmp_path / "nobody") as channel:
        with pytest.raises(GrpcError, match="could not be made") as refused:
            run(channel.unary(ECHO, b"", seconds=5))
        assert refused.value.status is Status.UNAVAILABLE


def test_a_connection_that_is_not_made_in_time_ends_by_the_deadline() -> None:
    class Never:
        def connect(self, factory: Factory) -> Deferred[Protocol]:
            return Deferred()

    channel = GrpcChannel(own_reactor(), Never())  # type: ignore[arg-type]
    with pytest.raises(GrpcError) as late:
        run(channel.unary(ECHO, b"", seconds=0.02))
    assert late.value.status is Status.DEADLINE_EXCEEDED
    channel.close()
    with pytest.raises(GrpcError, match="closed"):
        run(channel.unary(ECHO, b""))


def test_calls_at_once_share_one_connection() -> None:
    ours = serving()
    with served(ours.server) as path, channel_to(path) as channel:
        tasks = [Deferred.fromCoroutine(channel.unary(ECHO, b"%d" % n)) for n in range(50)]
        assert [run(task) for task in tasks] == [b"%d" % n for n in range(50)]
        assert len(ours.server.connections) == 1


# Servers by hand.


@define(eq=False)
class Hostile:
    """The other end of a client's connection; it answers what the test says."""

    connection: ClientConnection = field(init=False)
    transport: StringTransport = field(init=False)
    h2: H2Connection = field(init=False)
    limits: Limits = CLIENT_LIMITS

    def __attrs_post_init__(self) -> None:
        self.connection = ClientConnection(own_reactor(), self.limits)
        self.transport = StringTransport(lenient=True)
        self.connection.makeConnection(self.transport)
        self.h2 = H2Connection(
            H2Configuration(
                client_side=False, validate_outbound_headers=False, header_encoding="utf-8"
            )
        )
        self.h2.initiate_connection()
        self.turn()

    def turn(self) -> None:
        data = self.transport.value()
        self.transport.clear()
        if data:
            self.h2.receive_data(data)
        if answer := self.h2.data_to_send():
            self.connection.dataReceived(answer)

    def outcome(self, answer: Callable[[H2Connection], object]) -> GrpcError | list[bytes]:
        """What comes of a call that is answered so."""
        call = self.connection.begin(
            [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        )
        self.turn()
        answer(self.h2)
        self.turn()
        got = []
        try:
            while (message := run(call.receive())) is not None:
                got.append(message)
        except GrpcError as error:
            assert not self.connection.calls
            return error
        return got


OK = [(":status", "200"), ("content-type", "application/grpc")]


def answering(*steps: Any) -> Callable[[H2Connection], None]:
    """Lists are headers, bytes are data, numbers reset; the last one ends the stream."""

    def answer(h2: H2Connection) -> None:
        for step in steps:
            last = step is steps[-1]
            if isinstance(step, list):
                h2.send_headers(1, step, end_stream=last)
            elif isinstance(step, bytes):
                h2.send_data(1, step, end_stream=last)
            else:
                h2.reset_stream(1, step)

    return answer


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([[(":status", "503"), ("content-type", "text/html")], b"<html>"], Status.UNAVAILABLE),
        ([[(":status", "404")]], Status.UNIMPLEMENTED),
        ([[(":status", "200"), ("content-type", "text/html")], b"<html>"], Status.UNKNOWN),
        ([[*OK, ("grpc-encoding", "gzip")], b"\1\0\0\0\1x"], Status.INTERNAL),
        ([OK, b"\1\0\0\0\1x"], Status.INTERNAL),
        ([OK, b"\0\x7f\0\0\0x"], Status.RESOURCE_EXHAUSTED),
        ([OK, frame(b"x")], Status.INTERNAL),
        ([OK, frame(b"abc")[:-1], [("grpc-status", "0")]], Status.INTERNAL),
        ([OK, [("grpc-status", "99")]], Status.UNKNOWN),
        ([OK, [("grpc-message", "no status")]], Status.UNKNOWN),
        ([[*OK, ("grpc-status", "7"), ("grpc-message", "no%0Aentry")]], Status.PERMISSION_DENIED),
        ([OK, ErrorCodes.REFUSED_STREAM], Status.UNAVAILABLE),
        ([OK, 4711], Status.INTERNAL),
    ],
    ids=[
        "503", "404", "html", "gzip", "compressed", "2-gigabytes", "no-trailers", "cut", "99",
        "no-status", "trailers-only", "refused", "unknown-reset",
    ],
)  # fmt: skip
def test_a_wrong_answer_ends_the_call(steps: list[Any], status: Status) -> None:
    outcome = Hostile().outcome(answering(*steps))
    assert isinstance(outcome, GrpcError)
    assert outcome.status is status
    assert "\n" not in str(outcome)


def test_a_right_answer_comes_whole() -> None:
    steps = (OK, frame(b"1")[:3], frame(b"1")[3:] + frame(b"2"), [("grpc-status", "0")])
    assert Hostile().outcome(answering(*steps)) == [b"1", b"2"]


@pytest.mark.parametrize(
    "data",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0\0\4\5\4\0\0\0\1\0\0\0\2"],
    ids=["http", "push"],
)
def test_garbage_and_a_push_end_the_connection(data: bytes) -> None:
    hostile = Hostile()
    outcome = hostile.outcome(lambda _: hostile.connection.dataReceived(data))
    assert isinstance(outcome, GrpcError)
    assert outcome.status is Status.UNAVAILABLE
    assert hostile.connection.is_lost


def test_a_server_that_says_goodbye_is_left() -> None:
    hostile = Hostile()
    outcome = hostile.outcome(lambda h2: h2.close_connection())
    assert isinstance(outcome, GrpcError)
    assert outcome.status is Status.UNAVAILABLE
    assert hostile.connection.is_leaving


def test_what_is_not_taken_yet_is_bounded() -> None:
    """A client that is slow to take its messages gives no more credit."""
    hostile = Hostile()
    call = hostile.connection.begin(
        [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
    )
    hostile.turn()
    hostile.h2.send_headers(1, OK)
    sent = 0
    while hostile.h2.local_flow_control_window(1) > 2000:
        hostile.h2.send_data(1, frame(b"x" * 1000))
        hostile.turn()
        sent += 1
    assert sent < 70
    assert [len(run(call.receive()) or b"") for _ in range(sent)] == [1000] * sent
    hostile.turn()
    assert hostile.h2.local_flow_control_window(1) > 60_000


def test_an_end_that_crosses_our_reset_ends_nothing_else() -> None:
    """A call that is cancelled, or past its deadline, may have been answered already."""
    hostile = Hostile()
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"a"),
    ]
    call = hostile.connection.begin(headers)
    hostile.turn()
    hostile.h2.send_headers(1, OK)
    hostile.turn()
    hostile.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
    crossing = hostile.h2.data_to_send()
    call.cancel()
    hostile.connection.begin(headers)  # h2 forgets the first one now
    hostile.connection.dataReceived(crossing)
    assert not hostile.connection.is_lost


def test_a_stream_that_a_server_opens_ends_the_connection() -> None:
    hostile = Hostile()
    outcome = hostile.outcome(
        # HEADERS of stream 2, ":status: 200"
        lambda _: hostile.connection.dataReceived(b"\0\0\1\1\4\0\0\0\2\x88")
    )
    assert isinstance(outcome, GrpcError)
    assert hostile.connection.is_lost
