"""What is wrong with one certificate of a chain, by itself and as an issuer (RFC 5280 section 4).

As strict as ``openssl verify -x509_strict``: what no CA of a mesh would issue is refused, so that
nobody else who looks at the chain finds a reason that we have passed over.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, PublicKeyAlgorithmOID

from pki.codes import Code
from pki.der import OBJECT_IDENTIFIER, SEQUENCE, elements, inside
from pki.errors import HOSTILE_INPUT, Malformed, Problem
from pki.keys import is_broken, is_strong, weaknesses
from pki.svid.x509svid import extension, subject_of, validity_of
from pki.validity import rfc3339, spoken_duration

#: A certificate with the 64 names that the CA puts in at most, each as long as it may be, has 18 KiB.
_MOST_BYTES = 24 * 1024
_MOST_BYTES_TOGETHER = 64 * 1024
#: What is smaller is read without counting what it consists of.
_SMALL = 1024
#: Of all certificates that are not small. One of the mesh has about 90, and 2 more for each name.
_MOST_ELEMENTS = 2048

_UNDERSTOOD = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}
#: What narrows down a certificate, and is not judged here. Each would have to be critical, and is refused either way:
#: who passed it over would let in what others, who know it, do not.
_NARROWING = {
    ExtensionOID.NAME_CONSTRAINTS: "name constraints",
    ExtensionOID.POLICY_CONSTRAINTS: "policy constraints",
    ExtensionOID.INHIBIT_ANY_POLICY: "inhibitAnyPolicy",
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.7"): "address blocks (RFC 3779)",
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.8"): "numbers of autonomous systems (RFC 3779)",
    x509.ObjectIdentifier("1.3.6.1.5.5.7.1.14"): "proxy certificate information (RFC 3820)",
    x509.ObjectIdentifier("2.16.840.1.113730.1.1"): "Netscape's certificate type",
}
_PEER_EKUS = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
_VERSION = 0xA0
#: 20 octets (RFC 5280 section 4.1.2.2), of which the first bit is the sign.
_SERIAL_BITS = 159
_ANEW = "issue it anew"
_UNDECODABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed)


def oversized(presented: Sequence[x509.Certificate]) -> str:
    """Why the certificates are too large to be looked at, in words; empty where they are not.

    To decode a name takes many times as long as to receive it, so what there is to decode is
    counted before. Of small certificates this is not worth the while.
    """
    encoded = [cert.public_bytes(serialization.Encoding.DER) for cert in presented]
    largest = max(map(len, encoded))
    if largest > _MOST_BYTES:
        return f"a certificate of {largest} bytes was presented, {_MOST_BYTES} is the most"
    if sum(map(len, encoded)) > _MOST_BYTES_TOGETHER:
        return f"more than {_MOST_BYTES_TOGETHER} bytes of certificates were presented"
    left = _MOST_ELEMENTS
    for der in encoded:
        if len(der) > _SMALL:
            left -= _count(der, left)
            if left < 0:
                return "the certificates have more names and extensions than any of a mesh"
    return ""


def _count(der: bytes, most: int) -> int:
    """How many elements of DER there are in ``der``, at all depths; counts to ``most`` + 1."""
    count = 0
    stack = [(0, len(der))]
    while stack:
        at, end = stack.pop()
        while at + 2 <= end:
            count += 1
            if count > most:
                return count
            tag, size = der[at], der[at + 1]
            at += 2
            if size >= 0x80:
                octets = size & 0x7F
                size = int.from_bytes(der[at : at + octets], "big")
                at += octets
            # An extension's value is DER inside an OCTET STRING.
            if tag & 0x20 or (tag == 0x04 and at < end and der[at] == SEQUENCE):
                stack.append((at, min(at + size, end)))
            at += size
    return count


def certificate_problems(
    cert: x509.Certificate, now: datetime, *, thorough: bool = True
) -> list[Problem]:
    """What is wrong with one certificate by itself: dates, key, its signature's hash, its form, its extensions.

    Without ``thorough`` no key is searched for factors: that is worth its time only for a
    certificate that a root vouches for.
    """
    return [*date_problems(cert, now), *lasting_problems(cert, thorough=thorough)]


def lasting_problems(cert: x509.Certificate, *, thorough: bool = True) -> list[Problem]:
    """Those of :func:`certificate_problems` that no time heals or brings."""
    problems = []
    try:
        problems += list(_form_problems(cert))
        problems += weaknesses(cert.public_key(), at_a_glance=not thorough)
        if not is_strong(cert):
            problems.append(
                Problem(
                    Code.WEAK_SIGNATURE,
                    "it is signed with SHA-1 or MD5"
                    if is_broken(cert)
                    else "it is signed by another algorithm than an SVID may be",
                    _ANEW,
                    "RFC 9155",
                    subject_of(cert),
                )
            )
        problems += _extension_problems(cert)
    except _UNDECODABLE:
        problems.append(
            Problem(
                Code.MALFORMED,
                "its key or extensions cannot be decoded",
                _ANEW,
                "RFC 5280",
                subject_of(cert),
            )
        )
    return problems


def is_self_issued(cert: x509.Certificate) -> bool:
    """Whether it has its issuer's name; of such CAs no path length counts (RFC 5280 section 4.2.1.9)."""
    issuer, subject, _ = encoded_parts(cert)
    return issuer == subject


