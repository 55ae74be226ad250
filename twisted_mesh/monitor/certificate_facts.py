"""What a monitor needs of a certificate, read straight out of its DER: a log has millions of them.

Whatever is not as it must be is refused, never guessed at: a certificate that cannot be read is an alert of its own.
"""

import ipaddress
from calendar import timegm
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from pki.errors import Malformed
from pki.serial import serial_hex

_SEQUENCE, _INTEGER, _OCTET_STRING, _BOOLEAN = 0x30, 0x02, 0x04, 0x01
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_DNS, _URI, _IP = 0x82, 0x86, 0x87
#: An extension's OID, with tag and length: subjectAltName and basicConstraints.
_ALTERNATIVE_NAME, _BASIC_CONSTRAINTS = b"\x06\x03\x55\x1d\x11", b"\x06\x03\x55\x1d\x13"
#: More names than that nobody puts into one certificate of a mesh.
MOST_NAMES = 1000


class CertificateFacts(NamedTuple):
    """Of one certificate, or of one that is to be."""

    serial: int
    issuer: bytes
    """The Name, in DER."""
    not_before: int
    """Seconds since 1970."""
    not_after: int
    key: bytes
    """SHA-256 of its SubjectPublicKeyInfo."""
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    """In lower case."""
    ip_addresses: tuple[str, ...]
    is_ca: bool

    @property
    def spiffe_id(self) -> str:
        """The name that it gives a workload; empty where it has none, or several."""
        return self.uris[0] if len(self.uris) == 1 and self.uris[0].startswith("spiffe://") else ""


def facts_of(tbs: bytes) -> CertificateFacts:
    """Of a TBSCertificate (RFC 5280 section 4.1). Raises :class:`Malformed`."""
    try:
        return _read(tbs)
    except (IndexError, ValueError, OverflowError):
        raise Malformed("the certificate cannot be read: its DER is damaged, or is none") from None


def serial_bytes(serial: int) -> bytes:
    """A serial number as the index has it: as DER would."""
    size = (serial if serial >= 0 else ~serial).bit_length() // 8 + 1
    return serial.to_bytes(size, "big", signed=True)


def shown_serial(serial: int) -> str:
    """In hex, whatever it is: in decimals Python writes no number that is too long."""
    return serial_hex(serial) if serial >= 0 else f"-{serial_hex(-serial)}"


def tbs_of(certificate: bytes) -> bytes:
    """The TBSCertificate of a certificate. Raises :class:`Malformed`."""
    try:
        start, end = _inside(certificate, 0, len(certificate), _SEQUENCE)
        if end == len(certificate):
            return certificate[start : _inside(certificate, start, end, _SEQUENCE)[1]]
    except (IndexError, ValueError):
        pass
    raise Malformed("the certificate cannot be read: its DER is damaged, or is none")


def _inside(der: bytes, at: int, limit: int, tag: int) -> tuple[int, int]:
    """Where the content of the element at ``at`` begins and ends, which has that tag and ends before ``limit``."""
    if der[at] != tag:
        raise ValueError("another element")
    size, start = der[at + 1], at + 2
    if size >= 0x80:
        octets = size & 0x7F
        start += octets
        size = int.from_bytes(der[at + 2 : start], "big")
        if not 1 <= octets <= 4:
            raise ValueError("a length that nothing has")
    end = start + size
    if end > limit:
        raise ValueError("longer than what it is in")
    return start, end


