"""What is said arrives, all of it and in order, whatever its pieces; and what a transport tells of itself."""

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    INegotiated,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
)
from zope.interface.verify import verifyObject

from tests.twisted_mesh.tls.transport.application import Application
from tests.twisted_mesh.tls.transport.rig import NETWORKS, Rig
from twisted_mesh.tls.connection import MeshConnection, MeshFactory

MIB = 1 << 20
ADDRESSES = {"tcp4": IPv4Address, "tcp6": IPv6Address, "unix": UNIXAddress}

on_each_network = pytest.mark.parametrize("network", NETWORKS, indirect=True)


@on_each_network
def test_both_ends_talk_and_know_where_they_are(rig: Rig) -> None:
    served, calling = rig.pair()
    calling.transport.write(b"hello")
    served.transport.write(b"good day")
    rig.until(lambda: served.heard == b"hello" and calling.heard == b"good day")
    for end, other in ((served, calling), (calling, served)):
        kind = ADDRESSES[rig.network]
        assert isinstance(end.transport.getHost(), kind)
        assert isinstance(end.transport.getPeer(), kind)
        if rig.network != "unix":
            assert end.transport.getPeer() == other.transport.getHost()


def test_it_provides_what_it_says(rig: Rig) -> None:
    served, calling = rig.pair()
    shown = {served: rig.client.svid, calling: rig.server.svid}
    for end, svid in shown.items():
        for interface in (ISSLTransport, ITCPTransport, INegotiated, IPushProducer, IConsumer):
            assert interface.providedBy(end.transport)
        verifyObject(ISSLTransport, end.transport)
        verifyObject(ITCPTransport, end.transport)
        assert end.transport.TLS
        assert end.transport.negotiatedProtocol == b"http/1.1"
        assert end.transport.getPeerCertificate().to_cryptography() == svid.leaf  # type: ignore[union-attr]
        assert end.transport.getHandle().get_protocol_version_name() == "TLSv1.3"
        assert (bool(end.transport.connected), end.transport.disconnecting) == (True, False)


def test_the_options_of_tcp_are_the_applications(rig: Rig) -> None:
    for end in rig.pair():
        for value in (True, False, True):
            end.transport.setTcpNoDelay(value)
            assert end.transport.getTcpNoDelay() is value
            end.transport.setTcpKeepAlive(value)
            assert end.transport.getTcpKeepAlive() is value


@on_each_network
def test_what_is_written_when_the_connection_is_made_arrives(rig: Rig) -> None:
    rig.listen(lambda: Application(made=lambda me: me.transport.write(b"served")))
    served, calling = rig.pair(Application(made=lambda me: me.transport.write(b"calling")))
    rig.until(lambda: served.heard == b"calling" and calling.heard == b"served")
    assert served.happened == calling.happened == ["made", "data"]


def test_what_is_written_in_pieces_arrives_in_order(rig: Rig) -> None:
    served, calling = rig.pair()
    said = bytes(range(256)) * 40
    for at in range(0, len(said), 5):
        calling.transport.write(said[at : at + 5])
    calling.transport.write(b"")
    calling.transport.writeSequence([])
    calling.transport.writeSequence([b"a", b"", b"b" * 20_000, b"c"])
    said += b"a" + b"b" * 20_000 + b"c"
    rig.until(lambda: len(served.heard) >= len(said))
    assert served.heard == said


def test_what_was_written_is_the_callers_again(rig: Rig) -> None:
    """A buffer that is used again at once."""
    served, calling = rig.pair()
    buffer = bytearray(b"first")
    calling.transport.write(buffer)
    buffer[:] = b"other"
    calling.transport.write(buffer)
    buffer.clear()
    rig.until(lambda: len(served.heard) == 10)
    assert served.heard == b"firstother"


def test_text_is_no_bytes_and_hurts_nobody(rig: Rig) -> None:
    served, calling = rig.pair()
    with pytest.raises(TypeError):
        calling.transport.write("text")
    with pytest.raises(TypeError):
        calling.transport.writeSequence(["text"])
    calling.transport.write(b"bytes")
    rig.until(lambda: served.heard == b"bytes")
    assert calling.lost is None


