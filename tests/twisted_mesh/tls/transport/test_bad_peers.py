"""Peers that take what they can get: each costs a bounded amount, is told so, and hurts nobody else."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL

from pki.svid.x509svid import certificates_pem
from tests.key_updates import RecordWriter, shake_hands
from tests.twisted_mesh.tls.transport.application import Application, Push
from tests.twisted_mesh.tls.transport.by_hand import ByHand
from tests.twisted_mesh.tls.transport.rig import Rig
from tests.twisted_mesh.tls.wires import good_svid
from twisted_mesh.tls.handshake_meter import MOST_BYTES, MOST_HELLO, MOST_SILENT

MIB = 1 << 20
#: What one turn of the reactor may read from one connection.
_A_TURN = 256 * 1024
#: What the kernel's buffers of a connection on this machine may take.
_KERNEL = 12 * MIB


def _record(kind: int, body: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body


def _honest(rig: Rig) -> Callable[[], None]:
    """Somebody who is served, and must be still."""
    served, calling = rig.pair(Application())

    def goes_on() -> None:
        before = len(served.heard)
        calling.transport.write(b"still here")
        rig.until(lambda: len(served.heard) == before + 10)

    return goes_on


def test_who_floods_does_not_starve_another(rig: Rig) -> None:
    """In each turn of the reactor everybody is read from, and nobody more than that."""
    rig.listen()
    peers = [rig.by_hand() for _ in range(3)]
    flooding, *quiet = rig.served
    peers[0].say(b"x" * 8 * MIB)
    while len(flooding.heard) < 8 * MIB:
        before, heard = len(flooding.heard), [len(each.heard) for each in quiet]
        for peer in peers[1:]:
            peer.say(b"y")
        turns = 0
        while any(len(each.heard) == had for each, had in zip(quiet, heard, strict=True)):
            rig.turn()
            turns += 1
        assert turns <= 4
        assert len(flooding.heard) - before <= turns * _A_TURN


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_who_reads_fast_does_not_starve_another(rig: Rig) -> None:
    """Twisted's makes records of all that is written at once, whatever the peer reads."""
    rig.listen()
    fast, slow = rig.by_hand(), rig.by_hand()
    rig.served[0].transport.write(b"x" * 32 * MIB)
    while len(fast.heard) < 32 * MIB:
        before, heard = len(fast.heard), len(rig.served[1].heard)
        slow.say(b"y")
        turns = 0
        while len(rig.served[1].heard) == heard:
            rig.turn()
            turns += 1
        assert turns <= 4
        assert len(fast.heard) - before <= turns * 2 * MIB


def test_a_peer_that_never_reads_costs_what_the_kernel_holds(rig: Rig) -> None:
    rig.listen()
    goes_on = _honest(rig)
    peer = rig.by_hand()
    peer.reads = False
    push = Push(rig.served[1], 1 << 20)  # 16 GiB, if somebody read them
    push.start(rig.reactor)
    said = -1
    while said != push.said:
        said = push.said
        rig.turns(50)
    assert push.is_paused
    assert said < _KERNEL + 2 * MIB
    goes_on()


def test_a_peer_that_never_reads_does_not_stop_what_it_sends(rig: Rig) -> None:
    """The other direction goes on: half of the deadlocks of proxies."""
    rig.listen()
    peer = rig.by_hand()
    peer.reads = False
    rig.served[0].transport.write(b"x" * 16 * MIB)
    rig.turns()
    peer.say(b"y" * MIB)
    rig.until(lambda: len(rig.served[0].heard) == MIB)
    peer.reads = True
    rig.until(lambda: len(peer.heard) == 16 * MIB)


