"""What a certificate, CSR, CRL or OCSP response says, as data for people, whether or not it makes sense.

Nothing here is a verdict, nothing is printed, and every text is printable.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import (
    AttributeOID,
    ExtensionOID,
    PublicKeyAlgorithmOID,
    SignatureAlgorithmOID,
)

from pki.der import SEQUENCE, Block, blocks, element, elements, oid_text
from pki.errors import HOSTILE_INPUT, Malformed
from pki.inspect.crl_ocsp_facts import Facts, answer_facts, crl_facts
from pki.inspect.extensions import Extension, damaged_extension, name_text, read_extensions
from pki.keys import KeyAlgorithm
from pki.pem import ANSWER, CERTIFICATE, CRL, PRIVATE_KEY, REQUEST
from pki.svid.x509svid import spiffe_id_of, validity_of
from pki.validity import Validity

_T = TypeVar("_T")
_Carrier = x509.Certificate | x509.CertificateSigningRequest

_EXTENSION_REQUEST = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
_ATTRIBUTES = {
    AttributeOID.CHALLENGE_PASSWORD: "challengePassword (not shown)",
    AttributeOID.UNSTRUCTURED_NAME: "unstructuredName",
}
_BASIC_CONSTRAINTS = ExtensionOID.BASIC_CONSTRAINTS.dotted_string
_SUBJECT_ALT_NAME = ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string
_EXTENSIONS_TAG = 0xA3
_WORDS = {
    REQUEST: "CSR",
    CERTIFICATE: "certificate",
    CRL: "CRL",
    ANSWER: "OCSP response",
    "PKCS12": "PKCS #12 archive",
}
_UNREADABLE = "(cannot be decoded)"


def _names(oids: type) -> dict[str, str]:
    """What cryptography calls OIDs, as people write it: ``ECDSA with SHA-256``."""
    return {
        oid.dotted_string: re.sub(
            r"SHA(?=\d{3}|1$)", "SHA-", name.replace("_WITH_", " with ").replace("_", "-")
        )
        for name, oid in vars(oids).items()
        if isinstance(oid, x509.ObjectIdentifier) and not name.startswith("_")
    }


_SIGNATURES = _names(SignatureAlgorithmOID)
_KEY_NAMES = _names(PublicKeyAlgorithmOID) | {
    PublicKeyAlgorithmOID.EC_PUBLIC_KEY.dotted_string: "EC",
    PublicKeyAlgorithmOID.RSAES_PKCS1_v1_5.dotted_string: "RSA",
}


@frozen
class PublicKeyFacts:
    """A public key as it stands in a certificate or CSR."""

    algorithm: str
    """As its OID is called: ``EC``, ``RSA``, ``DSA``; the OID of a kind that is not known here."""
    label: str
    """For people: ``ECDSA P-256``, ``RSA-4096``."""
    bits: int | None
    curve: str
    exponent: int | None
    spki_sha256: str
    """Over the SubjectPublicKeyInfo as it came, in hex: what keys are pinned by."""


@frozen
class Description:
    """One certificate, CSR or other thing. What does not apply is None or empty."""

    what: str
    """``root CA``, ``issuing CA``, ``X.509-SVID``, ``certificate`` or ``CSR``; for what is not shown, its name."""
    subject: str = ""
    issuer: str | None = None
    version: int | None = None
    serial: int | None = None
    signature_algorithm: str = ""
    signed_by_itself: bool | None = None
    """Of a CSR: whether its proof of possession holds. Of a self-issued certificate: whether its own key signed it."""
    validity: Validity | None = None
    time_left: timedelta | None = None
    """Until it ends; negative once it has."""
    until_valid: timedelta | None = None
    """Until it begins, where that is still to come."""
    public_key: PublicKeyFacts | None = None
    is_ca: bool = False
    is_self_issued: bool = False
    spiffe_ids: tuple[str, ...] = ()
    extensions: tuple[Extension, ...] = ()
    """Of a CSR: those that it asks for."""
    attributes: tuple[str, ...] = ()
    """Of a CSR: everything else that it carries, by name or OID."""
    sha256: str = ""
    sha1: str = ""
    remarks: tuple[str, ...] = ()
    """What is odd about its form: a part that cannot be decoded, an extension that appears twice."""
    facts: Facts = ()
    """All there is to say of a CRL or an OCSP response; of nothing else."""

    @property
    def is_shown(self) -> bool:
        """Whether it is of a kind that is described at all: a private key never is."""
        return self.public_key is not None or bool(self.facts)


def describe(data: bytes, now: datetime) -> tuple[Description, ...]:
    """Everything in a PEM or DER file, in its order, at least one. Raises :class:`Malformed` and nothing else.

    Private keys are named and not even decoded; so are other things that are none of these.
    """
    return tuple(_describe(block, now) for block in blocks(data))


def describe_certificate(cert: x509.Certificate, now: datetime) -> Description:
    """One certificate, as :func:`describe` tells of it in a file."""
    return _Reader(cert.public_bytes(Encoding.DER)).certificate(cert, now)


def certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM or DER file, at least one. Raises :class:`Malformed`."""
    held = blocks(data)
    found = tuple(_certificate(block.der) for block in held if block.label == CERTIFICATE)
    if not found:
        labels = ", ".join(dict.fromkeys(name_of(block.label) for block in held))
        raise Malformed(f"it holds no certificate, but {labels}: give a certificate in PEM or DER")
    return found


