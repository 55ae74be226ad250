"""A peer that is carried, and speaks to TLS alone: it is cut whatever it said before; who renews keys is not."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.key_updates import RecordWriter, shake_hands
from tests.running import PATIENCE, Mesh
from tests.twisted_mesh.proxy.backend import Backend, echo

_PIECE = 1000


@pytest.fixture(scope="module")
def port(running: Mesh) -> Iterator[int]:
    with Backend(echo) as backend:
        proxy, found = running.start_proxy(
            "server", backend.target, "--allow", "spiffe://mesh.local/**"
        )
        yield found
        proxy.stop()


@pytest.fixture(scope="module")
def identity(running: Mesh) -> Path:
    running.start_server()
    return running.export()


def connect(identity: Path, port: int) -> tuple[socket.socket, RecordWriter]:
    context = ssl.create_default_context(cafile=identity / "svid_bundle.pem")
    context.load_cert_chain(identity / "svid.pem", identity / "svid_key.pem")
    context.check_hostname = False
    wire = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return wire, shake_hands(wire, context, identity / "secrets")


def echoed(wire: socket.socket, writer: RecordWriter, said: bytes) -> None:
    """Say it, and hear as much in one record or more."""
    wire.sendall(writer.record(said))
    left = len(said)
    while left > 0:
        left -= len(wire.recv(65536)) - 22


def test_new_keys_without_end_are_cut_also_behind_much_that_was_carried(
    identity: Path, port: int
) -> None:
    wire, writer = connect(identity, port)
    with wire:
        for _ in range(300):
            echoed(wire, writer, bytes(_PIECE))
        with pytest.raises(OSError, match=r"reset|pipe"):
            for _ in range(100):
                wire.sendall(b"".join(writer.key_update() for _ in range(40)))
            while wire.recv(65536):  # the answers, of which there are few
                pass


def test_new_keys_now_and_then_between_what_is_carried_are_not(identity: Path, port: int) -> None:
    wire, writer = connect(identity, port)
    with wire:
        for _ in range(60):
            wire.sendall(b"".join(writer.key_update() for _ in range(40)))
            for _ in range(4):
                echoed(wire, writer, bytes(_PIECE))


def test_half_a_record_is_heard_once_it_is_whole(identity: Path, port: int) -> None:
    wire, writer = connect(identity, port)
    with wire:
        for size in (1, 16, _PIECE, 16_000):
            record = writer.record(bytes(size))
            for part in (record[:3], record[3:17], record[17:]):
                wire.sendall(part)
            left = size
            while left > 0:
                left -= len(wire.recv(65536)) - 22
