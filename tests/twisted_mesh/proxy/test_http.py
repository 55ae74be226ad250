"""A plain HTTP program behind mesh-proxy with ``http``: it hears who has called, with real sockets."""

import http.client
import http.server
import json
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running import PATIENCE, Mesh, free_port, until
from tests.twisted_mesh.proxy.backend import Backend, break_off, reset
from tests.twisted_mesh.proxy.pairs import ID, pair, said_by


class Telling(http.server.BaseHTTPRequestHandler):
    """Answers with the headers and the body that it was sent."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        told = {"headers": self.headers.items(), "size": len(self.rfile.read(length))}
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *words: Any) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """Of five, as is usual, some of those who come at once are reset."""


@pytest.fixture(scope="module")
def told() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Telling)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_program_hears_who_has_called_and_never_what_callers_say_of_it(
    running: Mesh, told: str
) -> None:
    with pair(running, told, inside="http = true") as carried:
        caller = http.client.HTTPConnection("127.0.0.1", carried.port, timeout=PATIENCE)
        for size in (0, 100_000):
            forged = {
                "X-Mesh-Caller": "spiffe://mesh.local/admin",
                "x_forwarded_client_cert": "URI=a",
            }
            caller.request("POST", "/", b"x" * size, forged)
            answer = json.load(caller.getresponse())
            assert answer["size"] == size
            headers = [(name.lower(), value) for name, value in answer["headers"]]
            assert [value for name, value in headers if name == "x-mesh-caller"] == [ID]
            (xfcc,) = [value for name, value in headers if "forwarded" in name]
            assert f"URI={ID}" in xfcc.split(";")
        caller.close()


def test_a_program_that_is_down_is_a_502(running: Mesh) -> None:
    with pair(running, f"127.0.0.1:{free_port()}", inside="http = true") as carried:
        caller = http.client.HTTPConnection("127.0.0.1", carried.port, timeout=PATIENCE)
        caller.request("GET", "/")
        answer = caller.getresponse()
        assert answer.status == 502
        assert json.load(answer)["code"] == "unreachable"
        caller.close()


def test_who_asks_faster_than_it_is_answered_waits_and_hears_all(running: Mesh, told: str) -> None:
    with pair(running, told, inside="http = true") as carried, carried.call() as caller:
        one = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n" % (b"y" * 4000)
        asking = threading.Thread(target=caller.sendall, args=(one * 150,))
        asking.start()
        heard = bytearray()
        while heard.count(b"HTTP/1.1 200") < 150 or not heard.endswith(b"}"):
            heard += (data := caller.recv(65536))
            assert data
        asking.join()
        with caller.makefile("rb") as rest:
            caller.shutdown(socket.SHUT_WR)
            assert rest.read() == b""


@pytest.mark.parametrize("may_elsewhere", [False, True])
def test_a_caller_who_may_not_reads_why(running: Mesh, told: str, may_elsewhere: bool) -> None:
    more = f"""[[listener]]
        name = "other"
        mode = "server"
        listen = "[::1]:0"
        target = "{told}"
        allow = ["{ID}"]"""
    inside = "http = true\n" + (more if may_elsewhere else "")
    shop = "spiffe://mesh.local/service/shop"
    with pair(running, told, inside=inside, allow=shop) as carried:
        caller = http.client.HTTPConnection("127.0.0.1", carried.port, timeout=PATIENCE)
        caller.request("GET", "/")
        answer = caller.getresponse()
        assert (answer.status, answer.getheader("Connection")) == (403, "close")
        problem = json.load(answer)
        assert problem["code"] == "not-authorized"
        assert f"name {ID} in --allow of the proxy" in problem["detail"]
        assert shop not in problem["detail"], "who may is none of its business"
        caller.close()
        carried.proxy.wait_for(rf"refused: not-authorized: {ID} is not among those that may")
        assert not carried.shown("in")["peers"]


def ask_on(port: int, outcomes: list[str]) -> None:
    """One request after the other on one connection, until it ends; how."""
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        while True:
            caller.request("POST", "/", b"x" * 1000)
            answer = caller.getresponse()
            told = json.load(answer)
            assert (answer.status, told.get("size")) == (200, 1000), told
            if answer.getheader("Connection") == "close":
                outcomes.append("told")
                return
    except (http.client.RemoteDisconnected, ConnectionError):
        outcomes.append("between two requests")
    except Exception as broken:
        outcomes.append(repr(broken))
    finally:
        caller.close()


def test_who_stops_under_load_answers_all_that_was_asked(running: Mesh, told: str) -> None:
    outcomes: list[str] = []
    with pair(running, told, inside="http = true") as carried:
        asking = [threading.Thread(target=ask_on, args=(carried.port, outcomes)) for _ in range(16)]
        for thread in asking:
            thread.start()
        until(lambda: carried.shown("in")["from_target_bytes"] > 100_000)
        carried.proxy.process.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(PATIENCE)
        assert carried.proxy.wait() == 0
        assert set(outcomes) <= {"told", "between two requests"}
        assert len(outcomes) == 16
        assert "cut off" not in carried.proxy.text


@pytest.mark.slow
def test_no_request_fails_over_rotations_of_both(running: Mesh, told: str) -> None:
    # A connection lives as long as its certificates: the answer before that says that it is the last one.
    seen: set[str] = set()
    connections = 0
    with pair(running, told, "--ttl", "6s", inside="http = true") as carried:
        caller = http.client.HTTPConnection("127.0.0.1", carried.port, timeout=PATIENCE)
        while len(seen) < 3:
            connections += caller.sock is None
            caller.request("GET", "/")
            answer = caller.getresponse()
            headers = dict(json.load(answer)["headers"])
            seen.add(headers["X-Forwarded-Client-Cert"])
            assert answer.status == 200
        caller.close()
    assert connections < 10


def hang_up(connection: socket.socket) -> None:
    """At once, and whatever comes."""


def begin_to_answer(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nwhole")
    connection.recv(1)
    break_off(connection)


def test_a_program_that_leaves_before_it_answers_is_a_502(running: Mesh) -> None:
    with Backend() as backend, pair(running, backend.target, inside="http = true") as carried:
        for backend.serve in (hang_up, break_off, reset):
            for _ in range(5):
                caller = http.client.HTTPConnection("127.0.0.1", carried.port, timeout=PATIENCE)
                caller.request("GET", "/")
                assert caller.getresponse().status == 502
                caller.close()
        backend.serve = begin_to_answer
        with carried.call() as broken:
            broken.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert broken.recv(9) == b"HTTP/1.1 "
            broken.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(ConnectionResetError):
                said_by(broken)
