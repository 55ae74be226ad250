"""What a caller may do to a server, and what it gets, hostile ones too: a status, in bounded memory."""

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from pki.errors import PkiError
from tests.twisted_mesh.grpc.raw import ECHO, FOLLOW, TALK, Caller, Served
from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.talking import Wire
from twisted_mesh.grpc import admission
from twisted_mesh.grpc.framing import frame
from twisted_mesh.grpc.server import Limits, streaming
from twisted_mesh.grpc.status import GrpcError, Status

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def test_one_message_is_answered_by_one() -> None:
    caller = Caller(Served())
    outcome = caller.call(ECHO, b"hello")
    assert (outcome.messages, outcome.status, outcome.is_ended) == ([b"hello"], Status.OK, True)
    assert outcome.headers["content-type"] == "application/grpc"
    assert not caller.protocol.calls


def test_answers_are_streamed_until_the_call_is_finished() -> None:
    served = Served()
    caller = Caller(served)
    outcome = caller.call(FOLLOW)
    for text in (b"1", b"2"):
        served.followed[0].send(text)
    served.followed[0].finish()
    caller.turn()
    assert (outcome.messages, outcome.status) == ([b"1", b"2"], Status.OK)
    assert served.ended == served.followed


def test_both_directions_flow_at_once() -> None:
    caller = Caller(Served())
    stream = caller.open(TALK)
    for text in (b"a", b"b"):
        caller.send(stream, frame(text))
        assert caller.outcomes[stream].messages[-1] == text.upper()
    caller.send(stream, b"", end=True)
    assert caller.outcomes[stream].status is Status.OK


@settings(max_examples=40)
@given(st.lists(st.integers(1, 400), max_size=30))
def test_frames_are_read_in_every_possible_split(cuts: list[int]) -> None:
    served = Served()
    caller = Caller(served)
    stream = caller.open(ECHO)
    caller.h2.send_data(stream, frame(b"hello" * 20)[:50])
    caller.h2.send_data(stream, frame(b"hello" * 20)[50:], end_stream=True)
    data = caller.h2.data_to_send()
    ends = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
    for start, end in pairwise(ends):
        caller.say(data[start:end])
    caller.turn()
    assert caller.outcomes[stream].messages == [b"hello" * 20]


# What is asked wrongly.


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        ("/a.A/Nothing", [], Status.UNIMPLEMENTED, "there is no /a.A/Nothing here"),
        (ECHO, [("grpc-encoding", "gzip")], Status.UNIMPLEMENTED, "uncompressed"),
        (ECHO, [("grpc-timeout", "soon")], Status.INVALID_ARGUMENT, "grpc-timeout is no time"),
    ],
    ids=["method", "compression", "timeout"],
)
def test_a_call_is_refused_by_its_headers(
    path: str, headers: list[tuple[str, str]], status: Status, text: str
) -> None:
    outcome = Caller(Served()).call(path, b"x", *headers)
    assert (outcome.status, outcome.data) == (status, b"")
    assert text in outcome.text


@pytest.mark.parametrize(
    ("headers", "http"),
    [
        ({"method": "GET"}, "405"),
        ({"type": "text/html"}, "415"),
        ({"type": "application/grpcx"}, "415"),
    ],
    ids=["get", "html", "nearly"],
)
def test_what_is_no_grpc_gets_an_http_status(headers: dict[str, str], http: str) -> None:
    caller = Caller(Served())
    stream = caller.open(ECHO, end=True, **headers)
    caller.turn()
    assert caller.outcomes[stream].headers[":status"] == http
    assert caller.call(ECHO, b"still here").messages == [b"still here"]


