"""A handshake has so many bytes, and whoever lets it fail pays for the time it took."""

from typing import Any
from unittest.mock import Mock

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone

from pki.errors import PANICS
from pki.issuing.profile import ISSUING
from tests.authorities import OTHER, forge, forge_root, rsa_key
from tests.twisted_mesh.tls.wires import (
    Conversation,
    End,
    Talker,
    Talkers,
    Wire,
    converse,
    good_svid,
    home,
    in_memory,
)
from twisted_mesh.limits.handshake_budget import HandshakeBudget, Share
from twisted_mesh.testing import names
from twisted_mesh.tls import handshake_meter
from twisted_mesh.tls.handshake_meter import MOST_BYTES
from twisted_mesh.trust.judge import Judge

#: A record of TLS with a part of a handshake message that never ends.
RECORD = b"\x16\x03\x01\x40\x00" + b"\x01\xff\xff\xff" + bytes(16380)


def server_wire(server: End, host: str = "192.0.2.1") -> Wire:
    wire = Wire()
    address = IPv4Address("TCP", host, 1)
    wire.protocol = in_memory(Talkers(), server.security).buildProtocol(address)
    wire.protocol.makeConnection(wire)
    return wire


def refusal(server: End) -> Any:
    return [e for e in server.log.events if e.get("event") == "peer-refused"][-1]


@pytest.mark.parametrize("size", [100, 4096, MOST_BYTES, 10 * MOST_BYTES])
def test_a_handshake_has_so_many_bytes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    server = End(True)
    wire = server_wire(server)
    tls = wire.protocol.taken._tlsConnection
    monkeypatch.setattr(
        wire.protocol.taken.wrappedProtocol.meter, "_deliver", lambda d: given.append(len(d))
    )
    for _ in range(0, 10 * MOST_BYTES, size):
        if wire.connected and not wire.closing:
            wire.protocol.dataReceived(bytes(size))
    assert tls is not None
    assert sum(given) <= MOST_BYTES
    wire.settle()
    assert refusal(server)["codes"] == "handshake-too-large"


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PATCH", "PRI"])
def test_who_begins_with_plain_http_hears_that_tls_is_spoken_and_so_does_the_log(
    method: str,
) -> None:
    server = End(True)
    wire = server_wire(server)
    wire.protocol.dataReceived(f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert wire.value().startswith(b"\x15\x03\x03")
    wire.settle()
    assert refusal(server)["reasons"] == (
        "not-tls: the peer speaks plain HTTP (use https:// on this port)"
    )


def test_openssl_is_given_no_more_and_the_rest_is_heard_by_nobody() -> None:
    server = End(True)
    wire = server_wire(server)
    for _ in range(5):
        if not wire.closing:
            wire.protocol.dataReceived(RECORD)
    assert wire.closing
    wire.settle()
    assert refusal(server)["codes"] in {"handshake-too-large", "tls-error"}


def test_data_behind_a_handshake_is_not_counted() -> None:
    conversation = converse(End(False), End(True))
    conversation.calling.made[0].transport.write(b"x" * 4 * MOST_BYTES)
    conversation.pump()
    assert len(conversation.served.made[0].heard) == 4 * MOST_BYTES
    assert not conversation.served.made[0].lost


def test_a_handshake_and_what_follows_may_come_in_one_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake_meter, "MOST_BYTES", 4096)

    class Whole(Conversation):
        def pump(self) -> None:
            """The client's second flight waits until it has said something, too."""
            self._carry(self.client_wire, self.server_wire)
            self._carry(self.server_wire, self.client_wire)
            self.calling.made[0].transport.write(b"x" * 50_000)
            super().pump()

    conversation = Whole(End(False), End(True))
    conversation.connect()
    assert len(conversation.served.made[0].heard) == 50_000


