"""What a file holds before anyone trusts it: PEM blocks (RFC 7468) and elements of DER (X.690)."""

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from attrs import field, frozen

from pki.errors import Malformed
from pki.pem import (
    ANSWER,
    CERTIFICATE,
    CRL,
    PRIVATE_KEY,
    PUBLIC_KEY,
    REQUEST,
    Section,
    resemblance,
    sections,
)

SEQUENCE = 0x30
INTEGER, BIT_STRING, OCTET_STRING, OBJECT_IDENTIFIER, ENUMERATED = 0x02, 0x03, 0x04, 0x06, 0x0A
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18

#: How cryptography's parser names the place where it stopped.
_WORD = re.compile(r'"([A-Za-z_:]{1,60})"')
_PLACES = {
    "Certificate::signature_alg": "signature algorithm",
    "TbsCertificate::signature_alg": "signature algorithm",
    "AttributeTypeValue::value": "names",
    "TbsCertificate::subject": "subject",
    "TbsCertificate::issuer": "issuer",
    "TbsCertificate::validity": "validity",
    "TbsCertificate::version": "version",
    "TbsCertificate::serial": "serial number",
}


_DAMAGED = "its DER is damaged or cut short"
#: A tag, and where the element, its content and what comes after it begin.
Span = tuple[int, int, int, int]


@frozen
class Element:
    """One element of DER."""

    tag: int
    content: bytes
    whole: bytes
    """With its tag and length."""


@frozen
class Block:
    """One thing in a file. The ``repr`` shows no content: it may be a private key."""

    label: str
    """As PEM labels it: ``CERTIFICATE``, ``CERTIFICATE REQUEST``, ``RSA PRIVATE KEY``."""
    der: bytes = field(repr=False)
    """Empty for a private key: what it holds is not even decoded."""


def blocks(data: bytes) -> tuple[Block, ...]:
    """What is in a PEM or DER file, in its order, at least one. Raises :class:`Malformed`."""
    if not data.strip():
        raise Malformed("there is nothing in it")
    labels = der_labels(data)
    if labels:
        parts = tuple(elements(data)) if len(labels) > 1 else ()
        wholes = [part.whole for part in parts] or [data]
        return tuple(
            Block(label, b"" if label == PRIVATE_KEY else whole)
            for label, whole in zip(labels, wholes, strict=True)
        )
    found = tuple(map(_block, sections(data)))
    if not found:
        seen = resemblance(data)
        raise Malformed(
            f"it is neither PEM nor DER, or is damaged{f' ({seen})' if seen else ''}: give a certificate or a CSR"
        )
    return found


def flaw(label: str, der: bytes, error: BaseException) -> str:
    """What is wrong with something that cryptography does not decode, as a predicate.

    It is stricter than most: what is whole is not called damaged. Of its own words only the place is taken.
    """
    if der_labels(der) != (label,):
        return "cannot be decoded: it is damaged or cut short; copy it anew"
    places = [_PLACES[name] for name in _WORD.findall(str(error)) if name in _PLACES]
    where = f" (in its {places[-1]})" if places else ""
    return f"is whole, but breaks a rule of its encoding{where}: have it made anew"


def elements(der: bytes) -> Iterator[Element]:
    """The elements that ``der`` is made of, one after the other. Raises :class:`Malformed`.

    A length may be longer than it must, which DER forbids (X.690 section 10.1): things are shown as they are.
    """
    position = 0
    while position < len(der):
        start = position
        if len(der) - start < 2 or der[start] & 0x1F == 0x1F:
            raise Malformed(_DAMAGED)
        size, position = der[start + 1], start + 2
        if size >= 0x80:
            octets = size & 0x7F
            size = int.from_bytes(der[position : position + octets], "big")
            position += octets
            if not 1 <= octets <= 4:
                raise Malformed(_DAMAGED)
        end = position + size
        if end > len(der):
            raise Malformed(_DAMAGED)
        yield Element(der[start], der[position:end], der[start:end])
        position = end


def canonical_elements(der: bytes) -> tuple[Element, ...]:
    """:func:`elements`, of which each has the shortest length (X.690 section 10.1). Raises :class:`Malformed`."""
    return tuple(
        Element(tag, der[inner:end], der[at:end])
        for tag, at, inner, end in canonical_spans(der, 0, len(der))
    )


def canonical_spans(der: bytes, at: int, end: int) -> list[Span]:
    """Where each element between ``at`` and ``end`` is, by the rule of :func:`canonical_elements`.

    Raises :class:`Malformed`. What is inside of them is not looked at.
    """
    found: list[Span] = []
    while at < end:
        if end - at < 2 or der[at] & 0x1F == 0x1F:
            raise Malformed(_DAMAGED)
        size, start = der[at + 1], at + 2
        if size >= 0x80:
            octets = size & 0x7F
            if not 1 <= octets <= 4:
                raise Malformed(_DAMAGED)
            size = int.from_bytes(der[start : start + octets], "big")
            start += octets
            if size < 0x80 or not size >> 8 * (octets - 1):
                raise Malformed("its DER has a length that is written longer than it must be")
        stop = start + size
        if stop > end:
            raise Malformed(_DAMAGED)
        found.append((der[at], at, start, stop))
        at = stop
    return found


