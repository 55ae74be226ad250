"""Certificate authorities for tests, good and forged: keys are made once per process."""

import asyncio
import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from pki.issuing.authority import Authority
from pki.issuing.profile import (
    BACKDATE,
    ISSUING,
    ISSUING_NAME,
    ROOT,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
    responder_subject,
)
from pki.keys import KeyAlgorithm, MemoryKey
from pki.serial import new_serial
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.names import alternative_names, subject_for
from pki.svid.x509svid import extension

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MESH = TrustDomain("mesh.local")
OTHER = TrustDomain("other.example")
BACKEND = MESH.member("service", "backend")

Extensions = Mapping[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None]


@cache
def key(name: str | int = 0, algorithm: KeyAlgorithm = KeyAlgorithm.EC_P256) -> MemoryKey:
    """The same key for the same arguments, all through a test run."""
    return MemoryKey.generate(algorithm)


@cache
def rsa_key(bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """Also of sizes and exponents that the mesh refuses."""
    return rsa.generate_private_key(exponent, bits)


@frozen(eq=False)
class Mesh:
    """One trust domain: a root and an issuing CA below it."""

    trust_domain: TrustDomain
    root: Authority
    issuing: Authority

    @property
    def bundle(self) -> TrustBundle:
        return TrustBundle(self.trust_domain, (self.root.certificate,))

    @property
    def bundles(self) -> BundleSet:
        return BundleSet.of(self.bundle)

    def leaf(
        self,
        spiffe_id: SpiffeId | None = None,
        now: datetime = NOW,
        lifetime: timedelta = HOUR,
        leaf_key: MemoryKey | None = None,
    ) -> x509.Certificate:
        """A good SVID; by default that of ``/service/backend``, for ``key(9)``."""
        public_key = (leaf_key or key(9)).public_key
        spiffe_id = spiffe_id or self.trust_domain.member("service", "backend")
        return asyncio.run(
            self.issuing.sign(self.issuing.draft(public_key, spiffe_id, now, lifetime))
        )


@cache
def mesh(
    trust_domain: TrustDomain = MESH,
    root_key: MemoryKey | None = None,
    issuing_key: MemoryKey | None = None,
    now: datetime = NOW,
) -> Mesh:
    """As the CA makes one; every trust domain has keys of its own."""

    async def found() -> Mesh:
        root = await Authority.create_root(
            root_key or key(f"root of {trust_domain}"), trust_domain, now
        )
        issuing = await root.create_issuing(
            issuing_key or key(f"issuing CA of {trust_domain}"), trust_domain, now
        )
        return Mesh(trust_domain, root, issuing)

    return asyncio.run(found())


def names(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


def forge(
    issuer: Authority | None,
    profile: Profile = WORKLOAD,
    *,
    subject_key: MemoryKey | CertificateIssuerPrivateKeyTypes | None = None,
    subject: x509.Name | None = None,
    issuer_name: x509.Name | None = None,
    uris: Iterable[str] | None = None,
    start: datetime = NOW - BACKDATE,
    end: datetime = NOW + HOUR,
    serial: int | None = None,
    digest: hashes.SHA256 | hashes.SHA224 | None = None,
    replace: Extensions | None = None,
    trust_domain: TrustDomain = MESH,
) -> x509.Certificate:
    """A certificate of ``profile`` that passes every lint but for what is overridden.

    ``issuer`` None signs with the subject's own key. ``replace`` gives an extension another value
    and criticality, or takes it away (None).
    """
    subject_key = subject_key or key(9)
    private_key = subject_key.private_key if isinstance(subject_key, MemoryKey) else subject_key
    if subject is None:
        subject = _default_subject(profile, trust_domain)
        if profile.is_responder and issuer:
            subject = responder_subject(issuer.certificate.subject)
    if uris is None:
        uris = [
            str(trust_domain.id if profile.is_ca else trust_domain.member("service", "backend"))
        ]
    public_key = private_key.public_key()
    ski = x509.SubjectKeyIdentifier.from_public_key(public_key)
    issuer_ski = extension(issuer.certificate, x509.SubjectKeyIdentifier) if issuer else ski
    assert issuer_ski is not None
    aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_ski)
    extensions: dict[type[x509.ExtensionType], tuple[x509.ExtensionType, bool] | None] = {
        x509.BasicConstraints: (profile.basic_constraints, True),
        x509.KeyUsage: (profile.key_usage, True),
        x509.SubjectKeyIdentifier: (ski, False),
        x509.AuthorityKeyIdentifier: (aki, False),
        x509.SubjectAlternativeName: (names(*uris), not subject.rdns),
    }
    if profile.extended:
        extensions[x509.ExtendedKeyUsage] = (x509.ExtendedKeyUsage(profile.extended), False)
    if profile.is_responder:
        extensions[x509.SubjectAlternativeName] = None
        extensions[x509.OCSPNoCheck] = (x509.OCSPNoCheck(), False)
    for published in profile.publication.extensions if profile.publication else ():
        extensions[type(published)] = (published, False)
    extensions.update(replace or {})
    if issuer_name is None:
        issuer_name = issuer.certificate.subject if issuer else subject
    builder = (
        x509.CertificateBuilder()
        .serial_number(new_serial() if serial is None else serial)
        .issuer_name(issuer_name)
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for found in extensions.values():
        if found is not None:
            builder = builder.add_extension(found[0], critical=found[1])
    if issuer is None:
        hashed = not isinstance(private_key, Ed25519PrivateKey | Ed448PrivateKey)
        return builder.sign(private_key, digest or (hashes.SHA256() if hashed else None))
    assert isinstance(issuer.key, MemoryKey)
    return builder.sign(issuer.key.private_key, digest or issuer.key.algorithm.hash)


def _default_subject(profile: Profile, trust_domain: TrustDomain) -> x509.Name:
    if not profile.is_ca:
        return subject_for(trust_domain.member("service", "backend"))
    name = ROOT_NAME if profile.path_length else ISSUING_NAME
    return ca_subject(name, trust_domain, 1)


def forge_root(name: str | int = 50, end: datetime = NOW + DAY, **overrides: Any) -> Authority:
    """A root with its key ``key(name)``; ``overrides`` as :func:`forge` takes them."""
    certificate = forge(None, ROOT, subject_key=key(name), end=end, **overrides)
    return Authority(certificate, key(name))


def forge_issuing(
    issuer: Authority, name: str | int = 51, end: datetime = NOW + DAY, **overrides: Any
) -> Authority:
    """A CA below ``issuer`` with its key ``key(name)``; ``overrides`` as :func:`forge` takes them."""
    overrides.setdefault("profile", ISSUING)
    certificate = forge(issuer, subject_key=key(name), end=end, **overrides)
    return Authority(certificate, key(name), (certificate, *issuer.intermediates))


def sign_crl(
    issuer: Authority,
    *extensions: tuple[x509.ExtensionType, bool],
    serials: Iterable[int] = (5, 7),
    number: int | None = 1,
    this_update: datetime = NOW,
    next_update: datetime = NOW + HOUR,
    issuer_name: x509.Name | None = None,
    digest: hashes.SHA256 | hashes.SHA224 | None = None,
) -> bytes:
    """A CRL in DER as cryptography makes it: good but for what is overridden or added."""
    assert isinstance(issuer.key, MemoryKey)
    aki = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer_name or issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(aki, critical=False)
    )
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical=critical)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        builder = builder.add_revoked_certificate(entry)
    key = issuer.key
    signed = builder.sign(key.private_key, digest or key.algorithm.hash)
    return signed.public_bytes(serialization.Encoding.DER)