def test_content_types_with_a_format_or_parameters_are_taken() -> None:
    caller = Caller(Served())
    for kind in ("application/grpc+proto", "application/grpc;charset=utf-8"):
        stream = caller.open(ECHO, type=kind)
        caller.send(stream, frame(b"x"), end=True)
        assert caller.outcomes[stream].status is Status.OK


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", Status.UNIMPLEMENTED),
        (frame(b"a") + frame(b"b"), Status.UNIMPLEMENTED),
        (frame(b"abc")[:-1], Status.INTERNAL),
        (b"\1\0\0\0\1a", Status.INTERNAL),
        (b"\7\0\0\0\1a", Status.INVALID_ARGUMENT),
    ],
    ids=["none", "two", "cut", "compressed", "no-flag"],
)
def test_a_request_that_is_not_one_message_is_refused(data: bytes, status: Status) -> None:
    caller = Caller(Served())
    stream = caller.open(FOLLOW)
    caller.send(stream, data, end=True)
    assert caller.outcomes[stream].status is status
    assert not caller.protocol.calls


def test_a_fault_in_a_method_is_logged_and_nothing_of_it_told(monkeypatch: Any) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        "twisted_mesh.grpc.server_connection.log.failure", lambda text, **facts: logged.append(text)
    )
    outcome = Caller(Served()).call(ECHO, b"break")
    assert (outcome.status, "secret" in outcome.text) == (Status.INTERNAL, False)
    assert logged


# Sizes.


def test_a_message_of_100_megabytes_is_refused_without_being_kept() -> None:
    served = Served()
    caller = Caller(served)
    stream = caller.open(ECHO)
    caller.turn()
    tracemalloc.start()
    try:
        caller.send(stream, b"\0" + (100_000_000).to_bytes(4, "big") + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    outcome = caller.outcomes[stream]
    assert outcome.status is Status.RESOURCE_EXHAUSTED
    assert "100000000 bytes is too large" in outcome.text
    assert outcome.reset == ErrorCodes.NO_ERROR
    assert caller.call(ECHO, b"and on").messages == [b"and on"]


def test_headers_beyond_their_limit_end_the_connection() -> None:
    caller = Caller(Served(limits=Limits(header_bytes=4096)))
    caller.open(ECHO, *[(f"x-{number}", "y" * 100) for number in range(60)])
    caller.turn()
    assert caller.goaway == ErrorCodes.ENHANCE_YOUR_CALM


def test_headers_that_swell_when_they_are_read_end_the_connection() -> None:
    """Said once and then named by a byte: h2 counts what they are when they are read."""
    caller = Caller(Served())
    caller.open(ECHO, *[("x-large", "y" * 3000)] * 20)
    caller.turn()
    assert caller.goaway == ErrorCodes.ENHANCE_YOUR_CALM


def test_headers_that_never_end_end_the_connection() -> None:
    """Each frame of them is small, and h2 keeps them until they are whole."""
    served = Served(limits=Limits(header_bytes=4096))
    caller = Caller(served)
    caller.say(b"\0\0\1\1\0\0\0\0\1x")
    for _ in range(5):
        caller.say(b"\0\4\0\x09\0\0\0\0\1" + b"x" * 1024)
    assert caller.goaway == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_frame_of_16_megabytes_ends_the_connection_by_its_first_bytes() -> None:
    caller = Caller(Served())
    caller.say(b"\xff\xff\xff\0\0\0\0\0\1")
    assert caller.goaway == ErrorCodes.FRAME_SIZE_ERROR


def test_messages_that_the_method_does_not_take_get_no_more_credit() -> None:
    served = Served()
    caller = Caller(served)
    stream = caller.open(FOLLOW)
    caller.send(stream, frame(b"first"))
    caller.send(stream, b"\0\0\0\xff\xff" + b"x" * 1000)
    assert caller.outcomes[stream].status is None  # it is only not whole yet
    window = caller.h2.local_flow_control_window(stream)
    assert window > 60_000


# What is not read.


def test_only_the_newest_waits_for_who_does_not_read() -> None:
    served = Served()
    caller = Caller(served, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10}, reads=False)
    outcome = caller.call(FOLLOW)
    (call,) = served.followed
    for number in range(1000):
        call.replace(b"%08d" % number * 1000)
    caller.turn()
    assert call._outlet.size < 9000
    caller.h2.increment_flow_control_window(2**20, 1)
    caller.h2.increment_flow_control_window(2**20)
    caller.turn()
    # The one that was begun comes whole, and then the newest.
    assert [message[:8] for message in outcome.messages] == [b"00000000", b"00000999"]


