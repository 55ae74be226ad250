"""What goes into a request, and what is made of an answer: JSON of declared shapes."""

import json
from typing import TypeVar

import msgspec

from pki.errors import Malformed

T = TypeVar("T")


def encoded(body: msgspec.Struct | bytes) -> tuple[str, bytes]:
    """A request's media type and body: JSON, or an OCSP request that is DER already."""
    if isinstance(body, bytes):
        return "application/ocsp-request", body
    return "application/json", json.dumps(msgspec.to_builtins(body)).encode()


def read_shape(address: str, shape: type[T], content: bytes) -> T:
    """The answer of a CA at ``address`` as a ``shape``. Raises :class:`Malformed` for what is none."""
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise Malformed(f"what answers at {address} is no CA of the mesh") from None
