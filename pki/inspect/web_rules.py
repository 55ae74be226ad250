"""What certificates are held to by the rules of the web (RFC 5280, CA/Browser Forum BR), one by one.

The library that builds the path knows most of the rules. These are the others, and those whose reason it keeps to
itself.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from pki.codes import Code
from pki.errors import HOSTILE_INPUT, Malformed, Problem
from pki.inspect import certificate_lints, profile_lints
from pki.inspect.linted import LintedCertificate, NotApplied
from pki.keys import kind_of, weaknesses
from pki.svid.certificate import is_self_issued, issuer_problems
from pki.svid.x509svid import extension, spiffe_id_of

_BR = "CA/Browser Forum BR section"
_SUBJECT_NAMES = ExtensionOID.SUBJECT_ALTERNATIVE_NAME
_EXTENDED = ExtensionOID.EXTENDED_KEY_USAGE
_ANY_EKU = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
#: Host names, and addresses in any notation that somebody may take for one.
_HOST_LIKE = re.compile(r"[^\s/@]*[.:][^\s/@]*|0x[0-9a-f]+", re.IGNORECASE)
_LEAST_RSA_BITS = 2048
_LEAST_CURVE_BITS = 256

_UNDECODABLE: tuple[type[BaseException], ...] = (*HOSTILE_INPUT, Malformed)

_Look = Callable[[LintedCertificate], Iterable[Problem]]


class WebPurpose(StrEnum):
    """What a certificate is judged for."""

    SERVER = "server"
    CLIENT = "client"
    CA = "ca"
    """To issue certificates."""
    ANY = "any"
    """Whatever it is for: its path alone is judged (RFC 5280 section 6.1)."""

    @property
    def is_end_of_tls(self) -> bool:
        """Whether it is presented by one end of a connection."""
        return self in (WebPurpose.SERVER, WebPurpose.CLIENT)


_USAGES = {
    WebPurpose.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    WebPurpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


def rule_problems(
    cert: x509.Certificate, purpose: WebPurpose, *, is_leaf: bool, is_root: bool
) -> list[Problem]:
    """Every rule that the certificate itself breaks: dates aside, and who has issued it. Never raises.

    ``is_root``: it is trusted as it is.
    """
    c = _unlinked(cert)
    found: list[Problem] = []
    try:
        for look in _looks(c, purpose, is_leaf=is_leaf, is_root=is_root):
            try:
                found += look(c)
            except NotApplied:
                continue
    except _UNDECODABLE:
        detail = "its names, its key or its extensions cannot be decoded"
        found.append(c.broken(detail, "4.1", "have it issued anew", Code.MALFORMED))
    return list(dict.fromkeys(found))


def above_problems(cert: x509.Certificate, cas_below: int, purpose: WebPurpose) -> list[Problem]:
    """Why it may not have issued what stands below it, ``cas_below`` of them CAs. Never raises."""
    found = [
        evolve(problem, remedy="have it issued by another CA")
        for problem in issuer_problems(cert, cas_below)
        # What cannot be decoded is told by itself; and a CA of the web need not be for both ends of TLS.
        if problem.code not in (Code.WRONG_USAGE, Code.MALFORMED)
    ]
    if rules_out(cert, purpose):
        detail = f"its extended key usage rules out a {purpose} below it"
        found.append(_wrong_usage(_unlinked(cert), detail, "4.2.1.12"))
    return found


def rules_out(cert: x509.Certificate, purpose: WebPurpose) -> bool:
    """Whether a CA's extended key usage is not for that purpose, as far as it can be decoded. Never raises."""
    wanted = _USAGES.get(purpose)
    try:
        extended = extension(cert, x509.ExtendedKeyUsage)
    except HOSTILE_INPUT:
        return False
    return wanted is not None and extended is not None and not {wanted, _ANY_EKU} & set(extended)


