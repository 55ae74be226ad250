"""Templates: what all certificates of one shape have in common, in DER, with gaps for what differs.

A template is cut out of a whole certificate that was laid out and linted in full, so what it repeats
has passed every rule. What goes into its gaps is read back and linted each time: :mod:`pki.lint`.
"""

from datetime import UTC, datetime
from typing import Self

from attrs import frozen

from pki.encoding import SEQUENCE, element, elements, inside
from pki.errors import Malformed
from pki.validity import Validity

_INTEGER, _OCTET_STRING, _UTC_TIME, _EXTENSIONS = 0x02, 0x04, 0x17, 0xA3
#: An extension that holds a SHA-1 as its OCTET STRING: all of it but the hash.
_KEY_IDENTIFIER = bytes.fromhex("301d0603551d0e04160414")
_KEY_IDENTIFIER_SIZE = 20
_ALTERNATIVE_NAME = bytes.fromhex("0603551d11")
_CRITICAL = bytes.fromhex("0101ff")


@frozen
class Fields:
    """What differs between two certificates of one shape."""

    serial: int
    validity: Validity
    subject: bytes
    """The Name, in DER."""
    spki: bytes
    """The SubjectPublicKeyInfo, in DER."""
    key_identifier: bytes
    names: tuple[tuple[int, bytes], ...]
    """The alternative names: the tag and content of each."""


@frozen
class Template:
    """A TBSCertificate (RFC 5280 section 4.1) with gaps: ``t.read(t.fill(fields)) == fields``."""

    version: bytes
    algorithm: bytes
    issuer: bytes
    usages: bytes
    """The extensions before the key identifier."""
    authority: bytes
    """Those between it and the alternative name."""
    name_head: bytes
    """What stands before the alternative name's value: its OID and whether it is critical."""
    rest: bytes
    """The extensions after the alternative name."""

    @classmethod
    def cut(cls, tbs: bytes) -> Self:
        """Out of a TBSCertificate with both key identifiers and an alternative name. Raises :class:`Malformed`."""
        try:
            (outer,) = elements(tbs)
            version, _, algorithm, issuer, _, _, _, wrapped = elements(outer.content)
            (extensions,) = elements(wrapped.content)
            parts = [part.whole for part in elements(extensions.content)]
            heads = [_head(part.content) for part in elements(extensions.content)]
            (own,) = (i for i, part in enumerate(parts) if part.startswith(_KEY_IDENTIFIER))
            (name,) = (i for i, head in enumerate(heads) if head.startswith(_ALTERNATIVE_NAME))
            template = cls(
                version.whole,
                algorithm.whole,
                issuer.whole,
                b"".join(parts[:own]),
                b"".join(parts[own + 1 : name]),
                heads[name],
                b"".join(parts[name + 1 :]),
            )
            template.read(tbs)
        except (ValueError, Malformed):
            raise Malformed("no template can be cut out of this certificate") from None
        return template

    @property
    def is_nameless(self) -> bool:
        """Whether its alternative name is critical, which goes with an empty subject (section 4.2.1.6)."""
        return self.name_head.endswith(_CRITICAL)

    def fill(self, fields: Fields) -> bytes:
        """The TBSCertificate with ``fields`` in its gaps."""
        names = element(SEQUENCE, b"".join([element(tag, name) for tag, name in fields.names]))
        validity = _time(fields.validity.not_before) + _time(fields.validity.not_after)
        extensions = (
            self.usages
            + _KEY_IDENTIFIER
            + fields.key_identifier
            + self.authority
            + element(SEQUENCE, self.name_head + element(_OCTET_STRING, names))
            + self.rest
        )
        return element(
            SEQUENCE,
            self.version
            + element(_INTEGER, _integer(fields.serial))
            + self.algorithm
            + self.issuer
            + element(SEQUENCE, validity)
            + fields.subject
            + fields.spki
            + element(_EXTENSIONS, element(SEQUENCE, extensions)),
        )

    def fill_and_read(self, fields: Fields) -> tuple[bytes, Fields]:
        """The TBSCertificate, and what :meth:`read` finds in it. Raises :class:`Malformed` as that does."""
        tbs = self.fill(fields)
        try:
            found = self._read(tbs)
        except (ValueError, IndexError, OverflowError):
            found = None
        # Where they are equal, filling in what was found would give the same bytes again.
        return tbs, fields if found == fields else self.read(tbs)

    def read(self, tbs: bytes) -> Fields:
        """What is in the gaps. Raises :class:`Malformed` where anything else differs from the template."""
        try:
            fields = self._read(tbs)
            if self.fill(fields) == tbs:
                return fields
        except (ValueError, IndexError, OverflowError):
            pass
        raise Malformed("it differs from its template where it must not, or is not in DER")

    def _read(self, tbs: bytes) -> Fields:
        """Takes for granted that all else is the template's: :meth:`read` makes sure of that."""
        at, _ = inside(tbs, 0)
        start, at = inside(tbs, at + len(self.version))
        serial = int.from_bytes(tbs[start:at], "big", signed=True)
        start, at = inside(tbs, at + len(self.algorithm) + len(self.issuer))
        not_before, start = _read_time(tbs, start)
        not_after, _ = _read_time(tbs, start)
        start, at = at, inside(tbs, at)[1]
        subject = tbs[start:at]
        start, at = at, inside(tbs, at)[1]
        spki = tbs[start:at]
        start, _ = inside(tbs, inside(tbs, at)[0])
        start += len(self.usages) + len(_KEY_IDENTIFIER)
        at = start + _KEY_IDENTIFIER_SIZE
        key_identifier = tbs[start:at]
        start, _ = inside(tbs, at + len(self.authority))
        start, _ = inside(tbs, start + len(self.name_head))
        start, end = inside(tbs, start)
        names = []
        while start < end:
            tag = tbs[start]
            content, start = inside(tbs, start)
            names.append((tag, tbs[content:start]))
        validity = Validity(not_before, not_after)
        return Fields(serial, validity, subject, spki, key_identifier, tuple(names))


def _head(extension: bytes) -> bytes:
    """What stands before an extension's value: its OID, and whether it is critical."""
    *head, _ = elements(extension)
    return b"".join(part.whole for part in head)


def _integer(number: int) -> bytes:
    """The content of a DER INTEGER."""
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    return number.to_bytes(size, "big", signed=True)


def _time(moment: datetime) -> bytes:
    """UTCTime from 1950 through 2049, else GeneralizedTime (RFC 5280 section 4.1.2.5)."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    year = utc.year
    rest = utc.month, utc.day, utc.hour, utc.minute, utc.second
    if 1950 <= year < 2050:
        return b"\x17\x0d%02d%02d%02d%02d%02d%02dZ" % (year % 100, *rest)
    return b"\x18\x0f%04d%02d%02d%02d%02d%02dZ" % (year, *rest)


def _read_time(der: bytes, at: int) -> tuple[datetime, int]:
    """The time at ``at``, and the position after it."""
    start, end = inside(der, at)
    text = der[start:end].decode("ascii")
    if der[at] == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    return datetime.fromisoformat(f"{text[:8]}T{text[8:]}"), end
