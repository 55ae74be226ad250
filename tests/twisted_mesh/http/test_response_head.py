"""How much of a head a client takes, in whatever pieces it comes."""

import pytest

from twisted_mesh.http.answer_reader import LARGEST_HEAD
from twisted_mesh.http.response_head import _NONSENSE, _Head

OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def taken(sent: bytes, size: int) -> bytes:
    heard: list[bytes] = []
    head = _Head(heard.append)
    for at in range(0, len(sent), size):
        head.take(sent[at : at + size])
    return b"".join(heard)


@pytest.mark.parametrize("size", [1, 3, 1000, 10**6])
@pytest.mark.parametrize(
    "head",
    [
        OK + b"\r\n",
        OK + b"X: y\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: y\n\n",
        INTERIM * 3 + OK + b"\r\n",
        OK + b"X: y\r\n" * 10000 + b"\r\n",
    ],
)
def test_a_head_and_whatever_follows_it_are_handed_on(head: bytes, size: int) -> None:
    assert len(head) < LARGEST_HEAD
    body = b"X: y\r\n" * 20000 if size > 100 else b"X: y\r\n"
    assert taken(head + body, size) == head + body


@pytest.mark.parametrize("size", [7, 1000, 10**6])
@pytest.mark.parametrize(
    "head", [OK + b"X: y\r\n" * 12000, INTERIM * 3000, INTERIM * 2700 + OK + b"\r\n" + b"body"]
)
def test_a_head_without_end_is_ended(head: bytes, size: int) -> None:
    heard = taken(head, size)
    assert heard.count(_NONSENSE) == 1
    assert len(heard[: heard.index(_NONSENSE)]) <= LARGEST_HEAD