def test_the_largest_legal_chain_fits() -> None:
    root = forge_root()
    large = rsa.RSAPublicNumbers(65537, (1 << 8192) - 159).public_key()
    whole = [f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}.{number:08d}" for number in range(64)]
    leaf = forge(
        root,
        replace={
            x509.SubjectAlternativeName: (
                x509.SubjectAlternativeName(
                    [*names("spiffe://mesh.local/x"), *map(x509.DNSName, whole)]
                ),
                False,
            )
        },
    )
    ca = forge(root, ISSUING, subject_key=rsa_key())
    encoding = serialization.Encoding.DER
    key_of_ca = len(
        ca.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    key_of_large = len(
        large.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    signature = 1024
    each = len(ca.public_bytes(encoding)) - key_of_ca + key_of_large + signature
    of_leaf = len(leaf.public_bytes(encoding)) + signature
    assert of_leaf + 9 * each + signature + 4096 < MOST_BYTES


# What it costs.


def paying() -> End:
    server = End(True)
    budget = HandshakeBudget(server.clock, Share(0.1, 0.0001), Share(0.5, 100.0))
    server.security = evolve(server.security, handshake_budget=budget)
    return server


def budget_of(server: End) -> HandshakeBudget:
    assert server.security.handshake_budget is not None
    return server.security.handshake_budget


def refused_client() -> End:
    return End(False, good_svid(home(OTHER)))


def test_whoever_is_refused_is_charged_and_waits_for_its_turn() -> None:
    server = paying()
    converse(refused_client(), server)
    wait = budget_of(server).wait("address:local")
    assert 0 < wait <= 2.0
    honest = converse(End(False), server)
    assert honest.outcome == [], "it comes from the same place, and waits"
    assert honest.server_wire.producerState == "paused"
    for _ in range(3):
        server.clock.advance(wait)
        honest.pump()
    assert honest.served.made[0].connected_times == 1
    assert honest.server_wire.producerState == "producing"


def test_nobody_else_waits_for_it() -> None:
    server = paying()
    converse(refused_client(), server)
    assert budget_of(server).wait("address:local") > 0
    wire = server_wire(server, "192.0.2.2")
    wire.protocol.dataReceived(b"\x00" * 64)
    assert wire.closing, "it was heard at once"
    wire = server_wire(server, "192.0.2.2")
    wire.protocol.dataReceived(b"\x00" * 64)
    assert budget_of(server).wait("address:192.0.2.2") == 0.0 or not wire.closing


def test_whoever_gets_in_pays_nothing() -> None:
    server = paying()
    for _ in range(5):
        converse(End(False), server)
    assert budget_of(server).wait("address:local") == 0.0
    assert budget_of(server).put_off == 0


def test_nor_does_whoever_is_answered_at_once_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request came in one piece with the end of the handshake, and all is over when the meter looks."""

    class AtOnce(Conversation):
        def pump(self) -> None:
            self._carry(self.client_wire, self.server_wire)
            self._carry(self.server_wire, self.client_wire)
            self.calling.made[0].transport.write(b"GET")
            super().pump()

    def answered(talker: Talker, data: bytes) -> None:
        talker.transport.loseConnection()

    server = paying()
    monkeypatch.setattr(Talker, "dataReceived", answered)
    for _ in range(5):
        AtOnce(End(False), server).connect()
        assert budget_of(server)._paid_at == {}


def test_whoever_waits_in_vain_is_told_so_in_the_log() -> None:
    server = paying()
    converse(refused_client(), server)
    budget_of(server).charge("address:local", 100.0)
    waiting = converse(End(False), server)
    for _ in range(100):
        budget_of(server).charge("address:local", 100.0)
        server.clock.advance(0.2)
        waiting.pump()
    assert refusal(server)["codes"] == "handshake-put-off"
    assert server.clock.getDelayedCalls() == []


def test_whoever_hangs_up_while_it_waits_is_forgotten() -> None:
    server = paying()
    converse(refused_client(), server)
    waiting = converse(End(False), server)
    waiting.server_wire.protocol.connectionLost(ConnectionDone())
    server.clock.advance(10)
    assert server.clock.getDelayedCalls() == []


def test_a_panic_in_the_verify_callback_shuts_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """A panic of cryptography's Rust is no Exception, and would leave through OpenSSL's callback."""
    server = End(True)
    monkeypatch.setattr(Judge, "judgement", Mock(side_effect=PANICS[0]("broken")))
    conversation = converse(End(False), server)
    assert conversation.served.made[0].connected_times == 0
    assert server.log.count("peer-refused") == 1