def _unlinked(cert: x509.Certificate) -> LintedCertificate:
    return LintedCertificate(cert, None, is_self_issued=is_self_issued(cert))


def _looks(
    c: LintedCertificate, purpose: WebPurpose, *, is_leaf: bool, is_root: bool
) -> Iterator[_Look]:
    # What an end of TLS presents is held to the rules for that, also where it is trusted by itself.
    is_root = is_root and not (is_leaf and purpose.is_end_of_tls)
    yield _root_key if is_root else _key
    yield _root_identifier if is_root else certificate_lints.key_identifiers
    # Name constraints of either kind are heeded; the web allows that they are not critical.
    yield _criticality if purpose.is_end_of_tls else certificate_lints.extension_criticality
    if not is_root:
        yield _serial
        yield certificate_lints.alternative_name
    elif c.is_self_issued and purpose.is_end_of_tls:
        yield _root
    if not is_leaf:
        if purpose.is_end_of_tls:
            yield profile_lints.web_key
        return
    if purpose is WebPurpose.CA:
        yield _ca
    elif purpose is WebPurpose.CLIENT:
        yield _no_ca
        yield _client
    elif purpose is WebPurpose.SERVER:
        yield _no_ca
        yield _server
        if spiffe_id_of(c.cert) is None:
            yield _browsed


def _criticality(c: LintedCertificate) -> Iterator[Problem]:
    constraints = c.get(x509.NameConstraints)
    if constraints is None or c.critical[constraints.oid]:
        yield from certificate_lints.extension_criticality(c)


def _root_identifier(c: LintedCertificate) -> Iterator[Problem]:
    """Who has signed a root is nobody's business (RFC 5280 section 6.1.1 (d)); what it issues names its key."""
    own = c.get(x509.SubjectKeyIdentifier)
    if own is None or not own.digest:
        detail = "a CA has a subject key identifier, and it has none"
        yield c.broken(detail, "4.2.1.2", "trust another root")


def _key(c: LintedCertificate) -> Iterator[Problem]:
    key = c.cert.public_key()
    if kind_of(key) is not None:
        yield from weaknesses(key)
    elif not (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= _LEAST_CURVE_BITS):
        name = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        yield _weak(c, f"a key of kind {name.removesuffix('PublicKey')} is not good enough")


def _root_key(c: LintedCertificate) -> Iterator[Problem]:
    """A root is trusted with the exponent that it has: some of the web's have three."""
    key = c.cert.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        yield from _key(c)
    elif key.key_size < _LEAST_RSA_BITS or key.key_size % 8:
        yield _weak(
            c,
            f"an RSA modulus has at least {_LEAST_RSA_BITS} bits in whole bytes, this one {key.key_size}",
        )


def _weak(c: LintedCertificate, detail: str) -> Problem:
    return c.broken(
        detail, f"{_BR} 6.1.5", "have it issued for a new key, of P-256 for one", Code.WEAK_KEY
    )


def _serial(c: LintedCertificate) -> Iterator[Problem]:
    """Roots that are older than the rule have the serial number 0."""
    if c.cert.serial_number <= 0:
        yield c.broken(
            "a serial number is positive, and its is not", "4.1.2.2", "have it issued anew"
        )


def _root(c: LintedCertificate) -> Iterator[Problem]:
    """A root identifies itself by its key alone, and is for no purpose of its own."""
    remedy = "trust another root"
    told, own = c.get(x509.AuthorityKeyIdentifier), c.get(x509.SubjectKeyIdentifier)
    if told is not None and (
        told.authority_cert_issuer is not None or told.authority_cert_serial_number is not None
    ):
        detail = "as a root it identifies its issuer by more than the key"
        yield c.broken(detail, f"{_BR} 7.1.2.1.3", remedy)
    elif told is not None and own is not None and told.key_identifier != own.digest:
        detail = "as a root it identifies another key than its own as its issuer's"
        yield c.broken(detail, f"{_BR} 7.1.2.1.3", remedy, Code.ISSUER_MISMATCH)
    if c.get(x509.ExtendedKeyUsage) is not None:
        yield c.broken("as a root it has an extended key usage", f"{_BR} 7.1.2.1.2", remedy)


