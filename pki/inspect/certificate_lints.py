"""Lints for every certificate, whoever issued it: RFC 5280, and what has amended it."""

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from pki.codes import Code
from pki.der import UTC_TIME
from pki.errors import Problem, printable
from pki.inspect.ber import first, time_of
from pki.inspect.linted import CertificateLint, Lint, LintedCertificate, LintProfile, NotApplied
from pki.inspect.own_signature import check_certificate
from pki.keys import KeyAlgorithm, is_broken, kind_of, weaknesses
from pki.svid.certificate import identifier_objection

_VERSION = 0xA0
_VALIDITY = 3
#: Upper bounds of RFC 5280 appendix A.1, in characters.
_LONGEST = {
    NameOID.COMMON_NAME: 64,
    NameOID.ORGANIZATION_NAME: 64,
    NameOID.ORGANIZATIONAL_UNIT_NAME: 64,
    NameOID.LOCALITY_NAME: 128,
    NameOID.STATE_OR_PROVINCE_NAME: 128,
    NameOID.SERIAL_NUMBER: 64,
    NameOID.TITLE: 64,
    NameOID.EMAIL_ADDRESS: 255,
}
#: Must be critical, or must not (RFC 5280 sections 4.2.1 and 4.2.2), by the section that says so.
_CRITICAL = {
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: (False, "4.2.1.1"),
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: (False, "4.2.1.2"),
    ExtensionOID.SUBJECT_DIRECTORY_ATTRIBUTES: (False, "4.2.1.8"),
    ExtensionOID.NAME_CONSTRAINTS: (True, "4.2.1.10"),
    ExtensionOID.POLICY_CONSTRAINTS: (True, "4.2.1.11"),
    ExtensionOID.INHIBIT_ANY_POLICY: (True, "4.2.1.14"),
    ExtensionOID.FRESHEST_CRL: (False, "4.2.1.15"),
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: (False, "4.2.2.1"),
    ExtensionOID.SUBJECT_INFORMATION_ACCESS: (False, "4.2.2.2"),
}
#: What an extended key usage can be consistent with (RFC 5280 section 4.2.1.12): one of these.
_CONSISTENT = {
    ExtendedKeyUsageOID.SERVER_AUTH: ("digital_signature", "key_encipherment", "key_agreement"),
    ExtendedKeyUsageOID.CLIENT_AUTH: ("digital_signature", "key_agreement"),
    ExtendedKeyUsageOID.CODE_SIGNING: ("digital_signature",),
    ExtendedKeyUsageOID.TIME_STAMPING: ("digital_signature", "content_commitment"),
    ExtendedKeyUsageOID.OCSP_SIGNING: ("digital_signature", "content_commitment"),
}
_EKU_NAMES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
}
_ENCIPHERING = ("key_encipherment", "data_encipherment")
#: What keys cannot do, by their algorithms, and who says so: EC, the EdDSA of two curves, and post-quantum signatures,
#: which have one identifier for keys and what they sign.
_UNFIT = {
    "1.2.840.10045.2.1": (_ENCIPHERING, "RFC 8813 section 3"),
    "1.3.101.112": ((*_ENCIPHERING, "key_agreement"), "RFC 8410 section 5"),
    "1.3.101.113": ((*_ENCIPHERING, "key_agreement"), "RFC 8410 section 5"),
    **{
        oid.dotted_string: ((*_ENCIPHERING, "key_agreement"), "RFC 9881 section 5")
        for row in KeyAlgorithm
        if row.kind.is_post_quantum
        for oid in row.kind.verifiable
    },
}
_RFC_NAMES = {
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
}
_DNS_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", re.ASCII)
_FETCHED = ("http", "https", "ldap", "ldaps", "ftp")


def public_key(c: LintedCertificate) -> Iterator[Problem]:
    """Sizes, exponents and factors."""
    key = c.cert.public_key()
    if kind_of(key) is None:
        name = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
        raise NotApplied(f"keys of kind {name.removesuffix('PublicKey')} are not looked at")
    yield from weaknesses(key)


def signature_algorithm(c: LintedCertificate) -> Iterator[Problem]:
    """No hash that forgeries were made for."""
    if is_broken(c.cert):
        detail = "it is signed with SHA-1 or MD5"
        yield c.broken(detail, "RFC 9155", "issue it anew", Code.WEAK_SIGNATURE)


