"""Permissive mode: who speaks TLS and who does not at one port, and the way back to strict; with real sockets."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.running import PATIENCE, Mesh, until
from tests.twisted_mesh.proxy.backend import Backend
from tests.twisted_mesh.proxy.pairs import ID, Pair, pair, said_by
from twisted_mesh.proxy.first_bytes import ENOUGH, speaks_tls
from twisted_mesh.proxy.greeting import _Greeter, _Greeters
from twisted_mesh.proxy.listener import Bounds


@pytest.fixture
def permissive(running: Mesh) -> Iterator[Pair]:
    inside = 'permissive = true\nhandshake-timeout = "2s"'
    with Backend() as backend, pair(running, backend.target, inside=inside) as found:
        yield found


def plain(found: Pair) -> socket.socket:
    return socket.create_connection(("127.0.0.1", found.door), PATIENCE)


def test_both_are_served_and_those_without_proof_are_counted(permissive: Pair) -> None:
    permissive.proxy.wait_for("Listener in is permissive: whoever reaches it may call")
    with permissive.call() as proven, plain(permissive) as caller:
        for one in (proven, caller):
            one.sendall(b"hello")
            assert one.recv(5) == b"hello"
        permissive.proxy.wait_for("in is permissive: the caller at 127.0.0.1 speaks no TLS")
        shown = permissive.shown("in")
        assert shown["plain_callers"] == {"127.0.0.1": 1}
        assert {name: one["open"] for name, one in shown["peers"].items()} == {ID: 1, "none": 1}
    status, body = permissive.ask("/readyz")
    assert (status, b"lets callers in without TLS: 1 connections" in body) == (200, True)
    metrics = permissive.ask("/metrics")[1]
    assert b'mesh_proxy_plaintext_total{listener="in"} 1.0' in metrics


def test_it_is_strict_again_at_once(permissive: Pair) -> None:
    with permissive.call() as proven, plain(permissive) as caller:
        for one in (proven, caller):
            one.sendall(b"hello")
            assert one.recv(5) == b"hello"
        permissive.inside = 'handshake-timeout = "2s"'
        permissive.write()
        permissive.proxy.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionResetError):
            said_by(caller)
        proven.sendall(b"hello")
        assert proven.recv(5) == b"hello"
        with plain(permissive) as late:
            late.sendall(b"hello")
            with pytest.raises((ConnectionResetError, AssertionError)):
                assert said_by(late) == b"hello"


def queued(port: int) -> int:
    """How many have connected to a port of IPv4 whom nobody has taken yet; see proc_pid_net(5)."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "0A" and local.endswith(f":{port:04X}"):  # it listens
            return int(queues.partition(":")[2], 16)
    raise AssertionError(f"nobody listens at {port}")


def test_who_waits_for_room_or_for_words_is_not_let_in_once_it_is_strict(running: Mesh) -> None:
    inside = "max-connections = 1"
    with (
        Backend() as backend,
        pair(running, backend.target, inside=f"permissive = true\n{inside}") as found,
        ExitStack() as stack,
    ):
        # Taken beforehand: a listener without room takes nobody.
        first, second, third, silent = [stack.enter_context(plain(found)) for _ in range(4)]
        until(lambda: queued(found.door) == 0)
        first.sendall(b"hello")
        assert first.recv(5) == b"hello"
        for waiting in (second, third):
            waiting.sendall(b"hello")
        until(lambda: found.shown("in")["waiting"] == 2)
        found.inside = inside
        found.write()
        found.proxy.process.send_signal(signal.SIGHUP)
        found.proxy.wait_for("was read again: changed: in")
        silent.sendall(b"hello")
        for caller in (first, second, third, silent):
            caller.settimeout(PATIENCE)
            with suppress(ConnectionResetError):
                assert said_by(caller) == b""
        with found.call() as proven:  # there is room
            proven.sendall(b"hello")
            assert proven.recv(5) == b"hello"
        assert len(backend.seen) == 2
        assert found.shown("in")["plain_callers"] == {"127.0.0.1": 3}


