"""Tokens for tests: good ones, and ones that break exactly one rule."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from pki.jwt_svid.algorithms import alg_of
from pki.jwt_svid.jwks import JwtAuthority, write_jwks
from pki.keys import KeyAlgorithm, MemoryKey
from pki.keys.kind import base64url
from pki.spiffe import TrustDomain

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
MESH = TrustDomain("mesh.local")
KEY = MemoryKey.generate(KeyAlgorithm.EC_P256)
OTHER_KEY = MemoryKey.generate(KeyAlgorithm.EC_P256)
RSA_KEY = MemoryKey.generate(KeyAlgorithm.RSA_2048)
ORDERS = "spiffe://mesh.local/ns/prod/orders"


def authority_of(key: MemoryKey) -> JwtAuthority:
    """The public half of a key that signs tokens."""
    return JwtAuthority.of(key.public_key)  # type: ignore[arg-type]


def jwks(*keys: MemoryKey) -> bytes:
    """The JWT bundle of those keys."""
    return write_jwks(map(authority_of, keys))


def header(key: MemoryKey = KEY, **changes: object) -> dict[str, object]:
    """The header of a good token, with ``changes``; what is changed to None is left out."""
    found = {"alg": alg_of(key.algorithm), "kid": authority_of(key).kid, "typ": "JWT", **changes}
    return {name: value for name, value in found.items() if value is not None}


def claims(**changes: object) -> dict[str, object]:
    """The claims of a good token, with ``changes``; what is changed to None is left out."""
    at = int(NOW.timestamp())
    found = {"sub": ORDERS, "aud": ["payments"], "iat": at, "exp": at + 300, **changes}
    return {name: value for name, value in found.items() if value is not None}


def text(value: Mapping[str, object] | str | bytes) -> str:
    """One part of a token: of an object its JSON, of text or bytes just that."""
    if isinstance(value, Mapping):
        value = json.dumps(value)
    return base64url(value.encode() if isinstance(value, str) else value)


def token(
    head: Mapping[str, object] | str | bytes | None = None,
    payload: Mapping[str, object] | str | bytes | None = None,
    key: MemoryKey = KEY,
) -> str:
    """A token with a signature that is good, whatever else it is."""
    signed = ".".join(
        (
            text(header(key) if head is None else head),
            text(claims() if payload is None else payload),
        )
    )
    signature = key.algorithm.kind.sign(key.private_key, signed.encode())
    if key.algorithm is KeyAlgorithm.EC_P256:
        signature = b"".join(n.to_bytes(32, "big") for n in decode_dss_signature(signature))
    return f"{signed}.{base64url(signature)}"
