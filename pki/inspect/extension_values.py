"""What extensions say, as text: a decoder for each kind that is known here.

Names of fields are RFC 5280's. A decoder yields what it has read before it raises :class:`pki.errors.Malformed`.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from pki.ct.sct import parse_extensions
from pki.ct.wire import Reader
from pki.der import (
    GENERALIZED_TIME,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    SEQUENCE,
    UTC_TIME,
)
from pki.errors import Malformed, printable
from pki.inspect.ber import Node, damage, expect, first, integer_of, named_bits, oid_of, time_of
from pki.inspect.distribution_points import distribution_points, issuing_point
from pki.inspect.name_text import (
    LONGEST,
    Note,
    general_name_text,
    hex_pairs,
    string_text,
)
from pki.inspect.oid_names import ACCESS, POLICIES, QUALIFIERS, USAGES
from pki.serial import serial_pairs
from pki.svid.revocation_set import Reason
from pki.validity import rfc3339

#: From the value, and to whom oddities are told, to one fact each.
Decoder = Callable[[Node, Note], Iterable[str]]

BOOLEAN = 0x01
TRUE = b"\xff"
#: Numbers that are longer are shown in hex: Python takes long to write them in decimal, or does not.
_LONGEST_NUMBER = 128
_DEEPEST = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_KEY_USAGES = (
    "digitalSignature",
    "contentCommitment",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
_NETSCAPE_TYPES = (
    "sslClient",
    "sslServer",
    "email",
    "objectSigning",
    "reserved",
    "sslCA",
    "emailCA",
    "objectSigningCA",
)
_TLS_FEATURES = {5: "status_request", 17: "status_request_v2"}


def number_text(node: Node) -> str:
    """A number in decimal; a very long one in hex. Raises :class:`Malformed`."""
    number = integer_of(node)
    return str(number) if number.bit_length() <= _LONGEST_NUMBER else f"0x{number:x}"


def _basic_constraints(root: Node, note: Note) -> Iterator[str]:
    flag, length = None, None
    for part in expect(root, SEQUENCE, "value", root.at).children:
        if part.tag == BOOLEAN and flag is None and length is None:
            flag = part
        elif part.tag == INTEGER and length is None:
            length = part
        else:
            raise damage(part.at, "there is something in it that does not belong there")
    if flag is not None and len(flag.content) != 1:
        raise damage(flag.at, "its CA flag is neither true nor false")
    yield f"CA: {'yes' if flag is not None and flag.content != bytes(1) else 'no'}"
    if flag is not None and flag.content not in (b"\0", TRUE):
        note("its CA flag is not written as DER has it: FF")
    if length is not None:
        yield f"path length: {number_text(length)}"
        if flag is None or flag.content == bytes(1):
            note("only a CA has a path length (RFC 5280 section 4.2.1.9)")


def _key_usage(root: Node, note: Note) -> Iterator[str]:
    found: list[str] = []
    for name in named_bits(root, _KEY_USAGES):
        found.append(name)
        yield name
    if not found:
        note("it allows nothing: no bit is set (RFC 5280 section 4.2.1.3)")
    for name in ("encipherOnly", "decipherOnly"):
        if name in found and "keyAgreement" not in found:
            note(f"{name} without keyAgreement has no meaning (RFC 5280 section 4.2.1.3)")


def _extended_key_usage(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        oid = oid_of(part)
        yield USAGES.get(oid, oid)


def _general_names(root: Node, note: Note) -> Iterator[str]:
    for part in root.children:
        yield general_name_text(part, note)


def _key_identifier(root: Node, note: Note) -> Iterator[str]:
    yield hex_pairs(expect(root, OCTET_STRING, "value", root.at).octets())


def _authority_key_identifier(root: Node, note: Note) -> Iterator[str]:
    tags: set[int] = set()
    for part in expect(root, SEQUENCE, "value", root.at).children:
        if part.tag == 0x80:
            yield hex_pairs(part.content)
        elif part.tag == 0xA1:
            for name in part.children:
                yield f"issuer: {general_name_text(name, note)}"
        elif part.tag == 0x82:
            yield f"serial: {serial_pairs(integer_of(part))}"
        else:
            raise damage(part.at, "there is something in it that does not belong there")
        tags.add(part.tag)
    if (0xA1 in tags) != (0x82 in tags):
        note("an issuer and a serial number go together (RFC 5280 section 4.2.1.1)")


def _name_constraints(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        kind = {0xA0: "permitted", 0xA1: "excluded"}.get(part.tag)
        if kind is None:
            raise damage(part.at, "there is something in it that does not belong there")
        for subtree in part.children:
            base, *limits = subtree.children
            text = general_name_text(base, note, masked=True)
            yield f"{kind} {text}"
            if "*" in text:
                note(
                    f"{text} has a wildcard, and in constraints there is none (RFC 5280 section 4.2.1.10)"
                )
            if limits:
                note(
                    f"the subtree at byte {subtree.at} has limits (RFC 5280 section 4.2.1.10: none)"
                )


def _policies(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        oid = oid_of(first(part.content, part.inner))
        yield f"{oid} ({POLICIES[oid]})" if oid in POLICIES else oid
        for qualifiers in tuple(part.children)[1:]:
            for qualifier in qualifiers.children:
                yield from _qualifier(oid, qualifier, note)


def _qualifier(policy: str, node: Node, note: Note) -> Iterator[str]:
    parts = tuple(node.children)
    if len(parts) != 2:
        raise damage(node.at, "a policy's qualifier is damaged")
    kind, value = oid_of(parts[0]), parts[1]
    label = QUALIFIERS.get(kind, kind)
    if label == "CPS" and (text := string_text(value, note, "a CPS")) is not None:
        yield printable(f"{policy} CPS: {text}", LONGEST)
        return
    if label != "notice" or value.tag != SEQUENCE:
        if label in QUALIFIERS.values():
            note(f"the {label} at byte {value.at} is of another type than it must be")
        yield f"{policy} {label}: {hex_pairs(value.whole[:64])}"
        return
    reference = ""
    for part in value.children:
        if part.tag == SEQUENCE:
            organization, numbers = part.children
            name = string_text(organization, note, "a notice's organization")
            counted = ", ".join(map(number_text, numbers.children))
            reference = printable(f"{policy} notice of {name}: {counted}", LONGEST)
        elif (text := string_text(part, note, "a notice")) is not None:
            yield printable(f"{policy} notice: {text}", LONGEST)
    if reference:
        yield reference


def _policy_mappings(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        theirs, ours = map(oid_of, part.children)
        yield f"{theirs} is {ours} here"


def _policy_constraints(root: Node, note: Note) -> Iterator[str]:
    said = {0x80: "explicit policy required", 0x81: "policy mapping inhibited"}
    for part in expect(root, SEQUENCE, "value", root.at).children:
        if part.tag not in said:
            raise damage(part.at, "there is something in it that does not belong there")
        yield f"{said[part.tag]} after {number_text(part)} certificates"


def _inhibit_any_policy(root: Node, note: Note) -> Iterator[str]:
    yield f"after {number_text(root)} certificates"
    if integer_of(root) < 0:
        note("a number of certificates is not negative (RFC 5280 section 4.2.1.14)")


def _access(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        parts = tuple(part.children)
        if len(parts) != 2:
            raise damage(part.at, "a description of access is damaged")
        method = oid_of(parts[0])
        yield f"{ACCESS.get(method, method)} {general_name_text(parts[1], note)}"


def _timestamps(root: Node, note: Note) -> Iterator[str]:
    """RFC 6962 section 3.3: inside an OCTET STRING it is no DER."""
    data = expect(root, OCTET_STRING, "value", root.at).octets()
    at = 2
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        sct = data[at + 2 : at + 2 + size]
        if len(sct) < max(size, 43):
            raise damage(root.inner + at, "a signed certificate timestamp is cut short")
        moment = _EPOCH + _milliseconds(sct[33:41], root.inner + at)
        yield f"{rfc3339(moment)} by log {hex_pairs(sct[1:33])}{_entry(sct[41:])}"
        at += 2 + size


def _entry(rest: bytes) -> str:
    """Where the entry is, by logs that say it (C2SP static-ct-api); empty where that cannot be read."""
    try:
        index = parse_extensions(Reader(rest).vector(2))
    except Malformed:
        return ""
    return "" if index is None else f", entry {index}"


def _milliseconds(octets: bytes, at: int) -> timedelta:
    count = int.from_bytes(octets, "big")
    if count > 253402300799999:  # the end of the year 9999
        raise damage(at, "a signed certificate timestamp is of no year that there is")
    return timedelta(milliseconds=count)


def _usage_period(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        said = {0x80: "not before", 0x81: "not after"}.get(part.tag, "time")
        moment, _ = time_of(Node(0x18, part.content, part.whole, part.at))
        yield f"{said} {rfc3339(moment)}"


def _template(root: Node, note: Note) -> Iterator[str]:
    oid, *numbers = expect(root, SEQUENCE, "value", root.at).children
    version = ".".join(map(number_text, numbers))
    yield f"{oid_of(oid)} version {version}" if version else oid_of(oid)


def _tls_feature(root: Node, note: Note) -> Iterator[str]:
    for part in expect(root, SEQUENCE, "value", root.at).children:
        number = integer_of(part)
        yield _TLS_FEATURES.get(number) or number_text(part)


def _reason(root: Node, note: Note) -> Iterator[str]:
    yield reason_text(root)


def reason_text(node: Node) -> str:
    """Why something is revoked (RFC 5280 section 5.3.1). Raises :class:`Malformed`."""
    number = integer_of(node)
    try:
        return Reason.numbered(number).value
    except Malformed:
        return f"reason {number_text(node)}"


def _time(root: Node, note: Note) -> Iterator[str]:
    yield rfc3339(time_of(root)[0])


def _number(root: Node, note: Note) -> Iterator[str]:
    yield number_text(expect(root, INTEGER, "value", root.at))


def _text(root: Node, note: Note) -> Iterator[str]:
    text = string_text(root, note, "its text")
    if text is None:
        raise damage(root.at, "it is no text")
    yield printable(text, LONGEST)


def _leaves(root: Node, note: Note, depth: int = 0) -> Iterator[str]:
    """The identifiers, texts, times and numbers in it, of what has too many forms to be told apart here."""
    if depth > _DEEPEST:
        raise damage(root.at, "it is nested too deep")
    if root.tag & 0x20:
        for part in root.children:
            yield from _leaves(part, note, depth + 1)
    elif root.tag == OBJECT_IDENTIFIER:
        oid = oid_of(root)
        yield USAGES.get(oid, oid)
    elif root.tag in (UTC_TIME, GENERALIZED_TIME):
        yield rfc3339(time_of(root)[0])
    elif root.tag == INTEGER:
        yield number_text(root)
    elif (text := string_text(root, note, "its text")) is not None:
        yield printable(text, LONGEST)
    else:
        yield hex_pairs(root.content[:64])


def _says(text: str) -> Decoder:
    return lambda root, note: (text,)


DECODERS: dict[str, Decoder] = {
    "2.5.29.14": _key_identifier,
    "2.5.29.15": _key_usage,
    "2.5.29.16": _usage_period,
    "2.5.29.17": _general_names,
    "2.5.29.18": _general_names,
    "2.5.29.19": _basic_constraints,
    "2.5.29.20": _number,
    "2.5.29.21": _reason,
    "2.5.29.24": _time,
    "2.5.29.27": _number,
    "2.5.29.28": issuing_point,
    "2.5.29.29": _general_names,
    "2.5.29.30": _name_constraints,
    "2.5.29.31": distribution_points,
    "2.5.29.32": _policies,
    "2.5.29.33": _policy_mappings,
    "2.5.29.35": _authority_key_identifier,
    "2.5.29.36": _policy_constraints,
    "2.5.29.37": _extended_key_usage,
    "2.5.29.46": distribution_points,
    "2.5.29.54": _inhibit_any_policy,
    "2.5.29.60": _time,
    "1.3.6.1.5.5.7.1.1": _access,
    "1.2.840.113549.1.9.15": _leaves,
    "1.2.840.113533.7.65.0": _leaves,
    "1.3.36.8.3.3": _leaves,
    "1.3.6.1.4.1.311.21.10": _leaves,
    "1.3.6.1.5.5.7.1.3": _leaves,
    "1.3.6.1.5.5.7.1.14": _leaves,
    "2.5.29.9": _leaves,
    "1.3.6.1.5.5.7.1.11": _access,
    "1.3.6.1.5.5.7.1.24": _tls_feature,
    "1.3.6.1.5.5.7.48.1.2": _key_identifier,
    "1.3.6.1.5.5.7.48.1.5": _says("the revocation of this OCSP responder is not checked"),
    "1.3.6.1.5.5.7.48.1.6": _time,
    "1.3.6.1.4.1.11129.2.4.2": _timestamps,
    "1.3.6.1.4.1.11129.2.4.3": _says("this is a precertificate: no TLS program may accept it"),
    "1.3.6.1.4.1.11129.2.4.5": _timestamps,
    "1.3.6.1.4.1.311.20.2": _text,
    "1.3.6.1.4.1.311.21.1": _number,
    "1.3.6.1.4.1.311.21.4": _time,
    "1.3.6.1.4.1.311.21.7": _template,
    "2.16.840.1.113730.1.1": lambda root, note: named_bits(root, _NETSCAPE_TYPES),
    "2.16.840.1.113730.1.2": _text,
    "2.16.840.1.113730.1.3": _text,
    "2.16.840.1.113730.1.4": _text,
    "2.16.840.1.113730.1.7": _text,
    "2.16.840.1.113730.1.8": _text,
    "2.16.840.1.113730.1.12": _text,
    "2.16.840.1.113730.1.13": _text,
}
