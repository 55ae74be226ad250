"""Bodies of 100 MB: answered at once, never kept, and nobody else waits for them."""

import os
import socket
import time
from pathlib import Path

import pytest

from tests.interop.house import House, as_json
from tests.interop.wires import talk

SIZE = 100 * 1024 * 1024
#: What a process may grow by while it refuses them: nothing like their size.
GROWTH_KB = 20_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "body"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def resident_kb(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        pytest.skip("no /proc to look at memory in")
    return int(status.partition("VmRSS:")[2].split()[0])


CODINGS = {
    "known length": (),
    "chunked": ("-H", "transfer-encoding: chunked"),
    "no 100-continue": ("-H", "expect:"),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("listener", ["socket", "tls", "plain"])
def test_the_ca_answers_413_and_reads_no_further(
    coding: str, listener: str, shared: House, large: Path
) -> None:
    before = resident_kb(shared.ca.process.pid)
    opening = {
        "socket": ("--unix-socket", shared.socket, "http://localhost"),
        "tls": (*shared.identity("payment-worker").for_curl, f"https://localhost:{shared.ca_port}"),
        "plain": (f"http://localhost:{shared.plain_port}",),
    }
    *through, origin = opening[listener]
    body = (*as_json(), "-X", "POST", "-H", "Content-Length:", "-T", large)
    if coding != "chunked":
        body = (*as_json(), "-X", "POST", "-T", large)
    started = time.monotonic()
    done = shared.curl(f"{origin}/api/v1/sign", "-i", *through, *body, *CODINGS[coding])
    assert time.monotonic() - started < 10
    # curl may notice that nobody reads on (55, 56) after it has got its answer.
    assert done.returncode in (0, 55, 56), done.stderr
    assert "413 Content Too Large" in done.stdout
    assert '"code":"too-large"' in done.stdout
    assert resident_kb(shared.ca.process.pid) - before < GROWTH_KB
    assert shared.ask("socket", "/livez").status == 200


def test_a_caller_that_is_still_sending_gets_the_answer(shared: House) -> None:
    head = (
        b"POST /api/v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 20000000\r\n\r\n"
    )
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", shared.plain_port), timeout=10) as caller:
            caller.sendall(head)
            caller.sendall(b"x" * 20_000_000)  # all of it is taken, and nothing is reset
            assert caller.recv(65536).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("coding", CODINGS)
def test_the_server_does_the_same_with_a_get(coding: str, shared: House, large: Path) -> None:
    before = resident_kb(shared.server.process.pid)
    body = ("-X", "GET", "-T", large, *CODINGS[coding])
    done = shared.curl(
        shared.status_url(), "-i", *shared.identity("payment-worker").for_curl, *body
    )
    assert done.returncode in (0, 55, 56), done.stderr
    assert "413 Content Too Large" in done.stdout
    assert "200 OK" not in done.stdout
    assert resident_kb(shared.server.process.pid) - before < GROWTH_KB
    shared.assert_it_serves()


@pytest.mark.parametrize(
    "length", [b"-1", b"+5", b"0x10", b"1e9", b"5, 5", b"\xd9\xa3", b"9" * 400, b""]
)
def test_a_length_that_is_none_ends_the_connection(length: bytes, shared: House) -> None:
    head = (
        b"POST /api/v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %s\r\n\r\n{}"
    )
    answered = talk(shared.plain_port, head % length)
    assert answered.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413")) or answered == b""
    assert shared.ask("plain", "/livez").status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /api/v1/sign HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/sign HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=[
        "many headers",
        "a long header",
        "a long path",
        "two lengths",
        "a huge chunk",
        "HTTP/9.9",
        "blank",
        "no path",
        "HTTP/2",
    ],
)
def test_a_head_that_is_none_ends_the_connection(head: bytes, shared: House) -> None:
    answered = talk(shared.plain_port, head)
    assert b"200 OK" not in answered
    assert shared.ask("plain", "/livez").status == 200


def test_random_bytes_at_the_plaintext_port_end_the_connection(shared: House) -> None:
    for size in (1, 100, 10_000):
        assert b"200 OK" not in talk(shared.plain_port, os.urandom(size))
    assert shared.ask("plain", "/livez").status == 200
