"""What is sent on a plain connection leaves at once, in its order, and what the system does not take waits."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import tcp, unix
from twisted.internet.main import CONNECTION_LOST
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from twisted_mesh.http.prompt import PromptServer, send_promptly

MUCH = bytes(range(256)) * 32 * 1024


@define(eq=False)
class Watching(Clock):
    """A reactor that notes who wants to be told of room."""

    waiting: set[object] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def addReader(self, reader: object) -> None: ...

    def removeReader(self, reader: object) -> None: ...

    def addWriter(self, writer: object) -> None:
        self.waiting.add(writer)

    def removeWriter(self, writer: object) -> None:
        self.waiting.discard(writer)


@define(eq=False)
class Pair:
    server: PromptServer
    reactor: Watching
    peer: socket.socket

    @property
    def waits(self) -> bool:
        return self.server in self.reactor.waiting

    def read(self) -> bytes:
        return self.peer.recv(1 << 20)


@pytest.fixture
def pair() -> Iterator[Pair]:
    reactor: Any = Watching()
    with socket.create_server(("127.0.0.1", 0)) as port:
        peer = socket.create_connection(port.getsockname())
        accepted, client = port.accept()
    port_of: Any = type("Port", (), {"_realPortNumber": 0})()
    with peer, accepted:
        server = PromptServer(accepted, Protocol(), client, port_of, 1, reactor)
        yield Pair(server, reactor, peer)


def test_a_short_answer_leaves_at_once_and_nobody_waits_for_room(pair: Pair) -> None:
    pair.server.write(b"an answer")
    assert not pair.waits
    assert pair.read() == b"an answer"


def test_what_does_not_fit_waits_and_all_of_it_comes_in_order(pair: Pair) -> None:
    pair.server.write(MUCH)
    assert pair.waits
    pair.server.write(b"the end")
    read = b""
    while not read.endswith(b"the end"):
        read += pair.read()
        if pair.waits:
            assert pair.server.doWrite() is None
    assert read == MUCH + b"the end"
    assert not pair.waits
    pair.server.write(b"more")
    assert pair.read() == b"more"


def test_where_the_peer_is_gone_twisted_ends_the_connection_in_a_turn_of_its_own(
    pair: Pair,
) -> None:
    pair.server.socket.shutdown(socket.SHUT_WR)
    pair.server.write(b"to nobody")
    assert pair.waits
    assert pair.server.doWrite() is CONNECTION_LOST


def test_nothing_is_sent_once_a_connection_is_cut_off(pair: Pair) -> None:
    pair.server.abortConnection()
    pair.server.write(b"too late")
    pair.reactor.advance(0)
    with pytest.raises(ConnectionResetError):
        pair.read()


def test_a_port_of_another_kind_stays_as_it_is() -> None:
    factory, reactor = Factory.forProtocol(Protocol), Watching()
    ports: list[Any] = [
        tcp.Port(0, factory, reactor=reactor),
        unix.Port("x", factory, reactor=reactor),
    ]
    before = ports[1].transport
    for port in ports:
        send_promptly(port)
    assert [port.transport for port in ports] == [PromptServer, before]