def name_of(label: str) -> str:
    """What a PEM label says in words."""
    if label.endswith(PRIVATE_KEY):
        return "private key"
    return _WORDS.get(label, label)


def _describe(block: Block, now: datetime) -> Description:
    if block.label == CERTIFICATE:
        certificate = _certificate(block.der)  # first: what is none has no fields to read
        return _Reader(block.der).certificate(certificate, now)
    if block.label == REQUEST:
        request = _request(block.der)
        return _Reader(block.der).request(request)
    if block.label == CRL:
        return Description(name_of(CRL), facts=crl_facts(block.der))
    if block.label == ANSWER:
        return Description(name_of(ANSWER), facts=answer_facts(block.der))
    return Description(name_of(block.label))


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except HOSTILE_INPUT:
        raise Malformed(
            "a certificate in it cannot be decoded: it is damaged or cut short"
        ) from None


def _request(der: bytes) -> x509.CertificateSigningRequest:
    try:
        return x509.load_der_x509_csr(der)
    except HOSTILE_INPUT:
        raise Malformed("a CSR in it cannot be decoded: it is damaged or cut short") from None


class _Reader:
    """Reads one thing field by field: a field that cannot be decoded becomes a remark."""

    def __init__(self, der: bytes) -> None:
        self._der = der
        self._remarks: list[str] = []
        (outer,) = elements(der)
        signed = next(elements(outer.content))
        self._fields = tuple(elements(signed.content))

    def certificate(self, cert: x509.Certificate, now: datetime) -> Description:
        # Version 1 leaves its number out, so the other fields are counted from there.
        first = 1 if self._fields[0].tag == 0xA0 else 0
        issuer, subject, spki = (self._fields[first + at].whole for at in (2, 4, 5))
        self_issued = issuer == subject
        extensions = self._extensions(
            b"".join(f.content for f in self._fields if f.tag == _EXTENSIONS_TAG)
        )
        is_ca = any(e.oid == _BASIC_CONSTRAINTS and "CA: yes" in e.values for e in extensions)
        validity = self._field("validity", lambda: validity_of(cert))
        if validity and validity.not_after < validity.not_before:
            self._remarks.append("it ends before it begins")
        if cert.serial_number <= 0:
            self._remarks.append("the serial number is not positive (RFC 5280 section 4.1.2.2)")
        return Description(
            what=_kind(cert, is_ca=is_ca, self_issued=self_issued),
            subject=self._name("subject", lambda: cert.subject),
            issuer=self._name("issuer", lambda: cert.issuer),
            version=cert.version.value + 1,
            serial=cert.serial_number,
            signature_algorithm=_signature_algorithm(cert),
            signed_by_itself=_signed_by_itself(cert) if self_issued else None,
            validity=validity,
            time_left=validity.not_after - now if validity else None,
            until_valid=validity.not_before - now
            if validity and now < validity.not_before
            else None,
            public_key=self._public_key(cert, spki),
            is_ca=is_ca,
            is_self_issued=self_issued,
            spiffe_ids=_spiffe_ids(extensions),
            extensions=extensions,
            sha256=hashlib.sha256(self._der).hexdigest(),
            sha1=hashlib.sha1(self._der, usedforsecurity=False).hexdigest(),
            remarks=tuple(self._remarks),
        )

    def request(self, csr: x509.CertificateSigningRequest) -> Description:
        attributes = self._field("attributes", lambda: tuple(csr.attributes)) or ()
        wanted = b"".join(a.value for a in attributes if a.oid == _EXTENSION_REQUEST)
        extensions = self._extensions(element(SEQUENCE, wanted)) if wanted else ()
        return Description(
            what="CSR",
            subject=self._name("subject", lambda: csr.subject),
            version=1,
            signature_algorithm=_signature_algorithm(csr),
            signed_by_itself=self._field("signature", lambda: csr.is_signature_valid) or False,
            public_key=self._public_key(csr, self._fields[2].whole),
            spiffe_ids=_spiffe_ids(extensions),
            extensions=extensions,
            attributes=tuple(
                _ATTRIBUTES.get(a.oid, a.oid.dotted_string)
                for a in attributes
                if a.oid != _EXTENSION_REQUEST
            ),
            sha256=hashlib.sha256(self._der).hexdigest(),
            sha1=hashlib.sha1(self._der, usedforsecurity=False).hexdigest(),
            remarks=tuple(self._remarks),
        )

    def _field(self, what: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except HOSTILE_INPUT:
            self._remarks.append(f"its {what} cannot be decoded")
            return None

    def _name(self, what: str, read: Callable[[], x509.Name]) -> str:
        text = self._field(what, lambda: name_text(read()))
        return _UNREADABLE if text is None else text

    def _extensions(self, der: bytes) -> tuple[Extension, ...]:
        """``der`` holds the SEQUENCE of them, or nothing."""
        try:
            (listed,) = elements(der) if der else (None,)
            extensions = read_extensions(listed.content) if listed else ()
        except (Malformed, ValueError):
            extensions = (damaged_extension("extensions", der),)
        for number, extension in enumerate(extensions):
            if extension.damaged:
                self._remarks.append(f"its extension {extension.name} cannot be decoded")
            if any(extension.oid == earlier.oid for earlier in extensions[:number]):
                self._remarks.append(f"its extension {extension.name} appears more than once")
        return extensions

    def _public_key(self, carrier: _Carrier, spki: bytes) -> PublicKeyFacts:
        (outer,) = elements(spki)
        oid = oid_text(next(elements(next(elements(outer.content)).content)).content)
        algorithm = _KEY_NAMES.get(oid, oid)
        digest = hashlib.sha256(spki).hexdigest()
        key = self._field("public key", carrier.public_key)
        bits, curve, exponent, label = None, "", None, algorithm
        if isinstance(key, rsa.RSAPublicKey):
            bits, exponent = key.key_size, key.public_numbers().e
            label = f"{algorithm}-{bits}"
        elif isinstance(key, ec.EllipticCurvePublicKey):
            bits, curve = key.key_size, key.curve.name
            label = f"ECDSA {curve}"
        elif isinstance(key, dsa.DSAPublicKey):
            bits = key.key_size
        known = KeyAlgorithm.of(key) if key else None
        if known:
            label = known.label
        return PublicKeyFacts(algorithm, label, bits, curve, exponent, digest)


def _kind(cert: x509.Certificate, *, is_ca: bool, self_issued: bool) -> str:
    if is_ca:
        return "root CA" if self_issued else "issuing CA"
    return "X.509-SVID" if spiffe_id_of(cert) else "certificate"


def _spiffe_ids(extensions: Iterable[Extension]) -> tuple[str, ...]:
    names = (v for e in extensions if e.oid == _SUBJECT_ALT_NAME for v in e.values)
    return tuple(name[4:] for name in names if name.startswith("URI:spiffe:"))


def _signed_by_itself(cert: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(cert)
    except InvalidSignature:
        return False
    except HOSTILE_INPUT:
        return False
    return True


def _signature_algorithm(carrier: _Carrier) -> str:
    oid = carrier.signature_algorithm_oid
    name = _SIGNATURES.get(oid.dotted_string, oid.dotted_string)
    if oid != SignatureAlgorithmOID.RSASSA_PSS:
        return name
    try:
        digest = carrier.signature_hash_algorithm
    except HOSTILE_INPUT:
        return f"{name} ({_UNREADABLE})"
    return f"{name} with {digest.name.upper().replace('SHA2', 'SHA-2')}" if digest else name