def test_what_waits_goes_on_once_the_caller_widens_all_windows() -> None:
    served = Served()
    caller = Caller(served, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}, reads=False)
    outcome = caller.call(FOLLOW)
    served.followed[0].replace(b"x" * 1000)
    caller.turn()
    assert outcome.data == b""
    caller.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65535})
    caller.turn()
    caller.turn()
    assert outcome.messages == [b"x" * 1000]


def test_streams_take_turns_and_none_waits_for_one_that_is_not_read() -> None:
    served = Served()
    caller = Caller(served, reads=False)
    first, second = caller.call(FOLLOW), caller.call(FOLLOW)
    served.followed[0].replace(b"x" * 200_000)  # more than its window
    served.followed[1].replace(b"now")
    caller.h2.increment_flow_control_window(2**20)
    caller.turn()
    assert (len(first.data), second.messages) == (65535, [b"now"])


def test_a_call_ends_at_once_also_for_who_does_not_read() -> None:
    served = Served()
    caller = Caller(served, settings={SettingCodes.INITIAL_WINDOW_SIZE: 10}, reads=False)
    outcome = caller.call(FOLLOW)
    served.followed[0].replace(b"secret of a process that is gone" * 100)
    served.followed[0].fail(GrpcError(Status.PERMISSION_DENIED, "no more"))
    caller.turn()
    assert outcome.status is Status.PERMISSION_DENIED
    assert len(outcome.data) <= 10
    assert not caller.protocol.calls


def test_answers_that_nobody_reads_end_their_call() -> None:
    served = Served(limits=Limits(queued_bytes=10_000))
    caller = Caller(served, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}, reads=False)
    outcome = caller.call(FOLLOW)
    for _ in range(20):
        served.followed[0].send(b"x" * 1000)
    caller.turn()
    assert outcome.status is Status.RESOURCE_EXHAUSTED


def test_an_answer_that_is_not_read_keeps_its_place_for_a_while() -> None:
    served = Served(limits=Limits(calls_of_caller=2, stalled_seconds=60))
    caller = Caller(served, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}, reads=False)
    first, second, third = (caller.call(ECHO, b"x") for _ in range(3))
    assert third.status is Status.RESOURCE_EXHAUSTED
    served.clock.pump([1] * 62)
    caller.turn()
    assert (first.reset, second.reset) == (ErrorCodes.CANCEL, ErrorCodes.CANCEL)
    caller.call(ECHO, b"y")
    assert len(caller.protocol.calls) == 1


def test_a_full_transport_is_not_written_to_and_not_read_from() -> None:
    served = Served()
    caller = Caller(served)
    outcome = caller.call(FOLLOW)
    caller.protocol.pauseProducing()
    assert caller.wire.producerState == "paused"
    served.followed[0].replace(b"1")
    served.followed[0].replace(b"2")
    caller.turn()
    assert outcome.data == b""
    caller.protocol.resumeProducing()
    caller.turn()
    assert (outcome.messages, caller.wire.producerState) == ([b"2"], "producing")


def test_one_that_reads_nothing_for_long_is_hung_up_on() -> None:
    served = Served(limits=Limits(stalled_seconds=60))
    caller = Caller(served)
    caller.call(FOLLOW)
    caller.protocol.pauseProducing()
    served.clock.pump([1] * 62)
    assert caller.wire.aborted
    assert served.ended == served.followed


# Many of them.


