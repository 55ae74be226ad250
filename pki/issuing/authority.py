"""The certificate authority: a CA certificate with its key, which signs what passed every lint.

What is signed is a :class:`~pki.issuing.draft.Draft`, by an awaited signer that sees nothing but bytes: a key in
memory, on a token or behind a network.

CAs are laid out by cryptography's builder and linted in full. So is the first SVID of a shape, for a
throwaway key; a template is cut out of it, and later SVIDs of that shape fill the template's gaps.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cached_property
from typing import Self

from attrs import define, evolve, field, frozen
from cryptography import x509

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.issuing.draft import Draft
from pki.issuing.lint import Draftee, LintFailed, lint
from pki.issuing.profile import (
    BACKDATE,
    ISSUING,
    ISSUING_NAME,
    OCSP_RESPONDER,
    ROOT,
    ROOT_NAME,
    WORKLOAD,
    Profile,
    ca_subject,
    responder_subject,
)
from pki.issuing.publication import Publication
from pki.issuing.template import Fields, Template
from pki.issuing.template_lint import Filled, lint_template
from pki.issuing.unsigned import algorithm_of, assemble, lay_out
from pki.keys import (
    KeyAlgorithm,
    MemoryKey,
    PublicKey,
    SigningFailed,
    SigningKey,
    key_id,
    key_identifier,
    signature_over,
    spki_der,
)
from pki.serial import new_serial
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.names import (
    NAMELESS,
    IPAddress,
    alternative_names,
    general_names,
    subject_der,
    subject_for,
)
from pki.svid.x509svid import extension, subject_of, validity_of
from pki.validity import Validity, whole_second_after


class IssuerExpired(PkiError):
    """The CA cannot issue now: its own certificate is not valid, or ends too soon."""

    code = Code.ISSUER_EXPIRED


@frozen(eq=False, repr=False)
class _Shape:
    """A template, and what it was linted for."""

    profile: Profile
    template: Template
    seen: set[tuple[object, ...]] = field(factory=set)
    """The kinds of keys and names that it was filled with and linted in full."""


@define(eq=False, repr=False, slots=False)
class Authority:
    """A CA certificate with its key: drafts and signs."""

    certificate: x509.Certificate
    key: SigningKey
    intermediates: tuple[x509.Certificate, ...] = ()
    """What leads from this CA up to its root, itself included and the root not: what leaves send along."""
    workload: Profile = WORKLOAD
    """What the SVIDs look like that this CA issues."""
    _seal: object = field(factory=object, init=False, repr=False)
    _public_key: PublicKey = field(init=False, repr=False)
    _shapes: dict[bool, _Shape] = field(factory=dict, init=False, repr=False)
    """By whether the subject is empty."""

    def __attrs_post_init__(self) -> None:
        self._public_key = self.key.public_key
        if spki_der(self.certificate.public_key()) != spki_der(self._public_key):
            raise SigningFailed(f"the key does not belong to the certificate of {self.name}")

    @property
    def name(self) -> str:
        """Its certificate's subject, for people."""
        return subject_of(self.certificate)

    @cached_property
    def key_id(self) -> str:
        """How the store and revocations name this issuer."""
        return key_id(self.certificate.public_key())

    @cached_property
    def validity(self) -> Validity:
        """From when to when its certificate holds; nothing that it issues outlives that."""
        return validity_of(self.certificate)

    @classmethod
    async def create_root(
        cls, key: SigningKey, trust_domain: TrustDomain, now: datetime, generation: int = 1
    ) -> Self:
        """A new self-signed root. Raises :class:`LintFailed`."""
        unsigned = _lay_out(
            ROOT,
            None,
            key,
            subject=ca_subject(ROOT_NAME, trust_domain, generation),
            public_key=key.public_key,
            names=alternative_names(trust_domain.id),
            period=_period(None, now, ROOT.lifetime),
            now=now,
        )
        draft = _drafted(ROOT, unsigned, seal=object())
        der = await _signed(draft, key, key.public_key)
        return cls(x509.load_der_x509_certificate(der), key)

    async def create_issuing(
        self,
        key: SigningKey,
        trust_domain: TrustDomain,
        now: datetime,
        generation: int = 1,
        lifetime: timedelta = ISSUING.lifetime,
        *,
        publication: Publication | None = None,
    ) -> "Authority":
        """A new issuing CA below this root, which it does not outlive. Raises :class:`LintFailed`."""
        draft = self.draft_issuing(
            key.public_key, trust_domain, now, generation, lifetime, publication=publication
        )
        certificate = await self.sign(draft)
        return Authority(certificate, key, (certificate, *self.intermediates))

    def draft_issuing(
        self,
        public_key: PublicKey,
        trust_domain: TrustDomain,
        now: datetime,
        generation: int = 1,
        lifetime: timedelta = ISSUING.lifetime,
        *,
        publication: Publication | None = None,
    ) -> Draft:
        """The certificate of one, for a key that may be elsewhere, before it is signed. Raises :class:`LintFailed`.

        ``publication`` is where this root publishes.
        """
        profile = evolve(ISSUING, lifetime=lifetime, publication=publication)
        unsigned = _lay_out(
            profile,
            self.certificate,
            self.key,
            subject=ca_subject(ISSUING_NAME, trust_domain, generation),
            public_key=public_key,
            names=alternative_names(trust_domain.id),
            period=_period(self, now, lifetime),
            now=now,
        )
        return _drafted(profile, unsigned, self._seal)

    async def create_responder(
        self, key: SigningKey, now: datetime, lifetime: timedelta = OCSP_RESPONDER.lifetime
    ) -> x509.Certificate:
        """A certificate for ``key`` to sign this CA's OCSP answers with (RFC 6960 section 4.2.2.2).

        Raises :class:`LintFailed`, :class:`IssuerExpired` and :class:`SigningFailed`.
        """
        return await self.sign(self.draft_responder(key.public_key, now, lifetime))

    def draft_responder(
        self, public_key: PublicKey, now: datetime, lifetime: timedelta = OCSP_RESPONDER.lifetime
    ) -> Draft:
        """The same, before it is signed. Raises :class:`LintFailed` and :class:`IssuerExpired`."""
        unsigned = _lay_out(
            OCSP_RESPONDER,
            self.certificate,
            self.key,
            subject=responder_subject(self.certificate.subject),
            public_key=public_key,
            names=None,
            period=_period(self, now, lifetime),
            now=now,
        )
        return _drafted(OCSP_RESPONDER, unsigned, self._seal)

    def draft(
        self,
        public_key: PublicKey,
        spiffe_id: SpiffeId,
        now: datetime,
        lifetime: timedelta,
        *,
        dns_names: Collection[str] = (),
        ip_addresses: Collection[IPAddress] = (),
        common_name: str = "",
        spki: bytes | None = None,
    ) -> Draft:
        """An SVID that lives ``lifetime`` from ``now``, shortened to the issuer's own end.

        Without a ``common_name`` its subject has the ID's last path segment. ``spki`` is the ``public_key`` in DER,
        from whoever has encoded it already.
        Raises :class:`LintFailed` and :class:`IssuerExpired`.
        """
        period = _period(self, now, lifetime)
        subject = subject_der(spiffe_id, common_name)
        if spki is None:
            spki = spki_der(public_key)
        shape = self._shape(subject == NAMELESS, spiffe_id, common_name, period, now)
        template = shape.template
        fields = Fields(
            new_serial(),
            period,
            subject,
            spki,
            key_identifier(spki),
            general_names(spiffe_id, dns_names, ip_addresses),
        )
        try:
            tbs, found = template.fill_and_read(fields)
        except Malformed as error:
            raise LintFailed(error.problems) from None
        filled = Filled(
            found,
            template.is_nameless,
            self.validity,
            shape.profile,
            now,
            public_key,
            spki,
            spiffe_id,
            dns_names,
            ip_addresses,
            common_name,
        )
        if problems := lint_template(filled):
            raise LintFailed(problems)
        kinds = type(public_key), len(spki), bool(dns_names), bool(ip_addresses)
        if kinds not in shape.seen:
            unsigned = x509.load_der_x509_certificate(assemble(tbs, template.algorithm))
            _lint_in_full(Draftee(unsigned, self.certificate, shape.profile, now))
            shape.seen.add(kinds)
        return Draft(
            shape.profile,
            tbs,
            template.algorithm,
            fields.serial,
            f"serial {fields.serial:x}"
            if template.is_nameless
            else f"CN={common_name or spiffe_id.name}",
            period.not_after,
            spki,
            self._seal,
        )

    def _shape(
        self,
        is_nameless: bool,
        spiffe_id: SpiffeId,
        common_name: str,
        period: Validity,
        now: datetime,
    ) -> _Shape:
        """Remembered by profile and kind of subject; a new one is cut out of a draft for a throwaway key."""
        shape = self._shapes.get(is_nameless)
        if shape is None or shape.profile is not self.workload:
            unsigned = _lay_out(
                self.workload,
                self.certificate,
                self.key,
                subject=subject_for(spiffe_id, common_name),
                public_key=MemoryKey.generate(KeyAlgorithm.EC_P256).public_key,
                names=alternative_names(spiffe_id),
                period=period,
                now=now,
            )
            template = Template.cut(unsigned.tbs_certificate_bytes)
            shape = self._shapes[is_nameless] = _Shape(self.workload, template)
        return shape

    async def sign(self, draft: Draft) -> x509.Certificate:
        """The certificate. Raises :class:`SigningFailed` for a signature that does not verify."""
        return x509.load_der_x509_certificate(await self.sign_der(draft))

    async def sign_der(self, draft: Draft) -> bytes:
        """The same, in DER and not decoded again."""
        if draft.seal is not self._seal:
            raise SigningFailed("this draft was not made by this authority")
        return await _signed(draft, self.key, self._public_key)