def _much(rig: Rig, size: int) -> None:
    said = bytes(range(251)) * (size // 251 + 1)
    rig.listen(lambda: Application(made=lambda me: me.transport.write(said)))
    served, calling = rig.pair(Application(made=lambda me: me.transport.write(said)))
    rig.until(lambda: len(served.heard) == len(calling.heard) == len(said))
    assert served.heard == said
    assert calling.heard == said


@on_each_network
def test_much_at_once_arrives_both_ways(rig: Rig) -> None:
    _much(rig, 2 * MIB)


@pytest.mark.interop(
    "tests/twisted_mesh/tls/transport/test_talking.py::test_much_at_once_arrives_both_ways"
)
def test_very_much_at_once_arrives_both_ways(rig: Rig) -> None:
    _much(rig, 64 * MIB)


@on_each_network
def test_bytes_that_come_one_by_one_are_understood(rig: Rig) -> None:
    """From the first of the handshake to the last of the goodbye; each turn of the reactor brings one."""
    rig.listen(lambda: Application(data=lambda me: me.transport.write(bytes(me.heard[-1:]))))
    peer = rig.by_hand(shakes_hands=False)
    peer.pace = 1
    peer.shake_hands()
    rig.until(lambda: peer.is_secured and rig.served and rig.served[0].made)
    said = b"one by one"
    for octet in said:
        before = len(peer.heard)
        peer.say(bytes([octet]))
        rig.until(lambda before=before: len(peer.heard) > before)  # type: ignore[misc]
    assert peer.heard == said
    peer.goodbye()
    rig.until(lambda: rig.served[0].lost)
    assert rig.served[0].heard == b"one by one"


def test_records_that_come_in_one_piece_are_all_read(rig: Rig) -> None:
    """Handshake's end, data in records of one byte, and goodbye, in one segment."""
    rig.listen()
    peer = rig.by_hand(shakes_hands=False)
    peer.shake_hands()
    peer.reads = False
    hello = peer.wire
    while not peer.is_secured:
        rig.turn()
        try:
            peer.tls.bio_write(hello.recv(1 << 16))
        except BlockingIOError:
            continue
        try:
            peer.tls.do_handshake()
        except Exception:
            continue
        peer.is_secured = True
    for octet in b"all at once":
        peer.tls.send(bytes([octet]))
    peer.tls.shutdown()
    peer.reads = True
    peer.step()
    rig.until(lambda: rig.served and rig.served[0].lost)
    assert rig.served[0].heard == b"all at once"
    assert rig.served[0].happened == ["made", "data", "lost"]


class _Told(MeshConnection):
    """Notes what its transport tells it, in order, and speaks before it may be heard."""

    def makeConnection(self, transport: Any) -> None:
        self.told: list[str] = []
        _Telling.made.append(self)
        super().makeConnection(transport)
        if self.factory.client is not None:
            transport.write(b"early ")

    def handshakeCompleted(self) -> None:
        self.told.append("handshake")
        if self.factory.client is not None:
            self.transport.write(b"within ")
        super().handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        self.told.append("data")
        super().dataReceived(data)


class _Telling(MeshFactory):
    made: list[_Told] = []  # noqa: RUF012

    def buildProtocol(self, addr: Any) -> MeshConnection:
        return _Told(self, self.wrapped.buildProtocol(addr))


def test_the_handshake_is_told_of_once_and_before_any_data(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twisted_mesh.tls.endpoints.MeshFactory", _Telling)
    monkeypatch.setattr(_Telling, "made", [])
    served, calling = rig.pair(Application(made=lambda me: me.transport.write(b"after")))
    rig.until(lambda: served.heard.endswith(b"after"))
    assert served.heard == b"early within after", "in the order in which it was said"
    served.transport.write(b"answer")
    rig.until(lambda: calling.heard == b"answer")
    for connection in _Telling.made:
        assert IHandshakeListener.providedBy(connection)
        assert connection.told[0] == "handshake"
        assert connection.told.count("handshake") == 1
        assert "data" in connection.told