def test_1000_calls_of_one_process_are_refused_beyond_its_share() -> None:
    served = Served(key_of=lambda caller: "one process")
    callers = [Caller(served) for _ in range(10)]
    outcomes = [caller.call(FOLLOW) for caller in callers for _ in range(100)]
    refused = [outcome for outcome in outcomes if outcome.status is Status.RESOURCE_EXHAUSTED]
    assert (len(served.followed), len(refused)) == (100, 900)
    assert "100 calls open already" in refused[0].text
    assert served.server.open_calls == 100
    for caller in callers:
        caller.protocol.connectionLost()
    served.clock.advance(0)
    assert (len(served.ended), served.server.open_calls) == (100, 0)
    assert Caller(served).call(ECHO, b"again").messages == [b"again"]


def test_more_streams_than_the_protocol_allows_end_the_connection() -> None:
    served = Served(limits=Limits(streams=10, calls_of_caller=5))
    caller = Caller(served)
    for _ in range(11):
        stream = caller.h2.get_next_available_stream_id()
        caller.h2.remote_settings.update({SettingCodes.MAX_CONCURRENT_STREAMS: 1000})
        caller.h2.remote_settings.acknowledge()
        caller.open(FOLLOW)
        caller.h2.send_data(stream, b"\0")
    caller.turn()
    assert caller.goaway is not None
    assert not caller.protocol.calls


def test_a_caller_has_so_many_connections_and_no_more() -> None:
    served = Served(limits=Limits(connections_of_caller=2), key_of=lambda caller: "one process")
    first, second, third = (Caller(served) for _ in range(3))
    assert first.call().status is second.call().status is Status.OK
    outcome = third.call()
    assert (outcome.status, "2 connections" in outcome.text) == (Status.RESOURCE_EXHAUSTED, True)
    first.protocol.connectionLost()
    third.protocol.connectionLost()
    assert Caller(served).call().status is Status.OK


def test_beyond_all_connections_one_is_hung_up_on() -> None:
    served = Served(limits=Limits(connections=2))
    kept = [Caller(served) for _ in range(2)]
    assert Caller(served).wire.aborted
    assert len(served.server.connections) == 2
    kept[0].protocol.connectionLost()
    assert Caller(served).call().status is Status.OK


def test_who_has_twice_its_connections_is_hung_up_on_and_leaves_room_for_others() -> None:
    whose = ["greedy"]
    served = Served(
        limits=Limits(connections=40, connections_of_caller=2), key_of=lambda _: whose[0]
    )
    for _ in range(100):
        Caller(served)
    served.clock.advance(0)
    assert len(served.server.connections) == 4
    whose[0] = "modest"
    assert Caller(served).call().status is Status.OK


def test_one_users_processes_leave_a_quarter_of_all_connections_to_others() -> None:
    whose = ["greedy"]
    served = Served(
        limits=Limits(connections=40), key_of=lambda _: object(), group_of=lambda _: whose[0]
    )
    held = []
    for _ in range(100):
        held.append(Caller(served))
        served.clock.advance(0)
    assert len(served.server.connections) == 30
    whose[0] = "modest"
    assert Caller(served).call().status is Status.OK
    whose[0] = "greedy"
    for each in held[:30]:
        each.protocol.connectionLost()
    assert Caller(served).call().status is Status.OK


def test_who_is_hung_up_on_again_and_again_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = RecordingLog()
    monkeypatch.setattr(admission, "log", log)
    served = Served(limits=Limits(connections=0))
    for _ in range(50):
        assert Caller(served).wire.aborted
    warned = [event for event in log.events if event["log_level"] is LogLevel.warn]
    assert 10 <= len(warned) < 20


# Floods.


def test_a_flood_of_pings_is_ended() -> None:
    caller = Caller(Served())
    for _ in range(300):
        caller.h2.ping(b"12345678")
    caller.turn()
    assert caller.goaway == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_flood_of_calls_that_are_taken_back_is_ended() -> None:
    served = Served()
    caller = Caller(served)
    for _ in range(300):
        stream = caller.open(FOLLOW)
        caller.h2.reset_stream(stream, ErrorCodes.CANCEL)
    caller.turn()
    assert caller.goaway == ErrorCodes.ENHANCE_YOUR_CALM
    assert not caller.protocol.calls


