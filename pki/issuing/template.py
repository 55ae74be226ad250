"""Templates: what all certificates of one shape have in common, in DER, with gaps for what differs.

A template is cut out of a whole certificate that was laid out and linted in full, so what it repeats
has passed every rule. What goes into its gaps is read back and linted each time: :mod:`pki.issuing.lint`.
"""

from typing import Self

from attrs import frozen

from pki.der import (
    OCTET_STRING,
    SEQUENCE,
    element,
    elements,
    inside,
    integer,
    parse_time,
    time,
)
from pki.errors import Malformed
from pki.validity import Validity

_EXTENSIONS = 0xA3
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
        period = time(fields.validity.not_before) + time(fields.validity.not_after)
        named = element(SEQUENCE, self.name_head + element(OCTET_STRING, names))
        extensions = b"%b%b%b%b%b%b" % (
            self.usages,
            _KEY_IDENTIFIER,
            fields.key_identifier,
            self.authority,
            named,
            self.rest,
        )
        body = b"%b%b%b%b%b%b%b%b" % (
            self.version,
            integer(fields.serial),
            self.algorithm,
            self.issuer,
            element(SEQUENCE, period),
            fields.subject,
            fields.spki,
            element(_EXTENSIONS, element(SEQUENCE, extensions)),
        )
        return element(SEQUENCE, body)

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
        # What always has a short length is read as such: where it has not, filling in gives something else.
        start = inside(tbs, 0)[0] + len(self.version) + 2
        at = start + tbs[start - 1]
        serial = int.from_bytes(tbs[start:at], "big", signed=True)
        at += len(self.algorithm) + len(self.issuer) + 2
        end = at + 2 + tbs[at + 1]
        not_before = parse_time(tbs[at], tbs[at + 2 : end])
        at = end + 2 + tbs[end + 1]
        not_after = parse_time(tbs[end], tbs[end + 2 : at])
        start, at = at, at + 2 + tbs[at + 1]
        subject = tbs[start:at]
        start, at = at, inside(tbs, at)[1]
        spki = tbs[start:at]
        start = inside(tbs, inside(tbs, at)[0])[0] + len(self.usages) + len(_KEY_IDENTIFIER)
        at = start + _KEY_IDENTIFIER_SIZE
        key_identifier = tbs[start:at]
        start = inside(tbs, at + len(self.authority))[0] + len(self.name_head)
        at, end = inside(tbs, inside(tbs, start)[0])
        names = []
        while at < end:
            tag = tbs[at]
            start, at = inside(tbs, at)
            names.append((tag, tbs[start:at]))
        validity = Validity(not_before, not_after)
        return Fields(serial, validity, subject, spki, key_identifier, tuple(names))


def _head(extension: bytes) -> bytes:
    """What stands before an extension's value: its OID, and whether it is critical."""
    *head, _ = elements(extension)
    return b"".join(part.whole for part in head)