def issuer_name(c: LintedCertificate) -> Iterator[Problem]:
    """Not empty."""
    if not c.cert.issuer.rdns:
        yield c.broken("it names no issuer", "4.1.2.4", "have it issued by a CA with a name")


def name_lengths(c: LintedCertificate) -> Iterator[Problem]:
    """Attributes of names within their bounds."""
    for what, name in (("issuer", c.cert.issuer), ("subject", c.cert.subject)):
        for attribute in name:
            size, most = len(attribute.value), _LONGEST.get(attribute.oid)
            label = attribute.rfc4514_attribute_name
            if most is not None and size > most:
                detail = f"{label} in its {what} has {size} characters, {most} is the most"
                yield c.broken(detail, "RFC 5280 appendix A.1", "shorten the name")
            elif attribute.oid == NameOID.COUNTRY_NAME and size != 2:
                detail = f"{label} in its {what} has {size} characters, and a country has two"
                yield c.broken(detail, "RFC 5280 appendix A.1", "write the country by ISO 3166")
            elif not size:
                yield c.broken(
                    f"{label} in its {what} is empty", "RFC 5280 appendix A.1", "leave it out"
                )


def validity_encoding(c: LintedCertificate) -> Iterator[Problem]:
    """UTCTime through 2049, GeneralizedTime from then on."""
    fields = [f for f in first(c.cert.tbs_certificate_bytes).children if f.tag != _VERSION]
    for what, node in zip(("notBefore", "notAfter"), fields[_VALIDITY].children, strict=False):
        moment, _ = time_of(node)
        if (moment.year < 2050) is not (node.tag == UTC_TIME):
            kind = "UTCTime" if moment.year < 2050 else "GeneralizedTime"
            yield c.broken(f"{what} is in {moment.year} and no {kind}", "4.1.2.5", "encode it so")


def extension_criticality(c: LintedCertificate) -> Iterator[Problem]:
    """Those that must be critical, and those that must not."""
    for oid, is_critical in c.critical.items():
        must, section = _CRITICAL.get(oid, (is_critical, ""))
        if must is not is_critical:
            detail = f"its {oid._name} is{'' if is_critical else ' not'} critical, and must{'' if must else ' not'} be"
            yield c.broken(detail, section, "have it issued anew, with that changed")


def alternative_name(c: LintedCertificate) -> Iterator[Problem]:
    """There, and critical, where there is no subject; and not empty."""
    names = c.get(x509.SubjectAlternativeName)
    is_nameless = not c.cert.subject.rdns
    if is_nameless and names is None:
        detail = "it has neither a subject nor alternative names"
        yield c.broken(detail, "4.1.2.6", "have it issued with a name")
    if names is not None and not list(names):
        yield c.broken("its alternative names are empty", "4.2.1.6", "leave the extension out")
    if is_nameless and names is not None and not c.critical[names.oid]:
        detail = "without a subject its alternative names would have to be critical"
        yield c.broken(detail, "4.2.1.6", "have it issued anew, with them critical")


def alternative_name_forms(c: LintedCertificate) -> Iterator[Problem]:
    """DNS names in preferred syntax, URIs with a scheme, mailboxes with a host."""
    names = c.get(x509.SubjectAlternativeName), c.get(x509.IssuerAlternativeName)
    for found in names:
        for name in found or ():
            if detail := _odd(name):
                yield c.broken(detail, "4.2.1.6", "have it issued anew, with the name as it is")


def _odd(name: x509.GeneralName) -> str:
    text = printable(str(name.value), 120)
    if isinstance(name, x509.DNSName):
        value = name.value.removeprefix("*.")
        if len(value) > 253 or not all(map(_DNS_LABEL.fullmatch, value.split("."))):
            return f"the DNS name {text!r} is not in the syntax of host names"
    if isinstance(name, x509.UniformResourceIdentifier):
        try:
            split = urlsplit(name.value)
            is_absolute = bool(split.scheme and (split.netloc or split.path))
        except ValueError:
            is_absolute = False
        if not is_absolute or not name.value.isascii():
            return f"the URI {text!r} is not absolute"
    if isinstance(name, x509.RFC822Name) and not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", name.value):
        return f"the mail address {text!r} is no mailbox"
    return ""


