"""Precertificates (RFC 6962 section 3.1): a TBSCertificate with the poison, with receipts, or with neither.

Extensions are put at the end and taken out from wherever they are; of all other bytes none is changed. What is not
written as DER has it is refused, so that two readers cannot see different certificates in the same bytes.
"""

from attrs import frozen

from pki.der import (
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    Element,
    canonical_elements,
    element,
    oid_content,
)
from pki.errors import Malformed

POISON_OID, SCT_LIST_OID = "1.3.6.1.4.1.11129.2.4.3", "1.3.6.1.4.1.11129.2.4.2"
_POISON = element(OBJECT_IDENTIFIER, oid_content(POISON_OID))
_SCT_LIST = element(OBJECT_IDENTIFIER, oid_content(SCT_LIST_OID))
_BOOLEAN, _EXTENSIONS = 0x01, 0xA3
_CRITICAL = element(_BOOLEAN, b"\xff")
_NULL = b"\x05\x00"
#: The poison is critical, so that nobody takes a precertificate for a certificate.
_POISON_EXTENSION = element(SEQUENCE, _POISON + _CRITICAL + element(OCTET_STRING, _NULL))
#: Bytes. Of a certificate of the mesh 18 KiB are the most.
LONGEST = 64 * 1024


def with_poison(tbs: bytes) -> bytes:
    """The precertificate's TBSCertificate of a draft. Raises :class:`Malformed` for one that has poison or receipts."""
    return _Tbs.read(tbs).bare().plus(_POISON_EXTENSION)


def without_poison(tbs: bytes) -> bytes:
    """What the precertificate was a draft of. Raises :class:`Malformed` for one that has no poison, or receipts."""
    found = _Tbs.read(tbs)
    if found.value_of(_POISON) is None:
        raise Malformed(
            "it is no precertificate: it has no poison extension (RFC 6962 section 3.1)"
        )
    return found.without(_POISON).bare().to_bytes()


def with_scts(tbs: bytes, sct_list: bytes) -> bytes:
    """The draft with receipts in it, which :func:`pki.ct.sct.list_bytes` has written. Raises :class:`Malformed`."""
    value = element(OCTET_STRING, element(OCTET_STRING, sct_list))
    return _Tbs.read(tbs).bare().plus(element(SEQUENCE, _SCT_LIST + value))


def without_scts(tbs: bytes) -> bytes:
    """What receipts are for: the TBSCertificate without them, or as it is where there are none.

    Raises :class:`Malformed` for a precertificate.
    """
    return _Tbs.read(tbs).without(_SCT_LIST).bare().to_bytes()


def embedded_list(tbs: bytes) -> bytes | None:
    """The SignedCertificateTimestampList in it; None where there is none. Raises :class:`Malformed`."""
    value = _Tbs.read(tbs).value_of(_SCT_LIST)
    if value is None:
        return None
    (inner,) = _expect(value, [OCTET_STRING], "the list of receipts (SCTs) is an OCTET STRING")
    return inner.content


def is_poisoned(tbs: bytes) -> bool:
    """Whether it is a precertificate's. Raises :class:`Malformed`."""
    return _Tbs.read(tbs).value_of(_POISON) is not None


def tbs_of(certificate: bytes) -> bytes:
    """The TBSCertificate of a certificate in DER, as it stands there. Raises :class:`Malformed`."""
    (whole,) = _expect(certificate, [SEQUENCE], "a certificate is one SEQUENCE")
    rule = "a certificate has a body, an algorithm and a signature"
    body, _, _ = _expect(whole.content, [SEQUENCE, SEQUENCE, 0x03], rule)
    return body.whole


@frozen
class _Tbs:
    """A TBSCertificate with its extensions apart."""

    before: bytes
    extensions: tuple[Element, ...]

    @classmethod
    def read(cls, tbs: bytes) -> "_Tbs":
        if len(tbs) > LONGEST:
            raise Malformed(
                f"a certificate of {len(tbs)} bytes is not looked at: {LONGEST} are the most"
            )
        (outer,) = _expect(tbs, [SEQUENCE], "a TBSCertificate is one SEQUENCE")
        *fields, last = canonical_elements(outer.content) or _no("a TBSCertificate has fields")
        # Version, serial, algorithm, issuer, validity, subject and key.
        if last.tag != _EXTENSIONS or [part.tag for part in fields[:7]] != _FIELDS:
            raise Malformed(
                "it is no TBSCertificate of version 3 with extensions (RFC 5280 section 4.1)"
            )
        (listed,) = _expect(last.content, [SEQUENCE], "extensions are one SEQUENCE")
        found = cls(
            b"".join(part.whole for part in fields),
            tuple(canonical_elements(listed.content)),
        )
        heads = [_identifier(extension) for extension in found.extensions]
        if not heads or len(heads) != len(set(heads)):
            raise Malformed("it has no extensions, or one of them twice (RFC 5280 section 4.2)")
        return found

    def value_of(self, oid: bytes) -> bytes | None:
        """The extension's value where it is there, critical as it must be."""
        for extension in self.extensions:
            if _identifier(extension) == oid:
                break
        else:
            return None
        if oid == _POISON:
            if extension.whole != _POISON_EXTENSION:
                raise Malformed("the poison extension is critical, and NULL (RFC 6962 section 3.1)")
            return _NULL
        rule = "the list of receipts (SCTs) is not critical (RFC 6962 section 3.3)"
        _, value = _expect(extension.content, [OBJECT_IDENTIFIER, OCTET_STRING], rule)
        return value.content

    def without(self, oid: bytes) -> "_Tbs":
        self.value_of(oid)
        rest = tuple(part for part in self.extensions if _identifier(part) != oid)
        if not rest:
            raise Malformed(
                "it has no extension but that one: no certificate of a mesh is like that"
            )
        return _Tbs(self.before, rest)

    def bare(self) -> "_Tbs":
        """Itself, where it has neither poison nor receipts."""
        if any(_identifier(part) in (_POISON, _SCT_LIST) for part in self.extensions):
            raise Malformed("it has a poison extension or receipts (SCTs), and here it may not")
        return self

    def plus(self, extension: bytes) -> bytes:
        return self._written(b"".join(part.whole for part in self.extensions) + extension)

    def to_bytes(self) -> bytes:
        return self._written(b"".join(part.whole for part in self.extensions))

    def _written(self, extensions: bytes) -> bytes:
        return element(SEQUENCE, self.before + element(_EXTENSIONS, element(SEQUENCE, extensions)))


_FIELDS = [0xA0, 0x02, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE, SEQUENCE]


def _no(rule: str) -> tuple[Element, ...]:
    raise Malformed(f"{rule}, and this has none")


def _expect(der: bytes, tags: list[int], rule: str) -> tuple[Element, ...]:
    found = canonical_elements(der)
    if [part.tag for part in found] != tags:
        raise Malformed(f"{rule}, and this is something else")
    return found


def _identifier(extension: Element) -> bytes:
    """The OID of an extension, in DER; all of it is canonical. Raises :class:`Malformed`."""
    parts = canonical_elements(extension.content) if extension.tag == SEQUENCE else ()
    match [part.tag for part in parts]:
        case [0x06, 0x04]:
            return parts[0].whole
        case [0x06, 0x01, 0x04] if parts[1].whole == _CRITICAL:
            return parts[0].whole
    raise Malformed("an extension of it is not written as DER has it (RFC 5280 section 4.1)")