def _read(tbs: bytes) -> CertificateFacts:
    at, limit = _inside(tbs, 0, len(tbs), _SEQUENCE)
    if limit != len(tbs):
        raise ValueError("more than a certificate")
    if tbs[at] == _VERSION:
        at = _inside(tbs, at, limit, _VERSION)[1]
    start, at = _inside(tbs, at, limit, _INTEGER)
    if start == at:
        raise ValueError("a number without digits")
    serial = int.from_bytes(tbs[start:at], "big", signed=True)
    at = _inside(tbs, at, limit, _SEQUENCE)[1]  # the signature's algorithm
    start, at = at, _inside(tbs, at, limit, _SEQUENCE)[1]
    issuer = tbs[start:at]
    begin, at = _inside(tbs, at, limit, _SEQUENCE)
    not_before, begin = _time(tbs, begin, at)
    not_after, begin = _time(tbs, begin, at)
    if begin != at:
        raise ValueError("a period of three times")
    at = _inside(tbs, at, limit, _SEQUENCE)[1]  # the subject
    start, at = at, _inside(tbs, at, limit, _SEQUENCE)[1]
    key = sha256(tbs[start:at]).digest()
    names: list[tuple[int, bytes]] = []
    is_ca = False
    while at < limit and tbs[at] in (0x81, 0x82):  # unique identifiers, which nobody uses
        at = _inside(tbs, at, limit, tbs[at])[1]
    if at < limit:
        at, end = _inside(tbs, at, limit, _EXTENSIONS)
        if end != limit:
            raise ValueError("something after the extensions")
        at, end = _inside(tbs, at, limit, _SEQUENCE)
        if end != limit:
            raise ValueError("something after the extensions")
        while at < limit:
            size = tbs[at + 1]
            if (
                size < 0x80 and tbs[at] == _SEQUENCE
            ):  # as nearly all are, and a call takes longer than the rest
                start = at + 2
                at = start + size
                if at > limit:
                    raise ValueError("longer than what it is in")
            else:
                start, at = _inside(tbs, at, limit, _SEQUENCE)
            oid = tbs[start : start + 5]
            if oid == _ALTERNATIVE_NAME:
                names += _names(tbs, *_value(tbs, start + 5, at))
            elif oid == _BASIC_CONSTRAINTS:
                is_ca = is_ca or _says_ca(tbs, *_value(tbs, start + 5, at))
    if not names:
        return CertificateFacts(serial, issuer, not_before, not_after, key, (), (), (), is_ca=is_ca)
    if len(names) == 1 and names[0][0] == _URI:
        uri = names[0][1].decode("ascii")
        return CertificateFacts(
            serial, issuer, not_before, not_after, key, (uri,), (), (), is_ca=is_ca
        )
    return CertificateFacts(
        serial,
        issuer,
        not_before,
        not_after,
        key,
        tuple([name.decode("ascii") for tag, name in names if tag == _URI]),
        tuple([name.decode("ascii").lower() for tag, name in names if tag == _DNS]),
        tuple([str(ipaddress.ip_address(name)) for tag, name in names if tag == _IP]),
        is_ca=is_ca,
    )


def _value(tbs: bytes, at: int, limit: int) -> tuple[int, int]:
    """Where an extension's value begins and ends, after its OID."""
    if tbs[at] == _BOOLEAN:
        at = _inside(tbs, at, limit, _BOOLEAN)[1]
    start, end = _inside(tbs, at, limit, _OCTET_STRING)
    if end != limit:
        raise ValueError("something after an extension's value")
    return start, end


def _names(tbs: bytes, at: int, limit: int) -> list[tuple[int, bytes]]:
    at, end = _inside(tbs, at, limit, _SEQUENCE)
    if end != limit:
        raise ValueError("something after the names")
    found: list[tuple[int, bytes]] = []
    while at < limit:
        tag = tbs[at]
        start, at = _inside(tbs, at, limit, tag)
        found.append((tag, tbs[start:at]))
        if len(found) > MOST_NAMES:
            raise ValueError("more names than anybody has")
    return found


def _says_ca(tbs: bytes, at: int, limit: int) -> bool:
    at, end = _inside(tbs, at, limit, _SEQUENCE)
    if end != limit:
        raise ValueError("something after the constraints")
    if at == limit or tbs[at] != _BOOLEAN:
        return False
    start, end = _inside(tbs, at, limit, _BOOLEAN)
    return any(tbs[start:end])


def _time(tbs: bytes, at: int, limit: int) -> tuple[int, int]:
    tag = tbs[at]
    if tag not in (_UTC_TIME, _GENERALIZED_TIME):
        raise ValueError("no time")
    start, end = _inside(tbs, at, limit, tag)
    return _seconds(tag, tbs[start:end]), end


@lru_cache(maxsize=4096)
def _seconds(tag: int, text: bytes) -> int:
    """A time of RFC 5280 section 4.1.2.5. Neighbours in a log have the same ones."""
    digits = text[:-1]
    if text[-1:] != b"Z" or not digits.isdigit() or len(digits) != (12, 14)[tag != _UTC_TIME]:
        raise ValueError("no time of a certificate")
    if tag == _UTC_TIME:
        digits = (b"20" if digits < b"50" else b"19") + digits
    year, *rest = int(digits[:4]), *[int(digits[i : i + 2]) for i in range(4, 14, 2)]
    month, day, hour, minute, second = rest
    if not (year and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 > second):
        raise ValueError("no time of a certificate")
    return timegm((year, month, day, hour, minute, second))
