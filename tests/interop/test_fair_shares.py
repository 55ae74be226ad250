"""Who has much leaves something to others: connections, on real sockets."""

import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.house import House, Identity
from tests.interop.house import house as inhabited
from tests.interop.wires import client_context, tls
from tests.running import PATIENCE

pytestmark = pytest.mark.slow

TRUST = b"GET /api/v1/trust HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATUS = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
MOST = 16


@pytest.fixture(scope="module")
def small() -> Iterator[House]:
    """A CA and a server of few connections, and three callers who have their certificates."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, inhabited(Path(name)) as house:
        house.start_ca("--max-connections", str(MOST))
        house.start_server("--max-connections", str(MOST))
        for caller in ("one", "two", "honest"):
            house.identity(caller)
        yield house


def asked(house: House, port: int, identity: Identity, request: bytes) -> int:
    with tls(port, house.root, identity) as wire:
        wire.sendall(request)
        return int(wire.recv(65536).split()[1])


def crowd(house: House, port: int, name: str, request: bytes, stack: ExitStack) -> None:
    """As many connections as there may be, each of which asks once and then idles."""
    context = client_context(house.root, house.identity(name))
    for _ in range(MOST):
        try:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            wire = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            wire.sendall(request)
            wire.recv(65536)
        except OSError:
            return  # as many as it may have


@pytest.mark.parametrize("listener", ["ca", "server"])
def test_two_identities_that_have_taken_all_leave_an_honest_caller_in(
    listener: str, small: House
) -> None:
    port, request = (small.ca_port, TRUST) if listener == "ca" else (small.port, STATUS)
    with ExitStack() as stack:
        for name in ("one", "two"):
            crowd(small, port, name, request, stack)
        honest = small.identity("honest")
        assert [asked(small, port, honest, request) for _ in range(5)] == [200] * 5
