"""CSRs as they come (RFC 2986 section 4), taken apart by no stricter reader than possession needs.

A signature is checked over the bytes as they stand, and nothing but the key and the names is used. So what many
programs write and strict readers refuse is read: no attributes, a wrong version, parameters where none belong, sets
that are not sorted, lengths that are longer than they must be. Everything else is refused by the rule that it breaks.
"""

from collections.abc import Iterator

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from pki.der import (
    INTEGER,
    OBJECT_IDENTIFIER,
    SEQUENCE,
    der_labels,
    element,
    oid_content,
    oid_text,
)
from pki.errors import HOSTILE_INPUT, Malformed, printable
from pki.pem import CERTIFICATE, REQUEST, named

#: The elements of one list that are looked at: to walk through all that fits into a CSR takes long.
_MOST = 64
#: Of a subject that is shown in words.
_LONGEST_SUBJECT = 2048
_ATTRIBUTES = _VERSION = 0xA0
_CONSTRUCTED = 0x20
_LONG_TAG = 0x1F
#: X.509's three: many programs write theirs into CSRs, which have but the first.
_VERSIONS = (b"\0", b"\1", b"\2")
#: RFC 2985 section 5.4.2, and what Windows has in its place.
_EXTENSION_REQUESTS = (
    oid_content("1.2.840.113549.1.9.14"),
    oid_content("1.3.6.1.4.1.311.2.1.14"),
)
_ALTERNATIVE_NAMES = oid_content("2.5.29.17")
_ANEW = "make it anew with openssl req -new -key KEY, or keytool -certreq"
_LABELS = {
    oid_content(f"2.5.4.{arc}"): label
    for arc, label in (
        (3, "CN"),
        (6, "C"),
        (7, "L"),
        (8, "ST"),
        (9, "STREET"),
        (10, "O"),
        (11, "OU"),
    )
} | {
    oid_content("0.9.2342.19200300.100.1.1"): "UID",
    oid_content("0.9.2342.19200300.100.1.25"): "DC",
}
#: T61String is read as everybody has written it.
_ENCODINGS = {
    0x0C: "utf-8",
    0x12: "ascii",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
_ESCAPED = str.maketrans({c: f"\\{c}" for c in '\\"+,;<>'} | {"\0": "\\00"})


class BadRequestForm(Malformed):
    """A CSR, or a part of one, in a form that is not read; it says which rule that breaks and what to do."""

    def __init__(self, rule: str, remedy: str = _ANEW) -> None:
        super().__init__(f"the CSR {rule}: {remedy}")
        self.detail, self.remedy = f"the CSR {rule}", remedy


@frozen
class CertificationRequest:
    """The parts of a CSR, each byte for byte as it stands there. Nothing is checked but the outline."""

    der: bytes
    info: bytes
    """What is signed."""
    subject: bytes
    spki: bytes
    attributes: bytes
    """What the attributes' element contains; empty where there are none."""
    algorithm: bytes
    """The OID that the signature is made by, as DER has it inside its element."""
    signature: bytes

    def public_key(self) -> PublicKeyTypes:
        """The key, decoded. Raises what cryptography raises for one that is none or that it does not know."""
        try:
            return load_der_public_key(self.spki)
        except HOSTILE_INPUT:
            shortest = _shortest(self.spki)
            if shortest == self.spki:
                raise
            return load_der_public_key(shortest)

    @property
    def key_algorithm(self) -> str:
        """The OID of the key's algorithm, in dotted form."""
        (algorithm, _) = _list(self.spki)
        return oid_text(_first_oid(algorithm[1], "its key's algorithm"))


def read_request(der: bytes) -> CertificationRequest:
    """A CSR in DER. Raises :class:`BadRequestForm`."""
    if not der:
        raise BadRequestForm("has nothing between its BEGIN and END lines")
    if der[0] != SEQUENCE:
        raise BadRequestForm("is no SEQUENCE, and so is none")
    _, start, end = _header(der, 0)
    if end > len(der):
        raise BadRequestForm(
            f"is cut short: {end - len(der)} bytes are missing", "copy it anew, whole"
        )
    if end < len(der):
        more = len(der) - end
        raise BadRequestForm(
            f"has {more} byte{'s' if more > 1 else ''} after its end",
            "cut them off with openssl req -in FILE -out NEW",
        )
    match _parts(der[start:end], "elements"):
        case [(0x30, body, info), (0x30, algorithm, _), (0x03, bits, _)]:
            pass
        case _:
            raise _none(der, "has not the three parts of one, information, algorithm and signature")
    match _parts(body, "elements"):
        case [(0x02, version, _), (0x30, _, subject), (0x30, key, spki), *rest]:
            pass
        case _:
            raise _none(der, "does not begin with a version, a subject and a key")
    if version not in _VERSIONS:
        number = int.from_bytes(version[:8], "big", signed=True) + 1
        raise BadRequestForm(f"says that it is of version {number}, and there is but version 1")
    match _parts(key, "elements"):
        case [(0x30, _, _), (0x03, _, _)]:
            pass
        case _:
            raise BadRequestForm("has a key that is not an algorithm and a bit string")
    match rest:
        case []:
            attributes = b""
        case [(0xA0, attributes, _)]:
            pass
        case _:
            raise _none(der, "has something other than attributes after its key")
    if bits[:1] != b"\0":
        raise BadRequestForm("has a signature that is not made of whole bytes")
    oid = _first_oid(algorithm, "its signature's algorithm")
    return CertificationRequest(der, info, subject, spki, attributes, oid, bits[1:])


def alternative_names_in(attributes: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each name that a CSR asks for (RFC 5280 section 4.2.1.6), however many there are.

    No other extension is looked into. Raises :class:`BadRequestForm`.
    """
    seen: set[bytes] = set()
    names = b""
    for extension in _extensions(attributes):
        match _parts(extension, "elements"):
            case [(0x06, oid, _), (0x04, value, _)] | [
                (0x06, oid, _),
                (0x01, _, _),
                (0x04, value, _),
            ]:
                pass
            case _:
                raise BadRequestForm("asks for an extension that is not a name and a value")
        if len(seen) == _MOST:
            raise BadRequestForm(f"asks for more than {_MOST} extensions", "ask for less")
        if oid in seen:
            raise BadRequestForm(f"asks for the extension {oid_text(oid)} twice", "ask for it once")
        seen.add(oid)
        if oid == _ALTERNATIVE_NAMES:
            names = value
    if not names:
        return
    tag, at, end = _at(names, 0)
    if tag != SEQUENCE or end != len(names):
        raise BadRequestForm("asks for a subjectAltName that is no list of names")
    while at < end:
        tag, start, stop = _at(names, at)
        yield tag, names[start:stop]
        at = stop


def subject_text(name: bytes) -> str:
    """A Name as RFC 4514 writes it, for logs: what cannot be read in it is ``#`` and hex. Raises nothing."""
    if len(name) > _LONGEST_SUBJECT:
        return f"#{name[:100].hex()}…"
    try:
        texts = [
            "+".join(_attribute_text(part) for _, _, part in _parts(rdn, "attributes"))
            for _, rdn, _ in _list(name)
        ]
    except Malformed:
        return f"#{name[:100].hex()}"
    return printable(",".join(reversed(texts)))


def _attribute_text(attribute: bytes) -> str:
    try:
        (_, oid, _), (tag, value, whole) = _list(attribute)
    except ValueError:  # not two
        return f"#{attribute[:100].hex()}"
    label = _LABELS.get(oid) or oid_text(oid)
    try:
        text = value.decode(_ENCODINGS[tag])
    except (LookupError, UnicodeDecodeError):
        return f"{label}=#{whole[:100].hex()}"
    text = text.translate(_ESCAPED)
    escape = "\\" if text.startswith(("#", " ")) else ""
    return f"{label}={escape}{text}"


def _extensions(attributes: bytes) -> Iterator[bytes]:
    """What each Extension contains that is asked for (RFC 2985 section 5.4.2)."""
    for tag, content, _ in _parts(attributes, "attributes"):
        match _parts(content, "elements") if tag == SEQUENCE else ():
            case [(0x06, oid, _), (0x31, values, _)]:
                pass
            case _:
                raise BadRequestForm("has an attribute that is not a name and a set of values")
        if oid not in _EXTENSION_REQUESTS:
            continue
        for kind, listed, _ in _parts(values, "requests for extensions"):
            if kind != SEQUENCE:
                raise BadRequestForm("asks for extensions that are not in a SEQUENCE")
            for each, extension, _ in _parts(listed, "extensions"):
                if each != SEQUENCE:
                    raise BadRequestForm("asks for an extension that is no SEQUENCE")
                yield extension


def _list(whole: bytes) -> list[tuple[int, bytes, bytes]]:
    """The elements inside of one."""
    _, start, end = _at(whole, 0)
    return _parts(whole[start:end], "elements")


def _parts(content: bytes, what: str) -> list[tuple[int, bytes, bytes]]:
    """Tag, content and whole of each element. Raises :class:`BadRequestForm`, also for more than anybody needs."""
    found: list[tuple[int, bytes, bytes]] = []
    at, last = 0, len(content)
    while at < last:
        if len(found) == _MOST:
            raise BadRequestForm(f"has more than {_MOST} {what} in one place", "ask for less")
        # A short length after an ordinary tag, as most have: that is quicker seen here than in _header().
        if (
            last - at > 1
            and (size := content[at + 1]) < 0x80
            and content[at] & _LONG_TAG != _LONG_TAG
        ):
            tag, start, end = content[at], at + 2, at + 2 + size
        else:
            tag, start, end = _header(content, at)
        if end > last:
            raise _overlong()
        found.append((tag, content[start:end], content[at:end]))
        at = end
    return found


def _at(data: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the element at ``at``, where its content begins and where it ends. Raises :class:`BadRequestForm`."""
    found = _header(data, at)
    if found[2] > len(data):
        raise _overlong()
    return found


def _overlong() -> BadRequestForm:
    return BadRequestForm("has an element in it that is longer than what it stands in")


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """The same; it may end after all that there is."""
    tag, start = data[at], at + 2
    if tag & _LONG_TAG == _LONG_TAG:
        raise BadRequestForm("has an element of a kind that no CSR has")
    size = data[at + 1] if at + 1 < len(data) else 1
    if size >= 0x80:
        octets = size & 0x7F
        if not octets:
            raise BadRequestForm(
                "has an element whose length is left open, as BER has it and DER has not (X.690 section 10.1)"
            )
        size = int.from_bytes(data[start : start + octets], "big")
        start += octets
    return tag, start, start + size


def _first_oid(identifier: bytes, what: str) -> bytes:
    parts = _parts(identifier, "parameters")
    if not parts or parts[0][0] != OBJECT_IDENTIFIER or not parts[0][1]:
        raise BadRequestForm(f"does not name {what}")
    return parts[0][1]


def _none(der: bytes, rule: str) -> BadRequestForm:
    """For something else that stands in a CSR's block, its name."""
    labels = der_labels(der)
    what = labels[0] if labels else REQUEST
    if what == CERTIFICATE and not _is_certificate(der):
        what = REQUEST
    if what == REQUEST:
        return BadRequestForm(rule)
    return BadRequestForm(
        f"is none: the block holds {named(what)}", "send what openssl req -new writes"
    )


def _is_certificate(der: bytes) -> bool:
    """Whether it has a certificate's outline (RFC 5280 section 4.1)."""
    try:
        tags = [tag for tag, _, _ in _list(_list(der)[0][2])]
    except Malformed:
        return False
    return tags[:3] in ([_VERSION, INTEGER, SEQUENCE], [INTEGER, SEQUENCE, SEQUENCE]) and len(
        tags
    ) in range(6, 11)


def _shortest(der: bytes, depth: int = 0) -> bytes:
    """The same with each length as short as it can be, three levels deep: for those who read DER only."""
    try:
        return b"".join(
            element(
                tag, _shortest(content, depth + 1) if tag & _CONSTRUCTED and depth < 3 else content
            )
            for tag, content, _ in _parts(der, "elements")
        )
    except Malformed:
        return der