def inside(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at ``at`` begins and ends.

    For DER that we wrote ourselves: past its end, IndexError is raised or more promised than there is.
    """
    size, start = der[at + 1], at + 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start], "big")
    return start, start + size


def element(tag: int, content: bytes) -> bytes:
    """Tag, length and content in DER."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def integer(number: int) -> bytes:
    """An INTEGER."""
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return element(INTEGER, number.to_bytes(size, "big", signed=True))


def time(moment: datetime) -> bytes:
    """UTCTime from 1950 through 2049, else GeneralizedTime (RFC 5280 section 4.1.2.5); whole seconds."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    year = utc.year
    if 1950 <= year < 2050:
        rest = utc.month, utc.day, utc.hour, utc.minute, utc.second
        return b"\x17\x0d%02d%02d%02d%02d%02d%02dZ" % (year % 100, *rest)
    return generalized_time(utc)


def generalized_time(moment: datetime) -> bytes:
    """A GeneralizedTime whatever the year; whole seconds."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return b"\x18\x0f%04d%02d%02d%02d%02d%02dZ" % utc.timetuple()[:6]


def parse_time(tag: int, content: bytes) -> datetime:
    """What :func:`time` and :func:`generalized_time` write. Raises ValueError."""
    text = content.decode("ascii")
    if tag == UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return datetime.fromisoformat(f"{text[:8]}T{text[8:]}")


def pem(label: str, der: bytes) -> bytes:
    """One PEM block (RFC 7468 section 3)."""
    text = binascii.b2a_base64(der, newline=False)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    name = label.encode("ascii")
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (name, b"\n".join(lines), name)


def oid_content(dotted: str) -> bytes:
    """The content of an OBJECT IDENTIFIER: what :func:`oid_text` reads."""
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for arc in (40 * first + second, *rest):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.insert(0, arc & 0x7F | 0x80)
        content += bytes(octets)
    return content


def oid_text(content: bytes) -> str:
    """An OBJECT IDENTIFIER in dotted form (X.690 section 8.19), however odd."""
    arcs: list[int] = []
    arc = 0
    for octet in content[:64]:
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            arcs, arc = [*arcs, arc], 0
    if not arcs:
        return "unknown"
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def _block(section: Section) -> Block:
    secret = section.label.endswith(PRIVATE_KEY)
    return Block(section.label, b"" if secret else section.der())


def der_labels(data: bytes) -> tuple[str, ...]:
    """What stands in a DER file, one thing after the other, told by its outline alone; nothing where it is no DER."""
    if data[:1] != bytes((SEQUENCE,)):
        return ()
    try:
        found = tuple(elements(data))
    except Malformed:
        return ()
    if any(part.tag != SEQUENCE for part in found):
        return ()
    labels = [_der_label(part.content) for part in found]
    return () if None in labels else tuple(label for label in labels if label is not None)


def _der_label(content: bytes) -> str | None:
    """What a SEQUENCE is, told by its outline alone; None where it is damaged."""
    try:
        inner = tuple(elements(content))
        first = tuple(elements(inner[0].content)) if inner and inner[0].tag == SEQUENCE else ()
    except Malformed:
        return None
    match [part.tag for part in inner]:
        case [0x30, 0x30, 0x03]:
            return _signed_label([part.tag for part in first])
        case [0x02, 0x30, *_] if inner[0].content == b"\x03":
            return "PKCS12"
        case [0x02, 0x30, 0x04, *_] | [0x02, 0x04, *_] | [0x30, 0x04]:  # PKCS #8, SEC 1, encrypted
            return PRIVATE_KEY
        case [0x02, 0x02, 0x02, 0x02, *_]:  # PKCS #1, and DSA's
            return PRIVATE_KEY
        case [0x30, 0x03]:
            return PUBLIC_KEY
        case [0x06, 0xA0]:
            return "PKCS7"
        case [0x0A, 0xA0] | [0x0A]:
            return ANSWER
    return "ASN.1"


def _signed_label(tags: list[int]) -> str:
    match tags:
        case [0x02, 0x30, 0x30] | [0x02, 0x30, 0x30, 0xA0]:
            return REQUEST
        case [0x02, 0x30, 0x30, 0x17 | 0x18, *_] | [0x30, 0x30, 0x17 | 0x18, *_]:
            return CRL
    return CERTIFICATE
