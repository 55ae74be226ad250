"""Who may call a server over TLS: whoever has a pinned key, whatever its certificate says; at real sockets."""

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from twisted.internet.protocol import Factory, Protocol

from pki.keys import MemoryKey
from pki.svid.spki_pin import SpkiHash
from tests.authorities import DAY, NOW, key
from tests.twisted_mesh.grpc.sockets import own_reactor, turn_until
from twisted_mesh.tls.pinned_server import PinnedCallers, over_pinned_tls
from twisted_mesh.tls.self_signed import SelfSigned, pin_of

CALLER, STRANGER, SERVER = key("a caller"), key("a stranger"), key("a server")
NAMES = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))


def shown(
    home: Path,
    of: MemoryKey,
    name: str = "caller",
    *,
    signer: MemoryKey | None = None,
    ended: bool = False,
) -> tuple[str, str]:
    """Files with a certificate for a key, and the key."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    by = signer or of
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(of.public_key)
        .serial_number(5)
        .not_valid_before(NOW - 3000 * DAY)
        .not_valid_after(NOW - 2000 * DAY if ended else NOW + 3000 * DAY)
        .sign(by.private_key, by.algorithm.hash)
    )
    files = home / "caller.pem", home / "caller.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(of.to_pem())
    return str(files[0]), str(files[1])


class _Answers(Protocol):
    def __init__(self, served: "Served") -> None:
        self.served = served

    def dataReceived(self, data: bytes) -> None:
        self.served.before_answering()
        self.served.heard.append(str(self.served.callers.who(self.transport)))
        self.transport.write(b"heard")


class Served:
    """A server that answers whatever it hears."""

    def __init__(self, **more: bool) -> None:
        self.heard: list[str] = []
        self.refused: list[SpkiHash | None] = []
        self.before_answering: Callable[[], None] = lambda: None
        own = SelfSigned.of(SERVER, "a server", NOW, NAMES)
        self.callers = PinnedCallers(own, {pin_of(CALLER)}, self.refused.append, **more)
        self.reactor = own_reactor()
        factory = Factory.forProtocol(lambda: _Answers(self))  # type: ignore[arg-type]
        wrapped = over_pinned_tls(self.callers, factory, self.reactor)
        self.port = self.reactor.listenTCP(0, wrapped, interface="127.0.0.1")

    def call(
        self,
        files: tuple[str, str] | None,
        version: ssl.TLSVersion | None = None,
        believes: tuple[Path, str] | None = None,
    ) -> str:
        """What a caller comes to: who it was taken for, or that it was refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        host = None
        if believes is None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            context.load_verify_locations(believes[0])
            host = believes[1]
        if version is not None:
            context.maximum_version = version
        if files is not None:
            context.load_cert_chain(*files)
        outcome: list[str] = []
        self.heard.clear()
        thread = Thread(target=self._called, args=(context, outcome, host))
        thread.start()
        turn_until(lambda: outcome)
        thread.join()
        return outcome[0]

    def _called(self, context: ssl.SSLContext, outcome: list[str], host: str | None) -> None:
        try:
            raw = socket.create_connection(("127.0.0.1", self.port.getHost().port), 5)
            with closing(context.wrap_socket(raw, server_hostname=host)) as tls:
                self.shown = tls.getpeercert(binary_form=True)
                tls.sendall(b"x")
                outcome.append(self.heard[0] if tls.recv(5) == b"heard" else "refused")
        except (OSError, ssl.SSLError):
            outcome.append("refused")


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    with suppress(Exception):
        made.port.stopListening()


@pytest.fixture
def open_to_all() -> Iterator[Served]:
    made = Served(is_demanded=False)
    yield made
    with suppress(Exception):
        made.port.stopListening()


def test_a_pinned_key_is_let_in_whatever_its_certificate_says(
    served: Served, tmp_path: Path
) -> None:
    told = str(pin_of(CALLER))
    assert served.call(shown(tmp_path, CALLER)) == told
    assert served.call(shown(tmp_path, CALLER, ended=True)) == told
    assert served.call(shown(tmp_path, CALLER, signer=STRANGER)) == told
    certificate = x509.load_der_x509_certificate(served.shown or b"")
    assert SpkiHash.of(certificate) == served.callers.own_pin == pin_of(SERVER)
    assert certificate.not_valid_after_utc - NOW > timedelta(days=100_000)


def test_nobody_else_is(served: Served, tmp_path: Path) -> None:
    assert served.call(None) == "refused"
    assert served.call(shown(tmp_path, STRANGER)) == "refused"
    assert served.call(shown(tmp_path, STRANGER, signer=CALLER)) == "refused"
    assert served.call(shown(tmp_path, CALLER), ssl.TLSVersion.TLSv1_2) == "refused"
    assert not served.heard
    assert served.refused == [pin_of(STRANGER), pin_of(STRANGER)]


def test_a_pinned_certificate_above_a_strangers_lets_nobody_in(
    served: Served, tmp_path: Path
) -> None:
    leaf, key_file = shown(tmp_path, STRANGER, signer=CALLER)
    mine = Path(leaf).read_bytes()
    above, _ = shown(tmp_path, CALLER)
    Path(leaf).write_bytes(mine + Path(above).read_bytes())
    Path(key_file).write_bytes(STRANGER.to_pem())
    assert served.call((leaf, key_file)) == "refused"


def test_who_is_pinned_no_more_is_refused_from_then_on(served: Served, tmp_path: Path) -> None:
    files = shown(tmp_path, CALLER)
    assert served.call(files) == str(pin_of(CALLER))
    served.callers.pins = {pin_of(STRANGER)}
    assert served.call(files) == "refused"


def test_where_no_key_is_demanded_nobody_is_taken_for_somebody(
    open_to_all: Served, tmp_path: Path
) -> None:
    assert open_to_all.call(None) == "None"
    assert open_to_all.call(shown(tmp_path, CALLER)) == str(pin_of(CALLER))
    assert open_to_all.call(shown(tmp_path, STRANGER)) == "refused"


def test_who_is_unpinned_is_told_apart_on_a_connection_that_it_has(
    open_to_all: Served, tmp_path: Path
) -> None:
    files = shown(tmp_path, CALLER)
    open_to_all.before_answering = lambda: setattr(open_to_all.callers, "pins", set())
    assert open_to_all.call(files) == "None"


def test_whoever_is_given_the_certificate_to_believe_finds_the_host_there(
    open_to_all: Served, tmp_path: Path
) -> None:
    authority = tmp_path / "server.pem"
    own = open_to_all.callers.own.certificate
    authority.write_bytes(own.public_bytes(serialization.Encoding.PEM))
    assert open_to_all.call(None, believes=(authority, "localhost")) == "None"
    assert open_to_all.call(None, believes=(authority, "127.0.0.1")) == "None"
    assert open_to_all.call(None, believes=(authority, "example.org")) == "refused"
