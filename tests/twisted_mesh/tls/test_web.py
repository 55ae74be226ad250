"""A certificate of the web's CAs: taken whole or not at all, and every file that cannot be used is named."""

import contextlib
import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.web.resource import Resource

from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.x509svid import certificates_pem
from tests.authorities import DAY, NOW, key
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.state.directory import StateError
from twisted_mesh.tls.web import BadWebCertificate, WebCertificate, over_web_tls

LIVES = 30 * DAY
RSA = MemoryKey.generate(KeyAlgorithm.RSA_2048)


def certificate(signer: MemoryKey, until: datetime.datetime = NOW + LIVES) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mesh.example")])
    builder = x509.CertificateBuilder(
        name, name, signer.public_key, x509.random_serial_number(), NOW - LIVES, until
    )
    return certificates_pem([builder.sign(signer.private_key, hashes.SHA256())])  # type: ignore[arg-type]


@pytest.fixture
def web(tmp_path: Path) -> WebCertificate:
    found = WebCertificate(tmp_path / "web.pem", tmp_path / "web.key")
    write(found, certificate(key(1)), key(1))
    return found


def write(web: WebCertificate, pem: bytes, signer: MemoryKey) -> None:
    web.certificate.write_bytes(pem)
    web.key.touch(0o600)
    web.key.write_bytes(signer.to_pem())


def test_it_is_read_again_and_says_what_has_changed(web: WebCertificate) -> None:
    assert web.load(NOW) == "CN=mesh.example, good until 2026-12-23T10:00:00Z"
    context = web.getContext()
    assert web.load(NOW) == ""
    assert web.getContext() is context
    write(web, certificate(RSA), RSA)
    assert web.load(NOW)
    assert web.getContext() is not context


def _another_key(web: WebCertificate) -> None:
    write(web, certificate(key(1)), key(2))


def _open_to_all(web: WebCertificate) -> None:
    web.key.chmod(0o644)


def _no_certificate(web: WebCertificate) -> None:
    web.certificate.write_text("nonsense")


def _no_key(web: WebCertificate) -> None:
    web.key.write_text("nonsense")


def _ended(web: WebCertificate) -> None:
    write(web, certificate(key(1), NOW - DAY), key(1))


def _gone(web: WebCertificate) -> None:
    web.certificate.unlink()


DEFECTS = {
    "another key": (_another_key, "is not the key of the first certificate"),
    "open to all": (_open_to_all, "chmod o-rwx"),
    "no certificate": (_no_certificate, "cannot be used"),
    "no key": (_no_key, "cannot be used"),
    "ended": (_ended, "get a fresh one"),
    "gone": (_gone, "--oidc-cert .*web.pem cannot be read"),
}


@pytest.mark.parametrize(("spoil", "told"), DEFECTS.values(), ids=DEFECTS.keys())
def test_what_cannot_be_used_is_named_and_what_was_read_before_stays(
    web: WebCertificate, spoil: object, told: str
) -> None:
    web.load(NOW)
    context = web.getContext()
    spoil(web)  # type: ignore[operator]
    with pytest.raises(StateError, match=told):
        web.load(NOW)
    assert web.getContext() is context


def test_nothing_older_than_tls_1_2_is_spoken(web: WebCertificate) -> None:
    web.load(NOW)
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client.set_max_proto_version(SSL.TLS1_1_VERSION)
    client.set_cipher_list(b"ALL:@SECLEVEL=0")
    ends = SSL.Connection(client), SSL.Connection(web.getContext())
    ends[0].set_connect_state()
    ends[1].set_accept_state()
    with pytest.raises(SSL.Error) as refused:
        for _ in range(5):
            for end, other in (ends, ends[::-1]):
                with contextlib.suppress(SSL.WantReadError):
                    end.do_handshake()
                with contextlib.suppress(SSL.WantReadError):
                    other.bio_write(end.bio_read(65536))
    assert "protocol" in str(refused.value)
    assert BadWebCertificate.code


def test_who_never_ends_the_handshake_is_hung_up_on(web: WebCertificate) -> None:
    web.load(NOW)
    clock = Clock()
    site = BoundedSite(Resource(), clock)
    protocol = over_web_tls(web, site, clock).buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
    wire = StringTransportWithDisconnection()
    wire.protocol = protocol
    wire.abortConnection = wire.loseConnection  # type: ignore[attr-defined]
    wire.setTcpNoDelay = lambda _: None  # type: ignore[attr-defined]
    assert protocol is not None
    protocol.makeConnection(wire)
    for _ in range(120):
        clock.advance(1)
    assert not wire.connected
