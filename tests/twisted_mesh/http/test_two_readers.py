"""A request in one piece is read as Twisted reads it line by line, or left to Twisted."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.web import http

from pki.codes import Code
from pki.errors import Problem
from tests.pki.strategies import mutated
from tests.twisted_mesh.http.test_server import GET, LATER, Rig, chunked, post
from twisted_mesh.http.channel import BoundedChannel
from twisted_mesh.http.whole_head import Head, read_head

DATE = re.compile(rb"Date: [^\r\n]*\r\n")
POST = post(b'{"a": "b"}', b"Content-Type: application/json")


def heard(pieces: list[bytes], *, whole: bool) -> tuple[bytes, Any, bool]:
    """All that a connection answers, what the resource saw, and whether it goes on."""
    rig = Rig()
    rig.site.reads_whole = whole
    talk = rig.talk()
    for piece in pieces:
        talk.say(piece)
    while rig.root.waiting:
        rig.root.finish()
    outcome = DATE.sub(b"", talk.wire.value()), (rig.root.seen, rig.root.told), talk.open
    talk.wire.lose(ConnectionDone())
    return outcome


headers = st.sampled_from(
    [
        b"Host: a",
        b"host:b",
        b"Content-Type: application/json",
        b"Content-Length: 0",
        b"Content-Length: 2",
        b"content-length:\t2 ",
        b"Content-Length: +2",
        b"Content-Length: 02",
        b"Content-Length: \xb2",
        b"Content-Length: 1001",
        b"Content-Length: " + b"9" * 5000,
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"transfer-encoding : chunked",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Connection: Keep-Alive",
        b"Connection: close, x",
        b"Upgrade: h2c",
        b"TE: trailers",
        b"If-None-Match: *",
        b"Connection: Close, x",
        b"Expect: 100-continue",
        b"Cookie: a=b; c",
        b" folded",
        b"\tfolded",
        b"No-Colon",
        b": no name",
        b"Sp ace: x",
        b"X: \x00",
        b"X: \xff",
        b"X: a\rb",
        b"X: a\nb",
        b"X\xe9: y",
        b"A_b: c",
        b"",
        b"X: " + b"y" * 9000,
        b"X: " + b"y" * 17000,
    ]
)
requests = st.builds(
    lambda line, lines, body: b"\r\n".join((line, *lines, b"", body)),
    st.sampled_from(
        [
            b"GET /now HTTP/1.1",
            b"POST /now HTTP/1.1",
            b"POST /later HTTP/1.1",
            b"HEAD /now?a=b HTTP/1.1",
            b"GET /now HTTP/1.0",
            b"GET * HTTP/1.1",
            b"OPTIONS * HTTP/1.1",
            b"GET /broken HTTP/1.1",
            b"GET /long HTTP/1.1",
            b"GET /known?x=%zz&x=1&=&y HTTP/1.1",
            b"GET /later?x HTTP/1.1",
            b"GET /a#b HTTP/1.1",
            b"GET ? HTTP/1.1",
            b"GET  /now HTTP/1.1",
            b"GET /now HTTP/1.1 ",
            b"get /%6eow HTTP/1.1",
            b"GET /\xaf HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET http://a/now HTTP/1.1",
            b"GET /now HTTP/2.0",
            b"\r\nGET /now HTTP/1.1",
            b"",
        ]
    ),
    st.lists(headers, max_size=4),
    st.sampled_from([b"", b"{}", b"xyz", b"x" * 1001]),
)
streams = st.lists(requests | mutated(POST) | mutated(GET), min_size=1, max_size=3)


@given(streams)
@example([POST, LATER, POST])
@example([POST + b"x"])
@example([b"\r\n", POST])
@example([chunked(b"a"), POST])
@example([b"\r\n".join((b"GET /now HTTP/1.1", *[b"X: y"] * 600, b"", b""))])
def test_requests_in_one_piece_are_answered_as_those_read_line_by_line(stream: list[bytes]) -> None:
    assert heard(stream, whole=True) == heard(stream, whole=False)


@given(streams, st.data())
@example([POST, POST], None)
def test_where_a_request_is_split_makes_no_difference(stream: list[bytes], data: Any) -> None:
    said = b"".join(stream)
    cuts = [] if data is None else data.draw(st.lists(st.integers(0, len(said)), max_size=4))
    edges = [0, *sorted(cuts), len(said)]
    pieces = [said[a:b] for a, b in pairwise(edges)]
    answers, seen, goes_on = heard(pieces, whole=True)
    assert (answers, seen, goes_on) == heard(pieces, whole=False)


@pytest.mark.parametrize("data", [GET, POST, POST.replace(b"POST", b"PUT"), post(b"")])
def test_an_ordinary_head_is_read_at_once(data: bytes) -> None:
    head = read_head(data)
    assert head is not None
    assert (head.size, head.length) == (
        data.index(b"\r\n\r\n") + 4,
        len(data.partition(b"\r\n\r\n")[2]),
    )
    assert head.last[b"host"] == b"a"
    assert read_head(b"before" + data, 6) == head


def test_its_parts_are_told_apart() -> None:
    headers = (
        (b"Host", b"a"),
        (b"Content-Length", b"10"),
        (b"Content-Type", b"application/json"),
    )
    assert read_head(POST) == Head(b"POST", b"/now", headers, len(POST) - 10, 10, is_last=False)


@pytest.mark.parametrize("cut", range(0, len(POST) - 10, 7))
def test_a_part_of_a_head_is_not_read(cut: int) -> None:
    assert read_head(POST[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        POST.replace(b"1.1", b"1.0"),
        chunked(b"a"),
        post(b"ab", b"Content-Length: 2"),
        post(b"ab").replace(b"Content-Length: 2", b"Content-Length: +2"),
        GET.replace(b"Host: a", b"Host: a\r\n b"),
        GET.replace(b"Host: a", b"Host : a"),
        GET.replace(b"Host: a", b"Host: \x00"),
        GET.replace(b"Host: a", b"X: " + b"y" * 9000),
        GET.replace(b"Host: a", b"\r\n".join([b"X: y"] * 101)),
        b"\r\n" + GET,
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_twisted(data: bytes) -> None:
    assert read_head(data) is None


@given(st.binary() | mutated(POST))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    head = read_head(data)
    assert head is None or data[: head.size].endswith(b"\r\n\r\n")


# Names of Twisted's that are its own affair.


def test_the_names_of_twisteds_channel_are_those_that_we_know() -> None:
    """Where this fails Twisted has changed: see what has become of them."""
    assert hasattr(http.HTTPChannel(), "_handlingRequest")
    assert "_respondToBadRequestAndDisconnect" in vars(http.HTTPChannel)


def test_without_its_word_for_a_bad_request_twisted_still_refuses_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(BoundedChannel, "_respondToBadRequestAndDisconnect")
    rig = Rig()
    talk = rig.talk()
    talk.say(b"nonsense\r\n\r\n")
    assert talk.wire.value().startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert rig.root.seen == []


def test_where_it_is_not_known_what_is_served_a_refused_peer_is_served_first() -> None:
    rig = Rig()
    talk = rig.talk()
    talk.say(LATER[:-2])
    connection: Any = talk.wire.protocol
    channel = connection._channel
    del channel._handlingRequest
    channel.finish(Problem(Code.REVOKED, "it is revoked"))
    assert talk.wire.value() == b""
    channel._handlingRequest = False
    talk.say(LATER[-2:])
    rig.root.finish()
    assert talk.wire.value().startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in talk.wire.value()
