"""The certificate authority: a CA certificate with its key, which signs what passed every lint.

A :class:`Draft` is a whole certificate but for its signature. Its to-be-signed bytes are the very
bytes that were linted and the very bytes that get signed, by an awaited signer that sees nothing
but bytes: a key in memory, on a token or behind a network.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Self, cast

from attrs import define, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki.csr import IPAddress, alternative_names, subject_for
from pki.errors import PkiError, Refused
from pki.keys import PublicKey, SigningKey, key_id, spki_der, verify
from pki.lint import Draftee, lint
from pki.profile import (
    BACKDATE,
    ISSUING,
    ISSUING_NAME,
    ROOT,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
)
from pki.serial import new_serial
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid import extension, subject_of, validity_of
from pki.validity import whole_second_after

_PLACEHOLDER = bytes(8)
#: BIT STRING, its length, no unused bits, then the placeholder.
_PLACEHOLDER_SIZE = 3 + len(_PLACEHOLDER)


class LintFailed(Refused):
    """A draft broke a rule, so it was not signed. A bug of ours, never the caller's fault."""

    code = "lint"


class IssuerExpired(PkiError):
    """The CA cannot issue now: its own certificate is not valid, or ends too soon."""

    code = "issuer-expired"


class SigningFailed(PkiError):
    """The signer answered with something that is not a signature of its key."""

    code = "signing-failed"


@frozen(eq=False)
class Draft:
    """A certificate that passed every lint and is not signed yet; only ``Authority.draft`` makes one."""

    profile: Profile
    unsigned: x509.Certificate
    """The certificate with a placeholder for its signature."""
    seal: object = field(repr=False)

    @property
    def tbs(self) -> bytes:
        """The bytes to be signed."""
        return self.unsigned.tbs_certificate_bytes

    @property
    def serial(self) -> int:
        return self.unsigned.serial_number


@define(eq=False, slots=False)
class Authority:
    """A CA certificate with its key: drafts and signs."""

    certificate: x509.Certificate
    key: SigningKey
    intermediates: tuple[x509.Certificate, ...] = ()
    """What leads from this CA up to its root, itself included and the root not: what leaves send along."""
    workload: Profile = WORKLOAD
    """What the SVIDs look like that this CA issues."""
    _seal: object = field(factory=object, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if spki_der(self.certificate.public_key()) != spki_der(self.key.public_key):
            raise SigningFailed(f"the key does not belong to the certificate of {self.name}")

    @property
    def name(self) -> str:
        return subject_of(self.certificate)

    @cached_property
    def key_id(self) -> str:
        """How the store and revocations name this issuer."""
        return key_id(self.certificate.public_key())

    @classmethod
    async def create_root(
        cls, key: SigningKey, trust_domain: TrustDomain, now: datetime, generation: int = 1
    ) -> Self:
        """A new self-signed root. Raises :class:`LintFailed`."""
        draft = _draft(
            ROOT,
            None,
            key,
            subject=ca_subject(ROOT_NAME, trust_domain, generation),
            public_key=key.public_key,
            names=alternative_names(trust_domain.id),
            now=now,
            lifetime=ROOT.lifetime,
            seal=object(),
        )
        return cls(await _signed(draft, key), key)

    async def create_issuing(
        self, key: SigningKey, trust_domain: TrustDomain, now: datetime, generation: int = 1
    ) -> "Authority":
        """A new issuing CA below this root. Raises :class:`LintFailed`."""
        draft = _draft(
            ISSUING,
            self.certificate,
            self.key,
            subject=ca_subject(ISSUING_NAME, trust_domain, generation),
            public_key=key.public_key,
            names=alternative_names(trust_domain.id),
            now=now,
            lifetime=ISSUING.lifetime,
            seal=self._seal,
        )
        certificate = await self.sign(draft)
        return Authority(certificate, key, (certificate, *self.intermediates))

    def draft(
        self,
        public_key: PublicKey,
        spiffe_id: SpiffeId,
        now: datetime,
        lifetime: timedelta,
        *,
        dns_names: Collection[str] = (),
        ip_addresses: Collection[IPAddress] = (),
    ) -> Draft:
        """An SVID that lives ``lifetime`` from ``now``, shortened to the issuer's own end.

        Raises :class:`LintFailed` and :class:`IssuerExpired`.
        """
        return _draft(
            self.workload,
            self.certificate,
            self.key,
            subject=subject_for(spiffe_id),
            public_key=public_key,
            names=alternative_names(spiffe_id, dns_names, ip_addresses),
            now=now,
            lifetime=lifetime,
            seal=self._seal,
        )

    async def sign(self, draft: Draft) -> x509.Certificate:
        """The certificate. Raises :class:`SigningFailed` for a signature that does not verify."""
        if draft.seal is not self._seal:
            raise SigningFailed("this draft was not made by this authority")
        return await _signed(draft, self.key)


def _draft(
    profile: Profile,
    issuer: x509.Certificate | None,
    issuer_key: SigningKey,
    *,
    subject: x509.Name,
    public_key: PublicKey,
    names: x509.SubjectAlternativeName,
    now: datetime,
    lifetime: timedelta,
    seal: object,
) -> Draft:
    """``issuer`` is None for a root, which issues itself."""
    issued_at = whole_second_after(now)
    not_before, not_after = issued_at - BACKDATE, issued_at + lifetime
    if issuer is not None:
        limits = validity_of(issuer)
        if not limits.contains(now):
            raise IssuerExpired(
                f"{subject_of(issuer)} is not valid now: check this machine's clock, or renew the CA"
            )
        not_before = max(not_before, limits.not_before)
        not_after = min(not_after, limits.not_after)
        if not_after < issued_at:
            raise IssuerExpired(f"nothing that {subject_of(issuer)} issues now could be valid")
    builder = (
        x509.CertificateBuilder()
        .serial_number(new_serial())
        .issuer_name(subject if issuer is None else issuer.subject)
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(profile.basic_constraints, critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key_identifier(issuer, issuer_key), critical=False)
        .add_extension(names, critical=not subject.rdns)
    )
    if profile.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended), critical=False)
    unsigned = builder.sign(_placeholder_for(issuer_key), issuer_key.algorithm.hash)
    problems = lint(Draftee(unsigned, issuer or unsigned, profile, now))
    if problems:
        raise LintFailed(problems)
    return Draft(profile, unsigned, seal)


