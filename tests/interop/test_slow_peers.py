"""Peers that take their time: every phase of a connection has an absolute deadline."""

import socket
import time
from contextlib import suppress

import pytest

from tests.interop.house import House
from tests.interop.wires import client_context
from tests.running import PATIENCE
from twisted_mesh.tls.security import HANDSHAKE_TIMEOUT


def dripped(wire: socket.socket, drops: bytes, seconds: float) -> tuple[float, bytes]:
    """Send a byte each third of a second; how long that was borne, and what came back."""
    started, heard = time.monotonic(), b""
    wire.settimeout(0.3)
    for drop in drops:
        if time.monotonic() - started > seconds:
            break
        with suppress(OSError):
            wire.sendall(bytes((drop,)))
        try:
            more = wire.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - started, heard
        if not more:
            return time.monotonic() - started, heard
        heard += more
    return time.monotonic() - started, heard


@pytest.mark.interop(
    "tests/twisted_mesh/tls/test_handshake.py::test_a_handshake_that_stalls_is_given_up_however_it_drips"
)
def test_a_stalled_handshake_and_a_dripping_one_are_dropped_after_ten_seconds(
    shared: House,
) -> None:
    # All at once, so that the deadline is waited for only once.
    refused = r"Connection from 127\.0\.0\.1:{} refused: handshake-timeout: .* not done within 10 s"
    silent = [
        socket.create_connection(("127.0.0.1", port), PATIENCE)
        for port in (shared.port, shared.ca_port)
    ]
    ports = [wire.getsockname()[1] for wire in silent]
    with socket.create_connection(("127.0.0.1", shared.port), PATIENCE) as dripping:
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        ports.append(dripping.getsockname()[1])
        borne, _ = dripped(dripping, hello, PATIENCE)
    assert HANDSHAKE_TIMEOUT - 1 < borne < HANDSHAKE_TIMEOUT + 5
    for wire in silent:
        with suppress(ConnectionResetError):
            assert wire.recv(1) == b""
        wire.close()
    for port, running in zip(ports, (shared.server, shared.ca, shared.server), strict=True):
        running.wait_for(refused.format(port))
    shared.assert_it_serves()


@pytest.mark.interop(
    "tests/twisted_mesh/http/test_server.py::test_a_byte_a_second_does_not_put_off_the_headers_deadline"
)
def test_a_dripping_header_is_answered_408_after_ten_seconds(shared: House) -> None:
    context = client_context(shared.root, shared.identity("payment-worker"))
    with (
        socket.create_connection(("127.0.0.1", shared.port), PATIENCE) as wire,
        context.wrap_socket(wire, server_hostname="localhost") as secured,
    ):
        header = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"y" * 1000
        borne, heard = dripped(secured, header, PATIENCE)
    assert 9 < borne < 15
    assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    shared.assert_it_serves()
