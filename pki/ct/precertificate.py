"""Precertificates (RFC 6962 section 3.1): a TBSCertificate with the poison, with receipts, or with neither.

Extensions are put at the end and taken out from wherever they are; of all other bytes none is changed. What is not
written as DER has it is refused, so that two readers cannot see different certificates in the same bytes.
"""

from attrs import frozen

from pki.der import (
    BIT_STRING,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    Span,
    canonical_spans,
    element,
    oid_content,
)
from pki.errors import Malformed

POISON_OID, SCT_LIST_OID = "1.3.6.1.4.1.11129.2.4.3", "1.3.6.1.4.1.11129.2.4.2"
_POISON, _SCT_LIST = oid_content(POISON_OID), oid_content(SCT_LIST_OID)
_BOOLEAN, _EXTENSIONS = 0x01, 0xA3
_CRITICAL = element(_BOOLEAN, b"\xff")
#: The poison is critical, so that nobody takes a precertificate for a certificate.
_POISON_EXTENSION = element(
    SEQUENCE,
    element(OBJECT_IDENTIFIER, _POISON) + _CRITICAL + element(OCTET_STRING, b"\x05\x00"),
)
#: Version, serial, algorithm, issuer, validity, subject and key (RFC 5280 section 4.1).
_FIELDS = [0xA0, 0x02, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE]
#: Bytes. Of a certificate of the mesh 18 KiB are the most.
LONGEST = 64 * 1024


def with_poison(tbs: bytes) -> bytes:
    """The precertificate's TBSCertificate of a draft. Raises :class:`Malformed` for one that has poison or receipts."""
    return _Tbs.read(tbs).bare().written(_POISON_EXTENSION)


def without_poison(tbs: bytes) -> bytes:
    """What the precertificate was a draft of. Raises :class:`Malformed` for one that has no poison, or receipts."""
    found = _Tbs.read(tbs)
    if _POISON not in found.extensions:
        raise Malformed(
            "it is no precertificate: it has no poison extension (RFC 6962 section 3.1)"
        )
    return found.without(_POISON).bare().written()


def with_scts(tbs: bytes, sct_list: bytes) -> bytes:
    """The draft with receipts in it, which :func:`pki.ct.sct.list_bytes` has written. Raises :class:`Malformed`."""
    value = element(OCTET_STRING, element(OCTET_STRING, sct_list))
    extension = element(SEQUENCE, element(OBJECT_IDENTIFIER, _SCT_LIST) + value)
    return _Tbs.read(tbs).bare().written(extension)


def without_scts(tbs: bytes) -> bytes:
    """What receipts are for: the TBSCertificate without them, or as it is where there are none.

    Raises :class:`Malformed` for a precertificate.
    """
    return parted(tbs)[1]


def embedded_list(tbs: bytes) -> bytes | None:
    """The SignedCertificateTimestampList in it; None where there is none. Raises :class:`Malformed`."""
    return _Tbs.read(tbs).sct_list()


def parted(tbs: bytes) -> tuple[bytes | None, bytes]:
    """:func:`embedded_list` and :func:`without_scts`, read once. Raises :class:`Malformed`."""
    found = _Tbs.read(tbs)
    listed = found.sct_list()
    if listed is None:
        found.bare()
        return None, tbs
    return listed, found.without(_SCT_LIST).bare().written()


def is_poisoned(tbs: bytes) -> bool:
    """Whether it is a precertificate's. Raises :class:`Malformed`."""
    return _POISON in _Tbs.read(tbs).extensions


def tbs_of(certificate: bytes) -> bytes:
    """The TBSCertificate of a certificate in DER, as it stands there. Raises :class:`Malformed`."""
    whole = _one(certificate, 0, len(certificate), SEQUENCE, "a certificate is one SEQUENCE")
    parts = canonical_spans(certificate, *whole[2:])
    if [part[0] for part in parts] != [SEQUENCE, SEQUENCE, BIT_STRING]:
        raise Malformed("a certificate has a body, an algorithm and a signature, and this has not")
    _, at, _, end = parts[0]
    return certificate[at:end]


