"""HTTP through the proxy: nobody behind reads it otherwise than we do, and nobody says who it is itself."""

import re
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address

from pki.codes import Code
from pki.errors import Problem
from tests.pki.strategies import mutated
from tests.twisted_mesh.tls.wires import End, converse
from twisted_mesh.proxy.forwarded import identity_headers, is_ours
from twisted_mesh.proxy.http_filter import HttpFilter
from twisted_mesh.proxy.http_message import BadMessage, Body, Framing
from twisted_mesh.proxy.listener import Listener, Mode, Target
from twisted_mesh.proxy.seam import (
    Caller,
    Close,
    EndCaller,
    EndTarget,
    PauseCaller,
    ResumeCaller,
    Step,
    ToCaller,
    ToTarget,
)
from twisted_mesh.proxy.tally import REASONS

LISTENER = Listener("in", Mode.SERVER, "127.0.0.1:0", Target.parse("127.0.0.1:1"))
HERE = IPv4Address("TCP", "127.0.0.1", 1)
GET = b"GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def plain(**facts: Any) -> Caller:
    return Caller(LISTENER, HERE, HERE, **facts)


def proven() -> Caller:
    """One who has come over TLS."""
    talk = converse(End(False), End(True))
    connection: Any = talk.served.made[0].transport
    return plain(peer=connection.peer, tls=connection.getHandle(), objections=connection.objections)


class Talk:
    """What a filter has passed to both sides."""

    def __init__(self, caller: Caller | None = None) -> None:
        self.filter = HttpFilter(caller or plain())
        self.to_target = self.to_caller = b""
        self.closed: str | None = None
        self.is_paused = False
        self.ended: list[type[Step]] = []

    def do(self, steps: Sequence[Step]) -> "Talk":
        for step in steps:
            assert self.closed is None, "nothing is said behind the end"
            if isinstance(step, ToTarget):
                self.to_target += step.data
            elif isinstance(step, ToCaller):
                self.to_caller += step.data
            elif isinstance(step, PauseCaller | ResumeCaller):
                assert self.is_paused is isinstance(step, ResumeCaller), "in turns"
                self.is_paused = not self.is_paused
            elif isinstance(step, Close):
                assert step.reason in REASONS, "it is counted"
                self.closed = step.reason
            else:
                self.ended.append(type(step))
        return self

    def say(self, *pieces: bytes) -> "Talk":
        for piece in pieces:
            if self.closed is None:
                self.do(self.filter.from_caller(piece))
        return self

    def answer(self, *pieces: bytes) -> "Talk":
        for piece in pieces:
            if self.closed is None:
                self.do(self.filter.from_target(piece))
        return self

    @property
    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", self.to_caller)]


# Who has called.


def test_the_caller_is_said_as_envoy_says_it() -> None:
    caller = proven()
    assert caller.peer is not None
    (xfcc_name, xfcc), (name, who) = identity_headers(caller)
    assert (xfcc_name, name) == (b"X-Forwarded-Client-Cert", b"X-Mesh-Caller")
    assert who.decode() == str(caller.peer.spiffe_id)
    parts = dict(part.split("=", 1) for part in xfcc.decode().split(";"))
    assert [*parts][:4] == ["By", "Hash", "Subject", "URI"]
    assert parts["By"].startswith("spiffe://mesh.local/")
    assert len(parts["Hash"]) == 64
    assert parts["Subject"].startswith('"') and parts["Subject"].endswith('"')
    assert parts["URI"] == str(caller.peer.spiffe_id)


def test_who_has_proven_nothing_is_not_named_and_may_not_name_itself() -> None:
    talk = Talk().say(GET.replace(b"\r\n\r\n", b"\r\nX-Mesh-Caller: spiffe://mesh.local/a\r\n\r\n"))
    assert b"caller" not in talk.to_target.lower()


