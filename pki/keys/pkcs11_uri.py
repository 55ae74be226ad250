"""``pkcs11:`` URIs (RFC 7512): which token and which object on it, and by what module and PIN they are reached."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from attrs import evolve, field, fields, frozen

from pki.errors import Malformed, discreet

#: Longer is no URI that anybody has typed.
_LONGEST = 4096
_NAME = re.compile(r"[A-Za-z0-9_-]+")
#: pk11-pchar and pk11-qchar of section 2.3, but for what is percent-encoded.
_PATH_CHARACTERS = r"A-Za-z0-9._~:\[\]@!$'()*+,=&-"
_QUERY_CHARACTERS = r"A-Za-z0-9._~:\[\]@!$'()*+,=/?|-"
_PATH_VALUE = re.compile(rf"(?:[{_PATH_CHARACTERS}]|%[0-9A-Fa-f]{{2}})*")
_QUERY_VALUE = re.compile(rf"(?:[{_QUERY_CHARACTERS}]|%[0-9A-Fa-f]{{2}})*")
#: What is left as it is when one is written: only what reads the same in a shell, too.
_SAFE = "-._~:@+,/"
_TYPES = ("public", "private", "cert", "secret-key", "data")
_VERSION = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_SLOT = re.compile(r"[0-9]{1,18}")

Vendor = tuple[tuple[str, str], ...]
Value = TypeVar("Value")


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Malformed(
            f"{name}= is not UTF-8 when its percent-encoding is undone: only id= may be any bytes "
            "(RFC 7512 section 2.3)"
        ) from None


def _bytes(value: bytes, name: str) -> bytes:
    return value


def _object_type(value: bytes, name: str) -> str:
    text = _text(value, name)
    if text not in _TYPES:
        raise Malformed(
            f"type={discreet(text)} is none of {', '.join(_TYPES)} (RFC 7512 section 2.3)"
        )
    return text


def _version(value: bytes, name: str) -> tuple[int, int]:
    found = _VERSION.fullmatch(_text(value, name))
    if not found:
        raise Malformed(f"{name}= is a number, or two with a dot between (RFC 7512 section 2.3)")
    return int(found[1]), int(found[2] or 0)


def _number(value: bytes, name: str) -> int:
    text = _text(value, name)
    if not _SLOT.fullmatch(text):
        raise Malformed(f"{name}= is a decimal number (RFC 7512 section 2.3)")
    return int(text)


def _attribute(
    name: str, read: Callable[[bytes, str], Value], *, query: bool = False, shown: bool = True
) -> Any:
    """A field that is the attribute of that name."""
    return field(
        default=None, repr=shown, metadata={"attribute": name, "read": read, "query": query}
    )


@frozen(kw_only=True)
class Pkcs11Uri:
    """One, taken apart: ``Pkcs11Uri.parse(str(uri)) == uri``. What it does not name is None.

    Its ``repr`` does not show a PIN, and whoever shows ``str`` of one takes :attr:`locator`, which has none.
    """

    token: str | None = _attribute("token", _text)
    manufacturer: str | None = _attribute("manufacturer", _text)
    serial: str | None = _attribute("serial", _text)
    model: str | None = _attribute("model", _text)
    library_manufacturer: str | None = _attribute("library-manufacturer", _text)
    library_description: str | None = _attribute("library-description", _text)
    library_version: tuple[int, int] | None = _attribute("library-version", _version)
    slot_manufacturer: str | None = _attribute("slot-manufacturer", _text)
    slot_description: str | None = _attribute("slot-description", _text)
    slot_id: int | None = _attribute("slot-id", _number)
    object: str | None = _attribute("object", _text)
    id: bytes | None = _attribute("id", _bytes)
    type: str | None = _attribute("type", _object_type)
    pin_source: str | None = _attribute("pin-source", _text, query=True)
    pin_value: str | None = _attribute("pin-value", _text, query=True, shown=False)
    module_name: str | None = _attribute("module-name", _text, query=True)
    module_path: str | None = _attribute("module-path", _text, query=True)
    vendor: Vendor = ()
    """Attributes of the path that the RFC does not name. Whoever does not know one finds nothing (section 2.5)."""
    vendor_query: Vendor = ()
    """Those of the query. The same one may be there twice."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """By the grammar of section 2.3. Raises :class:`Malformed`, never with a PIN in it."""
        if len(text) > _LONGEST:
            raise Malformed(f"a pkcs11: URI has at most {_LONGEST} characters here")
        scheme, colon, rest = text.partition(":")
        if not colon or scheme.lower() != "pkcs11":
            raise Malformed(
                "a URI of a token's object begins with pkcs11: (RFC 7512 section 2.3), as in "
                "pkcs11:token=NAME?module-path=/path/to/module.so"
            )
        path, question, query = rest.partition("?")
        found: dict[str, Any] = {}
        vendor = _read(path, ";", _PATH_VALUE, _PATH, found)
        vendor_query = _read(query, "&", _QUERY_VALUE, _QUERY, found) if question else ()
        names = [name for name, _ in vendor]
        if len(set(names)) < len(names):
            raise Malformed("an attribute of the path is there twice (RFC 7512 section 2.3)")
        if found.get("pin_value") is not None and found.get("pin_source") is not None:
            raise Malformed(
                "there are both pin-source= and pin-value= (RFC 7512 section 2.4): leave out pin-value="
            )
        return cls(**found, vendor=vendor, vendor_query=vendor_query)

    def __str__(self) -> str:
        path = [*_written(self, _PATH), *_vendor(self.vendor)]
        query = [*_written(self, _QUERY), *_vendor(self.vendor_query)]
        return "pkcs11:" + ";".join(path) + ("?" + "&".join(query) if query else "")

    @property
    def locator(self) -> Self:
        """What it names, without how that is reached: no query, so nothing secret and no module to load."""
        return evolve(
            self,
            pin_source=None,
            pin_value=None,
            module_name=None,
            module_path=None,
            vendor_query=(),
        )

    @property
    def names_object(self) -> bool:
        """Whether it is about one object, rather than about the token."""
        return self.object is not None or self.id is not None

    @property
    def token_only(self) -> Self:
        """The token it is on: :attr:`locator` without the object."""
        return evolve(self.locator, object=None, id=None, type=None)

    def covers(self, other: "Pkcs11Uri") -> bool:
        """Whether all that this one's path names, ``other``'s names by the same value (section 2.5)."""
        return all(
            getattr(self, name) in (None, getattr(other, name)) for name in _PATH.values()
        ) and set(self.vendor) <= set(other.vendor)


def _names(*, query: bool) -> dict[str, str]:
    """The attributes of the path or of the query, and the field of each."""
    return {
        attribute.metadata["attribute"]: attribute.name
        for attribute in fields(Pkcs11Uri)
        if attribute.metadata and attribute.metadata["query"] is query
    }


_PATH = _names(query=False)
_QUERY = _names(query=True)
_READ: dict[str, Callable[[bytes, str], object]] = {
    attribute.name: attribute.metadata["read"]
    for attribute in fields(Pkcs11Uri)
    if attribute.metadata
}


def _read(
    text: str,
    separator: str,
    grammar: re.Pattern[str],
    known: dict[str, str],
    found: dict[str, Any],
) -> Vendor:
    """Puts what the RFC names into ``found``; what it does not name is returned."""
    vendor = []
    for piece in text.split(separator) if text else ():
        name, equals, value = piece.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise Malformed(
                f"a pkcs11: URI is made of NAME=VALUE with {separator!r} between: one piece is not "
                "(RFC 7512 section 2.3)"
            )
        if not grammar.fullmatch(value):
            raise Malformed(
                f"{name}= has a character that has to be percent-encoded there (RFC 7512 section 2.3): "
                "a space is %20"
            )
        undone = unquote_to_bytes(value)
        if name not in known:
            vendor.append((name, _text(undone, name)))
        elif known[name] in found:
            raise Malformed(f"{name}= is there twice (RFC 7512 section 2.3)")
        else:
            found[known[name]] = _READ[known[name]](undone, name)
    return tuple(vendor)


def _written(uri: Pkcs11Uri, known: dict[str, str]) -> Iterable[str]:
    for name, where in known.items():
        value = getattr(uri, where)
        if value is None:
            continue
        if isinstance(value, bytes):
            yield f"{name}={''.join(f'%{byte:02x}' for byte in value)}"
        elif isinstance(value, tuple):
            yield f"{name}={value[0]}.{value[1]}"
        else:
            yield f"{name}={_quoted(str(value), name in _QUERY)}"


def _vendor(vendor: Vendor) -> Iterable[str]:
    for name, value in vendor:
        yield f"{name}={_quoted(value, False)}"


def _quoted(value: str, query: bool) -> str:
    return quote_from_bytes(value.encode(), _SAFE if query else _SAFE.replace("/", ""))