#: Handshakes that do not come to an end: the first message's type, and what it promises and brings.
ENDLESS = {
    "a hello of 16 MiB": lambda: b"\x01\xff\xff\xff" + bytes(16 * MIB),
    "a certificate first": lambda: b"\x0b\xff\xff\xff" + bytes(16 * MIB),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_first_message_of_16_mib_is_not_taken(kind: str, rig: Rig) -> None:
    rig.listen()
    goes_on = _honest(rig)
    peer = rig.by_hand(shakes_hands=False)
    message = ENDLESS[kind]()
    peer.put(
        b"".join(_record(22, message[at : at + 16384]) for at in range(0, len(message), 16384))
    )
    rig.until(lambda: peer.end)
    assert not rig.served[1].made
    assert rig.server.log.count("peer-refused") == 1
    goes_on()


@pytest.mark.parametrize("kind", [20, 21, 22, 23, 24, 255])
def test_empty_and_odd_records_without_end_are_not_taken(kind: int, rig: Rig) -> None:
    rig.listen()
    goes_on = _honest(rig)
    peer = rig.by_hand(shakes_hands=False)
    peer.put(_record(kind, b"") * (2 * MIB // 5))
    rig.until(lambda: peer.end)
    assert not rig.served[1].made
    goes_on()


def _hello_with_early_data() -> bytes:
    """A ClientHello that announces early data (RFC 8446 section 4.2.10)."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    record = client.bio_read(1 << 16)
    message = record[5:]
    at = 4 + 2 + 32
    at += 1 + message[at]
    at += 2 + int.from_bytes(message[at : at + 2], "big")
    at += 1 + message[at]
    extensions = message[at + 2 :] + b"\x00\x2a\x00\x00"
    body = message[4:at] + len(extensions).to_bytes(2, "big") + extensions
    return _record(22, b"\x01" + len(body).to_bytes(3, "big") + body)


def test_early_data_is_not_heard_and_not_taken_without_end(rig: Rig) -> None:
    rig.listen()
    goes_on = _honest(rig)
    peer = rig.by_hand(shakes_hands=False)
    peer.reads = False
    peer.put(_hello_with_early_data() + _record(23, bytes(16384)) * 64)
    rig.until(lambda: rig.server.log.count("peer-refused"))
    assert rig.served[1].happened == []
    goes_on()


# what a client says by hand, behind a handshake


class _Blocking:
    """A socket whose other end is in this thread: while it waits, the rig takes its turns."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.wire = rig.wire()
        self.wire.setblocking(False)

    def sendall(self, data: bytes) -> None:
        while data:
            try:
                data = data[self.wire.send(data) :]
            except BlockingIOError:
                self._rig.turn()

    def recv(self, size: int) -> bytes:
        found: list[bytes] = []

        def arrived() -> bool:
            try:
                found.append(self.wire.recv(size))
            except BlockingIOError:
                return False
            return True

        self._rig.until(arrived)
        return found[0]


@pytest.fixture
def by_records(rig: Rig) -> tuple[ByHand, RecordWriter]:
    """A peer that is in, whose records are made by hand."""
    rig.listen()
    directory: Path = rig.directory
    svid = good_svid()
    (directory / "peer.pem").write_bytes(certificates_pem(list(svid.chain)))
    (directory / "key.pem").write_bytes(svid.key.to_pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(directory / "peer.pem", directory / "key.pem")
    blocking = _Blocking(rig)
    wire: socket.socket = blocking  # type: ignore[assignment]
    writer = shake_hands(wire, context, directory / "secrets")
    rig.until(lambda: rig.served and rig.served[0].made)
    peer = rig.hold(ByHand(blocking.wire))
    return peer, writer


def _is_cut(rig: Rig, peer: ByHand) -> bool:
    rig.until(lambda: peer.end or not peer.unsent)
    rig.turns(20)
    return bool(peer.end)


def test_new_keys_now_and_then_are_taken_and_without_end_are_not(
    rig: Rig, by_records: tuple[ByHand, RecordWriter]
) -> None:
    peer, writer = by_records
    for _ in range(5):
        peer.put(b"".join(writer.key_update() for _ in range(40)) + writer.record(b"word" * 400))
    rig.until(lambda: rig.served[0].heard == b"word" * 2000)
    before = peer.sent
    peer.put(b"".join(writer.key_update() for _ in range(5 * MOST_SILENT // 27)))
    assert _is_cut(rig, peer)
    assert rig.served[0].lost is not None
    assert peer.sent - before <= 5 * MOST_SILENT


#: What no client says in TLS 1.3 once the handshake is done: its type, its length and the start of its body.
OUT_OF_PLACE = {
    "renegotiation: a hello": b"\x01\x00\x01\x00" + bytes(256),
    "a hello request": b"\x00\x00\x00\x00",
    "a ticket": b"\x04\x00\x00\x10" + bytes(16),
    "a certificate that nobody asked for": b"\x0b\x00\x00\x04" + bytes(4),
    "a certificate of 16 MiB": b"\x0b\xff\xff\xff" + bytes(8000),
    "an unknown message": b"\x63\x00\x00\x00",
    "a key update with a body": b"\x18\x00\x00\x05" + bytes(5),
    "a key update that is none": b"\x18\x00\x00\x01\x07",
}


@pytest.mark.parametrize("kind", OUT_OF_PLACE)
def test_what_is_out_of_place_ends_it_and_is_answered_by_an_alert(
    kind: str, rig: Rig, by_records: tuple[ByHand, RecordWriter]
) -> None:
    peer, writer = by_records
    goes_on = _honest(rig)
    peer.put(writer.record(b"good") + writer.record(OUT_OF_PLACE[kind], b"\x16"))
    peer.put(writer.record(b"never"))
    rig.until(lambda: rig.served[0].lost and peer.end)
    assert rig.served[0].heard == b"good"
    goes_on()


def test_empty_records_without_end_are_not_taken(
    rig: Rig, by_records: tuple[ByHand, RecordWriter]
) -> None:
    peer, writer = by_records
    peer.put(b"".join(writer.record(b"") for _ in range(5000)))
    assert _is_cut(rig, peer)
    assert rig.served[0].heard == b""


def test_a_message_after_the_handshake_in_many_pieces_is_not_kept(
    rig: Rig, by_records: tuple[ByHand, RecordWriter]
) -> None:
    """16 MiB are promised, and brought in as many records as it takes."""
    peer, writer = by_records
    peer.put(writer.record(b"\x18\xff\xff\xff", b"\x16"))
    peer.put(b"".join(writer.record(bytes(16000), b"\x16") for _ in range(64)))
    assert _is_cut(rig, peer)
    assert peer.sent < MOST_BYTES + _KERNEL


def test_a_hello_that_asks_for_too_much_is_not_read(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand(shakes_hands=False)
    peer.put(_record(22, b"\x01\x00\x3f\xf0" + bytes(MOST_HELLO + 1000)))
    rig.until(lambda: peer.end)
    assert rig.served[0].happened == []


@pytest.mark.parametrize("way", ["silent", "garbage", "half"])
def test_strangers_hurt_nobody(way: str, rig: Rig) -> None:
    """Fifty here; a thousand, of a process of their own, in ``test_many.py``."""
    rig.listen()
    goes_on = _honest(rig)
    strangers = []
    for _ in range(50):
        stranger = rig.by_hand(shakes_hands=False)
        strangers.append(stranger)
        rig.turn()
        if way == "garbage":
            stranger.put(b"\x00\xff" * 64)
        elif way == "half":
            stranger.shake_hands()
            stranger.reads = False
    goes_on()
    rig.clock.advance(9.9)
    goes_on()
    if way == "garbage":
        rig.until(lambda: all(stranger.end for stranger in strangers))
        assert rig.server.log.count("peer-refused") == 50
    rig.clock.advance(0.2)
    for stranger in strangers:
        stranger.reads = True
    rig.until(lambda: all(stranger.end for stranger in strangers))
    assert not any(served.made for served in rig.served[1:] if way != "half")
    goes_on()


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_what_breaks_one_connection_while_another_is_read_costs_the_other_nothing(rig: Rig) -> None:
    """What is read is not copied: whoever fails meanwhile must not read into the same memory."""
    rig.listen(Application)
    broken, good = rig.by_hand(), rig.by_hand()
    rig.until(lambda: len(rig.served) == 2)
    first, second = rig.served

    def fail_the_other(me: Application) -> None:
        if first.happened[-1:] != ["lost"]:
            broken.put(b"\xff" * 200_000)  # which is unread when it fails
            below = first.transport.transport
            below._turn(below._fail, SSL.Error("broken"))

    second.does["data"] = fail_the_other
    said = bytes(range(256)) * 2048
    good.say(said)
    rig.until(lambda: len(second.heard) == len(said), lambda: (len(second.heard), second.lost))
    assert second.heard == said
