"""OCSP requests: which certificates somebody asks about (RFC 6960 section 4.1, RFC 5019 section 2).

Their types are declared here, since cryptography's own reader takes none that ask about several certificates.
"""

import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import quote, unquote_to_bytes

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.der import OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element, oid_content
from pki.errors import HOSTILE_INPUT, Malformed
from pki.keys import key_bits, key_id, spki_der
from pki.svid.names import encoded_subject
from pki.svid.x509svid import extension

#: A signed request may bring its signer's certificates along.
MAX_REQUEST_SIZE = 64 * 1024
#: How many certificates one request may ask about.
MAX_CERT_IDS = 64
#: RFC 9654 section 2.1.
MAX_NONCE = 128

SHA1, SHA256 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"
#: The names of hashes by their OIDs.
HASHES = {
    SHA1: "sha1",
    SHA256: "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_NONCE = x509.OCSPNonce.oid
_NONCE_ID = element(OBJECT_IDENTIFIER, oid_content(_NONCE.dotted_string))
_EXTENSIONS = 0xA2
_GET = re.compile(rb"(?:[A-Za-z0-9+/=]|%[0-9A-Fa-f]{2})+")

# The types of RFC 6960 section 4.1.1, under its own names. What stands behind a tag and is not looked at
# is a list of whatever it holds.
_Ignored = list[asn1.TLV]


@asn1.sequence
class _AlgorithmIdentifier:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class _CertId:
    hash_algorithm: _AlgorithmIdentifier
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial_number: int


@asn1.sequence
class _Extension:
    oid: x509.ObjectIdentifier
    critical: Annotated[bool, asn1.Default(False)]
    value: bytes


@asn1.sequence
class _Request:
    cert_id: _CertId
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(0)]


@asn1.sequence
class _TbsRequest:
    requestor_name: Annotated[_Ignored | None, asn1.Implicit(1)]
    requests: list[_Request]
    extensions: Annotated[list[_Extension] | None, asn1.Explicit(2)]


@asn1.sequence
class _OcspRequest:
    tbs_request: _TbsRequest
    signature: Annotated[_Ignored | None, asn1.Implicit(0)]


@frozen
class CertId:
    """One certificate that is asked about."""

    algorithm: str
    """The OID of the hash that the issuer is named by."""
    name_hash: bytes
    key_hash: bytes
    serial: int
    der: bytes = field(repr=False)
    """As it came: an answer repeats it byte for byte."""


@frozen(eq=False, repr=False)
class Issuer:
    """A CA as requests name it: by hashes of its name and its key."""

    key_id: str
    """Its :func:`pki.keys.key_id`."""
    hashes: Mapping[str, tuple[bytes, bytes]] = field(repr=False)
    """Of its name and its key, by the OID of the hash."""

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        """By every hash that we know: a request chooses one."""
        key = certificate.public_key()
        hashed = encoded_subject(certificate), key_bits(spki_der(key))
        hashes = {}
        for oid, name in HASHES.items():
            name_hash, key_hash = (
                hashlib.new(name, data, usedforsecurity=False).digest() for data in hashed
            )
            hashes[oid] = name_hash, key_hash
        return cls(key_id(key), hashes)

    def issued(self, cert_id: CertId) -> bool:
        """Whether ``cert_id`` is about a certificate of this CA."""
        return self.hashes.get(cert_id.algorithm) == (cert_id.name_hash, cert_id.key_hash)

    def cert_id(self, serial: int, algorithm: str = SHA256) -> CertId:
        """The certificate of this CA with that serial; RFC 5019 clients name it by SHA-1."""
        name_hash, key_hash = self.hashes[algorithm]
        made = _CertId(
            hash_algorithm=_AlgorithmIdentifier(
                algorithm=x509.ObjectIdentifier(algorithm), parameters=asn1.Null()
            ),
            issuer_name_hash=name_hash,
            issuer_key_hash=key_hash,
            serial_number=serial,
        )
        return _read_cert_id(made)


