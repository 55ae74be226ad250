"""Issuers of tokens in a test's own hands: keys, tokens by them as good or as forged as is wanted, and their JWKS."""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from attrs import define, field
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from twisted.internet.task import Clock

from pki.spiffe import TrustDomain
from tests.authorities import NOW
from twisted_mesh.attest.evidence import AttestationData, Evidence
from twisted_mesh.attest.interface import Means

ISSUER = "https://issuer.example"
AUDIENCE = "mesh.local"


def rsa_key(name: str = "one", bits: int = 2048, exponent: int = 65537) -> rsa.RSAPrivateKey:
    """The same for the same name."""
    return _rsa_key(name, bits, exponent)


@cache
def _rsa_key(name: str, bits: int, exponent: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(exponent, bits)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **members: Any) -> dict[str, Any]:
    algorithm: Any = (
        jwt.algorithms.RSAAlgorithm
        if isinstance(key, rsa.RSAPrivateKey)
        else jwt.algorithms.ECAlgorithm
    )
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **members}


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def keys_file(directory: Path) -> Path:
    """With the key ``one``."""
    path = directory / "keys.json"
    path.write_bytes(jwks(jwk(rsa_key(), "one")))
    return path


def pem(key: Any) -> bytes:
    return key.public_key().public_bytes(  # type: ignore[no-any-return]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def seconds(of: datetime = NOW) -> int:
    return int(of.timestamp())


def good_claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; None takes a claim away."""
    claims = {
        "iss": ISSUER,
        "sub": "repo:org/api",
        "aud": AUDIENCE,
        "iat": seconds(),
        "nbf": seconds(),
        "exp": seconds() + 600,
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims: Mapping[str, Any], key: Any = None, alg: str = "RS256", **headers: Any) -> str:
    """By the key ``one``; ``kid=None`` takes that away."""
    headers = {"kid": "one", **headers}
    headers = {name: value for name, value in headers.items() if value is not None}
    return jwt.encode(dict(claims), key or rsa_key(), alg, headers)


def shown(kind: str, token: str) -> Evidence:
    return Evidence(attestation=AttestationData(kind, json.dumps(token).encode()))


@define(eq=False)
class Moment:
    """What a CA has, and a clock that the test moves."""

    time: datetime = NOW
    clock: Clock = field(factory=Clock)
    means: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        nothing: Any = {}.get
        clock: Any = self.clock
        now, trust_domain = (lambda: self.time), TrustDomain("mesh.local")
        self.means = Means(clock, nothing, nothing, now, nothing, trust_domain=trust_domain)
