"""A port is taken at once and opened later; two that start at the same time never share one."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.endpoints import UNIXServerEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol

from twisted_mesh.taps.early_port import EarlyPort, EarlyReactor


@define(eq=False)
class Adopting:
    """A reactor that takes ports over, and listens on those of Twisted's own making."""

    adopted: list[socket.socket] = field(factory=list)
    asked: list[tuple[Any, ...]] = field(factory=list)

    def adoptStreamPort(self, descriptor: int, family: int, factory: object) -> Any:
        taken = socket.socket(fileno=os.dup(descriptor))
        self.adopted.append(taken)
        reactor = self

        class Port:
            def stopListening(self) -> None:
                taken.close()
                if taken in reactor.adopted:
                    reactor.adopted.remove(taken)

        return Port()

    def listenUNIX(self, *arguments: Any) -> Any:
        self.asked.append(arguments)
        return object()


@pytest.fixture
def reactor() -> Iterator[Adopting]:
    reactor = Adopting()
    yield reactor
    for taken in reactor.adopted:
        taken.close()


Opening = Callable[[str], EarlyPort]


@pytest.fixture
def bound(reactor: Adopting) -> Iterator[Opening]:
    """Binds a Twisted endpoint string."""
    made: list[EarlyPort] = []

    def bind(text: str) -> EarlyPort:
        endpoint = serverFromString(EarlyReactor(reactor), text)
        outcome: list[Any] = []
        endpoint.listen(Factory.forProtocol(Protocol)).addBoth(outcome.append)
        (port,) = outcome
        if not isinstance(port, EarlyPort):
            port.raiseException()
        made.append(port)
        return port

    yield bind
    for port in made:
        port.stopListening()


def number(port: EarlyPort) -> int:
    address: Any = port.getHost()
    return int(address.port)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 5)


LOCAL = "tcp:{}:interface=127.0.0.1"


def test_nobody_is_let_in_before_it_listens(bound: Opening, reactor: Adopting) -> None:
    port = bound(LOCAL.format(0))
    with pytest.raises(ConnectionRefusedError):
        connect(number(port))
    assert reactor.adopted == []
    port.startListening()
    port.startListening()
    connect(number(port)).close()
    assert len(reactor.adopted) == 1
    assert not os.get_blocking(reactor.adopted[0].fileno())
    port.stopListening()
    with pytest.raises(ConnectionRefusedError):
        connect(number(port))


def test_of_two_that_start_at_once_the_second_is_told(bound: Opening) -> None:
    port = bound(LOCAL.format(0))
    for _ in range(2):
        with pytest.raises(CannotListenError, match="Address already in use"):
            bound(LOCAL.format(number(port)))
        port.startListening()
    port.stopListening()
    bound(LOCAL.format(number(port))).startListening()


def test_another_programs_early_bird_is_no_way_in_either(bound: Opening) -> None:
    """Twisted's own ports, and most others, have SO_REUSEADDR."""
    port = bound(LOCAL.format(0))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number(port)))


@pytest.mark.parametrize("is_open", [False, True])
def test_connections_of_an_earlier_life_do_not_keep_it_out(
    bound: Opening, reactor: Adopting, is_open: bool
) -> None:
    port = bound(LOCAL.format(0))
    port.startListening()
    client = connect(number(port))
    reactor.adopted[0].setblocking(True)
    served, _ = reactor.adopted[0].accept()
    if not is_open:
        served.close()  # first: it is the server's end that the system remembers
        assert client.recv(1) == b""
        client.close()
    port.stopListening()
    again = bound(LOCAL.format(number(port)))
    with pytest.raises(CannotListenError):
        bound(LOCAL.format(number(port)))
    again.startListening()
    client.close()
    served.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_an_ipv6_address_is_bound_too(bound: Opening) -> None:
    try:
        port = bound(r"tcp6:0:interface=\:\:1")
    except CannotListenError:
        pytest.skip("there is no IPv6 here")
    port.startListening()
    socket.create_connection(("::1", number(port)), 5).close()


@define(eq=False)
class Unix:
    """Unix sockets in a directory."""

    reactor: Adopting
    path: Path

    def bind(self) -> EarlyPort:
        early: Any = EarlyReactor(self.reactor)
        endpoint = UNIXServerEndpoint(early, str(self.path), backlog=1024, mode=0o666)
        outcome: list[Any] = []
        endpoint.listen(Factory.forProtocol(Protocol)).addBoth(outcome.append)
        (port,) = outcome
        assert isinstance(port, EarlyPort)
        return port

    def connect(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))


@pytest.fixture
def unix(reactor: Adopting, tmp_path: Path) -> Unix:
    return Unix(reactor, tmp_path / "ca.sock")


def test_a_unix_socket_refuses_until_it_listens(unix: Unix) -> None:
    port = unix.bind()
    with pytest.raises(ConnectionRefusedError):
        unix.connect()
    port.startListening()
    unix.connect()
    port.stopListening()


def test_a_unix_socket_that_never_listened_leaves_nothing_behind(unix: Unix) -> None:
    port = unix.bind()
    assert unix.path.is_socket()
    port.stopListening()
    assert not unix.path.exists()


def test_whose_path_was_taken_meanwhile_does_not_listen_where_nobody_comes(unix: Unix) -> None:
    first = unix.bind()
    unix.path.unlink()
    second = unix.bind()
    with pytest.raises(CannotListenError, match="another program's"):
        first.startListening()
    first.stopListening()
    second.startListening()
    unix.connect()
    second.stopListening()


def test_a_lock_file_is_twisteds_affair(reactor: Adopting, tmp_path: Path) -> None:
    endpoint = serverFromString(EarlyReactor(reactor), f"unix:{tmp_path / 'a'}")
    made: list[IListeningPort] = []
    endpoint.listen(Factory.forProtocol(Protocol)).addBoth(made.append)
    assert len(made) == len(reactor.asked) == 1
