"""A worker takes connections at a socket of its parent's, and nobody else has the address meanwhile."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory

from tests.twisted_mesh.taps.test_early_port import Adopting
from twisted_mesh.taps import early_port
from twisted_mesh.taps.early_port import EarlyPort, EarlyReactor
from twisted_mesh.taps.inherited_port import HeldPort, InheritedEndpoint, SharedPort

HERE = "127.0.0.1"


@pytest.fixture
def reactor() -> Iterator[Adopting]:
    found = Adopting()
    yield found
    for taken in found.adopted:
        taken.close()


@pytest.fixture(params=[True, False], ids=["a socket each", "one for all"])
def shares_out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not sys.platform.startswith("linux"):
        pytest.skip("other systems do not share callers out")
    monkeypatch.setattr(early_port, "_SHARES_OUT", request.param)
    return bool(request.param)


def owned(reactor: Adopting, port: int = 0) -> Any:
    return EarlyReactor(reactor).listenTCP(port, Factory(), interface=HERE)


def at(reactor: Adopting, given: socket.socket) -> Any:
    ports: list[Any] = []
    InheritedEndpoint(reactor, given).listen(Factory()).addCallback(ports.append)
    return ports[0]


def refused(reactor: Adopting, port: int) -> bool:
    """Whether one of our services, and whoever sets SO_REUSEADDR, is refused there."""
    with pytest.raises(CannotListenError, match="in use"):
        owned(reactor, port)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind((HERE, port))
    return True


def test_an_address_has_one_owner_whoever_serves_there(reactor: Adopting, shares_out: bool) -> None:
    parent = owned(reactor)
    number = parent.getHost().port
    assert refused(reactor, number)
    ports = [at(reactor, parent.for_worker()) for _ in range(2)]
    assert {type(port) for port in ports} == {EarlyPort if shares_out else SharedPort}
    assert all(port.getHost().port == number for port in ports)
    assert refused(reactor, number)
    with socket.socket() as caller:
        assert caller.connect_ex((HERE, number)) != 0  # nobody serves
    for port in ports:
        port.startListening()
        port.startListening()
        assert refused(reactor, number)
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection((HERE, number))) for _ in range(20)]
        taken = {taken.getsockname() for taken in reactor.adopted}
        assert taken == {(HERE, number)} and len(callers) == 20
    parent.stopListening()
    for port in ports:
        # One for all is never given back by who only shares it.
        port.stopListening() if shares_out else port._socket.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux shares out")
def test_who_ends_leaves_the_others_and_may_be_replaced(reactor: Adopting) -> None:
    parent = owned(reactor)
    number = parent.getHost().port
    first, second = (at(reactor, parent.for_worker()) for _ in range(2))
    first.startListening()
    second.startListening()
    first.stopListening()
    (left,) = reactor.adopted
    left.settimeout(10)
    for _ in range(10):
        with socket.create_connection((HERE, number)):
            left.accept()[0].close()
    third = at(reactor, parent.for_worker())
    third.startListening()
    assert len(reactor.adopted) == 2
    assert refused(reactor, number)
    for port in (parent, second, third):
        port.stopListening()


def test_an_address_that_was_given_back_has_no_socket_for_anybody(reactor: Adopting) -> None:
    parent = owned(reactor)
    parent.stopListening()
    with pytest.raises(OSError, match="Bad file descriptor"):
        parent.for_worker()


class Held:
    """A port of Twisted's at a unix socket."""

    is_paused = False

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()

    def pauseProducing(self) -> None:
        self.is_paused = True

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(self.socket.getsockname())


def test_a_unix_socket_is_one_for_all_and_no_worker_removes_it(
    reactor: Adopting, tmp_path: Path
) -> None:
    door = tmp_path / "door"
    held = Held(door)
    with held.socket:
        parent = HeldPort(held)
        assert held.is_paused and parent.getHost() == held.getHost()
        ports = [at(reactor, parent.for_worker()) for _ in range(2)]
        for port in ports:
            assert isinstance(port, SharedPort)
            port.startListening()
        assert len(reactor.adopted) == 2
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(door))
            reactor.adopted[1].accept()[0].close()
        assert door.exists()
        for port in ports:
            port._socket.close()