def names_match(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``cert`` names ``issuer`` as its issuer, in the same bytes."""
    return encoded_parts(cert)[0] == encoded_parts(issuer)[1]


def encoded_parts(cert: x509.Certificate) -> tuple[bytes, bytes, bytes]:
    """Issuer, subject and key in DER: to compare them nothing has to be decoded, however long they are."""
    body = cert.tbs_certificate_bytes
    ends = _field_ends(body, 0)
    return body[ends[1] : ends[2]], body[ends[3] : ends[4]], body[ends[4] : ends[5]]


def identifier_objection(cert: x509.Certificate, issuer: x509.Certificate) -> str:
    """How ``cert``'s authority key identifier contradicts ``issuer``, in words; empty where it does not.

    As OpenSSL looks at it: what is absent on either side contradicts nothing.
    """
    try:
        told = extension(cert, x509.AuthorityKeyIdentifier)
        if told is None:
            return ""
        its = extension(issuer, x509.SubjectKeyIdentifier)
        if told.key_identifier is not None and its and told.key_identifier != its.digest:
            return "another key than that CA's"
        if told.authority_cert_serial_number not in (None, issuer.serial_number):
            return "another serial number than that CA's"
        names = [n for n in told.authority_cert_issuer or () if isinstance(n, x509.DirectoryName)]
        if names and names[0].value != issuer.issuer:
            return "another issuer than that CA's"
    except HOSTILE_INPUT:
        pass  # what cannot be decoded is told by certificate_problems
    return ""


def names_the_key(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``cert``'s authority key identifier is the subject key identifier of ``issuer``."""
    try:
        told = extension(cert, x509.AuthorityKeyIdentifier)
        its = extension(issuer, x509.SubjectKeyIdentifier)
    except HOSTILE_INPUT:
        return False
    return told is not None and its is not None and told.key_identifier == its.digest


def named_key(cert: x509.Certificate) -> bytes | None:
    """The key identifier of its issuer in ``cert``; None where there is none that can be decoded."""
    try:
        told = extension(cert, x509.AuthorityKeyIdentifier)
    except HOSTILE_INPUT:
        return None
    return told.key_identifier if told is not None else None


def issuer_problems(
    cert: x509.Certificate,
    cas_below: int,
    usages: Collection[x509.ObjectIdentifier] = _PEER_EKUS,
) -> list[Problem]:
    """Whether ``cert`` may issue, with so many CAs between it and the leaf (RFC 5280 section 6.1.4).

    ``cas_below`` counts those that are not self-issued. ``usages`` are what its extended key usage, if it has one, has
    to leave to whoever is below it.
    """

    def problem(code: Code, detail: str, section: str) -> Problem:
        return Problem(
            code,
            detail,
            "have the chain issued by a CA of the mesh",
            f"RFC 5280 section {section}",
            subject_of(cert),
        )

    try:
        constraints = extension(cert, x509.BasicConstraints)
        usage = extension(cert, x509.KeyUsage)
        extended = extension(cert, x509.ExtendedKeyUsage)
        critical = {found.oid for found in cert.extensions if found.critical}
        is_named = extension(cert, x509.SubjectKeyIdentifier) is not None
        has_subject = bool(cert.subject.rdns)
    except HOSTILE_INPUT:
        return [problem(Code.MALFORMED, "its extensions cannot be decoded", "4.2")]
    problems = []
    if constraints is None or not constraints.ca:
        problems.append(problem(Code.NOT_A_CA, "it issued a certificate and is no CA", "4.2.1.9"))
    elif constraints.path_length is not None and cas_below > constraints.path_length:
        problems.append(
            problem(
                Code.PATH_TOO_LONG,
                f"{cas_below} CAs stand below it, {constraints.path_length} may",
                "4.2.1.9",
            )
        )
    if usage is None or not usage.key_cert_sign:
        problems.append(
            problem(
                Code.NOT_A_CA, "its key usage does not allow it to sign certificates", "4.2.1.3"
            )
        )
    if extended is not None and not set(extended).issuperset(usages):
        problems.append(
            problem(
                Code.WRONG_USAGE, "its extended key usage rules out mutual TLS below it", "4.2.1.12"
            )
        )
    if constraints is not None and constraints.ca:
        violations = {
            "its basic constraints are not critical": (
                ExtensionOID.BASIC_CONSTRAINTS not in critical,
                "4.2.1.9",
            ),
            "a CA has a subject key identifier, and it has none": (not is_named, "4.2.1.2"),
            "a CA has a subject, and it has none": (not has_subject, "4.1.2.6"),
        }
        for detail, (holds, section) in violations.items():
            if holds:
                problems.append(problem(Code.PROFILE_VIOLATION, detail, section))
    return problems


def unidentified_issuer(cert: x509.Certificate) -> list[Problem]:
    """That a certificate with an issuer above it does not say which key that is."""
    try:
        told = extension(cert, x509.AuthorityKeyIdentifier)
    except HOSTILE_INPUT:
        return []  # told by certificate_problems
    if told is not None and told.key_identifier is not None:
        return []
    return [_violation(cert, "it does not identify its issuer's key", "4.2.1.1")]


def _violation(cert: x509.Certificate, detail: str, section: str) -> Problem:
    return Problem(
        Code.PROFILE_VIOLATION,
        detail,
        "have it issued by a CA that keeps to RFC 5280",
        f"RFC 5280 section {section}",
        subject_of(cert),
    )


def _form_problems(cert: x509.Certificate) -> Iterator[Problem]:
    """Version, serial number, issuer, curve, and what it says it is signed by. Raises as decoding does."""
    if cert.version is not x509.Version.v3 and len(cert.extensions):
        yield _violation(cert, "it has extensions, and is not of version 3", "4.1.2.1")
    serial = cert.serial_number
    if serial <= 0 or serial.bit_length() > _SERIAL_BITS:
        yield _violation(
            cert, "a serial number is positive and has 20 octets at most, and its is not", "4.1.2.2"
        )
    if not cert.issuer.rdns:
        yield _violation(cert, "it names no issuer", "4.1.2.4")
    whole = cert.public_bytes(serialization.Encoding.DER)
    body, _ = inside(whole, 0)
    _, after = inside(whole, body)
    ends = _field_ends(whole, body)
    if whole[ends[0] : ends[1]] != whole[after : inside(whole, after)[1]]:
        yield _violation(cert, "it names two signature algorithms", "4.1.1.2")
    if cert.public_key_algorithm_oid == PublicKeyAlgorithmOID.EC_PUBLIC_KEY:
        at, _ = inside(whole, ends[4])
        algorithm, end = inside(whole, at)
        parameters = list(elements(whole[algorithm:end]))[1:]
        if [parameter.tag for parameter in parameters] != [OBJECT_IDENTIFIER]:
            yield _violation(cert, "its key spells out a curve instead of naming one", "4.1.2.7")


def _field_ends(der: bytes, body: int) -> list[int]:
    """Where serial, signature, issuer, validity, subject and key end in the TBSCertificate at ``body``.

    Whoever has loaded the certificate has found all of them there.
    """
    at, _ = inside(der, body)
    if der[at] == _VERSION:
        _, at = inside(der, at)
    ends = []
    for _ in range(6):
        _, at = inside(der, at)
        ends.append(at)
    return ends


def _extension_problems(cert: x509.Certificate) -> Iterator[Problem]:
    for found in cert.extensions:
        oid = found.oid
        if found.critical and oid not in _UNDERSTOOD:
            yield Problem(
                Code.UNKNOWN_EXTENSION,
                f"critical extension {oid.dotted_string} is not understood here",
                "issue it without, or not critical",
                "RFC 5280 section 4.2",
                subject_of(cert),
            )
        elif oid in _NARROWING:
            detail = f"it has {_NARROWING[oid]} that are not critical, and they are not judged here"
            yield _violation(cert, detail, "4.2")
        elif found.critical and oid in (
            ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
            ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ):
            yield _violation(cert, "a key identifier is never critical, and its is", "4.2.1.1")
        elif (
            oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            and not found.critical
            and not cert.subject.rdns
        ):
            detail = "without a subject its alternative names would have to be critical"
            yield _violation(cert, detail, "4.2.1.6")


def date_problems(
    cert: x509.Certificate, now: datetime, *, is_issuer: bool = False
) -> Iterator[Problem]:
    """Those of :func:`certificate_problems` that depend on the time; of an issuer its name is in them."""
    validity = validity_of(cert)
    if validity.contains(now):
        return
    what = f"the certificate of its issuer {subject_of(cert)}" if is_issuer else "the certificate"
    rule = "RFC 5280 section 4.1.2.5"
    if now > validity.not_after:
        yield Problem(
            Code.EXPIRED,
            f"{what} expired at {rfc3339(validity.not_after)}, {spoken_duration(now - validity.not_after)} "
            f"ago; here it is {rfc3339(now)}",
            "renew it; if it is fresh, compare the two machines' clocks",
            rule,
            subject_of(cert),
        )
    if now < validity.not_before:
        yield Problem(
            Code.NOT_YET_VALID,
            f"{what} is valid from {rfc3339(validity.not_before)}, in {spoken_duration(validity.not_before - now)}; "
            f"here it is {rfc3339(now)}",
            "compare the two machines' clocks",
            rule,
            subject_of(cert),
        )