def test_a_flood_of_settings_is_ended() -> None:
    caller = Caller(Served())
    for number in range(300):
        caller.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000 + number})
    caller.turn()
    assert caller.goaway == ErrorCodes.ENHANCE_YOUR_CALM


def test_who_is_answered_may_take_its_calls_back_and_ping_as_often_as_it_likes() -> None:
    served = Served()
    caller = Caller(served)
    for number in range(400):
        outcome = caller.call(FOLLOW)
        served.followed[-1].replace(b"x")
        caller.h2.ping(b"12345678")
        caller.turn()
        assert outcome.messages == [b"x"]
        caller.h2.reset_stream(2 * number + 1, ErrorCodes.CANCEL)
        caller.turn()
    assert (caller.goaway, len(served.ended)) == (None, 400)


# Who speaks something else, or nothing.


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 30,
        PREFACE + b"\xff" * 64,
    ],
    ids=["http", "tls", "garbage"],
)
def test_garbage_is_hung_up_on(data: bytes) -> None:
    served = Served()
    wire = Wire(served.clock)
    protocol = served.server.buildProtocol(None)
    wire.join(protocol)
    protocol.dataReceived(data)
    assert wire.disconnecting
    assert protocol.is_lost


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_arbitrary_frames_end_nothing_but_their_connection(data: bytes) -> None:
    served = Served()
    hostile, honest = Caller(served), Caller(served)
    hostile.open(ECHO)
    hostile.turn()
    hostile.wire.clear()
    if hostile.wire.connected:
        hostile.protocol.dataReceived(data)
    assert honest.call(ECHO, b"x").messages == [b"x"]


def test_who_says_nothing_is_hung_up_on_and_who_has_greeted_is_not() -> None:
    served = Served(limits=Limits(hello_seconds=10))
    greeted = Caller(served)
    silent = Caller(served)
    silent.protocol.has_spoken = False  # as if not even the preface had come
    served.clock.pump([1] * 12)
    assert (silent.wire.aborted, greeted.wire.disconnecting) == (True, False)


def test_a_connection_without_calls_is_ended_in_time_and_one_with_a_call_is_not() -> None:
    served = Served(limits=Limits(idle_seconds=20))
    idle, busy = Caller(served), Caller(served)
    busy.call(FOLLOW)
    served.clock.pump([1] * 22)
    idle.read()
    assert (idle.goaway, idle.wire.disconnecting) == (ErrorCodes.NO_ERROR, True)
    assert not busy.wire.disconnecting


def test_a_call_whose_message_does_not_come_is_ended() -> None:
    served = Served(limits=Limits(request_seconds=30))
    caller = Caller(served)
    for path in (ECHO, TALK):
        stream = caller.open(path)
        caller.send(stream, b"\0\0")
    served.clock.pump([1] * 32)
    caller.turn()
    assert {outcome.status for outcome in caller.outcomes.values() if outcome.status} == {
        Status.DEADLINE_EXCEEDED
    }
    assert not caller.protocol.calls


# Ends.


def test_a_call_past_its_deadline_is_cancelled() -> None:
    served = Served()
    caller = Caller(served)
    outcome = caller.call(FOLLOW, b"", ("grpc-timeout", "2S"))
    served.clock.advance(1.9)
    assert not served.ended
    served.clock.advance(0.2)
    caller.turn()
    assert (outcome.status, len(served.ended)) == (Status.DEADLINE_EXCEEDED, 1)


def test_a_call_that_is_taken_back_is_cleaned_up() -> None:
    served = Served()
    caller = Caller(served)
    caller.call(FOLLOW)
    caller.h2.reset_stream(1, ErrorCodes.CANCEL)
    caller.turn()
    assert len(served.ended) == 1
    served.followed[0].send(b"too late")
    served.followed[0].replace(b"too late")
    served.followed[0].fail(GrpcError(Status.INTERNAL, "too late"))
    caller.turn()
    assert caller.goaway is None