def basic_constraints(c: LintedCertificate) -> Iterator[Problem]:
    """A path length needs a CA that signs certificates."""
    constraints, usage = c.get(x509.BasicConstraints), c.get(x509.KeyUsage)
    if constraints is None or constraints.path_length is None:
        return
    if not constraints.ca or (usage is not None and not usage.key_cert_sign):
        yield c.broken("it has a path length, and signs no certificates", "4.2.1.9")


def key_usage(c: LintedCertificate) -> Iterator[Problem]:
    """keyCertSign is for CAs."""
    usage = c.get(x509.KeyUsage)
    if usage is not None and usage.key_cert_sign and not c.is_ca:
        yield c.broken("it has keyCertSign and is no CA", "4.2.1.9")


def key_usage_of_key(c: LintedCertificate) -> Iterator[Problem]:
    """Only what such a key can do."""
    usage = c.get(x509.KeyUsage)
    if usage is None:
        return
    unfit, rule = _UNFIT.get(c.cert.public_key_algorithm_oid.dotted_string, ((), ""))
    for name in unfit:
        if getattr(usage, name):
            detail = f"its key usage has {_RFC_NAMES[name]}, which such a key cannot do"
            yield c.broken(detail, rule)


def extended_key_usage(c: LintedCertificate) -> Iterator[Problem]:
    """Consistent with the key usage."""
    usage = c.get(x509.KeyUsage)
    if usage is None or c.is_ca:
        return
    for oid in c.get(x509.ExtendedKeyUsage) or ():
        fitting = _CONSISTENT.get(oid)
        if fitting and not any(getattr(usage, name) for name in fitting):
            detail = f"its key usage allows nothing that {_EKU_NAMES[oid]} needs"
            yield c.broken(detail, "4.2.1.12", "have it issued anew, with usages that fit")


def key_identifiers(c: LintedCertificate) -> Iterator[Problem]:
    """The issuer's key is named, and a CA's own."""
    told = c.get(x509.AuthorityKeyIdentifier)
    if not c.is_self_issued and (told is None or told.key_identifier is None):
        detail = "it does not identify its issuer's key"
        yield c.broken(detail, "4.2.1.1", "have it issued by a CA that keeps to RFC 5280")
    own = c.get(x509.SubjectKeyIdentifier)
    if c.is_ca and (own is None or not own.digest):
        detail = "a CA has a subject key identifier, and it has none"
        yield c.broken(detail, "4.2.1.2", "have it issued by a CA that keeps to RFC 5280")


def places(c: LintedCertificate) -> Iterator[Problem]:
    """CRL distribution points and access locations that somebody can fetch."""
    points = c.get(x509.CRLDistributionPoints) or ()
    for point in points:
        if point.full_name is None and point.relative_name is None and not point.crl_issuer:
            detail = "a CRL distribution point says neither where nor whose the CRL is"
            yield c.broken(detail, "4.2.1.13")
    named = [("4.2.1.13", name) for point in points for name in point.full_name or ()]
    access = c.get(x509.AuthorityInformationAccess) or ()
    named += [("4.2.2.1", told.access_location) for told in access]
    for section, name in named:
        if isinstance(name, x509.UniformResourceIdentifier):
            scheme, _, rest = name.value.partition("://")
            if scheme.lower() not in _FETCHED or not rest:
                detail = f"{printable(name.value, 120)!r} is no URL of a CRL, a responder or a CA"
                yield c.broken(detail, section, "have it issued anew, with an http URL")


def ca_extensions(c: LintedCertificate) -> Iterator[Problem]:
    """What only CAs have, and policies once each."""
    if not c.is_ca:
        for kind, what, section in (
            (x509.NameConstraints, "name constraints", "4.2.1.10"),
            (x509.PolicyConstraints, "policy constraints", "4.2.1.11"),
        ):
            if c.get(kind) is not None:
                yield c.broken(f"it has {what} and is no CA", section)
    policies = Counter(told.policy_identifier for told in c.get(x509.CertificatePolicies) or ())
    for policy, times in policies.items():
        if times > 1:
            yield c.broken(f"the policy {policy.dotted_string} appears more than once", "4.2.1.4")