SPELLINGS = [
    b"X-Forwarded-Client-Cert",
    b"x-forwarded-client-cert",
    b"X_Forwarded_Client_Cert",
    b"X-FORWARDED_client-Cert",
    b"X.Forwarded.Client.Cert",
    b"x-mesh-caller",
    b"X_MESH_CALLER",
    b"x.mesh_caller",
    b"x~mesh|caller",
]


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("split", [False, True], ids=["whole", "byte-by-byte"])
def test_nobody_says_who_it_is_itself(name: bytes, split: bool) -> None:
    assert is_ours(name)
    forged = b"%s: URI=spiffe://mesh.local/admin\r\n" % name
    said = GET.replace(b"\r\n\r\n", b"\r\n" + forged * 2 + b"\r\n")
    talk = Talk(proven()).say(*([bytes([b]) for b in said] if split else [said]))
    assert b"admin" not in talk.to_target
    assert talk.to_target.lower().count(b"x-forwarded-client-cert: by=") == 1
    assert talk.to_target.count(b"X-Mesh-Caller: ") == 1


@pytest.mark.parametrize("name", SPELLINGS)
def test_nobody_has_it_taken_away_or_says_it_in_a_trailer(name: bytes) -> None:
    said = CHUNKED.replace(b"Host: a", b"Host: a\r\nConnection: " + name).replace(
        b"0\r\n\r\n", b"0\r\n" + name + b": admin\r\n\r\n"
    )
    talk = Talk(proven()).say(said)
    assert talk.to_target.count(b"X-Mesh-Caller: ") == 1
    assert b"admin" not in talk.to_target
    assert talk.to_target.endswith(b"3\r\nabc\r\n0\r\n\r\n")


