"""CRLs: what an issuer publishes about the certificates that it has revoked (RFC 5280 section 5).

Complete lists only, each signed by the very CA that issued what it lists: no deltas, no indirect
CRLs, none for some reasons only.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import cast

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import ExtensionOID

from pki.codes import Code
from pki.crl.entries import Facts, UnknownEntry, decode_entries, revocations
from pki.der import GENERALIZED_TIME, SEQUENCE, UTC_TIME, blocks, der_labels, flaw, inside
from pki.errors import HOSTILE_INPUT, Malformed, Problem, Refused, printable
from pki.keys import is_strong, key_id
from pki.pem import CRL, is_pem, listed
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import extension, subject_of
from pki.validity import rfc3339

#: A CRL of 1.8 million entries; more is refused before it is parsed.
MAX_CRL_SIZE = 64 * 1024 * 1024
#: Where PEM that happens to begin as DER does must have its first BEGIN line.
_LEAD = 64 * 1024
#: How far an issuer's clock may be ahead of ours.
_AHEAD = timedelta(minutes=1)

_UNDERSTOOD = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    ExtensionOID.CRL_NUMBER,
    ExtensionOID.DELTA_CRL_INDICATOR,
    ExtensionOID.ISSUING_DISTRIBUTION_POINT,
}


class BadCrl(Refused):
    """A CRL that decodes and cannot be relied on; ``problems`` say why."""

    code = Code.BAD_CRL


@frozen(eq=False, repr=False)
class Crl:
    """A CRL that was read and can be relied on: an iterable of :class:`Revocation`."""

    issuer: str
    """The issuer's :func:`pki.keys.key_id`."""
    number: int | None
    """None where the CRL has none, which RFC 5280 demands of conforming issuers only."""
    this_update: datetime
    next_update: datetime
    expires_at: datetime
    """When the last of the listed certificates ends.

    A CRL does not tell that. No certificate outlives its issuer, so this is the issuer's own end.
    """
    points: frozenset[str] | None = None
    """Where certificates must say that their CRL is, to be covered by this one; None: all are."""
    for_users_only: bool = False
    """Whether it says nothing about CAs."""
    _entries: Mapping[int, Facts] = field(factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Revocation]:
        return revocations(self._entries.items(), self.issuer, self.expires_at)

    def find(self, serial: int) -> Revocation | None:
        """The entry about that serial; None where it is not listed."""
        facts = self._entries.get(serial)
        if facts is None:
            return None
        return next(revocations([(serial, facts)], self.issuer, self.expires_at))

    def covers(self, cert: x509.Certificate) -> bool:
        """Whether ``cert``, issued by this CRL's issuer, would be listed if it were revoked."""
        try:
            constraints = extension(cert, x509.BasicConstraints)
            if self.for_users_only and constraints and constraints.ca:
                return False
            return self.points is None or not self.points.isdisjoint(_points_of(cert))
        except HOSTILE_INPUT:
            return False


def crls_in(data: bytes) -> tuple[bytes, ...]:
    """The CRLs in a PEM or DER file, each in DER, at least one. Raises :class:`Malformed`."""
    if len(data) > MAX_CRL_SIZE:
        raise Malformed(f"a CRL has at most {MAX_CRL_SIZE} bytes here, this one {len(data)}")
    if data[:1] == bytes((SEQUENCE,)) and not is_pem(data[:_LEAD]):
        return (data,)
    held = blocks(data)
    found = tuple(block.der for block in held if block.label == CRL)
    if not found:
        raise Malformed(
            f"it holds no CRL but {listed(block.label for block in held)}: give one in PEM or DER"
        )
    return found


