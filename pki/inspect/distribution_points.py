"""Where CRLs are, and what one is about: distribution points as certificates and CRLs name them (RFC 5280)."""

from collections.abc import Iterator

from pki.der import BIT_STRING, SEQUENCE
from pki.errors import printable
from pki.inspect.ber import Node, damage, expect, named_bits
from pki.inspect.name_text import LONGEST, Note, general_name_text, relative_name_text

_REASONS = (
    "unused",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
)


def distribution_points(root: Node, note: Note) -> Iterator[str]:
    for point in expect(root, SEQUENCE, "value", root.at).children:
        parts = {part.tag: part for part in point.children}
        if 0xA0 in parts:
            yield from _point_name(parts[0xA0], note)
        if 0xA2 in parts:
            for name in parts[0xA2].children:
                yield f"CRL issuer: {general_name_text(name, note)}"
        if 0x81 in parts:
            yield f"reasons: {', '.join(sorted(_reason_flags(parts[0x81])))}"


def _reason_flags(node: Node) -> Iterator[str]:
    return named_bits(Node(BIT_STRING, node.content, node.whole, node.at), _REASONS)


def _point_name(named: Node, note: Note) -> Iterator[str]:
    """A DistributionPointName (RFC 5280 section 4.2.1.13)."""
    for part in named.children:
        if part.tag == 0xA0:
            for name in part.children:
                yield general_name_text(name, note)
        else:
            text = relative_name_text(part, note, "distribution point")
            yield f"relative name: {printable(text, LONGEST)}"


def issuing_point(root: Node, note: Note) -> Iterator[str]:
    """RFC 5280 section 5.2.5."""
    limits = {
        0x81: "only certificates of users",
        0x82: "only certificates of CAs",
        0x84: "other issuers' certificates too",
        0x85: "only attribute certificates",
    }
    for part in expect(root, SEQUENCE, "value", root.at).children:
        if part.tag == 0xA0:
            yield from _point_name(part, note)
        elif part.tag == 0x83:
            yield f"only reasons: {', '.join(sorted(_reason_flags(part)))}"
        elif part.tag in limits:
            if part.content not in (b"", b"\0"):
                yield limits[part.tag]
        else:
            raise damage(part.at, "there is something in it that does not belong there")