@frozen
class OcspRequest:
    """What somebody asks: ``OcspRequest.parse(r.to_der()) == r``. A signature is not looked at."""

    cert_ids: tuple[CertId, ...]
    nonce: bytes | None = None

    @classmethod
    def parse(cls, der: bytes) -> Self:
        """An OCSPRequest. Raises :class:`Malformed`."""
        if len(der) > MAX_REQUEST_SIZE:
            raise Malformed(f"an OCSP request has at most {MAX_REQUEST_SIZE} bytes")
        try:
            found = asn1.decode_der(_OcspRequest, der).tbs_request
        except HOSTILE_INPUT:
            raise Malformed("the OCSP request is no OCSPRequest in DER") from None
        if not 0 < len(found.requests) <= MAX_CERT_IDS:
            raise Malformed(f"an OCSP request asks about 1 to {MAX_CERT_IDS} certificates")
        for request in found.requests:
            _read_extensions(request.extensions)
        cert_ids = tuple(_read_cert_id(request.cert_id) for request in found.requests)
        return cls(cert_ids, _read_nonce(_read_extensions(found.extensions)))

    def to_der(self) -> bytes:
        """An OCSPRequest without a signature, in DER."""
        listed = b"".join(element(SEQUENCE, cert_id.der) for cert_id in self.cert_ids)
        fields = element(SEQUENCE, listed)
        if self.nonce is not None:
            fields += element(_EXTENSIONS, nonce_extensions(self.nonce))
        return element(SEQUENCE, element(SEQUENCE, fields))


def decode_get(path: bytes) -> bytes:
    """The request in a GET's path, raw as it came, after the responder's own (RFC 6960 appendix A.1).

    Raises :class:`Malformed`.
    """
    if len(path) > 3 * MAX_REQUEST_SIZE or not _GET.fullmatch(path):
        raise Malformed("the path is no OCSP request in percent-encoded base64")
    text = unquote_to_bytes(path)
    try:
        der = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise Malformed("the base64 of the OCSP request is damaged") from None
    if binascii.b2a_base64(der, newline=False) != text:
        raise Malformed("the base64 of the OCSP request is damaged")
    return der


def encode_get(der: bytes) -> str:
    """What :func:`decode_get` reads, for after a responder's URL and a slash."""
    return quote(binascii.b2a_base64(der, newline=False), safe="")


def nonce_extensions(nonce: bytes) -> bytes:
    """``Extensions`` with just that nonce (RFC 9654 section 2.1), in DER."""
    value = element(OCTET_STRING, element(OCTET_STRING, nonce))
    return element(SEQUENCE, element(SEQUENCE, _NONCE_ID + value))


def is_delegate(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer`` itself lets ``certificate`` sign its answers (RFC 6960 section 4.2.2.2)."""
    try:
        usages = extension(certificate, x509.ExtendedKeyUsage) or ()
        usage = extension(certificate, x509.KeyUsage)
        if ExtendedKeyUsageOID.OCSP_SIGNING not in usages or (
            usage and not usage.digital_signature
        ):
            return False
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    except HOSTILE_INPUT:
        return False
    return True


def _read_cert_id(found: _CertId) -> CertId:
    """DER has one form for each value, so what is written here is what came."""
    return CertId(
        found.hash_algorithm.algorithm.dotted_string,
        found.issuer_name_hash,
        found.issuer_key_hash,
        found.serial_number,
        asn1.encode_der(found),
    )


def _read_extensions(extensions: list[_Extension] | None) -> dict[x509.ObjectIdentifier, bytes]:
    """The values by OID. One that is critical and not a nonce must be understood, and none is."""
    if extensions is None:
        return {}
    if not extensions:
        raise Malformed("an OCSP request has a list of no extensions")
    values = {extension.oid: extension.value for extension in extensions}
    if len(values) < len(extensions):
        raise Malformed("an OCSP request has an extension twice")
    for each in extensions:
        if each.critical and each.oid != _NONCE:
            name = each.oid.dotted_string
            raise Malformed(f"the critical extension {name} of the request is not understood here")
    return values


def _read_nonce(values: Mapping[x509.ObjectIdentifier, bytes]) -> bytes | None:
    if _NONCE not in values:
        return None
    try:
        nonce = asn1.decode_der(bytes, values[_NONCE])
    except HOSTILE_INPUT:
        raise Malformed("the nonce of the OCSP request is no OCTET STRING") from None
    if not 1 <= len(nonce) <= MAX_NONCE:
        raise Malformed(f"a nonce has 1 to {MAX_NONCE} bytes, this one {len(nonce)}")
    return nonce