def find_issuer(der: bytes, candidates: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """Who has signed a CRL in DER; else one who has its issuer's name. Raises :class:`Malformed`."""
    crl = _load(der)
    named = [candidate for candidate in candidates if _is_named(crl, candidate)]
    if len(named) == 1:  # a long list's signature takes a while, and whoever reads it looks at it
        return named[0]
    return next((issuer for issuer in named if _is_signed(crl, issuer)), next(iter(named), None))


def issuer_name(der: bytes) -> str:
    """Whose CRL it is, as one printable line. Raises :class:`Malformed`."""
    return _issuer_of(_load(der))


def read_crl(
    data: bytes, issuer: x509.Certificate, *, now: datetime, seen: int | None = None
) -> Crl:
    """``issuer``'s CRL out of a PEM or DER file with just that, if it can be relied on ``now``.

    ``seen`` is the highest number that was seen before. Raises :class:`Malformed`, and
    :class:`BadCrl` with every reason (RFC 5280 section 6.3.3).
    """
    der, *others = crls_in(data)
    if others:
        raise Malformed(f"there are {1 + len(others)} CRLs in it: give one at a time")
    crl = _load(der)
    try:
        problems = [
            *_issuer_problems(crl, issuer),
            *_time_problems(crl, now),
            *_number_problems(crl, seen),
            *_extension_problems(crl),
        ]
        if problems:
            raise BadCrl(problems)
        return _relied_on(crl, der, issuer)
    except UnknownEntry as error:
        raise BadCrl([_problem(error.code, str(error), crl, "5.3")]) from None
    except HOSTILE_INPUT:
        raise Malformed("the CRL's names or extensions cannot be decoded") from None


def _load(der: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_der_x509_crl(der)
    except HOSTILE_INPUT as error:
        others = [label for label in der_labels(der) if label not in (CRL, "ASN.1")]
        if others:
            raise Malformed(
                f"it is no CRL but {listed(others)}: give a CRL in PEM or DER"
            ) from None
        raise Malformed(f"the CRL {flaw(CRL, der, error)}") from None


def _relied_on(crl: x509.CertificateRevocationList, der: bytes, issuer: x509.Certificate) -> Crl:
    scope = extension(crl, x509.IssuingDistributionPoint)
    if crl.next_update_utc is None:
        raise AssertionError("a CRL without an end was not refused")
    return Crl(
        key_id(issuer.public_key()),
        _number(crl),
        crl.last_update_utc,
        crl.next_update_utc,
        issuer.not_valid_after_utc,
        _points(scope) if scope else None,
        bool(scope and scope.only_contains_user_certs),
        decode_entries(_entries_in(der)),
    )


def _issuer_problems(
    crl: x509.CertificateRevocationList, issuer: x509.Certificate
) -> Iterator[Problem]:
    digest = crl.signature_hash_algorithm
    if not _is_named(crl, issuer):
        detail = f"it is not the CRL of {subject_of(issuer)}"
        yield _problem(Code.CRL_OTHER_ISSUER, detail, crl, "6.3.3 (b)")
    elif digest is not None and not is_strong(crl):
        detail = f"it is signed with {digest.name.upper()}"
        yield _problem(Code.WEAK_SIGNATURE, detail, crl, "5.1.1.2")
    elif not _is_signed(crl, issuer):
        detail = f"it is not signed by the key of {subject_of(issuer)}"
        yield _problem(Code.CRL_BAD_SIGNATURE, detail, crl, "6.3.3 (g)")
    usage = extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        yield Problem(
            Code.NOT_A_CRL_ISSUER,
            "its key usage does not allow it to sign CRLs",
            "have the CA's certificate issued with cRLSign",
            "RFC 5280 section 6.3.3 (f)",
            subject_of(issuer),
        )


def _time_problems(crl: x509.CertificateRevocationList, now: datetime) -> Iterator[Problem]:
    if crl.last_update_utc - now > _AHEAD:  # a sum could lead out of the years
        yield _problem(
            Code.CRL_NOT_YET_VALID,
            f"it is of {rfc3339(crl.last_update_utc)}, and here it is {rfc3339(now)}",
            crl,
            "5.1.2.4",
            "compare the two machines' clocks",
        )
    if crl.next_update_utc is None:
        yield _problem(Code.CRL_STALE, "it does not say when the next one comes", crl, "5.1.2.5")
    elif now > crl.next_update_utc:
        yield _problem(
            Code.CRL_STALE,
            f"the next one was due at {rfc3339(crl.next_update_utc)}, and here it is {rfc3339(now)}",
            crl,
            "5.1.2.5",
        )


def _number_problems(crl: x509.CertificateRevocationList, seen: int | None) -> Iterator[Problem]:
    number = _number(crl)
    if seen is not None and (number is None or number < seen):
        said = "has no number" if number is None else f"has number {number}"
        yield _problem(
            Code.CRL_ROLLED_BACK, f"it {said}, and number {seen} was seen before", crl, "5.2.3"
        )


def _extension_problems(crl: x509.CertificateRevocationList) -> Iterator[Problem]:
    for found in crl.extensions:
        if found.critical and found.oid not in _UNDERSTOOD:
            yield _problem(
                Code.UNKNOWN_EXTENSION,
                f"critical extension {found.oid.dotted_string} is not understood here",
                crl,
                "5.2",
            )
    if extension(crl, x509.DeltaCRLIndicator):
        yield _problem(Code.CRL_DELTA, "it lists changes to another CRL only", crl, "5.2.4")
    scope = extension(crl, x509.IssuingDistributionPoint)
    if scope is None:
        return
    limits = {
        "CAs": scope.only_contains_ca_certs,
        "attribute certificates": scope.only_contains_attribute_certs,
        "some reasons": scope.only_some_reasons,
    }
    for limit, is_set in limits.items():
        if is_set:
            yield _problem(Code.CRL_PARTIAL, f"it is about {limit} only", crl, "5.2.5")
    if scope.indirect_crl:
        yield _problem(Code.CRL_PARTIAL, "it lists other issuers' certificates too", crl, "5.2.5")


def _is_named(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.issuer == issuer.subject
    except HOSTILE_INPUT:
        return False


def _is_signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        # For a key of a kind that signs nothing, it raises TypeError.
        return crl.is_signature_valid(cast(CertificateIssuerPublicKeyTypes, issuer.public_key()))
    except HOSTILE_INPUT:
        return False


def _number(crl: x509.CertificateRevocationList) -> int | None:
    number = extension(crl, x509.CRLNumber)
    return number.crl_number if number else None


def _points(scope: x509.IssuingDistributionPoint) -> frozenset[str] | None:
    """Empty where the point has a name that no certificate is looked at for."""
    if scope.full_name is None and scope.relative_name is None:
        return None
    return frozenset(map(_name_of, scope.full_name or ()))


def _points_of(cert: x509.Certificate) -> Iterator[str]:
    """Where a certificate says that its CRL is."""
    for point in extension(cert, x509.CRLDistributionPoints) or ():
        yield from map(_name_of, point.full_name or ())


def _name_of(name: x509.GeneralName) -> str:
    return f"{type(name).__name__} {name.value}"


def _entries_in(der: bytes) -> bytes:
    """The content of ``revokedCertificates`` in a CRL that cryptography has parsed."""
    at, _ = inside(der, 0)
    at, end = inside(der, at)
    is_dated = False
    while at < end:
        tag = der[at]
        start, at = inside(der, at)
        if is_dated and tag == SEQUENCE:
            return der[start:at]
        is_dated = is_dated or tag in (UTC_TIME, GENERALIZED_TIME)
    return b""


def _problem(
    code: Code,
    detail: str,
    crl: x509.CertificateRevocationList,
    section: str,
    remedy: str = "fetch the CRL again",
) -> Problem:
    subject = f"CRL of {_issuer_of(crl)}"
    return Problem(code, detail, remedy, f"RFC 5280 section {section}", subject)


def _issuer_of(crl: x509.CertificateRevocationList) -> str:
    try:
        return printable(crl.issuer.rfc4514_string())
    except HOSTILE_INPUT:
        return "an issuer whose name cannot be decoded"