def issuer_signature(c: LintedCertificate) -> Iterator[Problem]:
    """Made by the issuer's key."""
    checked = check_certificate(c.cert, c.known_issuer)
    if checked.holds is None:
        raise NotApplied(checked.why)
    if not checked.holds:
        detail = "its signature is not of its issuer's key: it was damaged, or is forged"
        remedy = "fetch or issue the certificate anew"
        yield c.broken(detail, "6.1.3 (a) (1)", remedy, Code.BAD_SIGNATURE)


def issuer_identifier(c: LintedCertificate) -> Iterator[Problem]:
    """The authority key identifier is the issuer's."""
    if objection := identifier_objection(c.cert, c.known_issuer):
        detail = f"its authority key identifier names {objection}"
        remedy = "have it issued anew, with the identifier of its issuer's certificate"
        yield c.broken(detail, "4.2.1.1", remedy, Code.ISSUER_MISMATCH)


def issuer_may_sign(c: LintedCertificate) -> Iterator[Problem]:
    """The issuer is a CA with room for it."""
    issuer = c.known_issuer
    if issuer is c.cert and not c.is_ca:
        return  # trusted as it is, or by nobody
    other = LintedCertificate(issuer, None, is_self_issued=False)
    constraints, usage = other.get(x509.BasicConstraints), other.get(x509.KeyUsage)
    if not (constraints and constraints.ca):
        detail = f"its issuer {other.subject} is no CA"
        yield c.broken(detail, "6.1.4 (k)", "have it issued by a CA", Code.NOT_A_CA)
    elif usage is not None and not usage.key_cert_sign:
        detail = f"its issuer {other.subject} may not sign certificates"
        yield c.broken(detail, "6.1.4 (n)", "have it issued by a CA", Code.NOT_A_CA)
    elif c.is_ca and not c.is_self_issued and constraints.path_length == 0:
        detail = f"its issuer {other.subject} may have no CA below it"
        remedy = "have it issued by a CA nearer to the root"
        yield c.broken(detail, "4.2.1.9", remedy, Code.PATH_TOO_LONG)


def _rfc5280(name: str, look: object, section: str) -> CertificateLint:
    rule = f"RFC 5280 {section}" if section[:1].isalpha() else f"RFC 5280 section {section}"
    return Lint(name, LintProfile.ANY, rule, look)  # type: ignore[arg-type]


CERTIFICATE_LINTS: tuple[CertificateLint, ...] = (
    Lint("public-key", LintProfile.ANY, "CA/Browser Forum BR section 6.1.6", public_key),
    Lint("signature-algorithm", LintProfile.ANY, "RFC 9155, RFC 6151", signature_algorithm),
    _rfc5280("issuer-name", issuer_name, "4.1.2.4"),
    _rfc5280("name-lengths", name_lengths, "appendix A.1"),
    _rfc5280("validity-encoding", validity_encoding, "4.1.2.5"),
    _rfc5280("extension-criticality", extension_criticality, "4.2"),
    _rfc5280("alternative-name", alternative_name, "4.2.1.6"),
    _rfc5280("alternative-name-forms", alternative_name_forms, "4.2.1.6"),
    _rfc5280("basic-constraints", basic_constraints, "4.2.1.9"),
    _rfc5280("key-usage", key_usage, "4.2.1.9"),
    Lint(
        "key-usage-of-key",
        LintProfile.ANY,
        "RFC 8813 section 3, RFC 8410 section 5",
        key_usage_of_key,
    ),
    _rfc5280("extended-key-usage", extended_key_usage, "4.2.1.12"),
    _rfc5280("key-identifiers", key_identifiers, "4.2.1.1"),
    _rfc5280("places", places, "4.2.1.13"),
    _rfc5280("ca-extensions", ca_extensions, "4.2.1.10"),
    _rfc5280("issuer-signature", issuer_signature, "6.1.3"),
    _rfc5280("issuer-identifier", issuer_identifier, "4.2.1.1"),
    _rfc5280("issuer-may-sign", issuer_may_sign, "6.1.4"),
)
