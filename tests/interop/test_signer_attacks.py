"""A CA process is taken over: what a thief with its user, its socket and its client key gets signed, and what not.

The signer and the CA are real, and so is the wire. What is asked for is what cryptography's builders write, with the
names, serials and numbers of the very CA; only the signature is the signer's to give.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID

from pki.issuing.profile import ISSUING, ISSUING_NAME, OCSP_RESPONDER, ROOT, ca_subject
from pki.keys import KeyAlgorithm, MemoryKey, key_identifier, spki_der, verify
from pki.spiffe import TrustDomain
from tests.authorities import key
from tests.interop.administering import issue
from tests.interop.signing import ISSUING_KEY, ROOT_KEY, SignedHouse, sign, signed_house
from tests.twisted_mesh.grpc.sockets import own_reactor, run
from twisted_mesh.signer.address import SignerAddress
from twisted_mesh.signer.client import SignerClient, SignerRefused
from twisted_mesh.signer.messages import KeyPurpose
from twisted_mesh.testing import forge
from twisted_mesh.tls.self_signed import SelfSigned

HOME = TrustDomain("mesh.local")
OWN = key("the thief's")
DAY = timedelta(days=1)


@frozen
class _Posing:
    """A CA as far as its certificate goes: what signs for it is thrown away."""

    certificate: x509.Certificate
    key: MemoryKey


def sha1(data: bytes) -> bytes:
    """As OCSP names issuers; it proves nothing there."""
    return hashlib.sha1(data, usedforsecurity=False).digest()


@define(eq=False)
class Thief:
    """What is left of a CA that was taken over: it may ask its signer, and knows all that the CA knew."""

    house: SignedHouse
    client: SignerClient = field(init=False)
    serial: str = ""
    """Of a certificate that was revoked, and has long to live yet."""

    def __attrs_post_init__(self) -> None:
        address = SignerAddress.parse(self.house.address)
        self.client = SignerClient(own_reactor(), address)
        self.serial = issue(self.house, "spiffe://mesh.local/service/thief", "24h")
        reply = self.house.post(
            "socket", "/api/v1/revoke", {"serial": self.serial, "reason": "keyCompromise"}
        )
        assert reply.status == 200, reply.text

    def issuer(self, file: str) -> Any:
        certificate = self.house.certificate(file)
        algorithm = KeyAlgorithm.of(certificate.public_key())  # type: ignore[arg-type]
        assert algorithm is not None
        return _Posing(certificate, key("throwaway", algorithm))

    def certificate(self, by: str = "issuing.crt", *details: Any, **changed: Any) -> bytes:
        """The to-be-signed bytes of a certificate that differs from a good one by what is ``changed``."""
        now = datetime.now(UTC).replace(microsecond=0)
        issuer = self.issuer(by)
        # As a CA drafts: one that is a moment old begins later than that.
        born = issuer.certificate.not_valid_before_utc
        made = forge(
            issuer,
            *details,
            **{
                "subject_key": OWN,
                "trust_domain": HOME,
                "start": max(now - timedelta(seconds=30), born),
                "end": now + timedelta(hours=1),
                **changed,
            },
        )
        return made.tbs_certificate_bytes

    def crl(
        self,
        *,
        number: int | None = None,
        life: timedelta = timedelta(hours=24),
        without: bool = False,
        by: str = "issuing.crt",
        reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise,
        since: datetime | None = None,
    ) -> bytes:
        """The next list of the issuing CA, but for what is said."""
        last = x509.load_der_x509_crl(self.house.ask_der("/api/v1/crl"))
        numbered = last.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        issuer = self.issuer(by)
        ski = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        now = datetime.now(UTC).replace(microsecond=0)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(since or now)
            .next_update((since or now) + life)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ski.value), False
            )
            .add_extension(x509.CRLNumber(numbered + 1 if number is None else number), False)
        )
        for entry in () if without else last:
            listed = (
                x509.RevokedCertificateBuilder()
                .serial_number(entry.serial_number)
                .revocation_date(entry.revocation_date_utc)
                .add_extension(x509.CRLReason(reason), False)
            )
            builder = builder.add_revoked_certificate(listed.build())
        made = builder.sign(issuer.key.private_key, issuer.key.algorithm.hash)
        return made.tbs_certlist_bytes

    def answer_data(
        self, status: ocsp.OCSPCertStatus, serial: str, life: timedelta = timedelta(hours=1)
    ) -> bytes:
        """What the issuing CA itself would say of a serial by OCSP."""
        issuer = self.issuer("issuing.crt")
        named = sha1(issuer.certificate.subject.public_bytes())
        spki = spki_der(issuer.certificate.public_key())
        start = datetime.now(UTC).replace(microsecond=0)
        made = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                issuer_name_hash=named,
                issuer_key_hash=key_identifier(spki),
                serial_number=int(serial.replace(":", ""), 16),
                algorithm=hashes.SHA1(),
                cert_status=status,
                this_update=start,
                next_update=start + life,
                revocation_time=None,
                revocation_reason=None,
            )
            .responder_id(
                ocsp.OCSPResponderEncoding.HASH,
                SelfSigned.of(issuer.key, "throwaway", start).certificate,
            )
            .sign(issuer.key.private_key, issuer.key.algorithm.hash)
        )
        own, like = key_identifier(spki_der(issuer.key.public_key)), key_identifier(spki)
        return made.tbs_response_bytes.replace(own, like)

    def ask(self, file: str, data: bytes) -> bytes:
        """What the signer gives."""
        return run(self.client.sign(self.house.name_of(file), data))

    def refused(self, file: str, data: bytes) -> SignerRefused:
        """What it says where it gives nothing."""
        with pytest.raises(SignerRefused) as refusal:
            self.ask(file, data)
        assert refusal.value.status in (400, 403)
        return refusal.value


@pytest.fixture(scope="module")
def thief() -> Iterator[Thief]:
    with TemporaryDirectory(prefix="mesh-") as home, signed_house(Path(home)) as house:
        house.start_signer()
        house.start_signed_ca()
        found = Thief(house)
        yield found
        found.client.hang_up()


def responder(thief: Thief, **changed: Any) -> bytes:
    return thief.certificate("issuing.crt", OCSP_RESPONDER, **changed)


now = datetime.now(UTC)
#: What is asked of the issuing CA's key, and the rules by which it may be refused.
BY_ISSUING: dict[str, tuple[Callable[[Thief], bytes], str]] = {
    "another trust domain": (
        lambda t: t.certificate(uris=["spiffe://other.example/service/admin"]),
        "trust-domain",
    ),
    "no name at all": (lambda t: t.certificate(uris=[]), "spiffe-id"),
    "two names": (
        lambda t: t.certificate(uris=["spiffe://mesh.local/a", "spiffe://mesh.local/b"]),
        "spiffe-id",
    ),
    "a CA of its own": (lambda t: t.certificate("issuing.crt", ISSUING), "no-ca"),
    "a root of its own": (lambda t: t.certificate("issuing.crt", ROOT), "no-ca"),
    "a leaf that may sign": (
        lambda t: t.certificate(
            replace={x509.KeyUsage: (ISSUING.key_usage, True)},
        ),
        "no-ca",
    ),
    "ten years": (lambda t: t.certificate(end=now + 3650 * DAY), "profile"),
    "yesterday": (lambda t: t.certificate(start=now - DAY), "clock"),
    "tomorrow": (lambda t: t.certificate(start=now + DAY, end=now + 2 * DAY), "clock"),
    "a weak digest": (lambda t: t.certificate(digest=hashes.SHA224()), "not-signable"),
    "a responder for a year": (lambda t: responder(t, end=now + 365 * DAY), "profile"),
    "a responder of another name": (
        lambda t: responder(
            t, subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anybody")])
        ),
        "subject",
    ),
    "another issuer's name": (
        lambda t: t.certificate(
            issuer_name=ca_subject(ISSUING_NAME, TrustDomain("other.example"), 1)
        ),
        "issuer",
    ),
    "a serial that there is": (
        lambda t: t.certificate(serial=int(t.serial.replace(":", ""), 16)),
        "serial-reuse",
    ),
    "an empty list": (lambda t: t.crl(without=True), "crl-drops"),
    "an older number": (lambda t: t.crl(number=1), "crl-number"),
    "a list for ever": (lambda t: t.crl(life=3650 * DAY), "crl-life"),
    "a list of tomorrow": (lambda t: t.crl(since=now + DAY), "clock"),
    "a list that lets in again": (
        lambda t: t.crl(reason=x509.ReasonFlags.remove_from_crl),
        "crl-reason",
    ),
    "the root's list": (lambda t: t.crl(by="root.crt"), "issuer"),
    "that the revoked is good": (
        lambda t: t.answer_data(ocsp.OCSPCertStatus.GOOD, t.serial),
        "ocsp-good",
    ),
    "that what it never saw is good": (
        lambda t: t.answer_data(ocsp.OCSPCertStatus.GOOD, "0123456789abcdef"),
        "ocsp-good",
    ),
    "an answer for a year": (
        lambda t: t.answer_data(ocsp.OCSPCertStatus.UNKNOWN, "07", 365 * DAY),
        "ocsp-life",
    ),
    "nothing": (lambda t: b"", "not-signable"),
    "a digest": (lambda t: hashlib.sha256(b"anything").digest(), "not-signable"),
    "a longer digest": (lambda t: hashlib.sha512(b"anything").digest(), "not-signable"),
    "a TLS handshake": (
        lambda t: b"\x20" * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(32),
        "not-signable",
    ),
    "a JWT": (
        lambda t: b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmU6Ly9tZXNoLmxvY2FsL2EifQ",
        "not-signable",
    ),
    "a statement that is a certificate": (
        lambda t: b"twisted-mesh: does this key sign? " + t.certificate(),
        "not-signable",
    ),
    "two certificates": (lambda t: t.certificate() + t.certificate(), "not-signable"),
    "a certificate and more": (lambda t: t.certificate() + b"\0", "not-signable"),
    "a checkpoint": (lambda t: b"mesh.local/audit/0\n1\n" + b"A" * 43 + b"=\n", "not-signable"),
}
BY_ROOT: dict[str, tuple[Callable[[Thief], bytes], str]] = {
    "an issuing CA of its own key": (
        lambda t: t.certificate("root.crt", ISSUING, end=now + 30 * DAY),
        "ca-key",
    ),
    "a workload": (lambda t: t.certificate("root.crt"), "root-signs-cas"),
    "another root": (
        lambda t: t.certificate("root.crt", ROOT, end=now + 30 * DAY),
        "ca-key",
    ),
    "the issuing CA's list": (lambda t: t.crl(), "issuer"),
    "a digest": (lambda t: hashlib.sha384(b"anything").digest(), "not-signable"),
}


@pytest.mark.parametrize("what", BY_ISSUING)
def test_the_issuing_key_does_not_sign(thief: Thief, what: str) -> None:
    made, rule = BY_ISSUING[what]
    error = thief.refused(ISSUING_KEY, made(thief))
    assert rule == (error.told.rule or error.told.code), error
    assert error.told.detail


@pytest.mark.parametrize("what", BY_ROOT)
def test_the_roots_key_does_not_sign(thief: Thief, what: str) -> None:
    made, rule = BY_ROOT[what]
    error = thief.refused(ROOT_KEY, made(thief))
    assert rule == (error.told.rule or error.told.code), error


def test_what_is_as_it_should_be_is_signed(thief: Thief) -> None:
    """Or all of the above were refused for something else."""
    leaf, following = thief.certificate(), thief.crl()
    public = thief.house.certificate("issuing.crt").public_key()
    for data in (leaf, responder(thief), following, following):
        signature = thief.ask(ISSUING_KEY, data)
        verify(public, signature, data, KeyAlgorithm.EC_P256.hash)  # type: ignore[arg-type]


def test_it_has_no_keys_made_without_end(thief: Thief) -> None:
    """Nor are those that it has made of use to anybody: they sign what the others do."""
    made = []
    with pytest.raises(SignerRefused, match="keys") as refusal:
        while len(made) < 100:
            made.append(run(thief.client.make(KeyPurpose.ISSUING, "ec-p256", "mesh.local mine")))
    assert refusal.value.status == 403
    assert len({one.name for one in made}) == len(made) < 100


@pytest.mark.interop("tests/interop/test_signer_attacks.py::test_the_issuing_key_does_not_sign")
def test_a_flood_of_certificates_leaves_room_for_revoking() -> None:
    with TemporaryDirectory(prefix="mesh-") as home, signed_house(Path(home)) as house:
        house.start_signer("--certificate-rate", "1:40")
        house.start_signed_ca()
        thief = Thief(house)
        signed = refused = 0
        for _ in range(60):
            try:
                thief.ask(ISSUING_KEY, thief.certificate())
                signed += 1
            except SignerRefused as error:
                assert (error.status, error.is_for_now) == (429, True)
                refused += 1
        assert signed < 50
        assert refused
        assert thief.ask(ISSUING_KEY, thief.crl())
        # Whoever asks the CA hears why.
        asked = sign(house)
        assert (asked.status, asked.code) == (503, "key-store-away")
        thief.client.hang_up()
