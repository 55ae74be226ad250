"""Extensions of certificates, CSRs, CRLs and OCSP responses, one by one: a bad one hides none of the others.

Every text is printable: names come from strangers.
"""

from collections.abc import Iterator

from attrs import field, frozen

from pki.der import OBJECT_IDENTIFIER, OCTET_STRING
from pki.errors import Malformed
from pki.inspect.ber import Node, damage, expect, first, nodes, oid_of
from pki.inspect.extension_values import BOOLEAN, DECODERS, TRUE
from pki.inspect.oid_names import EXTENSIONS

#: Of extensions in one place, and of remarks on each: a file of 10 MB could hold millions.
_MOST = 1000


@frozen
class Extension:
    """One extension as people read it."""

    oid: str
    name: str
    """RFC 5280's name, or the OID where there is none here."""
    critical: bool
    values: tuple[str, ...]
    """One fact each, decoded; empty for a kind that is not known here; of a damaged one those before the damage."""
    value: bytes
    """The DER inside, as it came."""
    damaged: bool = False
    """It is of a known kind and cannot be decoded."""
    at: int = field(default=0, eq=False)
    """Its place, in bytes from the beginning of what it stands in."""
    why: str = field(default="", eq=False)
    """Of a damaged one: what was found."""
    remarks: tuple[str, ...] = field(default=(), eq=False)
    """What is odd about it and can be read nevertheless."""


def read_extensions(content: bytes, at: int = 0) -> tuple[Extension, ...]:
    """From what is inside an ``Extensions`` SEQUENCE (RFC 5280 section 4.1), which begins at the place ``at``.

    Raises nothing: what cannot be read is in one that is damaged.
    """
    return tuple(_read_all(content, at))


def damaged_extension(oid: str, value: bytes, at: int = 0, why: str = "") -> Extension:
    """What stands for an extension that cannot be decoded: its bytes."""
    return Extension(oid, EXTENSIONS.get(oid, oid), False, (), value, True, at, why)


def _read_all(content: bytes, at: int) -> Iterator[Extension]:
    place = at
    try:
        for number, part in enumerate(nodes(content, at)):
            place = part.at
            if number >= _MOST:
                raise damage(place, f"there are more than {_MOST}, and no more are read")
            yield _read(part)
            place += len(part.whole)
    except Malformed as error:
        yield damaged_extension("unknown", content[place - at :], place, str(error))


def _read(part: Node) -> Extension:
    try:
        oid_node, *flags, value_node = part.children
        oid = oid_of(expect(oid_node, OBJECT_IDENTIFIER, "object identifier", part.at))
        value = expect(value_node, OCTET_STRING, "value", part.at).octets()
    except Malformed as error:
        return damaged_extension("unknown", part.whole, part.at, str(error))
    except ValueError:
        return damaged_extension("unknown", part.whole, part.at, "it has no value")
    remarks: list[str] = []
    values: list[str] = []
    why = _decode(oid, value, value_node.inner, values, remarks)
    if any(flag.tag != BOOLEAN or flag.content != TRUE for flag in flags):
        remarks.append("whether it is critical is not written as DER has it (X.690 section 11.1)")
    return Extension(
        oid,
        EXTENSIONS.get(oid, oid),
        any(flag.content.strip(b"\0") for flag in flags if flag.tag == BOOLEAN),
        tuple(values),
        value,
        bool(why),
        part.at,
        why,
        tuple(remarks),
    )


def _decode(oid: str, value: bytes, at: int, values: list[str], remarks: list[str]) -> str:
    """Puts what the value says into ``values``; why it stopped before the end, if it did."""
    decode = DECODERS.get(oid)
    if decode is None:
        return ""

    def note(remark: str) -> None:
        if len(remarks) < _MOST:
            remarks.append(remark)

    try:
        root = first(value, at)
        for text in decode(root, note):
            values.append(text)  # one by one: those before the damage are kept
    except Malformed as error:
        return str(error)
    except ValueError:  # as many elements as belong there are not there
        return f"its DER is damaged or cut short, at byte {at}"
    if not values and not remarks:
        remarks.append("nothing is in it")
    if rest := len(value) - len(root.whole):
        remarks.append(f"{rest} bytes follow its value, at byte {at + len(root.whole)}")
    return ""
