"""OCSP requests: which certificates somebody asks about (RFC 6960 section 4.1, RFC 5019 section 2).

They are read here, since cryptography reads none that ask about several certificates.
"""

import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Self
from urllib.parse import quote, unquote_to_bytes

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from pki.der import (
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    Element,
    element,
    elements,
    integer,
    oid_content,
    oid_text,
    parse_integer,
)
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
_NONCE = "1.3.6.1.5.5.7.48.1.2"
_NONCE_ID = element(OBJECT_IDENTIFIER, oid_content(_NONCE))
_NULL = b"\x05\0"
_TRUE = b"\xff"
_BOOLEAN = 0x01
_SIGNATURE, _REQUESTOR, _EXTENSIONS, _SINGLE_EXTENSIONS = 0xA0, 0xA1, 0xA2, 0xA0
_GET = re.compile(rb"(?:[A-Za-z0-9+/=]|%[0-9A-Fa-f]{2})+")


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


@frozen(eq=False)
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
        oid = element(OBJECT_IDENTIFIER, oid_content(algorithm))
        fields = (
            element(SEQUENCE, oid + _NULL),
            element(OCTET_STRING, name_hash),
            element(OCTET_STRING, key_hash),
            integer(serial),
        )
        return CertId(algorithm, name_hash, key_hash, serial, element(SEQUENCE, b"".join(fields)))


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
            (whole,) = _sequences(der)
            to_be_signed, *signature = elements(whole.content, strict=True)
            fields = _inside(to_be_signed)
            if [part.tag for part in signature] not in ([], [_SIGNATURE]):
                raise Malformed("an OCSP request has a signature at its end, or nothing")
            if fields[0].tag == _REQUESTOR:
                _, *fields = fields
            listed, *rest = fields
            cert_ids = tuple(map(_cert_id, _sequences(_content(listed, SEQUENCE))))
            nonce = None
            for extensions in rest:
                if extensions.tag != _EXTENSIONS or len(rest) > 1:
                    raise Malformed("an OCSP request has a field that is not known")
                nonce = _read_nonce(_read_extensions(extensions.content))
        except (ValueError, IndexError):
            raise Malformed("the OCSP request lacks a field, or has one too many") from None
        if not 0 < len(cert_ids) <= MAX_CERT_IDS:
            raise Malformed(f"an OCSP request asks about 1 to {MAX_CERT_IDS} certificates")
        return cls(cert_ids, nonce)

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


def _cert_id(request: Element) -> CertId:
    reqcert, *rest = _inside(request)
    for extensions in rest:
        if extensions.tag != _SINGLE_EXTENSIONS or len(rest) > 1:
            raise Malformed("an OCSP request has a field that is not known")
        _read_extensions(extensions.content)
    identifier, name_hash, key_hash, serial = _inside(reqcert)
    oid, *parameters = _inside(identifier)
    if [part.whole for part in parameters] not in ([], [_NULL]):
        raise Malformed("the hash in an OCSP request has parameters")
    return CertId(
        oid_text(_content(oid, OBJECT_IDENTIFIER)),
        _content(name_hash, OCTET_STRING),
        _content(key_hash, OCTET_STRING),
        parse_integer(_content(serial, INTEGER)),
        reqcert.whole,
    )


def _read_extensions(wrapped: bytes) -> dict[str, bytes]:
    """The values by OID. One that is critical and not a nonce must be understood, and none is."""
    found: dict[str, bytes] = {}
    (listed,) = _sequences(wrapped)
    for each in _sequences(listed.content):
        oid, *critical, value = _inside(each)
        name = oid_text(_content(oid, OBJECT_IDENTIFIER))
        if name in found:
            raise Malformed("an OCSP request has an extension twice")
        if [(part.tag, part.content) for part in critical] not in ([], [(_BOOLEAN, _TRUE)]):
            raise Malformed("an OCSP request has an extension that is damaged")
        if critical and name != _NONCE:
            raise Malformed(f"the critical extension {name} of the request is not understood here")
        found[name] = _content(value, OCTET_STRING)
    if not found:
        raise Malformed("an OCSP request has a list of no extensions")
    return found


def _read_nonce(extensions: Mapping[str, bytes]) -> bytes | None:
    if _NONCE not in extensions:
        return None
    (value,) = elements(extensions[_NONCE], strict=True)
    nonce = _content(value, OCTET_STRING)
    if not 1 <= len(nonce) <= MAX_NONCE:
        raise Malformed(f"a nonce has 1 to {MAX_NONCE} bytes, this one {len(nonce)}")
    return nonce


def _sequences(der: bytes) -> Iterator[Element]:
    for part in elements(der, strict=True):
        _content(part, SEQUENCE)
        yield part


def _inside(sequence: Element) -> list[Element]:
    return list(elements(_content(sequence, SEQUENCE), strict=True))


def _content(part: Element, tag: int) -> bytes:
    if part.tag != tag:
        raise Malformed("a field of the OCSP request is of another type than it must be")
    return part.content
