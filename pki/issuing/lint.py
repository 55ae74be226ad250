"""Lints: what a draft must satisfy before a CA signs it (RFC 5280, X509-SVID, our profiles).

Each rule is a function of a :class:`Draftee` that yields problems; :func:`lint` runs them all.
A draft that breaks one is a bug of ours, or an attack: it is never signed.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Protocol

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtensionOID, ObjectIdentifier

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Problem, Refused
from pki.issuing.profile import BACKDATE, Profile
from pki.issuing.publication import Publication
from pki.keys import is_strong, key_identifier, spki_der, weaknesses
from pki.spiffe import NotASpiffeId, SpiffeId
from pki.svid.x509svid import Purpose, extension, leaf_problems, subject_of, uri_names, validity_of
from pki.validity import Validity

_SECOND = timedelta(seconds=1)


class LintFailed(Refused):
    """A draft broke a rule, so it was not signed. A bug of ours, never the caller's fault."""

    code = Code.LINT


@frozen
class Draftee:
    """A certificate to be, and what it is held against."""

    cert: x509.Certificate
    issuer: x509.Certificate
    """For a root, the draft itself."""
    profile: Profile
    now: datetime

    @property
    def is_root(self) -> bool:
        """Whether it issues itself."""
        return self.issuer is self.cert

    @property
    def subject(self) -> str:
        """For people."""
        return subject_of(self.cert)


class AnyDraft(Protocol):
    """What is linted, in full or in part."""

    @property
    def subject(self) -> str:
        """What problems are about, for people."""
        ...

    @property
    def profile(self) -> Profile:
        """What it must look like."""
        ...

    @property
    def now(self) -> datetime:
        """When it is made."""
        ...


#: Must be critical / must not be critical (RFC 5280 section 4.2).
_CRITICAL = {ExtensionOID.BASIC_CONSTRAINTS: True, ExtensionOID.KEY_USAGE: True,
             ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False, ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
             ExtensionOID.EXTENDED_KEY_USAGE: False, ExtensionOID.CRL_DISTRIBUTION_POINTS: False,
             ExtensionOID.AUTHORITY_INFORMATION_ACCESS: False, ExtensionOID.OCSP_NO_CHECK: False}  # fmt: skip
