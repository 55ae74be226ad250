"""Extensions of certificates and CSRs, decoded for people one by one: a bad one hides none of the others.

Names of fields are RFC 5280's. Every text is printable: names come from strangers.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from attrs import evolve, frozen
from cryptography import x509
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    CertificatePoliciesOID,
    ExtendedKeyUsageOID,
)

from pki.der import SEQUENCE, Element, element, elements, oid_text
from pki.errors import HOSTILE_INPUT, Malformed, printable
from pki.serial import serial_pairs
from pki.validity import rfc3339

#: Long enough for the longest SPIFFE ID.
_LONGEST = 4096

_NAMES = {
    "2.5.29.9": "subjectDirectoryAttributes",
    "2.5.29.14": "subjectKeyIdentifier",
    "2.5.29.15": "keyUsage",
    "2.5.29.16": "privateKeyUsagePeriod",
    "2.5.29.17": "subjectAltName",
    "2.5.29.18": "issuerAltName",
    "2.5.29.19": "basicConstraints",
    "2.5.29.30": "nameConstraints",
    "2.5.29.31": "cRLDistributionPoints",
    "2.5.29.32": "certificatePolicies",
    "2.5.29.33": "policyMappings",
    "2.5.29.35": "authorityKeyIdentifier",
    "2.5.29.36": "policyConstraints",
    "2.5.29.37": "extKeyUsage",
    "2.5.29.46": "freshestCRL",
    "2.5.29.54": "inhibitAnyPolicy",
    "1.3.6.1.5.5.7.1.1": "authorityInfoAccess",
    "1.3.6.1.5.5.7.1.11": "subjectInfoAccess",
    "1.3.6.1.5.5.7.1.24": "tlsFeature",
    "1.3.6.1.5.5.7.48.1.5": "ocspNoCheck",
    "1.3.6.1.4.1.11129.2.4.2": "signedCertificateTimestamps",
    "1.3.6.1.4.1.11129.2.4.3": "precertificatePoison",
    "1.3.6.1.4.1.311.21.7": "certificateTemplate",
}
_USAGES = {
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
    ExtendedKeyUsageOID.SMARTCARD_LOGON: "smartcardLogon",
    ExtendedKeyUsageOID.KERBEROS_PKINIT_KDC: "pkinitKDC",
    ExtendedKeyUsageOID.IPSEC_IKE: "ipsecIKE",
    ExtendedKeyUsageOID.BUNDLE_SECURITY: "bundleSecurity",
    ExtendedKeyUsageOID.CERTIFICATE_TRANSPARENCY: "certificateTransparency",
}
_POLICIES = {
    CertificatePoliciesOID.ANY_POLICY.dotted_string: "anyPolicy",
    "2.23.140.1.1": "extended validation",
    "2.23.140.1.2.1": "domain validated",
    "2.23.140.1.2.2": "organization validated",
    "2.23.140.1.2.3": "individual validated",
}
_ACCESS = {
    AuthorityInformationAccessOID.OCSP: "OCSP",
    AuthorityInformationAccessOID.CA_ISSUERS: "caIssuers",
}
_KEY_USAGES = {
    "digital_signature": "digitalSignature",
    "content_commitment": "contentCommitment",
    "key_encipherment": "keyEncipherment",
    "data_encipherment": "dataEncipherment",
    "key_agreement": "keyAgreement",
    "key_cert_sign": "keyCertSign",
    "crl_sign": "cRLSign",
}


@frozen
class Extension:
    """One extension as people read it."""

    oid: str
    name: str
    """RFC 5280's name, or the OID where there is none here."""
    critical: bool
    values: tuple[str, ...]
    """One fact each, decoded; empty for a kind that is not known here, and for a damaged one."""
    value: bytes
    """The DER inside, as it came."""
    damaged: bool = False
    """It is of a known kind and cannot be decoded."""


def hex_pairs(data: bytes) -> str:
    """``AB:01:FF``, for people."""
    return data.hex(":").upper()


def name_text(name: x509.Name) -> str:
    """A distinguished name as RFC 4514 writes it; empty for the empty name."""
    return printable(name.rfc4514_string(), _LONGEST)