def test_a_folded_header_is_refused() -> None:
    talk = Talk(proven()).say(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n X-Mesh-Caller: b\r\n\r\n")
    assert (talk.statuses, talk.to_target) == ([400], b"")


def test_each_request_is_judged_anew() -> None:
    problems: list[Problem] = []
    talk = Talk(plain(objections=lambda: problems)).say(GET).answer(OK)
    problems.append(Problem(Code.REVOKED, "it is revoked"))
    talk.say(GET)
    assert talk.to_target.count(b"GET") == 1
    assert (talk.statuses, talk.closed) == ([200, 403], "refused")


# One reading.

BAD = {
    "both lengths": POST.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "two lengths": POST.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"),
    "two other lengths": POST.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n"),
    "a list of lengths": POST.replace(b"Length: 3", b"Length: 3, 3"),
    "a signed length": POST.replace(b"Length: 3", b"Length: +3"),
    "a length in hex": POST.replace(b"Length: 3", b"Length: 0x3"),
    "an endless length": POST.replace(b"Length: 3", b"Length: " + b"9" * 40),
    "an empty length": POST.replace(b"Length: 3", b"Length: "),
    "another coding": CHUNKED.replace(b"chunked", b"gzip, chunked"),
    "an odd coding": CHUNKED.replace(b"chunked", b"xchunked"),
    "a coding twice": CHUNKED.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n", 1),
    "identity": CHUNKED.replace(b"chunked", b"identity"),
    "a coding in 1.0": CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a space before the colon": CHUNKED.replace(b"Transfer-Encoding:", b"Transfer-Encoding :"),
    "a tab before the colon": CHUNKED.replace(b"Transfer-Encoding:", b"Transfer-Encoding\t:"),
    "a NUL": GET.replace(b"Host: a", b"Host: a\r\nX: \x00"),
    "a bare CR": GET.replace(b"Host: a", b"Host: a\r\nX: a\rTransfer-Encoding: chunked"),
    "a bare LF": GET.replace(b"Host: a", b"Host: a\r\nX: a\nTransfer-Encoding: chunked"),
    "LF for lines": b"GET / HTTP/1.1\nHost: a\n\n" + GET,
    "no name": GET.replace(b"Host: a", b"Host: a\r\n: b"),
    "no colon": GET.replace(b"Host: a", b"Host: a\r\nb"),
    "a first line folded": GET.replace(b"Host: a", b" Host: a"),
    "two hosts": GET.replace(b"Host: a", b"Host: a\r\nHost: b"),
    "no host": GET.replace(b"Host: a", b"X: a"),
    "an odd host": GET.replace(b"Host: a", b"Host: a@b"),
    "absolute form": GET.replace(b"/a?b", b"http://b/a"),
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT to a path": b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a coding spelt oddly": POST.replace(b"Host: a", b"Host: a\r\nTransfer_Encoding: chunked"),
    "a length spelt oddly": CHUNKED.replace(b"Host: a", b"Host: a\r\ncontent.length: 3"),
    "another version": GET.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "a version in small": GET.replace(b"HTTP/1.1", b"http/1.1"),
    "two spaces": GET.replace(b"GET /", b"GET  /"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an extension of a chunk": CHUNKED.replace(b"3\r\n", b"3;a=b\r\n"),
    "a chunk's size with 0x": CHUNKED.replace(b"3\r\nabc", b"0x3\r\nabc"),
    "a chunk's size with a sign": CHUNKED.replace(b"3\r\nabc", b"+3\r\nabc"),
    "a chunk's size with a space": CHUNKED.replace(b"3\r\nabc", b"3 \r\nabc"),
    "a chunk's size that overflows": CHUNKED.replace(b"3\r\nabc", b"1" + b"0" * 16 + b"3\r\nabc"),
    "a chunk that is longer": CHUNKED.replace(b"3\r\nabc", b"2\r\nabc"),
    "a chunk's line by LF": CHUNKED.replace(b"3\r\nabc", b"3\nabc"),
    "an odd trailer": CHUNKED.replace(b"0\r\n\r\n", b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    "length taken away": POST.replace(b"Host: a", b"Host: a\r\nConnection: content-length"),
    "another expectation": GET.replace(b"Host: a", b"Host: a\r\nExpect: 200-ok"),
    "a head too long": GET.replace(b"Host: a", b"Host: a\r\nX: " + b"y" * 70_000),
    "too many headers": GET.replace(b"Host: a", b"\r\n".join([b"Host: a", *[b"X: y"] * 300])),
    "who changes with a body": POST.replace(
        b"Host: a", b"Host: a\r\nConnection: upgrade\r\nUpgrade: websocket"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_could_be_read_in_two_ways_gets_400_and_ends(name: str) -> None:
    talk = Talk().say(BAD[name] + GET)
    assert talk.statuses == [400]
    assert talk.closed == "refused"
    assert b"GET /a?b" not in talk.to_target, "and what comes behind is no request"


def test_a_bad_request_behind_a_good_one_is_refused_behind_its_answer() -> None:
    talk = Talk().say(GET + BAD["both lengths"])
    assert talk.to_caller == b""
    talk.answer(OK)
    assert talk.statuses == [200, 400]
    assert talk.closed == "refused"


BAD_ANSWERS = {
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "both lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "an odd status": b"HTTP/1.1 20 OK\r\n\r\n",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: y\r\n z: a\r\n\r\n",
    "a bare LF": b"HTTP/1.1 200 OK\r\nX: y\nz: a\r\n\r\n",
    "101 unasked": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
    "a head too long": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_could_be_read_in_two_ways_gets_502_and_ends(name: str) -> None:
    talk = Talk().say(GET).answer(BAD_ANSWERS[name])
    assert (talk.statuses, talk.closed) == ([502], "target-broken")


def test_an_answer_that_nobody_asked_for_ends_it() -> None:
    talk = Talk().answer(OK)
    assert talk.closed is not None
    assert b"200" not in talk.to_caller
    talk = Talk().say(GET).answer(OK + OK)
    assert talk.statuses[0] == 200
    assert talk.closed is not None


# What is passed on.


def test_requests_are_written_anew_without_what_is_of_one_connection() -> None:
    said = (
        b"POST /a HTTP/1.1\r\nhost:a\r\nConnection: keep-alive, X-Own\r\nX-Own: 1\r\nTE: trailers\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: a\r\nKeep-Alive: 5\r\nCookie:  c=d \r\nContent-Length: 3\r\n\r\nabc"
    )
    assert Talk().say(said).to_target == (
        b"POST /a HTTP/1.1\r\nhost: a\r\nCookie: c=d\r\nContent-Length: 3\r\n\r\nabc"
    )


def test_pipelined_requests_are_answered_in_order() -> None:
    talk = Talk().say(GET + POST + CHUNKED)
    assert talk.to_target.count(b"HTTP/1.1\r\n") == 3
    talk.answer(OK + OK.replace(b"ok", b"2."), OK.replace(b"ok", b"3."))
    assert [talk.to_caller.index(word) for word in (b"ok", b"2.", b"3.")] == sorted(
        talk.to_caller.index(word) for word in (b"ok", b"2.", b"3.")
    )
    assert talk.closed is None


@pytest.mark.parametrize(
    ("request_", "answer", "is_over"),
    [
        (GET, OK, False),
        (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", False),
        (GET, b"HTTP/1.1 204 None\r\n\r\n", False),
        (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", False),
        (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", False),
        (GET.replace(b"Host", b"Connection: close\r\nHost"), OK, True),
        (GET.replace(b"HTTP/1.1", b"HTTP/1.0"), OK, True),
        (GET, OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), True),
        (GET, OK.replace(b"HTTP/1.1", b"HTTP/1.0"), True),
    ],
    ids=["usual", "HEAD", "204", "304", "chunked", "closes", "1.0", "answer closes", "answer 1.0"],
)
def test_where_an_answer_ends(request_: bytes, answer: bytes, is_over: bool) -> None:
    talk = Talk().say(request_).answer(*[bytes([byte]) for byte in answer])
    assert talk.closed == ("done" if is_over else None)
    assert (b"Connection: close" in talk.to_caller) == is_over
    if not is_over:
        assert talk.say(GET).answer(OK).statuses[-1] == 200


def test_an_answer_up_to_the_end_of_the_connection_is_the_last() -> None:
    talk = Talk().say(GET).answer(b"HTTP/1.1 200 OK\r\n\r\nsome", b"thing")
    assert talk.to_caller == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsomething"
    assert talk.closed is None
    talk.do(talk.filter.target_ended())
    assert talk.closed == "done"


def test_whoever_speaks_1_0_is_given_no_chunks() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n"
    talk = Talk().say(b"GET / HTTP/1.0\r\n\r\n").answer(answer)
    assert talk.to_caller == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
    assert talk.closed == "done"


def test_who_waits_to_be_told_to_continue_is_told() -> None:
    head, body = POST[:-3].replace(b"Host", b"Expect: 100-continue\r\nHost"), POST[-3:]
    talk = Talk().say(head)
    assert talk.to_target.endswith(b"\r\n\r\n")
    talk.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert talk.statuses == [100]
    talk.say(body).answer(OK)
    assert talk.statuses == [100, 200]
    assert talk.to_target.endswith(b"\r\n\r\nabc")


UPGRADE = GET.replace(b"Host: a", b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_websocket_goes_through_once_it_is_granted() -> None:
    talk = Talk(proven()).say(UPGRADE + b"early")
    assert b"Upgrade: websocket" in talk.to_target
    assert b"X-Mesh-Caller" in talk.to_target
    assert not talk.to_target.endswith(b"early")
    talk.answer(SWITCHED + b"hello")
    assert talk.to_target.endswith(b"early")
    assert talk.to_caller.endswith(b"\r\n\r\nhello")
    talk.say(b"\x00\r\n").answer(b"\xff")
    assert talk.to_target.endswith(b"early\x00\r\n")
    talk.do(talk.filter.caller_ended()).do(talk.filter.target_ended())
    assert talk.ended == [EndTarget, EndCaller]


def test_what_comes_behind_a_change_that_is_not_granted_is_read_as_http() -> None:
    talk = Talk(proven()).say(UPGRADE + GET.replace(b"Host", b"X-Mesh-Caller: admin\r\nHost"))
    talk.answer(OK)
    assert b"admin" not in talk.to_target
    assert talk.to_target.count(b"GET") == 2


# How it ends.


def test_a_target_that_hangs_up_before_it_answers_is_a_502() -> None:
    talk = Talk().say(GET)
    talk.do(talk.filter.target_ended())
    assert (talk.statuses, talk.closed) == ([502], "target-broken")


@pytest.mark.parametrize("how", ["target_ended", "target_lost"])
def test_a_target_that_leaves_between_two_answers_is_told_where_somebody_waits(how: str) -> None:
    talk = Talk().say(GET)
    talk.do(getattr(talk.filter, how)())
    assert (talk.statuses, talk.closed) == ([502], "target-broken")
    talk = Talk().say(GET).answer(OK)
    talk.do(getattr(talk.filter, how)())
    assert (talk.statuses, talk.closed) == ([200], "done")
    talk = Talk().say(GET[:-4])
    talk.do(getattr(talk.filter, how)())
    assert talk.closed is None
    talk.say(GET[-4:])
    assert (talk.statuses, talk.closed, talk.to_target) == ([502], "target-broken", b"")
    talk = Talk()
    talk.do(getattr(talk.filter, how)())
    talk.do(talk.filter.caller_ended())
    assert (talk.statuses, talk.closed) == ([], "done")


def test_a_target_that_breaks_off_within_an_answer_is_passed_on_as_it_is() -> None:
    talk = Talk().say(GET).answer(OK[:-1])
    assert talk.filter.target_lost() is None
    talk = Talk().say(UPGRADE).answer(SWITCHED)
    assert talk.filter.target_lost() is None


def test_a_target_that_hangs_up_within_an_answer_cuts_it_short() -> None:
    talk = Talk().say(GET).answer(OK[:-1])
    talk.do(talk.filter.target_ended())
    assert (talk.statuses, talk.closed) == ([200], "target-cut-short")


def test_a_target_that_cannot_be_reached_is_a_502_that_names_nothing_inside() -> None:
    talk = Talk()
    problem = Problem(Code.UNREACHABLE, "nobody listens at unix:/run/secret.sock")
    talk.do(talk.filter.unreachable(problem))
    assert (talk.statuses, talk.closed) == ([502], "target-broken")
    assert b"secret" not in talk.to_caller


def test_a_caller_that_says_no_more_hears_its_answers() -> None:
    talk = Talk().say(GET)
    talk.do(talk.filter.caller_ended())
    assert talk.closed is None
    assert talk.answer(OK).closed == "done"
    talk = Talk().say(POST[:-1])
    talk.do(talk.filter.caller_ended())
    assert talk.closed == "caller-cut-short"
    talk = Talk()
    talk.do(talk.filter.caller_ended())
    assert talk.closed == "done"


def test_who_stops_answers_what_was_asked_and_no_more() -> None:
    talk = Talk()
    talk.do(talk.filter.finish())
    assert talk.closed == "done"
    talk = Talk().say(GET)
    talk.do(talk.filter.finish())
    talk.say(GET)
    assert talk.to_target.count(b"GET") == 1
    talk.answer(OK)
    assert b"Connection: close" in talk.to_caller
    assert talk.closed == "done"


@pytest.mark.parametrize(("left", "soon"), [(3600, 60), (100, 10)])
def test_before_the_certificates_end_a_connection_ends_with_an_answer(left: int, soon: int) -> None:
    caller = proven()
    assert caller.peer is not None
    end = caller.peer.leaf.not_valid_after_utc
    now = end - timedelta(seconds=left)
    talk = Talk(evolve(caller, now=lambda: now))
    now = end - timedelta(seconds=soon + 1)
    talk.say(GET).answer(OK)
    assert b"close" not in talk.to_caller
    now = end - timedelta(seconds=soon)
    talk.say(GET).answer(OK)
    assert b"\r\nConnection: close\r\n" in talk.to_caller
    assert talk.closed == "done"


def test_who_asks_faster_than_it_is_answered_waits() -> None:
    talk, said = Talk(), 0
    while not talk.is_paused:
        talk.say(GET)
        said += 1
        assert said < 10_000
    assert talk.closed is None
    assert talk.to_target.count(b"GET") == 64
    for _ in range(said):
        talk.answer(OK)
    assert not talk.is_paused
    assert talk.to_target.count(b"GET") == said
    assert talk.statuses == [200] * said


def test_all_that_was_asked_in_one_go_is_answered_after_the_callers_end() -> None:
    talk = Talk().say(GET * 200)
    talk.do(talk.filter.caller_ended())
    for number in range(200):
        assert talk.closed is None, number
        talk.answer(OK)
    assert talk.statuses == [200] * 200
    assert talk.closed == "done"


def test_who_is_granted_a_change_while_it_waits_is_heard_on() -> None:
    talk = Talk().say(UPGRADE + b"x" * 100_000)
    assert talk.is_paused
    talk.answer(SWITCHED)
    assert not talk.is_paused
    assert talk.to_target.endswith(b"x" * 100_000)


def test_a_change_that_is_not_answered_yet_is_waited_for() -> None:
    talk = Talk().say(GET + UPGRADE + b"raw").answer(OK)
    assert b"raw" not in talk.to_target
    talk.answer(SWITCHED)
    assert talk.to_target.endswith(b"\r\n\r\nraw")


def test_nothing_is_said_behind_an_answer_that_is_the_last() -> None:
    for behind in (GET, BAD["both lengths"]):
        talk = Talk().say(GET + behind)
        talk.answer(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (talk.statuses, talk.closed) == ([200], "done")


def test_whose_right_is_gone_hears_so_in_the_place_of_no_other_answer() -> None:
    problems: list[Problem] = []
    talk = Talk(plain(objections=lambda: problems)).say(GET)
    problems.append(Problem(Code.REVOKED, "it is revoked"))
    talk.say(GET)
    assert (talk.statuses, talk.closed) == ([], "refused")


def test_who_breaks_off_what_was_answered_already_hears_no_more() -> None:
    begun, rest = CHUNKED[:-5], b"no size\r\n"
    talk = Talk().say(begun).answer(OK).say(rest)
    assert (talk.statuses, talk.closed) == ([200], "refused")


@pytest.mark.parametrize("status", [b"100 Continue", b"103 Early", b"204 No Content"])
def test_no_length_is_told_where_there_is_never_a_body(status: bytes) -> None:
    talk = Talk().say(GET).answer(b"HTTP/1.1 %s\r\nContent-Length: 5\r\nX: y\r\n\r\n" % status)
    assert talk.to_caller == b"HTTP/1.1 %s\r\nX: y\r\n\r\n" % status


# Any way of coming.

requests = st.sampled_from([GET, POST, CHUNKED, UPGRADE, *BAD.values()])


def split(said: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    return [said[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(requests | mutated(POST) | mutated(CHUNKED), min_size=1, max_size=3),
    st.lists(st.integers(0, 300), max_size=5),
)
@example([CHUNKED, GET], list(range(60, 80)))
@example([CHUNKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\nabc\r\n0\r\n\r\n"], [62])
def test_where_it_is_split_makes_no_difference(stream: list[bytes], cuts: list[int]) -> None:
    said = b"".join(stream)
    whole, cut = Talk().say(said), Talk().say(*split(said, cuts))
    assert (cut.statuses, cut.closed) == (whole.statuses, whole.closed)
    if whole.closed is None:  # of what is refused more or less of the beginning was passed on
        assert _without_chunks(cut.to_target) == _without_chunks(whole.to_target)


def _without_chunks(said: bytes) -> list[bytes]:
    """Heads and bodies, however these were framed: where chunks are cut is nobody's affair."""
    found = []
    while said:
        head, end, said = said.partition(b"\r\n\r\n")
        found.append(head + end)
        if b"transfer-encoding: chunked" in head.lower():
            body, said = _from_chunks(said)
            found.append(body)
        elif length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
            size = int(length[1])
            found.append(said[:size])
            said = said[size:]
    return found


def _from_chunks(said: bytes) -> tuple[bytes, bytes]:
    """What the chunks hold that have come, and what stands behind the last of them."""
    body = b""
    while said:
        line, _, said = said.partition(b"\r\n")
        if not (size := int(line, 16)):
            trailers, end, said = (b"\r\n" + said).partition(b"\r\n\r\n")
            return body + trailers + end, said
        body, said = body + said[:size], said[size + 2 :]
    return body, said


@given(
    st.binary(max_size=300) | mutated(GET) | mutated(POST), st.binary(max_size=300) | mutated(OK)
)
def test_no_bytes_break_the_filter(said: bytes, answered: bytes) -> None:
    talk = Talk().say(said, GET).answer(answered, OK)
    if talk.closed is None:
        talk.do(talk.filter.target_ended())
    if talk.closed is None:
        talk.do(talk.filter.caller_ended())


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=5), st.lists(st.integers(0, 400)))
def test_a_chunked_body_is_passed_on_whole(chunks: list[bytes], cuts: list[int]) -> None:
    said = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\nrest"
    body, got = Body(Framing(None, is_chunked=True), keeps_chunks=False), b""
    behind = b""
    for piece in split(said, cuts):
        made, rest = body.take(piece)
        got += made
        behind += rest
    assert (got, behind, body.is_over) == (b"".join(chunks), b"rest", True)


def test_a_body_that_does_not_end_its_line_is_refused() -> None:
    with pytest.raises(BadMessage):
        Body(Framing(None, is_chunked=True)).take(b"a" * 9000)
