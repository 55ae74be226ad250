"""What is said to one side of the proxy comes out of the other, both ways, however it ends; with real sockets."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.running import PATIENCE, Mesh, until
from tests.twisted_mesh.proxy.backend import (
    Backend,
    break_off,
    digest,
    echo,
    hold,
    reset,
    source,
)
from tests.twisted_mesh.proxy.pairs import Pair, pair, said_by

MIB = 1024 * 1024
SIZES = [
    pytest.param(MIB, id="1-MiB"),
    pytest.param(
        64 * MIB,
        id="64-MiB",
        marks=pytest.mark.interop,
    ),
]


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as found:
        yield found


@pytest.fixture(scope="module")
def carried(running: Mesh, backend: Backend) -> Iterator[Pair]:
    with pair(running, backend.target) as found:
        yield found


def test_what_is_said_is_echoed_byte_by_byte(carried: Pair, backend: Backend) -> None:
    backend.serve = echo
    with carried.call() as caller:
        for byte in b"hello":
            caller.sendall(bytes([byte]))
            assert caller.recv(1) == bytes([byte])
        caller.shutdown(socket.SHUT_WR)
        assert said_by(caller) == b""
    carried.settled()


@pytest.mark.parametrize("size", SIZES)
def test_all_that_was_said_is_answered_after_the_callers_end(
    carried: Pair, backend: Backend, size: int
) -> None:
    backend.serve = digest
    said = b"0123456789abcdef" * (size // 16)
    with carried.call() as caller:
        caller.sendall(said)
        caller.shutdown(socket.SHUT_WR)
        assert said_by(caller) == f"{size} {hashlib.sha256(said).hexdigest()}".encode()
    carried.settled()


@pytest.mark.parametrize("size", SIZES)
def test_all_that_is_still_to_come_comes_after_the_callers_end(
    carried: Pair, backend: Backend, size: int
) -> None:
    backend.serve = source(size)
    with carried.call() as caller:
        caller.sendall(b"give")
        caller.shutdown(socket.SHUT_WR)
        assert len(said_by(caller)) == size
    carried.settled()


@pytest.mark.parametrize("size", SIZES)
def test_the_caller_goes_on_after_the_targets_end(
    carried: Pair, backend: Backend, size: int
) -> None:
    heard: SimpleQueue[int] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"no more")
        connection.shutdown(socket.SHUT_WR)
        heard.put(len(said_by(connection)))

    backend.serve = serve
    with carried.call() as caller:
        assert said_by(caller) == b"no more"
        caller.sendall(b"x" * size)
        caller.shutdown(socket.SHUT_WR)
        assert heard.get(timeout=PATIENCE) == size
    carried.settled()


def test_both_ways_at_once(carried: Pair, backend: Backend) -> None:
    backend.serve = echo
    said = bytes(range(256)) * 16384
    with carried.call() as caller:
        speaking = threading.Thread(target=caller.sendall, args=(said,))
        speaking.start()
        found = bytearray()
        while len(found) < len(said):
            found += caller.recv(65536)
        speaking.join()
    assert bytes(found) == said
    carried.settled()


def test_a_callers_reset_is_passed_on(carried: Pair, backend: Backend) -> None:
    how: SimpleQueue[object] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"go on")
        try:
            how.put(said_by(connection))
        except OSError as error:
            how.put(type(error))

    backend.serve = serve
    caller = carried.call()
    assert caller.recv(5) == b"go on"
    break_off(caller)
    assert how.get(timeout=PATIENCE) is ConnectionResetError
    carried.settled()
    assert carried.shown("out")["ended"]["caller-reset"]


def test_a_targets_reset_is_passed_on(carried: Pair, backend: Backend) -> None:
    backend.serve = reset
    with carried.call() as caller:
        caller.sendall(b"break off")
        with pytest.raises(ConnectionResetError):
            said_by(caller)
    carried.settled()
    assert carried.shown("in")["ended"]["target-reset"]


@pytest.mark.parametrize("who", ["caller", "target"])
def test_who_never_reads_costs_little(carried: Pair, backend: Backend, who: str) -> None:
    backend.serve = hold

    def flood(connection: socket.socket) -> None:
        connection.settimeout(0.5)
        said = 0
        try:
            while said < 256 * MIB:
                said += connection.send(b"x" * MIB)
        except TimeoutError:
            pass
        sizes.put(said)
        threading.Event().wait(0.1)

    sizes: SimpleQueue[int] = SimpleQueue()
    assert who in ("caller", "target")
    if who == "caller":
        backend.serve = flood
    caller = carried.call()
    if who == "target":
        flood(caller)
    said = sizes.get(timeout=PATIENCE)
    heard = sum(carried.shown(name)["open"] for name in ("in", "out"))
    assert heard
    # The kernel's buffers take some MiB at each of four sockets.
    assert said < 64 * MIB
    break_off(caller)
    carried.settled()


def test_a_target_that_is_down_is_told_and_comes_back(running: Mesh, tmp_path: Path) -> None:
    backend = Backend(path=tmp_path / "b.sock")
    with pair(running, backend.target) as found:
        with found.call() as caller, pytest.raises(ConnectionResetError):
            said_by(caller)
        found.proxy.wait_for(
            r"in: connection from .* is not carried to unix:\S+: .*no socket is there"
        )
        status, body = found.ask("/readyz")
        assert status == 503, body
        assert b"no socket is there" in body
        with backend:
            until(lambda: found.ask("/readyz")[0] == 200)
            with found.call() as caller:
                caller.sendall(b"hello")
                assert caller.recv(5) == b"hello"
        assert (
            b'mesh_proxy_not_carried_total{code="unreachable",listener="in"}'
            in found.ask("/metrics")[1]
        )


def test_it_tells_what_it_has_carried(carried: Pair, backend: Backend) -> None:
    backend.serve = echo
    with carried.call() as caller:
        caller.sendall(b"hello")
        assert caller.recv(5) == b"hello"
        (connection,) = carried.shown("in")["connections"]
        assert connection["peer"] == "spiffe://mesh.local/service/proxy"
        assert connection["from_caller_bytes"] == connection["from_target_bytes"] == 5
    carried.settled()
    peers = carried.shown("in")["peers"]
    assert peers["spiffe://mesh.local/service/proxy"]["connections"] > 0
    metrics = carried.ask("/metrics")[1].decode()
    assert 'mesh_proxy_bytes_total{listener="in",side="caller"}' in metrics
    assert 'mesh_proxy_ended_total{listener="in",reason="done"}' in metrics