def general_name_text(name: x509.GeneralName) -> str:
    """A name with its kind before it: ``DNS:localhost``, ``URI:spiffe://…``."""
    match name:
        case x509.DNSName():
            return printable(f"DNS:{name.value}", _LONGEST)
        case x509.UniformResourceIdentifier():
            return printable(f"URI:{name.value}", _LONGEST)
        case x509.RFC822Name():
            return printable(f"email:{name.value}", _LONGEST)
        case x509.IPAddress():
            return f"IP:{name.value}"
        case x509.DirectoryName():
            return f"dirName:{name_text(name.value)}"
        case x509.RegisteredID():
            return f"RID:{name.value.dotted_string}"
        case x509.OtherName():
            return f"otherName:{name.type_id.dotted_string} {hex_pairs(name.value[:64])}"
    return printable(f"other:{name.value!r}", _LONGEST)


def read_extensions(der: bytes) -> tuple[Extension, ...]:
    """From the elements inside an ``Extensions`` SEQUENCE (RFC 5280 section 4.1). Raises :class:`Malformed`."""
    return tuple(_read(part) for part in elements(der))


def damaged_extension(oid: str, value: bytes) -> Extension:
    """What stands for an extension that cannot be decoded: its bytes."""
    return Extension(oid, _NAMES.get(oid, oid), False, (), value, damaged=True)


def _read(whole: Element) -> Extension:
    try:
        parts = [part.content for part in elements(whole.content)]
        (found,) = _carrier(whole.whole).extensions
        kind, oid = found.value, found.oid.dotted_string
        values = () if isinstance(kind, x509.UnrecognizedExtension) else tuple(_facts(kind))
        return Extension(oid, _NAMES.get(oid, oid), found.critical, values, parts[-1])
    except Malformed:
        return _damaged(whole)
    except HOSTILE_INPUT:
        return _damaged(whole)


def _damaged(whole: Element) -> Extension:
    try:
        oid, *critical, value = (part.content for part in elements(whole.content))
    except (Malformed, ValueError):
        return damaged_extension("unknown", whole.whole)
    found = damaged_extension(oid_text(oid), value)
    return evolve(found, critical=bool(critical) and critical[0] != b"\0")


# A certificate that is nothing but the carrier of one extension: cryptography decodes all extensions
# of a certificate or none, and this is its one public way to decode them. Its signature is never checked.
_ALGORITHM = element(SEQUENCE, bytes.fromhex("06032b6570"))
_MOMENT = element(0x17, b"700101000000Z")
_BEFORE_EXTENSIONS = b"".join(
    (
        bytes.fromhex("a003020102020101"),  # version 3, serial number 1
        _ALGORITHM,
        element(SEQUENCE, b""),
        element(SEQUENCE, _MOMENT + _MOMENT),
        element(SEQUENCE, b""),
        element(SEQUENCE, _ALGORITHM + element(0x03, bytes(33))),
    )
)


def _carrier(extension: bytes) -> x509.Certificate:
    extensions = element(0xA3, element(SEQUENCE, extension))
    tbs = element(SEQUENCE, _BEFORE_EXTENSIONS + extensions)
    return x509.load_der_x509_certificate(
        element(SEQUENCE, tbs + _ALGORITHM + element(0x03, bytes(65)))
    )


def _facts(value: x509.ExtensionType) -> Iterable[str]:
    for kind, facts in _DECODERS.items():
        if isinstance(value, kind):
            return facts(value)
    return (printable(repr(value), _LONGEST),)


def _moment(naive: datetime) -> str:
    return rfc3339(naive.replace(tzinfo=UTC))


def _basic_constraints(value: x509.BasicConstraints) -> Iterator[str]:
    yield f"CA: {'yes' if value.ca else 'no'}"
    if value.path_length is not None:
        yield f"path length: {value.path_length}"


def _key_usage(value: x509.KeyUsage) -> Iterator[str]:
    for attribute, name in _KEY_USAGES.items():
        if getattr(value, attribute):
            yield name
    if value.key_agreement:
        if value.encipher_only:
            yield "encipherOnly"
        if value.decipher_only:
            yield "decipherOnly"


def _extended_key_usage(value: x509.ExtendedKeyUsage) -> Iterator[str]:
    return (_USAGES.get(oid, oid.dotted_string) for oid in value)


def _general_names(names: Iterable[x509.GeneralName]) -> Iterator[str]:
    return map(general_name_text, names)


def _authority_key_identifier(value: x509.AuthorityKeyIdentifier) -> Iterator[str]:
    if value.key_identifier is not None:
        yield hex_pairs(value.key_identifier)
    for name in value.authority_cert_issuer or ():
        yield f"issuer: {general_name_text(name)}"
    if value.authority_cert_serial_number is not None:
        yield f"serial: {serial_pairs(value.authority_cert_serial_number)}"


