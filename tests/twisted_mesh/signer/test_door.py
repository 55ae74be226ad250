"""Who may call a signer over TLS: whoever has a pinned key, whatever its certificate says; at real sockets."""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import crypto
from twisted.internet.protocol import Factory, Protocol

from pki.keys import MemoryKey, spki_der
from pki.svid.spki_pin import SpkiHash
from tests.authorities import DAY, NOW, key
from tests.twisted_mesh.grpc.sockets import own_reactor, turn_until
from twisted_mesh.signer.door import LocalCallers, PinnedCallers, _self_signed, over_pinned_tls
from twisted_mesh.signer.errors import ForeignCaller

CALLER, STRANGER, SIGNER = key("a caller"), key("a stranger"), key("a signer")


def pin(of: MemoryKey) -> SpkiHash:
    return SpkiHash.of_spki(spki_der(of.public_key))


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
    def __init__(self, callers: PinnedCallers, heard: list[str]) -> None:
        self.callers, self.heard = callers, heard

    def dataReceived(self, data: bytes) -> None:
        try:
            self.heard.append(self.callers.who(self.transport))
        except ForeignCaller as error:
            self.heard.append(str(error))
        self.transport.write(b"heard")


class Served:
    """A door with an echo behind it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.callers = PinnedCallers(SIGNER, {pin(CALLER)}, NOW)
        self.reactor = own_reactor()
        factory = Factory.forProtocol(lambda: _Answers(self.callers, self.heard))  # type: ignore[arg-type]
        wrapped = over_pinned_tls(self.callers, factory, self.reactor)
        self.port = self.reactor.listenTCP(0, wrapped, interface="127.0.0.1")

    def call(self, files: tuple[str, str] | None, version: ssl.TLSVersion | None = None) -> str:
        """What a caller comes to: who it was taken for, or that it was refused."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if version is not None:
            context.maximum_version = version
        if files is not None:
            context.load_cert_chain(*files)
        outcome: list[str] = []
        self.heard.clear()
        thread = Thread(target=self._called, args=(context, outcome))
        thread.start()
        turn_until(lambda: outcome)
        thread.join()
        return outcome[0]

    def _called(self, context: ssl.SSLContext, outcome: list[str]) -> None:
        try:
            raw = socket.create_connection(("127.0.0.1", self.port.getHost().port), 5)
            with closing(context.wrap_socket(raw)) as tls:
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


def test_a_pinned_key_is_let_in_whatever_its_certificate_says(
    served: Served, tmp_path: Path
) -> None:
    told = f"pin:{pin(CALLER)}"
    assert served.call(shown(tmp_path, CALLER)) == told
    assert served.call(shown(tmp_path, CALLER, ended=True)) == told
    assert served.call(shown(tmp_path, CALLER, signer=STRANGER)) == told
    certificate = x509.load_der_x509_certificate(served.shown or b"")
    assert SpkiHash.of(certificate) == served.callers.own_pin == pin(SIGNER)
    assert certificate.not_valid_after_utc - NOW > timedelta(days=100_000)


def test_nobody_else_is(served: Served, tmp_path: Path) -> None:
    assert served.call(None) == "refused"
    assert served.call(shown(tmp_path, STRANGER)) == "refused"
    assert served.call(shown(tmp_path, STRANGER, signer=CALLER)) == "refused"
    assert served.call(shown(tmp_path, CALLER), ssl.TLSVersion.TLSv1_2) == "refused"
    assert not served.heard


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
    assert served.call(files).startswith("pin:")
    served.callers.pins = {pin(STRANGER)}
    assert served.call(files) == "refused"


def test_were_the_handshake_to_let_somebody_in_the_request_would_not(served: Served) -> None:
    with pytest.raises(ForeignCaller, match="was not shown"):
        served.callers.who(_Transport())
    other = crypto.X509.from_cryptography(_self_signed(STRANGER, NOW))
    with pytest.raises(ForeignCaller, match=re.escape(str(pin(STRANGER)))):
        served.callers.who(_Transport(shown=other))


@frozen
class _Transport:
    handle: socket.socket | None = None
    shown: crypto.X509 | None = None

    def getHandle(self) -> socket.socket | None:
        return self.handle

    def getPeerCertificate(self) -> crypto.X509 | None:
        return self.shown


def test_a_user_is_who_the_kernel_says() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with closing(ours), closing(theirs):
        transport = _Transport(ours)
        uid = os.geteuid()
        assert LocalCallers({uid}).who(transport) == f"uid:{uid}"
        assert LocalCallers({uid}).key(transport) == (f"uid:{uid}", True)  # type: ignore[arg-type]
        with pytest.raises(ForeignCaller, match=f"--allow-uid {uid}"):
            LocalCallers({uid + 1}).who(transport)
        assert LocalCallers({uid + 1}).key(transport) == ("others", False)  # type: ignore[arg-type]