@frozen
class _Tbs:
    """A TBSCertificate with its extensions apart."""

    tbs: bytes
    before: bytes
    """All fields in front of the extensions."""
    extensions: dict[bytes, tuple[int, int]]
    """Where each begins and ends, by the content of its OID."""

    @classmethod
    def read(cls, tbs: bytes) -> "_Tbs":
        size = len(tbs)
        if size > LONGEST:
            raise Malformed(
                f"a certificate of {size} bytes is not looked at: {LONGEST} are the most"
            )
        outer = _one(tbs, 0, size, SEQUENCE, "a TBSCertificate is one SEQUENCE")
        fields = canonical_spans(tbs, *outer[2:])
        tags = [field[0] for field in fields]
        if tags[:7] != _FIELDS or tags[-1] != _EXTENSIONS:
            raise Malformed(
                "it is no TBSCertificate of version 3 with extensions (RFC 5280 section 4.1)"
            )
        _, at, inner, end = fields[-1]
        listed = _one(tbs, inner, end, SEQUENCE, "extensions are one SEQUENCE")
        spans = canonical_spans(tbs, *listed[2:])
        extensions = {_identifier(tbs, span): span[1::2] for span in spans}
        if not spans or len(extensions) != len(spans):
            raise Malformed("it has no extensions, or one of them twice (RFC 5280 section 4.2)")
        return cls(tbs, tbs[outer[2] : at], extensions)

    def sct_list(self) -> bytes | None:
        """The content of the list's inner OCTET STRING; None where there is no such extension."""
        place = self.extensions.get(_SCT_LIST)
        if place is None:
            return None
        ((_, _, inner, end),) = canonical_spans(self.tbs, *place)
        _, *critical, value = canonical_spans(self.tbs, inner, end)
        if critical:
            raise Malformed("the list of receipts (SCTs) is not critical (RFC 6962 section 3.3)")
        rule = "the list of receipts (SCTs) is an OCTET STRING"
        _, _, inner, end = _one(self.tbs, *value[2:], OCTET_STRING, rule)
        return self.tbs[inner:end]

    def without(self, oid: bytes) -> "_Tbs":
        if oid == _POISON:
            at, end = self.extensions[oid]
            if self.tbs[at:end] != _POISON_EXTENSION:
                raise Malformed("the poison extension is critical, and NULL (RFC 6962 section 3.1)")
        rest = {name: place for name, place in self.extensions.items() if name != oid}
        if not rest:
            raise Malformed(
                "it has no extension but that one: no certificate of a mesh is like that"
            )
        return _Tbs(self.tbs, self.before, rest)

    def bare(self) -> "_Tbs":
        """Itself, where it has neither poison nor receipts."""
        if _POISON in self.extensions or _SCT_LIST in self.extensions:
            raise Malformed("it has a poison extension or receipts (SCTs), and here it may not")
        return self

    def written(self, *more: bytes) -> bytes:
        """In DER, with these extensions at the end."""
        extensions = b"".join([self.tbs[at:end] for at, end in self.extensions.values()] + [*more])
        return element(SEQUENCE, self.before + element(_EXTENSIONS, element(SEQUENCE, extensions)))


def _one(der: bytes, at: int, end: int, tag: int, rule: str) -> Span:
    """The one element that there is. Raises :class:`Malformed` with the rule."""
    found = canonical_spans(der, at, end)
    if len(found) != 1 or found[0][0] != tag:
        raise Malformed(f"{rule}, and this is something else")
    return found[0]


def _identifier(tbs: bytes, extension: Span) -> bytes:
    """The content of an extension's OID; what is around it is canonical. Raises :class:`Malformed`."""
    tag, _, inner, end = extension
    parts = canonical_spans(tbs, inner, end) if tag == SEQUENCE else ()
    match parts:
        case [(0x06, _, at, stop), (0x04, _, _, _)]:
            return tbs[at:stop]
        case [(0x06, _, at, stop), (0x01, start, _, over), (0x04, _, _, _)]:
            if tbs[start:over] == _CRITICAL:
                return tbs[at:stop]
    raise Malformed("an extension of it is not written as DER has it (RFC 5280 section 4.1)")