def _name_constraints(value: x509.NameConstraints) -> Iterator[str]:
    for name in value.permitted_subtrees or ():
        yield f"permitted {general_name_text(name)}"
    for name in value.excluded_subtrees or ():
        yield f"excluded {general_name_text(name)}"


def _policies(value: x509.CertificatePolicies) -> Iterator[str]:
    for policy in value:
        oid = policy.policy_identifier.dotted_string
        yield f"{oid} ({_POLICIES[oid]})" if oid in _POLICIES else oid
        for qualifier in policy.policy_qualifiers or ():
            if isinstance(qualifier, str):
                yield printable(f"{oid} CPS: {qualifier}", _LONGEST)
                continue
            if qualifier.explicit_text:
                yield printable(f"{oid} notice: {qualifier.explicit_text}", _LONGEST)
            if reference := qualifier.notice_reference:
                numbers = ", ".join(map(str, reference.notice_numbers))
                yield printable(f"{oid} notice of {reference.organization}: {numbers}", _LONGEST)


def _distribution_points(value: Iterable[x509.DistributionPoint]) -> Iterator[str]:
    for point in value:
        for name in point.full_name or ():
            yield general_name_text(name)
        if point.relative_name is not None:
            yield f"relative name: {printable(point.relative_name.rfc4514_string(), _LONGEST)}"
        for name in point.crl_issuer or ():
            yield f"CRL issuer: {general_name_text(name)}"
        if point.reasons:
            yield f"reasons: {', '.join(sorted(reason.value for reason in point.reasons))}"


def _access(value: Iterable[x509.AccessDescription]) -> Iterator[str]:
    for access in value:
        method = _ACCESS.get(access.access_method, access.access_method.dotted_string)
        yield f"{method} {general_name_text(access.access_location)}"


def _timestamps(value: x509.PrecertificateSignedCertificateTimestamps) -> Iterator[str]:
    for sct in value:
        yield f"{_moment(sct.timestamp)} by log {hex_pairs(sct.log_id)}"


def _policy_constraints(value: x509.PolicyConstraints) -> Iterator[str]:
    if value.require_explicit_policy is not None:
        yield f"explicit policy required after {value.require_explicit_policy} certificates"
    if value.inhibit_policy_mapping is not None:
        yield f"policy mapping inhibited after {value.inhibit_policy_mapping} certificates"


def _usage_period(value: x509.PrivateKeyUsagePeriod) -> Iterator[str]:
    if value.not_before is not None:
        yield f"not before {_moment(value.not_before)}"
    if value.not_after is not None:
        yield f"not after {_moment(value.not_after)}"


def _template(value: x509.MSCertificateTemplate) -> Iterator[str]:
    yield f"{value.template_id.dotted_string} version {value.major_version}.{value.minor_version}"


_DECODERS: dict[type[x509.ExtensionType], Callable[[Any], Iterable[str]]] = {
    x509.BasicConstraints: _basic_constraints,
    x509.KeyUsage: _key_usage,
    x509.ExtendedKeyUsage: _extended_key_usage,
    x509.SubjectAlternativeName: _general_names,
    x509.IssuerAlternativeName: _general_names,
    x509.SubjectKeyIdentifier: lambda value: (hex_pairs(value.digest),),
    x509.AuthorityKeyIdentifier: _authority_key_identifier,
    x509.NameConstraints: _name_constraints,
    x509.CertificatePolicies: _policies,
    x509.PolicyConstraints: _policy_constraints,
    x509.InhibitAnyPolicy: lambda value: (f"after {value.skip_certs} certificates",),
    x509.CRLDistributionPoints: _distribution_points,
    x509.FreshestCRL: _distribution_points,
    x509.AuthorityInformationAccess: _access,
    x509.SubjectInformationAccess: _access,
    x509.PrecertificateSignedCertificateTimestamps: _timestamps,
    x509.PrecertPoison: lambda _: ("this is a precertificate: no TLS program may accept it",),
    x509.TLSFeature: lambda value: (feature.name for feature in value),
    x509.OCSPNoCheck: lambda _: ("the revocation of this OCSP responder is not checked",),
    x509.PrivateKeyUsagePeriod: _usage_period,
    x509.MSCertificateTemplate: _template,
}
