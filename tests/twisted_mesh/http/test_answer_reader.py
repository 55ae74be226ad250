"""An answer is read the same however it comes in pieces, and what is none is never taken for one."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from twisted_mesh.http.answer_reader import LARGEST_HEAD, Answer, AnswerTooLong, NotHttp
from twisted_mesh.runtime.wire import Cut

_LIMIT = 100


def read(*pieces: bytes, ends: bool = True) -> Answer:
    answer = Answer(_LIMIT, "the CA")
    for piece in pieces:
        if answer.feed(piece):
            return answer
    if ends:
        answer.end()
    return answer


WHOLE = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: x\r\n\r\nhello", 200, b"hello"),
    "nothing": (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404, b""),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "to the end": (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\na: b\r\n\r\n",
        200,
        b"hello",
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        200,
        b"x",
    ),
    "bare newlines": (b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx", 200, b"x"),
    "no phrase": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
    "folded": (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
}


@pytest.mark.parametrize(("told", "status", "body"), WHOLE.values(), ids=WHOLE)
def test_it_is_read_whole_and_byte_by_byte(told: bytes, status: int, body: bytes) -> None:
    for pieces in ([told], [bytes([byte]) for byte in told]):
        answer = read(*pieces)
        assert (answer.is_whole, answer.status, bytes(answer.body)) == (True, status, body)


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(0, 120), max_size=8))
def test_or_in_any_other_pieces(name: str, cuts: list[int]) -> None:
    told, status, body = WHOLE[name]
    at = [0, *sorted(cuts), len(told)]
    answer = read(*(told[a:b] for a, b in pairwise(at)))
    assert (answer.status, bytes(answer.body)) == (status, body)


NONE = {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "no number": b"HTTP/1.1 twenty OK\r\n\r\n",
    "no version": b"HTTP/x 200 OK\r\n\r\n",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "it begins with a fold": b"HTTP/1.1 200 OK\r\n x: y\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "another coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a size that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk without its end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (LARGEST_HEAD // 6),
    "a line without end": b"HTTP/1.1 " + b"x" * 20_000,
    "interim answers without end": b"HTTP/1.1 100 Continue\r\n\r\n" * (LARGEST_HEAD // 20),
}


@pytest.mark.parametrize("told", NONE.values(), ids=NONE)
def test_what_is_none_is_refused(told: bytes) -> None:
    with pytest.raises(NotHttp):
        read(told, ends=False)


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ],
)
def test_one_that_ends_in_the_middle_is_none(told: bytes) -> None:
    with pytest.raises(Cut):
        read(told)


@pytest.mark.parametrize(
    "told",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n" + b"x" * 101,
    ],
    ids=["said", "said to be endless", "to the end", "in chunks"],
)
def test_more_than_is_taken_is_refused_as_soon_as_it_is_known(told: bytes) -> None:
    with pytest.raises(AnswerTooLong, match="the CA answers with more than 100 bytes"):
        read(told, ends=False)


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_no_bytes_break_it(pieces: list[bytes], begins: bool) -> None:
    if begins:
        pieces = [b"HTTP/1.1 200 OK\r\n", *pieces]
    with suppress(NotHttp, Cut, PkiError):
        read(*pieces)
