"""Real sockets: what any stranger may ask of TLS is no work without end: new keys, protocols."""

import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.key_updates import RecordWriter, shake_hands
from tests.running import PATIENCE
from tests.twisted_mesh.tls.crowd import Server, serving

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module", params=["socket", "twisted"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), 20, request.param) as running:
        yield running


def _connect(server: Server, *, proves: bool) -> tuple[socket.socket, RecordWriter]:
    wire = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    return wire, shake_hands(wire, server.context(proves=proves), server.directory / "secrets")


def _is_cut(wire: socket.socket, data: bytes) -> bool:
    """Whether the server has hung up before it took all."""
    try:
        for begin in range(0, len(data), 4096):
            wire.sendall(data[begin : begin + 4096])
            wire.setblocking(False)
            try:
                while wire.recv(65536):
                    pass
                return True
            except BlockingIOError:
                wire.settimeout(PATIENCE)
        wire.shutdown(socket.SHUT_WR)
        while wire.recv(65536):
            pass
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize("proves", [False, True], ids=["stranger", "peer"])
def test_new_keys_without_end_are_cut(proves: bool, server: Server) -> None:
    wire, writer = _connect(server, proves=proves)
    with wire:
        assert _is_cut(wire, b"".join(writer.key_update() for _ in range(4000)))


def test_a_new_key_now_and_then_and_bytes_one_by_one_are_not(server: Server) -> None:
    wire, writer = _connect(server, proves=True)
    with wire:
        for _ in range(3):
            wire.sendall(b"".join(writer.key_update() for _ in range(30)))
            wire.sendall(b"".join(writer.record(bytes([byte])) for byte in GET))
            assert wire.recv(65536)
        wire.sendall(writer.record(GET[:-2]))
        wire.sendall(b"".join(writer.record(bytes([byte])) for byte in b"X-A: b\r\n" * 400))
        wire.sendall(writer.record(b"\r\n"))
        assert wire.recv(65536)


def _protocols(server: Server, count: int) -> None:
    context = server.context(proves=True)
    context.set_alpn_protocols(["a"] * count)
    with (
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as wire,
        context.wrap_socket(wire) as secured,
    ):
        secured.sendall(GET)
        assert secured.recv(65536)


def test_a_hello_with_protocols_without_end_is_not_read(server: Server) -> None:
    """pyOpenSSL copies the rest of the list for each of them."""
    _protocols(server, 1000)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        _protocols(server, 15000)