def test_a_lost_connection_ends_its_calls_while_a_handler_waits_for_a_message() -> None:
    served = Served()
    caller = Caller(served)
    caller.open(TALK)
    caller.turn()
    caller.protocol.connectionLost()
    served.clock.advance(0)
    assert served.followed[0].is_over
    assert served.server.open_calls == 0


def test_a_server_that_is_drained_ends_streams_and_lets_answers_come() -> None:
    served = Served()
    caller, idle = Caller(served), Caller(served)
    stream = caller.call(FOLLOW)
    drained = Deferred.fromCoroutine(served.server.drain(5))
    caller.turn()
    idle.read()
    assert (stream.status, stream.text) == (Status.UNAVAILABLE, "this server is being stopped")
    assert (caller.goaway, idle.goaway) == (ErrorCodes.NO_ERROR, ErrorCodes.NO_ERROR)
    served.clock.pump([0.05] * 3)
    assert drained.called
    assert Caller(served).wire.aborted


def test_a_server_that_is_drained_waits_so_long_and_no_longer() -> None:
    waiting: Deferred[object] = Deferred()

    async def admit(transport: object) -> object:
        return await waiting

    served = Served(admit=admit)
    caller = Caller(served)
    outcome = caller.call(ECHO)
    drained = Deferred.fromCoroutine(served.server.drain(1))
    served.clock.pump([0.1] * 15)
    caller.read()
    assert outcome.status is Status.UNAVAILABLE
    assert drained.called
    assert not served.server.connections


# Who it is.


def test_calls_wait_until_it_is_known_whose_they_are() -> None:
    waiting: Deferred[object] = Deferred()

    async def admit(transport: object) -> object:
        return await waiting

    served = Served(admit=admit)
    caller = Caller(served)
    outcome = caller.call(FOLLOW)
    assert not served.followed
    waiting.callback("somebody")
    assert served.followed[0].caller == "somebody"
    served.followed[0].finish()
    caller.turn()
    assert outcome.status is Status.OK


def test_who_leaves_before_it_is_known_is_forgotten_in_silence(monkeypatch: Any) -> None:
    monkeypatch.setattr("twisted_mesh.grpc.server_connection.log.failure", pytest.fail)
    waiting: Deferred[object] = Deferred()

    async def admit(transport: object) -> object:
        return await waiting

    served = Served(admit=admit)
    caller = Caller(served)
    caller.call(FOLLOW)
    caller.protocol.connectionLost()
    served.clock.advance(0)
    assert (served.server.connections, served.followed) == (set(), [])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (PkiError("the process is gone"), Status.UNAVAILABLE),
        (GrpcError(Status.PERMISSION_DENIED, "not you"), Status.PERMISSION_DENIED),
        (RuntimeError("a fault"), Status.INTERNAL),
    ],
    ids=["pki", "grpc", "fault"],
)
def test_who_cannot_be_attested_is_told_why(
    error: Exception, status: Status, monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        "twisted_mesh.grpc.server_connection.log.failure", lambda text, **facts: None
    )

    async def admit(transport: object) -> object:
        raise error

    assert Caller(Served(admit=admit)).call(ECHO).status is status


def test_a_handler_may_end_its_call_before_it_waits() -> None:
    served = Served()

    async def at_once(call: Any, request: bytes) -> None:
        call.send(b"1")
        call.fail(GrpcError(Status.ABORTED, "at once"))
        await call.over()
        await call.sent()
        served.ended.append(call)

    served.server.methods[FOLLOW] = streaming(at_once)  # type: ignore[index]
    outcome = Caller(served).call(FOLLOW)
    assert (outcome.status, len(served.ended)) == (Status.ABORTED, 1)