def _period(issuer: Authority | None, now: datetime, lifetime: timedelta) -> Validity:
    """From a little before ``now``, and within ``issuer``'s own time. ``issuer`` is None for a root."""
    issued_at = whole_second_after(now)
    not_before, not_after = issued_at - BACKDATE, issued_at + lifetime
    if issuer is not None:
        limits = issuer.validity
        if not limits.contains(now):
            raise IssuerExpired(
                f"{issuer.name} is not valid now: check this machine's clock, or renew the CA"
            )
        not_before = max(not_before, limits.not_before)
        not_after = min(not_after, limits.not_after)
        if not_after < issued_at:
            raise IssuerExpired(f"nothing that {issuer.name} issues now could be valid")
    return Validity(not_before, not_after)


def _lay_out(
    profile: Profile,
    issuer: x509.Certificate | None,
    issuer_key: SigningKey,
    *,
    subject: x509.Name,
    public_key: PublicKey,
    names: x509.SubjectAlternativeName | None,
    period: Validity,
    now: datetime,
) -> x509.Certificate:
    """A whole certificate but for its signature, linted in full. ``issuer`` is None for a root, which issues itself."""
    builder = (
        x509.CertificateBuilder()
        .serial_number(new_serial())
        .issuer_name(subject if issuer is None else issuer.subject)
        .subject_name(subject)
        .public_key(public_key)
        .not_valid_before(period.not_before)
        .not_valid_after(period.not_after)
        .add_extension(profile.basic_constraints, critical=True)
        .add_extension(profile.key_usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_authority_key_identifier(issuer, issuer_key), critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=not subject.rdns)
    if profile.extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(profile.extended), critical=False)
    if profile.is_responder:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    for published in profile.publication.extensions if profile.publication else ():
        builder = builder.add_extension(published, critical=False)
    unsigned = lay_out(builder, issuer_key)
    _lint_in_full(Draftee(unsigned, issuer or unsigned, profile, now))
    return unsigned


def _lint_in_full(draftee: Draftee) -> None:
    if problems := lint(draftee):
        raise LintFailed(problems)


def _drafted(profile: Profile, unsigned: x509.Certificate, seal: object) -> Draft:
    return Draft(
        profile,
        unsigned.tbs_certificate_bytes,
        algorithm_of(unsigned),
        unsigned.serial_number,
        subject_of(unsigned),
        unsigned.not_valid_after_utc,
        spki_der(unsigned.public_key()),
        seal,
    )


def _authority_key_identifier(
    issuer: x509.Certificate | None, issuer_key: SigningKey
) -> x509.AuthorityKeyIdentifier:
    identifier = extension(issuer, x509.SubjectKeyIdentifier) if issuer else None
    if identifier is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


async def _signed(draft: Draft, key: SigningKey, public_key: PublicKey) -> bytes:
    signature = await signature_over(draft.tbs, key, public_key)
    return assemble(draft.tbs, draft.algorithm, signature)
