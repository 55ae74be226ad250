"""Whatever a caller says, servers of two makes behind the proxy hear what it has read, and who has called."""

import io
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.web import http

from tests.pki.strategies import mutated
from tests.twisted_mesh.proxy.test_http_filter import BAD, CHUNKED, GET, POST, Talk, proven
from twisted_mesh.proxy.forwarded import CALLER, is_ours
from twisted_mesh.proxy.seam import Caller

Heard = tuple[bytes, bytes, tuple[bytes, ...], bytes]
"""Method, target, what is said of the caller, body."""
caller = cache(proven)


def said_of_caller(headers: list[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    return tuple(value for name, value in headers if is_ours(name))


def heard_by_twisted(said: bytes) -> list[Heard]:
    heard: list[Heard] = []

    class Request(http.Request):  # type: ignore[misc]
        def process(self) -> None:
            raw = [
                (name, value)
                for name, values in self.requestHeaders.getAllRawHeaders()
                for value in values
            ]
            heard.append((self.method, self.uri, said_of_caller(raw), self.content.read()))
            self.setHeader(b"content-length", b"0")
            self.finish()

    channel = http.HTTPChannel()
    channel.requestFactory = Request
    channel.timeOut = None
    channel.makeConnection(StringTransport())
    channel.dataReceived(said)
    for unfinished in channel.requests:
        if unfinished.content is not None:
            unfinished.content.close()
    return heard


class Socket:
    """What is read is there already, and what is answered goes nowhere."""

    def __init__(self, said: bytes) -> None:
        self._said = io.BytesIO(said)

    def makefile(self, *_: Any) -> io.BytesIO:
        return self._said

    def sendall(self, data: bytes) -> None:
        """Nothing."""


def heard_by_python(said: bytes) -> list[Heard]:
    heard: list[Heard] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("do_"):
                raise AttributeError(name)
            return self.note

        def note(self) -> None:
            raw = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in self.headers.items()
            ]
            length = self.headers.get("Content-Length")
            body = self.chunks() if length is None else self.rfile.read(int(length))
            if body is None or len(body) < int(length or 0):
                self.close_connection = True
                return
            method, target, _ = self.requestline.encode("latin-1").split(b" ")
            heard.append((method, target, said_of_caller(raw), body))

        def chunks(self) -> bytes | None:
            if self.headers.get("Transfer-Encoding") is None:
                return b""
            body = b""
            while size := int(self.rfile.readline() or b"-1", 16):
                if size < 0:
                    return None
                body += self.rfile.read(size)
                self.rfile.readline()
            return body if self.rfile.readline() else None

        def log_message(self, *words: Any) -> None:
            """Nothing."""

        log_error = log_message

    Handler(Socket(said), ("", 0), None)  # type: ignore[arg-type]
    return heard


def read_by_proxy(said: bytes) -> Talk:
    return Talk(caller()).say(said)


requests = st.sampled_from([GET, POST, CHUNKED, *BAD.values()])
odd = mutated(GET) | mutated(POST) | mutated(CHUNKED)


@given(st.lists(requests | odd, min_size=1, max_size=4).map(b"".join))
@example(POST + GET)
@example(BAD["a coding spelt oddly"])
@example(b"GET //a/../b%00?c HTTP/1.1\r\nHost: [::1]:80\r\n\r\n" + CHUNKED)
@example(b"HEAD * HTTP/1.1\r\nHost: a\r\n\r\n" + b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
def test_two_servers_hear_the_same_and_from_whom(said: bytes) -> None:
    talk = read_by_proxy(said)
    heard, again = heard_by_twisted(talk.to_target), heard_by_python(talk.to_target)
    assert heard == again
    passed = talk.filter._waiting
    assert [(head.method, head.target) for head in passed][: len(heard)] == [
        (method, target) for method, target, _, _ in heard
    ]
    # The last may not be whole.
    assert len(heard) >= len(passed) - 1
    assert {len(who) for _, _, who, _ in heard} <= {2}
    assert all(name_of(caller()) in who for _, _, who, _ in heard)


def name_of(known: Caller) -> bytes:
    assert known.peer is not None
    return str(known.peer.spiffe_id).encode()


def test_the_servers_hear_something() -> None:
    talk = read_by_proxy(GET + POST + CHUNKED)
    for heard in (heard_by_twisted(talk.to_target), heard_by_python(talk.to_target)):
        assert [body for *_, body in heard] == [b"", b"abc", b"abc"]
    assert CALLER in talk.to_target
