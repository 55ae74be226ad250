"""Elements of BER with their places (X.690), read as tolerantly as can be: what is looked at need not be DER.

A place is an offset in bytes from the beginning of the block that is looked at.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from attrs import frozen

from pki.der import BIT_STRING, UTC_TIME, element
from pki.errors import Malformed, printable

_CONSTRUCTED = 0x20
_INDEFINITE = 0x80
_LONG_TAG = 0x1F
#: Of elements of indefinite length inside each other: each is walked through once for its end.
_DEEPEST = 16
_LONGEST_ARC = 128
_LONGEST_OID = 64
_MOST_BITS = 128
_UTC_TIME = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?()(Z|[+-]\d{4})?")
_GENERALIZED_TIME = re.compile(
    rb"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:(\d\d)(?:[.,](\d{1,9}))?)?)?(Z|[+-]\d{4})?"
)


@frozen
class Node:
    """One element."""

    tag: int
    """Its first octet."""
    content: bytes
    whole: bytes
    """With its tag and length."""
    at: int
    """Its place."""

    @property
    def inner(self) -> int:
        """The place of its content."""
        header = 2
        size = self.whole[1]
        if self.tag & _LONG_TAG == _LONG_TAG:
            while self.whole[header - 1] & 0x80:
                header += 1
            header += 1
            size = self.whole[header - 1]
        if size > _INDEFINITE:
            header += size & 0x7F
        return self.at + header

    @property
    def children(self) -> Iterator["Node"]:
        """What it is made of. Raises :class:`Malformed` when it comes to what cannot be read."""
        return nodes(self.content, self.inner)

    def octets(self, depth: int = 0) -> bytes:
        """The content of a string, which BER may cut into segments. Raises :class:`Malformed`."""
        if not self.tag & _CONSTRUCTED or self.tag & 0xC0:
            return self.content
        if depth > _DEEPEST:
            raise damage(self.at, "its segments are nested too deep")
        return b"".join(part.octets(depth + 1) for part in self.children)


def damage(at: int, why: str = "its DER is damaged or cut short") -> Malformed:
    """The error for what cannot be read at a place."""
    return Malformed(f"{why}, at byte {at}")


def nodes(data: bytes, base: int = 0) -> Iterator[Node]:
    """The elements that ``data``, which begins at the place ``base``, is made of; the good ones before a bad one.

    Raises :class:`Malformed`.
    """
    position = 0
    while position < len(data):
        node = _node(data, position, base, 0)
        yield node
        position += len(node.whole)


def _node(data: bytes, start: int, base: int, depth: int) -> Node:
    try:
        tag, position = data[start], start + 1
        if tag & _LONG_TAG == _LONG_TAG:
            while data[position] & 0x80:
                position += 1
            position += 1
        size = data[position]
    except IndexError:
        raise damage(base + start) from None
    position += 1
    if size == _INDEFINITE:
        if not tag & _CONSTRUCTED or depth >= _DEEPEST:
            raise damage(base + start)
        end = position
        while data[end : end + 2] != b"\0\0":
            end += len(_node(data, end, base, depth + 1).whole)
        return Node(tag, data[position:end], data[start : end + 2], base + start)
    if size > _INDEFINITE:
        octets = size & 0x7F
        size = int.from_bytes(data[position : position + octets], "big")
        position += octets
    end = position + size
    if end > len(data):
        missing = end - len(data)
        raise damage(base + start, f"its DER is damaged or cut short: {missing} bytes are missing")
    return Node(tag, data[position:end], data[start:end], base + start)


def only(node: Node, tag: int | None = None) -> Node:
    """The one element inside ``node``. Raises :class:`Malformed`."""
    found = tuple(node.children)
    if len(found) != 1 or tag not in (None, found[0].tag):
        raise damage(node.inner, "there is not exactly the one element that belongs there")
    return found[0]


def leading(node: Node, count: int) -> tuple[Node | None, ...]:
    """So many of the first elements inside ``node``, None for each that is missing. Raises :class:`Malformed`."""
    found = tuple(node.children)[:count]
    return found + (None,) * (count - len(found))


def first(data: bytes, base: int = 0) -> Node:
    """The first element of ``data``. Raises :class:`Malformed`."""
    node = next(nodes(data, base), None)
    if node is None:
        raise damage(base, "there is nothing in it")
    return node


def expect(node: Node | None, tag: int, what: str, at: int) -> Node:
    """``node``, which has that tag. Raises :class:`Malformed`."""
    if node is None:
        raise damage(at, f"its {what} is missing")
    if node.tag & ~_CONSTRUCTED != tag & ~_CONSTRUCTED:
        raise damage(node.at, f"its {what} is of another type than it must be")
    return node


def integer_of(node: Node) -> int:
    """An INTEGER's or ENUMERATED's value. Raises :class:`Malformed`."""
    if not node.content:
        raise damage(node.at, "a number has no digits")
    return int.from_bytes(node.content, "big", signed=True)


def bits_of(node: Node) -> bytes:
    """What a BIT STRING holds, as whole octets. Raises :class:`Malformed`."""
    octets = node.octets()
    if not octets:
        raise damage(node.at, "a bit string has no content")
    return octets[1:]


def named_bits(node: Node, names: tuple[str, ...]) -> Iterator[str]:
    """The names of the bits that are set in a BIT STRING. Raises :class:`Malformed`."""
    octets = bits_of(expect(node, BIT_STRING, "value", node.at))
    for number, bit in enumerate(bit for octet in octets for bit in f"{octet:08b}"):
        if number > _MOST_BITS:
            raise damage(node.at, "it has more bits than any there is")
        if bit == "1":
            yield names[number] if number < len(names) else f"bit {number}"


def oid_of(node: Node) -> str:
    """An OBJECT IDENTIFIER in dotted form. Raises :class:`Malformed`."""
    content = node.content
    if not content or content[-1] & 0x80 or len(content) > _LONGEST_OID:
        raise damage(node.at, "an object identifier is damaged or cut short")
    arcs: list[int] = []
    arc = 0
    for octet in content:
        arc = arc << 7 | octet & 0x7F
        if octet < 0x80:
            arcs.append(arc)
            arc = 0
    head = min(arcs[0] // 40, 2)
    return ".".join(map(str, (head, arcs[0] - 40 * head, *arcs[1:])))


def time_of(node: Node) -> tuple[datetime, bool]:
    """A UTCTime or GeneralizedTime, and whether it is written as RFC 5280 has it. Raises :class:`Malformed`."""
    octets = node.octets()
    is_short = node.tag & ~_CONSTRUCTED == UTC_TIME
    match = (_UTC_TIME if is_short else _GENERALIZED_TIME).fullmatch(octets)
    shown = printable(octets[:40].decode("ascii", "backslashreplace"))
    if match is None:
        raise damage(node.at, f"{shown!r} is no time")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(
            int(year) + (2000 if is_short and year < b"50" else 1900 if is_short else 0),
            int(month),
            int(day),
            int(hour),
            int(minute or 0),
            int(second or 0),
            int((fraction or b"0").ljust(6, b"0")[:6]),
            UTC,
        )
        if zone not in (None, b"Z"):
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
            moment += -offset if zone[:1] == b"+" else offset
    except (ValueError, OverflowError):
        raise damage(node.at, f"{shown!r} is no time") from None
    return moment, bool(second and zone == b"Z" and not fraction)


def definite(node: Node, depth: int = 0) -> bytes:
    """The element with each length as short as it can be, for those who read DER only; what it cannot read as it is."""
    if not node.tag & _CONSTRUCTED or depth > _DEEPEST or node.tag & _LONG_TAG == _LONG_TAG:
        return element(node.tag, node.content)
    return element(node.tag, b"".join(definite(child, depth + 1) for child in node.children))