def test_callers_without_proof_leave_room_for_the_others(running: Mesh) -> None:
    inside = "permissive = true\nmax-connections = 4"
    with (
        Backend() as backend,
        pair(running, backend.target, inside=inside) as found,
        ExitStack() as stack,
    ):
        first, *others = [stack.enter_context(plain(found)) for _ in range(3)]
        for caller in (first, *others):
            caller.sendall(b"hello")
            assert caller.recv(5) == b"hello"
        late = stack.enter_context(plain(found))
        late.sendall(b"hello")
        until(lambda: found.shown("in")["waiting"] == 1)
        with found.call() as proven:
            proven.sendall(b"hello")
            assert proven.recv(5) == b"hello"
        too_late = stack.enter_context(plain(found))
        too_late.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            too_late.recv(5)
        found.proxy.wait_for("in hangs up on the caller at .* have taken their share")
        first.close()
        assert late.recv(5) == b"hello"


def hello() -> bytes:
    """What a client of TLS says first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def test_a_hello_in_pieces_is_tls(permissive: Pair) -> None:
    said = hello()
    with plain(permissive) as caller:
        caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        caller.sendall(said[:1])
        with plain(permissive) as other:  # somebody else is served meanwhile
            other.sendall(b"hello")
            assert other.recv(5) == b"hello"
        caller.sendall(said[1:5])
        caller.sendall(said[5:])
        assert caller.recv(3) == b"\x16\x03\x03", "the server's hello"
    assert permissive.shown("in")["plain_callers"] == {"127.0.0.1": 1}


def test_who_says_nothing_is_hung_up_on(permissive: Pair) -> None:
    with plain(permissive) as silent, plain(permissive) as short:
        short.sendall(b"\x16")
        for caller in (silent, short):
            with pytest.raises(ConnectionResetError):
                caller.recv(1)
    until(lambda: permissive.shown("in")["open"] == 0)


@define
class OneByte:
    """A connection whose caller has said the first byte of TLS, and says no more."""

    socket: Any
    looks: int = 0
    is_read: bool = True
    is_aborted: bool = False
    doRead: Any = None

    def startReading(self) -> None:
        self.is_read = True

    def stopReading(self) -> None:
        self.is_read = False

    def abortConnection(self) -> None:
        self.is_aborted = True

    def turn(self) -> None:
        if self.is_read:
            self.looks += 1
            self.doRead()


def test_who_says_one_byte_and_no_more_is_looked_at_less_and_less() -> None:
    clock = Clock()
    bounds = Bounds(handshake=10.0)
    front: Any = SimpleNamespace(clock=clock, listener=SimpleNamespace(bounds=bounds))
    of: Any = SimpleNamespace(front=front)
    place: Any = SimpleNamespace()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x16")
        caller = OneByte(ours)
        _Greeter(_Greeters(of, None), None, place).makeConnection(caller)
        for _ in range(999):
            caller.turn()
            clock.advance(0.01)
        assert 10 < caller.looks < 50
        assert not caller.is_aborted
        clock.advance(0.02)
        assert caller.is_aborted


@pytest.mark.parametrize(
    ("first", "is_tls"),
    [(b"", None), (b"\x16", None), (b"\x16\x03", True), (b"\x16\x04", False), (b"G", False)],
    ids=["nothing", "a-byte", "tls", "no-version", "http"],
)
def test_what_first_bytes_tell(first: bytes, is_tls: bool | None) -> None:
    assert speaks_tls(first) is is_tls


@given(st.binary(min_size=ENOUGH))
def test_enough_bytes_always_tell_and_more_tell_the_same(said: bytes) -> None:
    told = speaks_tls(said)
    assert told is not None
    assert all(speaks_tls(said[:count]) in (None, told) for count in range(len(said)))
