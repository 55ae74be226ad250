"""A server in a process of its own, on each transport: crowds, churn and descriptors that run out."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.flooding import KINDS, flooding, half_a_handshake, resident
from tests.twisted_mesh.tls.crowd import Server, serving

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
    pytest.mark.parametrize("transport", ["socket", "twisted"], indirect=True),
]
_HERE = "tests/twisted_mesh/tls/transport/"


@pytest.fixture
def server(transport: str, tmp_path: Path) -> Iterator[Server]:
    """It reads from its environment which transport it has."""
    with serving(tmp_path, 4000) as running:
        yield running


def _served_beside(server: Server, kind: str, count: int, seconds: float) -> float:
    """The longest wait of an honest peer while so many of them are there, and more come."""
    server.settled()
    descriptors = server.counted["descriptors"]
    waits = []
    with flooding(server.port, kind, count):
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            status, waited = server.ask()
            assert status == 200
            waits.append(waited)
    assert server.settled()["descriptors"] <= descriptors
    return sorted(waits)[len(waits) * 9 // 10]


@pytest.mark.interop(_HERE + "test_bad_peers.py::test_strangers_hurt_nobody")
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_strangers_hurt_nobody(
    kind: str, server: Server, record_property: Callable[[str, object], None]
) -> None:
    memory = resident(server.process.pid)
    waited = _served_beside(server, kind, 1000, 3.0)
    record_property(f"longest wait beside a thousand of {kind}", waited)
    assert waited < 1.0
    assert resident(server.process.pid) - memory < 96


def _come_and_go(server: Server, count: int) -> None:
    """In every way in which a connection may end."""
    for number in range(count):
        way = number % 5
        if way == 0:
            assert server.ask()[0] == 200
            continue
        # Each from another address: whose handshakes fail, waits for its turn.
        source = (f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0)
        with socket.create_connection(("127.0.0.1", server.port), 10, source) as wire:
            if way == 1:
                with suppress(OSError):
                    wire.sendall(b"\x00\xff" * 64)
                    wire.recv(1)
            elif way == 2:
                half_a_handshake(wire)
            elif way == 3:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                half_a_handshake(wire)
            else:
                with server.context(proves=True).wrap_socket(wire) as secured:
                    secured.sendall(b"GET / HTTP/1.1\r\n")  # and no more, and no goodbye


def _is_as_before(server: Server, count: int, growth: float) -> None:
    _come_and_go(server, 50)
    before, memory = server.settled(), resident(server.process.pid)
    _come_and_go(server, count)
    after = server.settled()
    assert after["open"] == after["unproven"] == 0
    assert after["descriptors"] <= before["descriptors"]
    assert resident(server.process.pid) - memory < growth


def test_who_comes_and_goes_leaves_nothing(server: Server) -> None:
    _is_as_before(server, 250, 6)


@pytest.mark.soak
@pytest.mark.parametrize(
    "count",
    [1_000, *(pytest.param(count, marks=pytest.mark.endurance) for count in (4_000, 20_000))],
)
def test_thousands_that_come_and_go_leave_nothing(server: Server, count: int) -> None:
    _is_as_before(server, count, 12)


def test_descriptors_that_run_out_come_back(server: Server) -> None:
    """Nobody is let in then, and nobody who is in is hurt; afterwards all is as before."""
    server.settled()
    before = server.counted["descriptors"]
    pid = server.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + 20, hard))
    wires: list[socket.socket] = []
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as wire,
        server.context(proves=True).wrap_socket(wire) as secured,
    ):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (before + 20, hard))
        try:
            for _ in range(60):
                wires.append(socket.create_connection(("127.0.0.1", server.port), 10))
            for _ in range(3):
                secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert secured.recv(65536).startswith(b"HTTP/1.1 200")
        finally:
            for stranger in wires:
                stranger.close()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert server.settled()["descriptors"] <= before
    assert server.ask()[0] == 200
