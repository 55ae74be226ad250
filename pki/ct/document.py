"""JSON in files about logs: sizes capped, no member twice, and in the shape that was asked for."""

import json
from typing import NoReturn, TypeVar

import msgspec

from pki.errors import Malformed, discreet

T = TypeVar("T")
#: Bytes. The web's list of all its logs has 200 kB.
LARGEST = 4 * 1024 * 1024


def read(data: bytes, shape: type[T]) -> T:
    """``data`` as a ``shape``. Raises :class:`Malformed`; what the shape does not name is passed over."""
    if len(data) > LARGEST:
        raise Malformed(f"it has over {LARGEST} bytes")
    try:
        return msgspec.convert(_JSON.decode(data.decode("utf-8")), type=shape)
    except msgspec.ValidationError as error:
        raise Malformed(f"it does not fit: {discreet(str(error), 200)}") from None
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is no JSON: {discreet(str(error), 200)}") from None


def write(value: object) -> bytes:
    """``value`` as people can read it, its members in the order of their fields, and a newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member appears twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
