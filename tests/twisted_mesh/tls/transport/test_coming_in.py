"""From the first byte to the application: who waits, who gives up, who is turned away, and through what it may come."""

import socket
import struct
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from pki.errors import PkiError
from tests.authorities import OTHER
from tests.twisted_mesh.tls.transport.application import Application
from tests.twisted_mesh.tls.transport.by_hand import ByHand
from tests.twisted_mesh.tls.transport.rig import NETWORKS, Rig
from tests.twisted_mesh.tls.wires import good_svid, home
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit
from twisted_mesh.limits.handshake_budget import HandshakeBudget

on_each_network = pytest.mark.parametrize("network", NETWORKS, indirect=True)


@on_each_network
@pytest.mark.parametrize("says", ["nothing", "half", "a byte now and then"])
def test_a_handshake_has_its_time_and_no_more(says: str, rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand(shakes_hands=False)
    if says != "nothing":
        peer.tls.set_connect_state()
        with pytest.raises(SSL.WantReadError):
            peer.tls.do_handshake()
        hello = peer.take()
        peer.reads = False
        for at in range(9):
            peer.put(hello[at : at + 1] if says != "half" else hello[:100] if not at else b"")
            rig.turns(2)
            rig.clock.advance(1.0)
        peer.reads = True
    else:
        rig.until(lambda: rig.served)
        rig.clock.advance(9.0)
    rig.turns()
    assert not peer.end
    rig.clock.advance(1.1)
    rig.until(lambda: peer.end)
    assert not rig.served[0].made
    assert "handshake-timeout" in str(rig.server.log.events[-1]["codes"])


@on_each_network
def test_who_is_not_believed_is_told_by_an_alert_before_the_end(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand(shakes_hands=False, svid=good_svid(home(OTHER)))
    peer.shake_hands()
    rig.until(lambda: peer.end)
    assert "alert unknown ca" in str(peer.refusal)
    assert rig.served[0].happened == []
    assert rig.server.log.count("peer-refused") == 1


def test_a_client_that_does_not_believe_says_so(rig: Rig) -> None:
    rig.listen()
    outcome: list[Any] = []
    rig.client.judge.trust = rig.client.judge.trust.__class__(home(OTHER).bundles)
    rig.call(Application()).addBoth(outcome.append)
    rig.until(lambda: outcome)
    assert isinstance(outcome[0], Failure) and isinstance(outcome[0].value, PkiError)
    rig.until(lambda: rig.server.log.count("peer-refused"))


def test_who_speaks_at_once_and_is_refused_is_still_told_why(rig: Rig) -> None:
    """What it has sent meanwhile must not make a reset of the end, which would overtake the alert."""
    rig.listen()
    peer = rig.by_hand(shakes_hands=False, svid=good_svid(home(OTHER)))
    peer.reads = False
    peer.shake_hands()
    while not peer.is_secured:
        rig.turn()
        peer.reads = True
        peer._receive()
        peer.reads = False
        peer._shake()
    for _ in range(20):
        peer.tls.send(b"x" * 1000)
    peer.reads = True
    peer.step()
    rig.until(lambda: peer.end)
    assert "alert unknown ca" in str(peer.refusal)


@pytest.mark.parametrize("when", ["connecting", "shaking hands"])
def test_an_attempt_may_be_given_up(when: str, rig: Rig) -> None:
    rig.listen()
    outcome: list[Any] = []
    calling = Application()
    attempt = rig.call(calling)
    attempt.addBoth(outcome.append)
    if when == "shaking hands":
        rig.until(lambda: rig.served)
    attempt.cancel()
    rig.until(lambda: outcome)
    assert isinstance(outcome[0], Failure)
    assert outcome[0].check(CancelledError, PkiError)
    rig.turns()
    assert calling.happened == []
    assert all(not served.made for served in rig.served)


def test_who_calls_where_nobody_listens_is_told(rig: Rig) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = TCP4ClientEndpoint(rig.reactor, *bound.getsockname())
    rig.listen()
    outcome: list[Any] = []
    rig.call(Application(), lambda _: nobody).addBoth(outcome.append)
    rig.until(lambda: outcome)
    assert isinstance(outcome[0].value, PkiError)


@pytest.mark.parametrize("way", ["goodbye", "hang up", "reset"])
def test_a_server_that_leaves_in_the_handshake_fails_the_attempt(way: str, rig: Rig) -> None:
    outcome: list[Any] = []
    calling = Application()
    attempt, wire = rig.called(calling)
    attempt.addBoth(outcome.append)
    with wire:
        if way == "reset":
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif way == "goodbye":
            wire.sendall(bytes.fromhex("15030300020100"))
    rig.until(lambda: outcome)
    assert isinstance(outcome[0].value, PkiError)
    assert calling.happened == []


def test_silent_connections_make_room_for_a_peer(rig: Rig) -> None:
    limit = ConnectionLimit(Capacity(8, 4, 2, 4), rig.clock, "TLS", rig.server.log)
    rig.listen(connection_limit=limit)
    silent = [rig.by_hand(shakes_hands=False) for _ in range(10)]
    rig.until(lambda: sum(bool(peer.end) for peer in silent) == 6)
    served, calling = rig.pair(Application())
    calling.transport.write(b"x")
    rig.until(lambda: served.heard)
    for peer in silent:
        peer.close()
    rig.until(lambda: len(limit) == 1)
    calling.transport.loseConnection()
    rig.until(lambda: served.lost and calling.lost)
    assert len(limit) == 0


def test_whose_turn_is_put_off_gets_it(rig: Rig) -> None:
    """A network whose handshakes have failed at a cost."""
    budget = HandshakeBudget(rig.clock)
    rig.listen(handshake_budget=budget)
    for _ in range(5):
        peer = rig.by_hand(shakes_hands=False, svid=good_svid(home(OTHER)))
        peer.shake_hands()
        rig.until(lambda peer=peer: peer.end)  # type: ignore[misc]
        rig.clock.advance(1.0)
    outcome: list[Any] = []
    calling = Application(made=lambda me: me.transport.write(b"in"))
    rig.call(calling).addBoth(outcome.append)
    for _ in range(40):
        rig.turns(3)
        rig.clock.advance(0.1)
    rig.until(lambda: rig.served[-1].heard == b"in")


# through what


class _Passing(ProtocolWrapper):
    """Whoever stands between the socket and what is given to an endpoint, and hears all."""

    passed = 0

    def dataReceived(self, data: bytes) -> None:
        type(self).passed += len(data)
        super().dataReceived(data)


class _PassingFactory(WrappingFactory):
    protocol = _Passing
    noisy = False


class _Wrapping:
    """An endpoint around another, as proxies and meters are."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def listen(self, factory: Any) -> Any:
        return self._endpoint.listen(_PassingFactory(factory))

    def connect(self, factory: Any) -> Any:
        return self._endpoint.connect(_PassingFactory(factory))


def _talk(rig: Rig, served: Application, calling: Application) -> None:
    calling.transport.write(b"x" * 300_000)
    rig.until(lambda: len(served.heard) == 300_000)
    served.transport.write(b"y" * 300_000)
    served.transport.loseConnection()
    rig.until(lambda: served.lost and calling.lost)
    assert calling.heard == b"y" * 300_000


@pytest.mark.parametrize("side", ["server", "client"])
def test_who_stands_between_socket_and_tls_hears_all(
    side: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrapper hands out the socket of what it wraps; that must not be taken from below it."""
    monkeypatch.setattr(_Passing, "passed", 0)
    rig.listen(wrap=_Wrapping if side == "server" else None)
    outcome: list[Any] = []
    calling = Application()
    rig.call(calling, _Wrapping if side == "client" else None).addBoth(outcome.append)
    rig.until(lambda: outcome and rig.served and rig.served[0].made)
    _talk(rig, rig.served[0], calling)
    assert _Passing.passed > 300_000


def test_behind_a_proxy_that_says_who_calls(rig: Rig) -> None:
    """``haproxy:`` in an endpoint's description: a line in plain comes before TLS."""
    rig.listen(wrap=proxyEndpoint)
    peer = rig.by_hand(shakes_hands=False)
    peer.put(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n")
    peer.shake_hands()
    rig.until(lambda: peer.is_secured and rig.served and rig.served[0].made)
    assert rig.served[0].transport.getPeer().host == "192.0.2.1"
    peer.say(b"x" * 100_000)
    rig.until(lambda: len(rig.served[0].heard) == 100_000)
    peer.goodbye()
    rig.until(lambda: rig.served[0].lost)


class _Starting(Protocol):
    """Speaks in plain first, and has TLS from then on: the other protocol takes the connection over."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        self.transport.write(b"STARTTLS\n")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        assert data == b"GO\n"
        transport: Any = self.transport
        protocol = self._factory.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)


class _Plain:
    """An endpoint that has TLS once both have agreed on it."""

    def __init__(self, endpoint: Any) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        plain = Factory.forProtocol(lambda: _Starting(factory))
        plain.noisy = False
        return self._endpoint.connect(plain)


def test_tls_may_begin_on_a_connection_that_has_spoken_in_plain(rig: Rig) -> None:
    calling = Application(made=lambda me: me.transport.write(b"secret"))
    outcome: list[Any] = []
    attempt, wire = rig.called(calling, _Plain)
    attempt.addBoth(outcome.append)
    rig.turns(2)
    assert wire.recv(100) == b"STARTTLS\n"
    wire.sendall(b"GO\n")
    peer = rig.hold(ByHand(wire, serves=True))
    peer.shake_hands()
    rig.until(lambda: peer.heard == b"secret")
    assert outcome == [calling]
