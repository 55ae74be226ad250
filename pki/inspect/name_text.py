"""Names as text, each part by itself: distinguished names (RFC 4514) and general names (RFC 5280 section 4.2.1.6).

What is odd or cannot be read is told to ``note``, with its place, and hides nothing beside it.
"""

from collections.abc import Callable, Iterator
from ipaddress import ip_address

from pki.errors import Malformed, printable
from pki.inspect.ber import Node, damage, first, leading, oid_of, only
from pki.inspect.oid_names import NAME_ATTRIBUTES, OTHER_NAMES

#: Long enough for the longest SPIFFE ID.
LONGEST = 4096
#: Takes a remark on what can be read and is not as it must be.
Note = Callable[[str], None]

_SET, _SEQUENCE = 0x31, 0x30
_PRINTABLE = 0x13
_PRINTABLES = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?"
)
#: Kinds of strings with their encodings. T61String is read as everybody has written it.
_STRINGS = {
    0x0C: ("UTF8String", "utf-8"),
    0x12: ("NumericString", "ascii"),
    _PRINTABLE: ("PrintableString", "ascii"),
    0x14: ("T61String", "latin-1"),
    0x16: ("IA5String", "ascii"),
    0x1A: ("VisibleString", "ascii"),
    0x1B: ("GeneralString", "ascii"),
    0x1C: ("UniversalString", "utf-32-be"),
    0x1E: ("BMPString", "utf-16-be"),
}
_ESCAPED = str.maketrans({c: f"\\{c}" for c in '\\"+,;<>'} | {"\0": "\\00"})
_HOST_NAMES = {0x81: "email", 0x82: "DNS", 0x86: "URI"}


def hex_pairs(data: bytes) -> str:
    """``AB:01:FF``, for people."""
    return data.hex(":").upper()


def string_text(node: Node, note: Note, what: str) -> str | None:
    """What a string of any of ASN.1's kinds says; None where it is no string. Nothing is made printable."""
    kind, encoding = _STRINGS.get(node.tag & ~0x20, ("", ""))
    if not encoding:
        return None
    octets = node.octets()
    try:
        text = octets.decode(encoding)
    except UnicodeDecodeError:
        if encoding.startswith("utf-") and encoding != "utf-8":
            note(f"{what} at byte {node.at} is no {kind}: its bytes are shown")
            return None
        text = _guessed(octets, note, f"{what} at byte {node.at} is no {kind}")
    if node.tag == _PRINTABLE and (foreign := sorted(set(octets) - _PRINTABLES)):
        characters = printable("".join(map(chr, foreign)), 20)
        note(f"{what} at byte {node.at} is a PrintableString and has {characters!r} in it")
    return text


def _guessed(octets: bytes, note: Note, odd: str) -> str:
    """Text in no encoding that it may be in."""
    try:
        text = octets.decode("utf-8")
        note(f"{odd}: it is read as UTF-8")
    except UnicodeDecodeError:
        text = octets.decode("latin-1")
        note(f"{odd}: it is read as Latin-1")
    return text


def name_text(name: Node, note: Note, what: str = "name") -> str:
    """A distinguished name as RFC 4514 writes it; empty for the empty name. Raises :class:`Malformed`.

    Its last part comes first. An attribute whose type has no name here, or whose value is no string, is
    ``#`` and its value's DER in hex (section 2.4).
    """
    return printable(",".join(reversed(tuple(_rdns(name, note, what)))), LONGEST)


def _rdns(name: Node, note: Note, what: str) -> Iterator[str]:
    for rdn in name.children:
        if rdn.tag != _SET:
            raise damage(rdn.at, f"its {what} is damaged")
        yield relative_name_text(rdn, note, what)


def relative_name_text(rdn: Node, note: Note, what: str) -> str:
    """One level of a name: its attributes. Raises :class:`Malformed`."""
    return "+".join(_attribute(part, note, what) for part in rdn.children)


def _attribute(part: Node, note: Note, what: str) -> str:
    try:
        kind, value, *rest = part.children
        oid = oid_of(kind)
    except (Malformed, ValueError):
        note(f"an attribute of its {what} at byte {part.at} cannot be decoded: its bytes are shown")
        return f"#{part.whole.hex()}"
    if rest:
        note(f"an attribute of its {what} at byte {part.at} has more than a value")
    label = NAME_ATTRIBUTES.get(oid)
    text = None
    if label is not None:
        try:
            text = string_text(value, note, f"{label} in its {what}")
        except Malformed:
            note(f"{label} in its {what} at byte {value.at} cannot be decoded: its bytes are shown")
    if text is None:
        return f"{label or oid}=#{value.whole.hex()}"
    return f"{label}={_escaped(text)}"


def _escaped(text: str) -> str:
    """A value as RFC 4514 section 2.4 has it."""
    value = text.translate(_ESCAPED)
    if value.startswith(("#", " ")):
        value = "\\" + value
    if text[1:].endswith(" "):
        value = value[:-1] + "\\ "
    return value


def general_name_text(name: Node, note: Note, what: str = "name", *, masked: bool = False) -> str:
    """A name with its kind before it: ``DNS:localhost``, ``URI:spiffe://…``. Raises :class:`Malformed`."""
    tag = name.tag
    if tag in _HOST_NAMES:
        kind = _HOST_NAMES[tag]
        try:
            text = name.content.decode("ascii")
        except UnicodeDecodeError:
            text = _guessed(name.content, note, f"the {kind} name at byte {name.at} is not ASCII")
        return printable(f"{kind}:{text}", LONGEST)
    if tag == 0x87:
        return f"IP:{_address(name, note, masked=masked)}"
    if tag == 0xA4:
        return f"dirName:{name_text(only(name), note, what)}"
    if tag == 0x88:
        return f"RID:{oid_of(name)}"
    if tag == 0xA0:
        return _other_name(name, note)
    kinds = {0xA3: "x400Address", 0xA5: "ediPartyName"}
    if tag not in kinds:
        note(f"the name at byte {name.at} is of no kind that there is: its bytes are shown")
    return f"{kinds.get(tag, 'other')}:{hex_pairs(name.whole[:64])}"


def _address(name: Node, note: Note, *, masked: bool) -> str:
    """An address; one with a mask in name constraints (RFC 5280 section 4.2.1.10)."""
    octets = name.content
    sizes = (8, 32) if masked else (4, 16)
    if len(octets) not in sizes:
        note(
            f"the IP address at byte {name.at} has {len(octets)} bytes, and must have "
            f"{sizes[0]} or {sizes[1]}"
        )
    if len(octets) in (4, 16):
        return str(ip_address(octets))
    if not masked or len(octets) not in sizes:
        return f"#{hex_pairs(octets[:64])}"
    half = len(octets) // 2
    address, mask = ip_address(octets[:half]), octets[half:]
    bits = f"{int.from_bytes(mask, 'big'):0{half * 8}b}"
    if "01" in bits:
        note(f"the mask of the IP address at byte {name.at} has gaps")
        return f"{address}/{ip_address(mask)}"
    return f"{address}/{bits.count('1')}"


def _other_name(name: Node, note: Note) -> str:
    kind, value = leading(name, 2)
    if kind is None or value is None:
        raise damage(name.at, "an otherName is damaged or cut short")
    oid = oid_of(kind)
    label = OTHER_NAMES.get(oid)
    inner = first(value.content, value.inner)
    if label is not None and (text := string_text(inner, note, label)) is not None:
        return printable(f"otherName:{label} {text}", LONGEST)
    return f"otherName:{label or oid} {hex_pairs(value.content[:64])}"
