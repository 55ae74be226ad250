"""Requests and answers about the keys that sign JWT-SVIDs; as :mod:`twisted_mesh.api.messages` has them."""

from msgspec import Struct


class JwtKeyRow(Struct, frozen=True):
    """A key that signs JWT-SVIDs, will, or has."""

    kid: str
    """:func:`pki.keys.key_id`; what tokens call it."""
    alg: str
    """``ES256``."""
    state: str
    """``prepared``, ``active`` or ``retired``."""
    published_at: str
    active_at: str | None
    retired_at: str | None
    until: str | None
    """When it comes to its next state: signs, is replaced, is forgotten."""


class JwtKeyRows(Struct, frozen=True):
    """All that are published, in the order in which they were."""

    keys: list[JwtKeyRow]
    sequence: int
    """Of the bundle that has them."""
    ttl: str
    """What a token lives where nothing is asked."""
    max_ttl: str
    issuer: str | None
    """``iss`` of all tokens."""


class RotateJwtKey(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/jwt/rotate``."""

    at_once: bool = False
    """Whether the next key is to sign before everybody can have heard of it."""
    reason: str = ""
