"""Tokens as they travel: JWS Compact Serialization (RFC 7515 section 3.1), read strictly and written."""

import base64
import binascii
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NoReturn

from attrs import field, frozen

from pki.codes import Code
from pki.errors import Malformed
from pki.keys.kind import base64url

#: A token that is longer is not even looked at. One of ours has about 600 characters.
LARGEST_TOKEN = 16 * 1024
_DEEPEST = 16


class BadJwt(Malformed):
    """The text is no JWT-SVID. The message holds no piece of it that could be used."""

    code = Code.BAD_JWT


@frozen
class CompactToken:
    """A token taken apart; nothing in it is proven yet."""

    header: Mapping[str, object]
    claims: Mapping[str, object]
    signing_input: bytes = field(repr=False)
    """What the signature is over."""
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, token: str, what: str = "JWT-SVID") -> "CompactToken":
        """Raises :class:`BadJwt`; ``what`` the token is to be, its text says."""
        if len(token) > LARGEST_TOKEN:
            raise BadJwt(f"the token has over {LARGEST_TOKEN} characters: no {what} is that long")
        parts = token.split(".")
        if len(parts) != 3:
            raise BadJwt(
                f"a {what} has three parts between dots (JWS Compact Serialization), and here are {len(parts)}"
            )
        header, claims = (
            _json_object(_decoded(part, name), name)
            for part, name in zip(parts, ("header", "payload"), strict=False)
        )
        signature = _decoded(parts[2], "signature")
        return cls(header, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def kid_of(token: str) -> str | None:
    """The key that a token says it is signed by, believed or not; None where it says none."""
    try:
        kid = CompactToken.parse(token).header.get("kid")
    except BadJwt:
        return None
    return kid if isinstance(kid, str) else None


def signing_input(header: Mapping[str, object], claims: Mapping[str, object]) -> bytes:
    """What is to be signed (RFC 7515 section 5.1)."""
    return b".".join(base64url(_written(part)).encode() for part in (header, claims))


def serialized(signed: bytes, signature: bytes) -> str:
    """The token: what was signed, and its signature."""
    return f"{signed.decode()}.{base64url(signature)}"


def strict_object(data: bytes, what: str) -> dict[str, object]:
    """A JSON object in which no member appears twice and nothing is nested deeply. Raises :class:`BadJwt`."""
    return _json_object(data, what)


def audiences_of(claims: Mapping[str, object]) -> tuple[str, ...]:
    """Whom a token is for (RFC 7519 section 4.1.3); none where ``aud`` is not there, or is no name and no names."""
    audience = claims.get("aud")
    names = [audience] if isinstance(audience, str) else audience
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(names)


def numeric_date(claims: Mapping[str, object], name: str) -> datetime | None:
    """A NumericDate (RFC 7519 section 2); None where there is none. Raises :class:`BadJwt` for what is no time."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            # Cut off: a fraction makes nothing live longer.
            return datetime.fromtimestamp(math.floor(value), UTC)
        except (ValueError, OverflowError, OSError):
            pass
    raise BadJwt(f"the token's {name} is no time in seconds (RFC 7519 section 2)")


def base64url_bytes(text: str) -> bytes | None:
    """What :func:`pki.keys.kind.base64url` has written; None where it could not have written ``text``."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    # One spelling only: bits behind the last byte would make two tokens of one.
    return data if base64url(data) == text else None


def _decoded(part: str, name: str) -> bytes:
    data = base64url_bytes(part)
    if data is None:
        raise BadJwt(f"the token's {name} is not base64url without padding (RFC 7515 section 2)")
    return data


def _json_object(data: bytes, what: str) -> dict[str, object]:
    try:
        found = _JSON.decode(data.decode("utf-8"))
        # Half of a surrogate pair could be handed to nobody (RFC 8259 section 8.2).
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except _DuplicateMember:
        raise BadJwt(f"the {what} has a member twice (RFC 7519 section 4)") from None
    except (ValueError, RecursionError):
        raise BadJwt(f"the {what} is not JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise BadJwt(f"the {what} is JSON, but not an object")
    if _is_deep(found):
        raise BadJwt(f"the {what} is nested too deeply")
    return found


def _is_deep(found: object) -> bool:
    layer = [found]
    for _ in range(_DEEPEST):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True


def _written(part: Mapping[str, object]) -> bytes:
    return json.dumps(part, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


class _DuplicateMember(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _DuplicateMember
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