def csr_builder(spiffe_id: SpiffeId = BACKEND) -> x509.CertificateSigningRequestBuilder:
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject_for(spiffe_id))
        .add_extension(alternative_names(spiffe_id), critical=False)
    )


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """DER as a PEM block, whatever it holds."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def der(thing: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return thing.public_bytes(serialization.Encoding.DER)


def tlv(tag: int, value: bytes) -> bytes:
    """Tag, length, value in DER."""
    if len(value) < 128:
        return bytes((tag, len(value))) + value
    size = len(value).to_bytes((len(value).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + value


#: AlgorithmIdentifiers with RSA, of one length, so that one can stand where another stood.
RSA_WITH = {
    "md5": bytes.fromhex("300d06092a864886f70d0101040500"),
    "sha1": bytes.fromhex("300d06092a864886f70d0101050500"),
    "sha224": bytes.fromhex("300d06092a864886f70d01010e0500"),
    "sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),
}
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_OLD: dict[str, hashes.HashAlgorithm] = {
    "md5": hashes.MD5(),
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
}


def signed_anew(
    body: bytes, private_key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, old_hash: str = ""
) -> bytes:
    """``body`` (a TBSCertificate or CertificationRequestInfo, however broken) with a valid signature.

    ``old_hash`` is ``md5``, ``sha1`` or ``sha224``, for an RSA key: cryptography's builders refuse the first two.
    """
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        algorithm = ECDSA_WITH_SHA256
        signature = private_key.sign(body, ec.ECDSA(hashes.SHA256()))
    else:
        algorithm = RSA_WITH[old_hash or "sha256"]
        body = body.replace(RSA_WITH["sha256"], algorithm)
        digest = _OLD.get(old_hash, hashes.SHA256())
        signature = private_key.sign(body, padding.PKCS1v15(), digest)
    return tlv(0x30, body + algorithm + tlv(0x03, b"\0" + signature))