def _ca(c: LintedCertificate) -> Iterator[Problem]:
    remedy = "name a CA's certificate, or another --purpose"
    usage = c.get(x509.KeyUsage)
    if not c.is_ca:
        yield c.broken("it is no CA", "4.2.1.9", remedy, Code.NOT_A_CA)
    elif usage is None or not usage.key_cert_sign:
        detail = "its key usage does not allow it to sign certificates"
        yield c.broken(detail, "4.2.1.3", remedy, Code.NOT_A_CA)
    elif not c.critical[ExtensionOID.BASIC_CONSTRAINTS]:
        yield c.broken("its basic constraints are not critical", "4.2.1.9", "have it issued anew")


def _no_ca(c: LintedCertificate) -> Iterator[Problem]:
    usage = c.get(x509.KeyUsage)
    if c.is_ca or (usage is not None and usage.key_cert_sign):
        detail = "it is a CA's: no end of a connection presents that"
        yield c.broken(detail, f"{_BR} 7.1.2.7.8", "take --purpose ca for it", Code.WRONG_USAGE)


def _client(c: LintedCertificate) -> Iterator[Problem]:
    extended = c.get(x509.ExtendedKeyUsage)
    if extended is not None and not {ExtendedKeyUsageOID.CLIENT_AUTH, _ANY_EKU} & set(extended):
        yield _wrong_usage(c, "extended key usage does not allow clientAuth", "4.2.1.12")
    yield from _signs(c)


def _server(c: LintedCertificate) -> Iterator[Problem]:
    extended = set(c.get(x509.ExtendedKeyUsage) or ())
    if ExtendedKeyUsageOID.SERVER_AUTH not in extended:
        yield _wrong_usage(c, "extended key usage does not allow serverAuth", f"{_BR} 7.1.2.7.10")
    if _ANY_EKU in extended:
        yield _wrong_usage(c, "it is for any extended key usage", f"{_BR} 7.1.2.7.10")
    yield from _signs(c)


def _signs(c: LintedCertificate) -> Iterator[Problem]:
    usage = c.get(x509.KeyUsage)
    if usage is not None and not (
        usage.digital_signature or usage.key_agreement or usage.key_encipherment
    ):
        yield _wrong_usage(c, "key usage allows nothing that TLS needs", "4.2.1.3")


def _wrong_usage(c: LintedCertificate, detail: str, section: str) -> Problem:
    return c.broken(detail, section, "have it issued for that usage", Code.WRONG_USAGE)


def _browsed(c: LintedCertificate) -> Iterator[Problem]:
    """What the web wants of a server that is no workload: an SVID's common name, for one, is no host's."""
    yield from profile_lints.web_key(c)
    # One for people is no matter for whoever connects; one that reads as a host's misleads who looks at it alone.
    common = c.cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if any(_HOST_LIKE.fullmatch(str(name.value)) for name in common):
        yield from profile_lints.web_common_name(c)
    critical = c.critical
    if critical.get(_EXTENDED):
        yield c.broken(
            "its extended key usage is critical", f"{_BR} 7.1.2.7.6", "have it issued anew"
        )
    if critical.get(_SUBJECT_NAMES) and c.cert.subject.rdns:
        detail = "its alternative names are critical although it has a subject"
        yield c.broken(detail, f"{_BR} 7.1.2.7.12", "have it issued anew")
    for name in c.get(x509.SubjectAlternativeName) or ():
        if (
            isinstance(name, x509.DNSName)
            and name.value.count(".") == 1
            and name.value.startswith("*.")
        ):
            detail = f"{name.value} would be every name of a top-level domain"
            yield c.broken(detail, f"{_BR} 3.2.2.6", "have it issued for names of your own")