_EXTENSIONS = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}
_CA_EXTENSIONS = _EXTENSIONS | {ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
_LEAF_EXTENSIONS = _CA_EXTENSIONS | {ExtensionOID.EXTENDED_KEY_USAGE}
_RESPONDER_EXTENSIONS = _EXTENSIONS | {ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.OCSP_NO_CHECK}


def lint(draftee: Draftee) -> list[Problem]:
    """Every rule that the draft breaks; empty when it may be signed."""
    problems: list[Problem] = []
    for rule in _RULES:
        try:
            problems += rule(draftee)
        except HOSTILE_INPUT as error:
            problems.append(
                broken(draftee, f"{rule.__name__}: cannot be decoded ({error})", "RFC 5280")
            )
    return problems


def broken(draftee: AnyDraft, detail: str, rule: str) -> Problem:
    """The problem of a draft that breaks ``rule``: a bug of ours."""
    return Problem(Code.LINT, detail, "this is a bug of the CA: report it", rule, draftee.subject)


def version(d: Draftee) -> Iterator[Problem]:
    """RFC 5280 section 4.1.2.1."""
    if d.cert.version is not x509.Version.v3:
        yield broken(d, "a certificate with extensions has version 3", "RFC 5280 section 4.1.2.1")


def serial(d: Draftee) -> Iterator[Problem]:
    """RFC 5280 section 4.1.2.2."""
    yield from serial_problems(d, d.cert.serial_number)


def serial_problems(d: AnyDraft, number: int) -> Iterator[Problem]:
    """Positive, unguessable, and short enough (RFC 5280 section 4.1.2.2, CA/Browser Forum BR section 7.1)."""
    if not 1 << 63 <= number < 1 << 159:
        yield broken(
            d,
            "a serial is positive, of 64 or more bits and under 20 bytes",
            "RFC 5280 section 4.1.2.2",
        )


def signature_algorithm(d: Draftee) -> Iterator[Problem]:
    """CA/Browser Forum BR section 7.1.3.2."""
    if not is_strong(d.cert):
        yield broken(
            d, "signatures are made with SHA-256 or better", "CA/Browser Forum BR section 7.1.3.2"
        )


def names(d: Draftee) -> Iterator[Problem]:
    """Issuer and subject (RFC 5280 sections 4.1.2.4 and 4.1.2.6)."""
    if not d.cert.issuer.rdns or d.cert.issuer != d.issuer.subject:
        yield broken(d, "the issuer's name is not the issuer's subject", "RFC 5280 section 4.1.2.4")
    if not d.cert.subject.rdns:
        if d.profile.is_ca:
            yield broken(d, "a CA has a subject", "RFC 5280 section 4.1.2.6")
        elif d.profile.is_responder:
            yield broken(d, "a responder has a subject", "RFC 5280 section 4.1.2.6")


def validity(d: Draftee) -> Iterator[Problem]:
    """RFC 5280 section 4.1.2.5."""
    yield from period_problems(d, validity_of(d.cert), validity_of(d.issuer))


def period_problems(d: AnyDraft, period: Validity, issuers: Validity) -> Iterator[Problem]:
    """Now, within the issuer's own, and no longer than the profile allows (RFC 5280 section 4.1.2.5)."""
    start, end = period.not_before, period.not_after
    rule = "RFC 5280 section 4.1.2.5"
    if not start <= d.now <= end:
        yield broken(d, "the draft is not valid now", rule)
    if end > issuers.not_after:
        yield broken(d, "notAfter is later than the issuer's", rule)
    if start < issuers.not_before:
        yield broken(d, "notBefore is earlier than the issuer's", rule)
    if d.now - start > BACKDATE + _SECOND:
        yield broken(d, f"notBefore is more than {BACKDATE.seconds} s back", rule)
    if end - d.now > d.profile.lifetime + _SECOND:
        yield broken(d, f"the life is longer than the profile {d.profile.name} allows", rule)


def public_key(d: Draftee) -> Iterator[Problem]:
    """It is not weak, whatever the caller has looked at before."""
    yield from weaknesses(d.cert.public_key())


def extensions(d: Draftee) -> Iterator[Problem]:
    """No duplicates (parsing refuses them), exactly the profile's, each critical as it must be."""
    found = {e.oid: e.critical for e in d.cert.extensions}
    wanted = _wanted(d.profile)
    for oid in wanted ^ set(found):
        kind = "is missing" if oid in wanted else "does not belong here"
        yield broken(d, f"extension {oid.dotted_string} {kind}", "RFC 5280 section 4.2")
    for oid, critical in _CRITICAL.items():
        if found.get(oid, critical) != critical:
            yield broken(
                d,
                f"extension {oid.dotted_string} must {'' if critical else 'not '}be critical",
                "RFC 5280 section 4.2.1",
            )
    critical_name = found.get(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, False)
    yield from critical_name_problems(d, critical_name, not d.cert.subject.rdns)


def critical_name_problems(d: AnyDraft, is_critical: bool, is_nameless: bool) -> Iterator[Problem]:
    """The alternative name is what names a certificate without a subject (RFC 5280 section 4.2.1.6)."""
    if is_critical != is_nameless:
        yield broken(
            d,
            "the alternative name is critical exactly when the subject is empty",
            "RFC 5280 section 4.2.1.6",
        )


def _wanted(profile: Profile) -> set[ObjectIdentifier]:
    wanted = _CA_EXTENSIONS if profile.is_ca else _LEAF_EXTENSIONS
    if profile.is_responder:
        wanted = _RESPONDER_EXTENSIONS
    published = profile.publication.extensions if profile.publication else ()
    return wanted | {value.oid for value in published}


def publication(d: Draftee) -> Iterator[Problem]:
    """Just the profile's URLs (RFC 5280 sections 4.2.1.13 and 4.2.2.1)."""
    expected = d.profile.publication or Publication()
    if extension(d.cert, x509.CRLDistributionPoints) != expected.distribution_points:
        yield broken(
            d, "the CRL distribution points are not the profile's", "RFC 5280 section 4.2.1.13"
        )
    if extension(d.cert, x509.AuthorityInformationAccess) != expected.information_access:
        yield broken(
            d, "the authority information access is not the profile's", "RFC 5280 section 4.2.2.1"
        )


def key_identifiers(d: Draftee) -> Iterator[Problem]:
    """Both name the key that they are of (RFC 5280 sections 4.2.1.1 and 4.2.1.2)."""
    own = extension(d.cert, x509.SubjectKeyIdentifier)
    yield from own_identifier_problems(
        d, own.digest if own else None, spki_der(d.cert.public_key())
    )
    authority = extension(d.cert, x509.AuthorityKeyIdentifier)
    issuers = extension(d.issuer, x509.SubjectKeyIdentifier)
    if authority is None or issuers is None or authority.key_identifier != issuers.digest:
        yield broken(
            d, "the authority key identifier is not the issuer's", "RFC 5280 section 4.2.1.1"
        )


def own_identifier_problems(
    d: AnyDraft, identifier: bytes | None, spki: bytes
) -> Iterator[Problem]:
    """The subject key identifier is the SHA-1 of the key's bits (RFC 5280 section 4.2.1.2 (1))."""
    if identifier != key_identifier(spki):
        yield broken(
            d, "the subject key identifier is not that of the key", "RFC 5280 section 4.2.1.2"
        )


def usages(d: Draftee) -> Iterator[Problem]:
    """Constraints and usages are the profile's (RFC 5280 sections 4.2.1.3, 4.2.1.9 and 4.2.1.12)."""
    if extension(d.cert, x509.BasicConstraints) != d.profile.basic_constraints:
        yield broken(d, "basic constraints are not the profile's", "RFC 5280 section 4.2.1.9")
    if extension(d.cert, x509.KeyUsage) != d.profile.key_usage:
        yield broken(d, "key usages are not the profile's", "RFC 5280 section 4.2.1.3")
    if tuple(extension(d.cert, x509.ExtendedKeyUsage) or ()) != d.profile.extended:
        yield broken(d, "extended key usages are not the profile's", "RFC 5280 section 4.2.1.12")


def issuer_may_sign(d: Draftee) -> Iterator[Problem]:
    """The issuer is a CA that may have such a certificate below it (RFC 5280 section 6.1.4)."""
    constraints = extension(d.issuer, x509.BasicConstraints)
    usage = extension(d.issuer, x509.KeyUsage)
    if not constraints or not constraints.ca or not usage or not usage.key_cert_sign:
        yield broken(d, "the issuer is no CA", "RFC 5280 section 6.1.4 (k), (n)")
    elif (
        not d.is_root
        and d.profile.path_length is not None
        and constraints.path_length is not None
        and constraints.path_length <= d.profile.path_length
    ):
        yield broken(
            d, "the issuer's path length leaves no room for this CA", "RFC 5280 section 4.2.1.9"
        )


def identity(d: Draftee) -> Iterator[Problem]:
    """A leaf is an SVID; a CA names no workload (X509-SVID sections 2 to 5)."""
    if d.profile.is_responder:
        return  # it has no alternative name at all: `extensions` sees to that
    if not d.profile.is_ca:
        yield from leaf_problems(d.cert, Purpose.ANY)
        return
    for uri in uri_names(d.cert):
        try:
            if not SpiffeId.parse(uri).path:
                continue
        except NotASpiffeId:
            pass
        yield broken(
            d, "a CA's SPIFFE ID is its trust domain's, without a path", "X509-SVID section 3.2"
        )


_RULES: tuple[Callable[[Draftee], Iterator[Problem]], ...] = (
    version,
    serial,
    signature_algorithm,
    names,
    validity,
    public_key,
    extensions,
    key_identifiers,
    publication,
    usages,
    issuer_may_sign,
    identity,
)
