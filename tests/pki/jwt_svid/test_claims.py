"""Tokens of ours: what they say, and that strict libraries of others read them."""

import asyncio
from datetime import timedelta

import jwt
import pytest
from attrs import evolve
from joserfc import jwt as jose
from joserfc.jwk import KeySet

from pki.jwt_svid.claims import (
    BadAudience,
    JwtClaims,
    NoJwtKey,
    demand_audience,
    sign_token,
)
from pki.jwt_svid.jwks import JWT_SVID
from pki.jwt_svid.validator import validate
from pki.keys import KeyAlgorithm, MemoryKey, SigningFailed
from pki.spiffe import SpiffeId
from tests.pki.jwt_svid.tokens import KEY, MESH, NOW, ORDERS, OTHER_KEY, RSA_KEY, authority_of, jwks

CLAIMS = JwtClaims(
    SpiffeId.parse(ORDERS),
    ("payments",),
    NOW,
    NOW + timedelta(minutes=5, microseconds=7),
    "5f1c",
    "https://mesh.example",
)


def signed(key: MemoryKey, claims: JwtClaims = CLAIMS) -> str:
    return asyncio.run(sign_token(claims, key))


@pytest.mark.parametrize(
    "key", [KEY, RSA_KEY, MemoryKey.generate(KeyAlgorithm.EC_P384)], ids=["ES256", "RS256", "ES384"]
)
def test_tokens_of_ours_are_good_and_strict_libraries_agree(key: MemoryKey) -> None:
    token = signed(key)
    found = validate(token, "payments", {MESH: jwks(key)}, NOW)
    assert str(found.spiffe_id) == ORDERS
    assert found.claims == {
        "iss": "https://mesh.example",
        "sub": ORDERS,
        "aud": "payments",
        "iat": 1795428000,
        "exp": 1795428300,
        "jti": "5f1c",
    }
    alg = jwt.get_unverified_header(token)["alg"]
    by_joserfc = jose.decode(
        token,
        KeySet.import_key_set({"keys": [authority_of(key).to_jwk("sig", alg=alg)]}),  # type: ignore[arg-type, typeddict-item]
        algorithms=[alg],
    )
    assert by_joserfc.claims == found.claims
    assert by_joserfc.header == {"alg": alg, "kid": authority_of(key).kid, "typ": "JWT"}


def test_several_audiences_are_a_list_and_without_an_issuer_there_is_none() -> None:
    claims = evolve(CLAIMS, audience=("a", "b"), issuer=None).to_object()
    assert claims["aud"] == ["a", "b"]
    assert "iss" not in claims


def test_a_key_that_signs_no_token_is_refused() -> None:
    with pytest.raises(NoJwtKey, match="Ed25519"):
        signed(MemoryKey.generate(KeyAlgorithm.ED25519))


def test_a_signature_that_is_not_the_keys_is_seen_by_nobody() -> None:
    class Elsewhere(MemoryKey):
        async def sign(self, data: bytes) -> bytes:
            return await OTHER_KEY.sign(data)

    with pytest.raises(SigningFailed):
        signed(Elsewhere(KEY.private_key, KEY.algorithm))


@pytest.mark.parametrize(
    "audience",
    [[], [""], [" a"], ["a\n"], ["a\x00"], ["x" * 513], [str(n) for n in range(11)]],
    ids=["none", "empty", "blank", "newline", "control", "long", "many"],
)
def test_an_audience_that_is_none_is_refused(audience: list[str]) -> None:
    with pytest.raises(BadAudience):
        demand_audience(audience)


def test_an_audience_stands_once() -> None:
    assert demand_audience(["b", "a", "b"]) == ("b", "a")


def test_the_kid_is_the_keys_fingerprint() -> None:
    assert jwt.get_unverified_header(signed(KEY))["kid"] == authority_of(KEY).kid
    assert authority_of(KEY).to_jwk()["use"] == JWT_SVID
