"""Every phase of a connection ends in time, and no body is larger than allowed."""

import tracemalloc
from http import HTTPStatus
from time import time
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web import resource, server
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import UNKNOWN_LENGTH

from tests.twisted_mesh.recording import RecordingLog
from tests.twisted_mesh.talking import Talk, Wire, read_answers
from twisted_mesh.http.answer_reader import AnswerTooLong
from twisted_mesh.http.request import SiteRequest, answer
from twisted_mesh.http.response_body import read_body
from twisted_mesh.http.server import BoundedSite, Limits, address_of_peer
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit

LIMITS = Limits(header_seconds=10, body_seconds=30, idle_seconds=75, body_bytes=1000)
GET = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n"


#: Longer than what is sent in one piece.
LONG = bytes(range(256)) * 1000


class Noting(resource.Resource):
    """Answers at once with the path, or for ``/later`` when the test says so."""

    isLeaf = takes_whole_requests = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bytes]] = []
        self.told: list[Any] = []
        """All else that each of them says."""
        self.waiting: list[SiteRequest] = []

    def render(self, request: SiteRequest) -> int:
        path = request.path.decode()
        self.seen.append((path, request.body))
        headers = [*request.requestHeaders.getAllRawHeaders()]
        last = request.getHeader(b"content-type"), request.getHeader(b"x")
        self.told.append((request.method, dict(request.args), headers, last))
        if path == "/later":
            self.waiting.append(request)
        elif path == "/broken":
            raise RuntimeError("secret words")
        elif path == "/long":
            answer(request, 200, LONG, "text/plain")
        elif path == "/known":
            answer(request, 304, b"", headers={"etag": '"1"', "cache-control": "max-age=60"})
        else:
            answer(request, 200, path.encode(), "text/plain")
        return server.NOT_DONE_YET

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.seen]

    def finish(self) -> None:
        answer(self.waiting.pop(0), 200, b"at last", "text/plain")


@define(eq=False)
class Rig:
    clock: Clock = field(factory=Clock)
    root: Noting = field(factory=Noting)
    site: BoundedSite = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.site = BoundedSite(self.root, self.clock, LIMITS)

    def talk(self, *, stubborn: bool = False) -> Talk:
        return Talk(self.site, self.clock, stubborn)

    def drain(self, seconds: float = 10) -> "list[int]":
        late: list[int] = []
        Deferred.fromCoroutine(self.site.drain(seconds)).addCallback(late.append)
        self.clock.advance(0)
        return late