def _authority_key_identifier(
    issuer: x509.Certificate | None, issuer_key: SigningKey
) -> x509.AuthorityKeyIdentifier:
    identifier = extension(issuer, x509.SubjectKeyIdentifier) if issuer else None
    if identifier is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


async def _signed(draft: Draft, key: SigningKey) -> x509.Certificate:
    signature = await key.sign(draft.tbs)
    try:
        verify(key.public_key, signature, draft.tbs, key.algorithm.hash)
    except InvalidSignature:
        raise SigningFailed(
            "the signer's answer is no signature of its key: nothing was issued"
        ) from None
    placeholder = draft.unsigned.public_bytes(serialization.Encoding.DER)
    inner = placeholder[_header_size(placeholder) : -_PLACEHOLDER_SIZE]
    return x509.load_der_x509_certificate(_tlv(0x30, inner + _tlv(0x03, b"\0" + signature)))


def _tlv(tag: int, value: bytes) -> bytes:
    """Tag, length, value in DER (X.690 section 8.1)."""
    size = len(value)
    if size < 128:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def _header_size(der: bytes) -> int:
    return 2 if der[1] < 128 else 2 + (der[1] & 0x7F)


def _placeholder_for(key: SigningKey) -> "_EcPlaceholder | _RsaPlaceholder":
    public_key = key.public_key
    if isinstance(public_key, rsa.RSAPublicKey):
        return _RsaPlaceholder(public_key)
    return _EcPlaceholder(public_key)


class _Placeholder:
    """Stands in for the signing key while the certificate is laid out: it has no secret to use."""

    def __init__(self, public_key: Any) -> None:
        self._public_key = public_key

    def public_key(self) -> Any:
        return self._public_key

    @property
    def key_size(self) -> int:
        return cast(int, self._public_key.key_size)

    def sign(self, *args: object) -> bytes:
        return _PLACEHOLDER

    def _impossible(self, *args: object, **kwargs: object) -> Any:
        raise TypeError("a placeholder has no private key")

    exchange = decrypt = private_numbers = private_bytes = _impossible

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self


class _EcPlaceholder(_Placeholder, ec.EllipticCurvePrivateKey):
    @property
    def curve(self) -> ec.EllipticCurve:
        return cast(ec.EllipticCurve, self._public_key.curve)


class _RsaPlaceholder(_Placeholder, rsa.RSAPrivateKey):
    pass
