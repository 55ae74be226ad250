"""Certificate authorities for tests, good and forged: keys are made once per process."""

import asyncio
import base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from pki.issuing.authority import Authority
from pki.issuing.ca_request import build_ca_request
from pki.issuing.profile import (
    BACKDATE,
    ISSUING,
    ROOT,
    WORKLOAD,
    Profile,
)
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.names import alternative_names, subject_for
from pki.svid.revocation_set import Reason, Revocation
from twisted_mesh import testing

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MESH = TrustDomain("mesh.local")
OTHER = TrustDomain("other.example")
BACKEND = MESH.member("service", "backend")


def ca_request(of: MemoryKey, trust_domain: TrustDomain, generation: int) -> bytes:
    """The CSR of an issuing CA."""
    return asyncio.run(build_ca_request(of, trust_domain, generation))


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


@frozen(eq=False)
class Overlap:
    """A root and its successor, and an issuing key that both have certified; leaves lead to either by one path."""

    old: Authority
    new: Authority
    by_old: Authority
    by_new: Authority

    @property
    def bundle(self) -> TrustBundle:
        """Both roots."""
        return TrustBundle(MESH, (self.old.certificate, self.new.certificate))

    def bundle_of(self, *roots: Authority) -> TrustBundle:
        return TrustBundle(MESH, tuple(root.certificate for root in roots))

    @property
    def key_id(self) -> str:
        return self.by_old.key_id


@cache
def overlap(now: datetime = NOW) -> Overlap:
    """As between *activate* and *retire*: made once."""

    async def found() -> Overlap:
        old = await Authority.create_root(key("the old root"), MESH, now)
        new = await Authority.create_root(key("the new root"), MESH, now, generation=2)
        issuing = key("issuing CA of both")
        below = [await root.create_issuing(issuing, MESH, now, generation=2) for root in (old, new)]
        return Overlap(old, new, *below)

    return asyncio.run(found())


def revocation_of(
    issuer: Authority, cert: x509.Certificate, end: datetime = NOW + DAY
) -> Revocation:
    """Of a certificate of that issuer; of a root, with the root as its own issuer."""
    return Revocation(issuer.key_id, cert.serial_number, NOW, Reason.CA_COMPROMISE, end)


def forge(
    issuer: Authority | None,
    profile: Profile = WORKLOAD,
    *,
    subject_key: MemoryKey | CertificateIssuerPrivateKeyTypes | None = None,
    start: datetime = NOW - BACKDATE,
    end: datetime = NOW + HOUR,
    trust_domain: TrustDomain = MESH,
    **overrides: Any,
) -> x509.Certificate:
    """:func:`twisted_mesh.testing.forge`, at our time, in our trust domain, for ``key(9)``."""
    return testing.forge(
        issuer,
        profile,
        subject_key=subject_key or key(9),
        start=start,
        end=end,
        trust_domain=trust_domain,
        **overrides,
    )


def forge_root(name: str | int = 50, end: datetime = NOW + DAY, **overrides: Any) -> Authority:
    """A root with its key ``key(name)``; ``overrides`` as :func:`forge` takes them."""
    certificate = forge(None, ROOT, subject_key=key(name), end=end, **overrides)
    return Authority(certificate, key(name))


def nameless_root(name: str | int) -> x509.Certificate:
    """A root that does not say whose it is, as other CAs than ours make them; its key is ``key(name)``."""
    return forge_root(name, replace={x509.SubjectAlternativeName: None}).certificate


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