@pytest.fixture(params=["ours", "Twisted's"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Whoever reads the requests, the bounds are the same."""
    rig = Rig()
    rig.site.reads_whole = request.param == "ours"
    return rig


@pytest.fixture
def talk(rig: Rig) -> Talk:
    return rig.talk()


def post(body: bytes, *headers: bytes, path: bytes = b"/now") -> bytes:
    lines = (b"POST " + path + b" HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body))
    return b"\r\n".join((*lines, *headers, b"", body))


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"POST /now HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + end


# Deadlines.


def test_a_connection_that_says_nothing_is_closed_after_the_headers_time(talk: Talk) -> None:
    talk.pass_time(9.5)
    assert talk.open
    talk.pass_time(0.5)
    assert not talk.open


def test_a_byte_a_second_does_not_put_off_the_headers_deadline(rig: Rig, talk: Talk) -> None:
    for byte in b"GET /now HTTP/1.1":
        talk.say(bytes((byte,)))
        talk.pass_time(1)
    assert rig.clock.seconds() == 17
    assert talk.statuses == [408]
    assert not talk.wire.connected


def test_a_header_line_a_second_does_not_put_off_the_headers_deadline(talk: Talk) -> None:
    talk.say(b"GET /now HTTP/1.1\r\n")
    for number in range(9):
        talk.pass_time(1)
        talk.say(b"X-%d: y\r\n" % number)
    assert talk.open
    talk.pass_time(1)
    assert not talk.open


#: The beginning of a ClientHello, which has no end of a line in it.
CLIENT_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(20)


@pytest.mark.parametrize("size", [2, 5, len(CLIENT_HELLO)])
def test_who_begins_with_tls_is_told_at_once_that_plain_http_is_spoken(
    size: int, talk: Talk
) -> None:
    talk.say(CLIENT_HELLO, size)
    (answer,) = talk.answers
    assert answer.status == 400
    assert answer.json["code"] == "not-http"
    assert not talk.wire.connected


@pytest.mark.parametrize("first", [b"\r\n", b"GET /now HTTP/1.1\r\n"])
def test_a_late_first_line_does_not_put_off_the_headers_deadline(talk: Talk, first: bytes) -> None:
    talk.pass_time(9)
    talk.say(first)
    talk.pass_time(1)
    assert not talk.open


def test_a_kept_connection_has_the_headers_time_from_the_first_byte_of_a_request(
    talk: Talk,
) -> None:
    talk.say(GET)
    talk.pass_time(70)
    talk.say(b"G")
    talk.pass_time(9.5)
    assert talk.open
    talk.say(b"ET /now HTTP/1.1\r\n")
    talk.pass_time(0.5)
    assert not talk.open


def test_a_slow_body_is_cut_off_at_its_deadline(rig: Rig, talk: Talk) -> None:
    talk.say(b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
    for _ in range(29):
        talk.say(b"x")
        talk.pass_time(1)
    assert talk.open
    talk.pass_time(1)
    assert talk.statuses == [408]
    assert talk.answers[0].headers["connection"] == "close"
    assert rig.root.seen == []


def test_the_body_has_its_whole_time_after_slow_headers(talk: Talk) -> None:
    talk.pass_time(9)
    talk.say(b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    talk.pass_time(29)
    talk.say(b"xy")
    assert talk.statuses == [200]


def test_a_kept_connection_is_closed_when_it_has_been_idle_too_long(talk: Talk) -> None:
    talk.say(GET)
    talk.pass_time(74.5)
    assert talk.open
    talk.pass_time(0.5)
    assert not talk.open


def test_each_request_starts_the_idle_time_anew(talk: Talk) -> None:
    for _ in range(4):
        talk.say(GET)
        talk.pass_time(50)
    assert talk.open
    assert talk.statuses == [200] * 4


def test_no_deadline_ends_a_request_that_is_being_served(rig: Rig, talk: Talk) -> None:
    talk.say(LATER)
    talk.pass_time(1000, step=10)
    assert talk.open
    rig.root.finish()
    assert talk.statuses == [200]


def test_a_peer_that_does_not_answer_the_goodbye_is_aborted(rig: Rig) -> None:
    talk = rig.talk(stubborn=True)
    talk.pass_time(10)
    assert not talk.wire.aborted
    talk.pass_time(2)
    assert talk.wire.aborted


def test_after_a_timeout_nothing_is_heard_any_more(rig: Rig) -> None:
    talk = rig.talk(stubborn=True)
    talk.say(b"GET /now HTTP/1.1\r\n")
    talk.pass_time(10)
    talk.say(b"Host: a\r\n\r\n" + GET)
    assert rig.root.seen == []
    talk.pass_time(2)
    assert talk.wire.aborted
    assert talk.statuses == [408]


def test_a_closed_connection_leaves_no_timer_behind(rig: Rig, talk: Talk) -> None:
    talk.say(GET)
    talk.wire.loseConnection()
    rig.clock.advance(0)
    assert rig.clock.getDelayedCalls() == []
    assert rig.site.connections == set()


# Bodies.


@pytest.mark.parametrize("size", [None, 1])
def test_a_body_of_just_the_limit_arrives_whole(rig: Rig, talk: Talk, size: int | None) -> None:
    body = b"x" * 1000
    talk.say(post(body), size)
    talk.say(chunked(body[:400], body[400:]), size)
    assert rig.root.seen == [("/now", body), ("/now", body)]
    assert talk.statuses == [200, 200]


def test_a_content_length_over_the_limit_is_answered_before_the_body(rig: Rig, talk: Talk) -> None:
    talk.say(b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n")
    (refusal,) = talk.answers
    assert refusal.status == 413
    assert refusal.headers["connection"] == "close"
    assert refusal.headers["content-type"] == "application/problem+json"
    assert refusal.json["code"] == "too-large"
    assert "1000 bytes" in refusal.json["detail"]
    assert not talk.open
    assert rig.root.seen == []


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_chunked_body_over_the_limit_is_answered_as_it_grows(
    rig: Rig, talk: Talk, size: int | None
) -> None:
    talk.say(chunked(*[b"x" * 500] * 3), size)
    assert talk.statuses == [413]
    assert not talk.open
    assert rig.root.seen == []


def test_one_chunk_that_only_claims_to_be_huge_does_no_harm(rig: Rig, talk: Talk) -> None:
    talk.say(b"POST /now HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    talk.say(b"F" * 500 + b"\r\n" + b"x" * 1001)
    assert talk.statuses == [413]
    assert rig.root.seen == []


@pytest.mark.parametrize("complete", [True, False])
def test_whoever_ignores_a_413_is_aborted(rig: Rig, complete: bool) -> None:
    talk = rig.talk(stubborn=True)
    talk.say(chunked(*[b"x" * 500] * 3, end=b"0\r\n\r\n" if complete else b""))
    talk.say(b"x" * 5000 + GET)
    talk.pass_time(2)
    assert talk.wire.aborted
    assert talk.statuses == [413]
    assert rig.root.seen == []


def test_a_client_that_asks_first_is_told_to_continue(rig: Rig, talk: Talk) -> None:
    head, body = post(b"body", b"Expect: 100-continue").split(b"\r\n\r\n")
    talk.say(head + b"\r\n\r\n")
    assert talk.statuses == [100]
    talk.say(body)
    assert talk.statuses == [100, 200]


def test_a_client_that_asks_first_is_not_told_to_continue_with_too_much(talk: Talk) -> None:
    head = b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
    talk.say(head)
    assert talk.statuses == [413]


def test_a_chunked_body_after_100_continue_is_capped_too(talk: Talk) -> None:
    request = chunked(b"x" * 1001).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
    talk.say(request)
    assert talk.statuses == [100, 413]


# Several requests to a connection.


@pytest.mark.parametrize("size", [None, 1, 10])
def test_pipelined_requests_are_answered_in_their_order(
    rig: Rig, talk: Talk, size: int | None
) -> None:
    talk.say(GET + LATER + post(b"body") + GET, size)
    assert [a.body for a in talk.answers] == [b"/now"]
    rig.root.finish()
    assert [a.body for a in talk.answers] == [b"/now", b"at last", b"/now", b"/now"]
    assert rig.root.seen[2] == ("/now", b"body")
    assert talk.open


def test_the_deadlines_hold_for_what_was_pipelined(rig: Rig, talk: Talk) -> None:
    talk.say(LATER + b"GET /now HT")
    talk.pass_time(100, step=1)
    assert talk.open
    rig.root.finish()
    talk.pass_time(10)
    assert not talk.open
    assert talk.statuses == [200, 408]


def test_what_arrives_while_a_pipelined_request_is_served_starts_no_deadline(
    rig: Rig, talk: Talk
) -> None:
    talk.say(GET + LATER)
    talk.say(b"GET")
    talk.pass_time(100, step=1)
    rig.root.finish()
    assert talk.statuses == [200, 200]


def test_a_pipelined_body_has_its_whole_time(talk: Talk) -> None:
    talk.say(GET + b"POST /now HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
    talk.say(b"x")
    talk.pass_time(29)
    talk.say(b"y")
    assert talk.statuses == [200, 200]


def test_connection_close_is_obeyed(talk: Talk) -> None:
    talk.say(b"GET /now HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET)
    assert talk.statuses == [200]
    assert not talk.open


def test_http_1_0_is_answered_and_closed(talk: Talk) -> None:
    talk.say(b"GET /now HTTP/1.0\r\n\r\n")
    assert [a.body for a in talk.answers] == [b"/now"]
    assert not talk.open


def test_head_is_answered_with_the_size_and_without_the_body(talk: Talk) -> None:
    talk.say(GET.replace(b"GET", b"HEAD"))
    (reply,) = read_answers(talk.wire.value(), to_head=True)
    assert reply.status == 200
    assert reply.headers["content-length"] == "4"
    assert talk.open


def test_answers_are_not_cached_and_say_what_they_are(talk: Talk) -> None:
    talk.say(GET)
    (reply,) = talk.answers
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "text/plain"


def test_what_the_caller_has_is_answered_with_a_head_and_how_long_that_holds(talk: Talk) -> None:
    talk.say(GET.replace(b"/now", b"/known"))
    (reply,) = talk.answers
    assert reply.status == 304
    assert (reply.headers["etag"], reply.headers["cache-control"]) == ('"1"', "max-age=60")
    assert not {"content-type", "content-length"} & reply.headers.keys()
    assert talk.open


LONG_GET = GET.replace(b"/now", b"/long")


def test_a_long_body_arrives_whole_and_the_connection_goes_on(talk: Talk) -> None:
    talk.say(LONG_GET + GET)
    first, second = talk.answers
    assert (first.body, second.body) == (LONG, b"/now")


def test_of_a_long_body_no_more_is_sent_than_the_caller_takes(talk: Talk) -> None:
    sent: list[int] = []
    write = talk.wire.write

    def full_at_once(data: bytes) -> None:
        write(data)
        sent.append(len(data))
        talk.wire.producer.pauseProducing()

    talk.wire.write = full_at_once  # type: ignore[method-assign]
    talk.say(LONG_GET)
    assert max(sent) <= 64 * 1024
    while len(sent) < 5:
        before = len(sent)
        talk.wire.producer.resumeProducing()
        assert len(sent) == before + 1
    (reply,) = talk.answers
    assert reply.body == LONG


def test_who_takes_a_long_body_too_slowly_is_hung_up_on_in_the_midst_of_it(talk: Talk) -> None:
    write = talk.wire.write

    def stuck(data: bytes) -> None:
        write(data)
        talk.wire.producer.pauseProducing()

    talk.wire.write = stuck  # type: ignore[method-assign]
    talk.say(LONG_GET)
    talk.pass_time(LIMITS.body_seconds + 1)
    assert talk.open
    talk.pass_time(len(LONG) / 32768)
    assert talk.wire.aborted
    assert b"408" not in talk.wire.value()


def test_who_leaves_in_the_midst_of_a_long_body_leaves_nothing_behind(rig: Rig, talk: Talk) -> None:
    write = talk.wire.write

    def stuck(data: bytes) -> None:
        write(data)
        talk.wire.producer.pauseProducing()

    talk.wire.write = stuck  # type: ignore[method-assign]
    talk.say(LONG_GET)
    channel = talk.wire.producer
    talk.wire.lose(ConnectionDone())
    channel.resumeProducing()
    channel.stopProducing()
    channel.resumeProducing()
    assert rig.clock.getDelayedCalls() == []
    assert not rig.site.connections


@pytest.mark.filterwarnings("ignore")
def test_a_resource_that_breaks_shows_nothing_of_itself(talk: Talk) -> None:
    talk.say(GET.replace(b"/now", b"/broken"))
    (reply,) = talk.answers
    assert reply.status == 500
    assert b"secret" not in reply.body


# Requests that two parsers could read differently.

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"
AMBIGUOUS = {
    "length and chunked": (b"Content-Length: 4", CHUNKED),
    "chunked and length": (CHUNKED, b"Content-Length: 4"),
    "two lengths": (b"Content-Length: 4", b"Content-Length: 5"),
    "the same length twice": (b"Content-Length: 4", b"Content-Length: 4"),
    "a list of lengths": (b"Content-Length: 4, 4",),
    "a length with a sign": (b"Content-Length: +4",),
    "a negative length": (b"Content-Length: -4",),
    "a length in hex": (b"Content-Length: 0x4",),
    "a length with an underscore": (b"Content-Length: 1_0",),
    "no length": (b"Content-Length:",),
    "a length of Arabic digits": ("Content-Length: \u0664".encode(),),
    "a length of 5000 digits": (b"Content-Length: " + b"9" * 5000,),
    "a coding that is not ours": (b"Transfer-Encoding: gzip, chunked",),
    "a coding in quotes": (b'Transfer-Encoding: "chunked"',),
    "two codings": (CHUNKED, CHUNKED),
    "a space before the colon": (b"Content-Length : 4",),
    "a header without a colon": (b"Content-Length 4",),
    "a header without a name": (b": 4",),
    "a null in a value": (b"X: a\0b",),
    "a bare carriage return": (b"X: a\rTransfer-Encoding: chunked",),
    "a bad length, then a good header": (b"Content-Length: x", b"X: y"),
}


@pytest.mark.parametrize("size", [None, 1, 64])
@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_refused(
    rig: Rig, name: str, size: int | None
) -> None:
    talk = rig.talk(stubborn=True)
    head = b"\r\n".join((b"POST /now HTTP/1.1", b"Host: a", *AMBIGUOUS[name]))
    talk.say(head + b"\r\n\r\n0\r\n\r\n" + SMUGGLED, size)
    talk.say(SMUGGLED, size)
    assert rig.root.seen == []
    assert talk.statuses in ([400], [])
    assert not talk.open
    talk.pass_time(2)
    assert not talk.wire.connected


@pytest.mark.parametrize(
    "chunks",
    [
        b"-1\r\nx\r\n0\r\n\r\n",
        b"0x1\r\nx\r\n0\r\n\r\n",
        b"+1\r\nx\r\n0\r\n\r\n",
        b" 1\r\nx\r\n0\r\n\r\n",
        b"1_0\r\nx\r\n0\r\n\r\n",
        b"g\r\nx\r\n0\r\n\r\n",
        b"\r\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1;\0\r\nx\r\n0\r\n\r\n",
        b"1;" + b"x" * 2000 + b"\r\nx\r\n0\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 20000,
    ],
)
@pytest.mark.parametrize("size", [None, 1000])
def test_a_bad_chunk_is_refused(rig: Rig, chunks: bytes, size: int | None) -> None:
    talk = rig.talk(stubborn=True)
    talk.say(chunked(end=chunks) + SMUGGLED, size)
    talk.say(SMUGGLED)
    assert rig.root.seen == []
    assert talk.statuses == [400]
    talk.pass_time(2)
    assert not talk.wire.connected


@pytest.mark.parametrize("digits", [b"F" * 40, b"f" * 16, b"0" * 30 + b"fffff", b"3e9"])
@pytest.mark.parametrize("before", [b"", b"3\r\nabc\r\n"])
@pytest.mark.parametrize("size", [None, 1])
def test_a_chunk_of_more_than_is_taken_is_refused_before_it_comes(
    rig: Rig, digits: bytes, before: bytes, size: int | None
) -> None:
    """RFC 9112 section 7.1: a size may have any number of digits."""
    talk = rig.talk()
    talk.say(chunked(end=before + digits + b"\r\n"), size)
    assert talk.statuses == [413]
    assert rig.root.seen == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET\r\n",
        b"GET /now\r\n",
        b"GET  /now HTTP/1.1\r\n",
        b"GET /now HTTP/9.9\r\n",
        b"G\0T /now HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n",
        b"GET /" + b"x" * 20000,
        b"GET /now HTTP/1.1\r\nX: " + b"x" * 20000,
        b"GET /now HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
    ],
)
@pytest.mark.parametrize("size", [None, 1])
def test_a_head_that_is_none_is_refused(rig: Rig, head: bytes, size: int | None) -> None:
    talk = rig.talk(stubborn=True)
    talk.say(head)
    talk.say(SMUGGLED, size)
    assert rig.root.seen == []
    assert talk.statuses in ([400], [])
    talk.pass_time(12)
    assert not talk.wire.connected


TOKENS = (
    *(b"GET ", b"POST ", b"/now", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n", b"\r"),
    *(b"Host: a\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"),
    *(
        b"0\r\n\r\n",
        b"Content-Length:",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b":",
    ),
    *(b" ", b"\t", b"\0", b"\xff", b"Content-Type: multipart/form-data\r\n", b"Cookie: ;=\r\n"),
    *(GET, post(b"abc"), chunked(b"abc"), b"x" * 1001),
)


@given(st.lists(st.sampled_from(TOKENS) | st.binary(max_size=8), max_size=12), st.booleans())
def test_no_bytes_at_all_make_a_connection_raise_or_stay_for_ever(
    pieces: list[bytes], stubborn: bool
) -> None:
    rig = Rig()
    talk = rig.talk(stubborn=stubborn)
    for piece in pieces:
        talk.say(piece)
    talk.pass_time(75 + 30 + 10 + 2, step=5)
    assert not talk.wire.connected
    assert rig.clock.getDelayedCalls() == []


# Draining.


def test_what_is_overwritten_once_it_was_heard_is_kept(rig: Rig, talk: Talk) -> None:
    room, said = bytearray(20), post(b"x" * 50) + GET
    for at in range(0, len(said), len(room)):
        piece = said[at : at + len(room)]
        room[: len(piece)] = piece
        talk.wire.protocol.dataReceived(memoryview(room)[: len(piece)])
        room[:] = bytes(len(room))
        rig.clock.advance(0)
    assert talk.statuses == [200, 200]
    assert rig.root.seen == [("/now", b"x" * 50), ("/now", b"")]


@pytest.mark.parametrize(("seconds", "is_last"), [(60.0, False), (-1.0, True)])
def test_a_connection_that_ends_soon_is_left_with_an_answer(
    rig: Rig, seconds: float, is_last: bool
) -> None:
    leave_by = time() + seconds
    rig.site.opened = lambda connection: setattr(connection, "leave_by", leave_by)  # type: ignore[method-assign]
    talk = rig.talk()
    talk.say(GET)
    assert talk.statuses == [200]
    assert (b"connection: close\r\n" in talk.wire.value().lower()) is is_last
    assert talk.open is not is_last


def test_draining_closes_idle_connections_at_once(rig: Rig) -> None:
    fresh, kept = rig.talk(), rig.talk()
    kept.say(GET)
    assert rig.drain() == [0]
    assert not fresh.wire.connected
    assert not kept.wire.connected


def test_draining_lets_a_request_finish_and_says_close(rig: Rig, talk: Talk) -> None:
    talk.say(LATER)
    late = rig.drain()
    talk.pass_time(5)
    assert late == []
    rig.root.finish()
    rig.clock.advance(0)
    (reply,) = talk.answers
    assert reply.body == b"at last"
    assert reply.headers["connection"] == "close"
    assert late == [0]


@pytest.mark.parametrize("request_", [GET, post(b"body"), chunked(b"body")])
@pytest.mark.parametrize("sent", [22, -3])
def test_draining_lets_a_request_finish_that_is_still_arriving(
    rig: Rig, talk: Talk, request_: bytes, sent: int
) -> None:
    talk.say(request_[:sent])
    late = rig.drain()
    talk.pass_time(1)
    talk.say(request_[sent:])
    (reply,) = talk.answers
    assert reply.status == 200
    assert reply.headers["connection"] == "close"
    assert late == [0]


def test_draining_does_not_begin_what_was_pipelined(rig: Rig, talk: Talk) -> None:
    talk.say(LATER + GET)
    late = rig.drain()
    rig.root.finish()
    rig.clock.advance(0)
    assert talk.statuses == [200]
    assert late == [0]
    assert rig.root.paths == ["/later"]


def test_draining_aborts_what_does_not_finish_and_counts_it(rig: Rig) -> None:
    talks = [rig.talk() for _ in range(3)]
    for talk in talks[:2]:
        talk.say(LATER)
    late = rig.drain(10)
    talks[0].pass_time(9.5)
    assert late == []
    talks[0].pass_time(0.5)
    assert late == [2]
    rig.clock.advance(0)
    assert [talk.wire.aborted for talk in talks] == [True, True, False]
    assert rig.site.connections == set()


def test_a_connection_that_comes_while_draining_gets_one_answer(rig: Rig, talk: Talk) -> None:
    talk.say(LATER)
    late = rig.drain()
    second = rig.talk()
    second.say(GET)
    assert second.statuses == [200]
    assert second.answers[0].headers["connection"] == "close"
    assert not second.open
    rig.root.finish()
    rig.clock.advance(0)
    assert late == [0]


def test_draining_nobody_is_done_at_once(rig: Rig) -> None:
    assert rig.drain() == [0]
    assert rig.clock.getDelayedCalls() == []


# Reading answers.


@define(eq=False)
class Body:
    """A response whose body the test delivers."""

    length: Any = UNKNOWN_LENGTH
    wire: Wire = field(factory=lambda: Wire(Clock()))
    reader: Any = None

    def deliverBody(self, protocol: Protocol) -> None:
        self.reader = protocol
        self.wire.join(protocol)


def reading(
    limit: int = 10, length: Any = UNKNOWN_LENGTH
) -> tuple[Body, "Deferred[bytes]", list[Any]]:
    body = Body(length)
    outcome: list[Any] = []
    done = read_body(body, limit, "http://a")  # type: ignore[arg-type]
    done.addBoth(outcome.append)
    return body, done, outcome


@pytest.mark.parametrize("end", [ResponseDone(), PotentialDataLoss()])
def test_an_answer_of_just_the_limit_is_read(end: Exception) -> None:
    body, _, outcome = reading()
    body.reader.dataReceived(b"01234")
    body.reader.dataReceived(b"56789")
    body.reader.connectionLost(Failure(end))
    assert outcome == [b"0123456789"]


def test_an_answer_over_the_limit_is_cut_off() -> None:
    body, _, outcome = reading()
    body.reader.dataReceived(b"0" * 11)
    assert outcome[0].check(AnswerTooLong)
    assert str(outcome[0].value) == "http://a answers with more than 10 bytes"
    assert body.wire.disconnecting
    body.wire.clock.advance(0)


def test_an_answer_that_says_itself_that_it_is_too_long_is_not_waited_for() -> None:
    body, _, outcome = reading(length=11)
    assert outcome[0].check(AnswerTooLong)
    assert body.wire.disconnecting
    body.wire.clock.advance(0)
    _, _, outcome = reading(length=10)
    assert outcome == []


def test_an_answer_in_crumbs_takes_no_more_memory_than_one_in_a_piece() -> None:
    body, _, outcome = reading(200_000)
    tracemalloc.start()
    try:
        for number in range(100_000):
            body.reader.dataReceived(b"%02d" % (number % 100))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    body.reader.connectionLost(Failure(ResponseDone()))
    assert len(outcome[0]) == 200_000
    assert most < 1_000_000


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    body, _, outcome = reading()
    body.reader.dataReceived(b"01234")
    body.reader.connectionLost(Failure(ConnectionLost()))
    assert outcome[0].check(ConnectionLost)


def test_giving_up_on_an_answer_ends_its_connection() -> None:
    body, done, outcome = reading()
    done.cancel()
    assert body.wire.disconnecting
    assert outcome[0].check(ConnectionAborted)
    body.wire.clock.advance(0)


# Places.


def crowded(rig: Rig) -> ConnectionLimit:
    rig.site.connection_limit = ConnectionLimit(
        Capacity(8, 4, 4, 2), rig.clock, "the site", RecordingLog()
    )
    return rig.site.connection_limit


def test_a_newcomer_takes_the_place_of_who_waits_for_longest(rig: Rig) -> None:
    connection_limit = crowded(rig)
    first, second, third = (rig.talk() for _ in range(3))
    rig.clock.advance(0)
    assert [talk.open for talk in (first, second, third)] == [False, True, True]
    assert first.wire.aborted
    assert len(connection_limit) == len(rig.site.connections) == 2


def test_who_is_being_answered_keeps_its_place_and_a_newcomer_is_hung_up_on(rig: Rig) -> None:
    connection_limit = crowded(rig)
    served = [rig.talk() for _ in range(2)]
    for talk in served:
        talk.say(LATER)
    late = rig.talk()
    assert late.wire.aborted
    late.say(GET)
    rig.clock.advance(0)
    assert rig.root.paths == ["/later"] * 2
    rig.root.finish()
    assert served[0].statuses == [200] and served[0].open
    assert rig.talk().open
    rig.clock.advance(0)
    assert not served[0].open, "it was the one that waited"
    assert connection_limit.refused == 1
    assert len(rig.site.connections) == 2


def test_every_place_is_given_back_however_a_connection_ends(rig: Rig) -> None:
    connection_limit = crowded(rig)
    for end in (b"", GET, b"\x00\r\n\r\n", post(b"x" * 2000), LATER):
        talk = rig.talk()
        talk.say(end)
        talk.wire.lose(ConnectionLost())
    assert len(connection_limit) == 0
    assert not rig.site.connections
    assert rig.clock.getDelayedCalls() == []


def test_whose_a_connection_is_can_be_known_before_it_says_a_word(rig: Rig) -> None:
    crowded(rig)
    rig.site.caller_key = lambda transport: ("unix:uid:0", True)
    own = [rig.talk() for _ in range(4)]
    rig.site.caller_key = address_of_peer
    flood = [rig.talk() for _ in range(20)]
    rig.clock.advance(0)
    assert all(talk.open for talk in own)
    assert sum(talk.open for talk in flood) == 2


@pytest.mark.parametrize(
    ("head", "answered"),
    [
        (b"GET /now HTTP/1.1\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nhost: b\r\n", 400),
        (b"POST /now HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\n", 200),
        (b"GET /now HTTP/1.1\r\nHost:\r\n", 200),
        (b"GET /now HTTP/1.0\r\n", 200),
        (b"GET /now HTTP/1.0\r\nHost: a\r\n", 200),
        (b"GET /now HTTP/1.0\r\nHost: a\r\nHost: a\r\n", 400),
        (b"GET /now HTTP/1.0\r\nHost: a b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a.example:8443\r\n", 200),
        (b"GET /now HTTP/1.1\r\nHost: [::1]:8443\r\n", 200),
        (b"GET /now HTTP/1.1\r\nHost: 127.0.0.1\r\n", 200),
        (b"GET /now HTTP/1.1\r\nHost: a, b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a,b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: me@a\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\tb\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: http://a\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a/now\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a:b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: ::1\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: \xc3\xa4\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\n b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\n \r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost:\r\n a\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n", 400),
        (b"GET /now HTTP/1.1\r\n Host: a\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost : a\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\rb\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\0\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n", 400),
        (b"GET /now HTTP/1.1\r\nHost: a\r\nX : b\r\n", 400),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_request_of_http_1_1_names_one_host(head: bytes, answered: int, size: int) -> None:
    """RFC 9112 section 3.2: whoever stands in front may have read another one."""
    rig = Rig()
    talk = rig.talk()
    whole = head + b"\r\n"
    for at in range(0, len(whole), size):
        talk.say(whole[at : at + size])
    version = b"HTTP/1.0" if b"HTTP/1.0" in head and answered == 200 else b"HTTP/1.1"
    assert talk.wire.value().startswith(b"%s %d " % (version, answered))
    assert bool(rig.root.seen) == (answered == 200)


@pytest.mark.parametrize(
    "status", [200, 304, 401, 403, 404, 408, 409, 413, 421, 422, 429, 500, 503]
)
def test_every_status_has_its_phrase(status: int) -> None:
    class Answering(resource.Resource):
        isLeaf = True

        def render(self, request: SiteRequest) -> int:
            answer(request, status, b"")
            return server.NOT_DONE_YET

    rig = Rig()
    rig.site.resource = Answering()
    talk = rig.talk()
    talk.say(GET)
    line = talk.wire.value().split(b"\r\n")[0]
    assert line.startswith(b"HTTP/1.1 %d " % status)
    assert b"Unknown" not in line
    if status in (421, 422):
        assert line.split(b" ", 2)[2].decode() == HTTPStatus(status).phrase


def test_who_comes_when_all_is_drained_is_answered_nothing(rig: Rig) -> None:
    """As one does whose handshake was under way: what it asks for would be done behind the last words."""
    assert rig.drain() == [0]
    talk = rig.talk()
    assert talk.wire.aborted
    talk.say(GET)
    assert rig.root.seen == []
