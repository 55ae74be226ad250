"""A token counts only if the specification, its key, its audience and the clock all say so."""

import base64
import hashlib
import hmac
import json
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from pki.errors import PkiError
from pki.jwt_svid.algorithms import ALGORITHMS
from pki.jwt_svid.compact import LARGEST_TOKEN, BadJwt
from pki.jwt_svid.jwks import JwtAuthority, read_jwks, write_jwks
from pki.jwt_svid.validator import JwtSvidRefused, ValidJwtSvid, validate
from pki.keys import spki_der
from pki.keys.kind import base64url
from pki.spiffe import SpiffeId, TrustDomain
from tests.pki.jwt_svid.tokens import (
    KEY,
    MESH,
    NOW,
    ORDERS,
    OTHER_KEY,
    RSA_KEY,
    authority_of,
    claims,
    header,
    jwks,
    text,
    token,
)

BUNDLES = {MESH: jwks(KEY, RSA_KEY)}
AT = int(NOW.timestamp())


def judged(text: str, audience: str = "payments", at: timedelta = timedelta()) -> ValidJwtSvid:
    return validate(text, audience, BUNDLES, NOW + at)


def codes(text: str, audience: str = "payments", at: timedelta = timedelta()) -> list[Code]:
    with pytest.raises(PkiError) as caught:
        judged(text, audience, at)
    assert text not in str(caught.value)
    return [problem.code for problem in caught.value.problems]


@pytest.mark.parametrize("key", [KEY, RSA_KEY], ids=["ES256", "RS256"])
def test_a_good_token_proves_its_subject(key: object) -> None:
    found = judged(token(key=key))  # type: ignore[arg-type]
    assert found.spiffe_id == SpiffeId.parse(ORDERS)
    assert found.audience == ("payments",)
    assert found.expires_at == NOW + timedelta(minutes=5)
    assert found.claims["iat"] == AT


@pytest.mark.parametrize(
    "head",
    [header(typ="JOSE"), header(typ=None)],
    ids=["typ JOSE", "no typ"],
)
def test_the_type_is_optional(head: dict[str, object]) -> None:
    assert judged(token(head)).audience == ("payments",)


def test_an_audience_may_stand_alone_or_among_others() -> None:
    assert judged(token(payload=claims(aud="payments"))).audience == ("payments",)
    assert judged(token(payload=claims(aud=["x", "payments"]))).audience == ("x", "payments")


HEADERS = {
    "none": header(alg="none"),
    "None": header(alg="None"),
    "HS256": header(alg="HS256"),
    "EdDSA": header(alg="EdDSA"),
    "ES256K": header(alg="ES256K"),
    "lower case": header(alg="es256"),
    "no alg": header(alg=None),
    "alg a list": header(alg=["ES256"]),
    "no kid": header(kid=None),
    "kid empty": header(kid=""),
    "kid a number": header(kid=1),
    "typ at+jwt": header(typ="at+jwt"),
    "typ jwt": header(typ="jwt"),
    "typ null": '{"alg":"ES256","kid":"x","typ":null}',
    "jku": header(jku="https://evil.example/keys"),
    "x5u": header(x5u="https://evil.example/cert"),
    "x5c": header(x5c=["MIIB"]),
    "jwk": header(jwk={"kty": "EC"}),
    "crit": header(crit=["exp"]),
    "b64": header(b64=False),
    "zip": header(zip="DEF"),
    "private": header(hello="world"),
    "alg twice": '{"alg":"none","alg":"ES256","kid":"x"}',
    "a list": "[]",
    "no JSON": "{",
    "UTF-16": '{"alg":"ES256"}'.encode("utf-16"),
    "NaN": '{"alg":NaN}',
}


@pytest.mark.parametrize("head", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_the_specification_does_not_have_is_refused(
    head: dict[str, object] | str | bytes,
) -> None:
    assert codes(token(head)) == [Code.BAD_JWT]


PAYLOADS = {
    "no sub": claims(sub=None),
    "sub a number": claims(sub=1),
    "sub no SPIFFE ID": claims(sub="orders"),
    "sub a trust domain": claims(sub="spiffe://mesh.local"),
    "no aud": claims(aud=None),
    "aud empty": claims(aud=[]),
    "aud of numbers": claims(aud=[1]),
    "aud an object": claims(aud={"payments": 1}),
    "no exp": claims(exp=None),
    "exp a text": claims(exp=str(AT + 300)),
    "exp a truth": claims(exp=True),
    "exp null": json.dumps(claims() | {"exp": None}),
    "exp beyond all years": claims(exp=10**15),
    "exp infinite": json.dumps(claims()).replace(str(AT + 300), "1e999"),
    "exp huge": json.dumps(claims()).replace(str(AT + 300), "9" * 5000),
    "nbf a text": claims(nbf="now"),
    "iat a list": claims(iat=[]),
    "sub twice": '{"sub":"spiffe://mesh.local/a",' + json.dumps(claims())[1:],
    "a member of a claim twice": json.dumps(claims())[:-1] + ',"x":{"a":1,"a":2}}',
    "deep": json.dumps(claims())[:-1] + ',"x":' + "[" * 40 + "]" * 40 + "}",
    "bottomless": "[" * 9000,
    "half a surrogate pair": json.dumps(claims())[:-1] + ',"x":"\\ud800"}',
    "bytes": b"\xff\xfe",
    "a text": '"x"',
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_claims_that_break_the_specification_are_refused(
    payload: dict[str, object] | str | bytes,
) -> None:
    assert codes(token(payload=payload)) == [Code.BAD_JWT]


GOOD = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")
FORMS = {
    "empty": "",
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{GOOD}.x",
    "JSON serialization": json.dumps({"payload": BODY, "protected": HEAD, "signature": SIGNATURE}),
    "padding": f"{HEAD}=.{BODY}.{SIGNATURE}",
    "blank": f"{HEAD}.{BODY}.{SIGNATURE} ",
    "newline": f"{GOOD}\n",
    "standard base64": f"{HEAD}.{BODY}.ab+/",
    "not ASCII": f"{HEAD}.{BODY}.é",
    "too long": f"{HEAD}.{BODY}.{'A' * LARGEST_TOKEN}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_only_the_compact_form_is_a_token(form: str) -> None:
    with pytest.raises(BadJwt):
        judged(form)


def test_a_signature_has_one_spelling() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(base64url(b"x" * 64)) % 4 == 2  # so its last character has bits to spare
    other = alphabet[alphabet.index(GOOD[-1]) ^ 1]
    with pytest.raises(BadJwt, match="base64url"):
        judged(GOOD[:-1] + other)


def test_a_token_without_a_signature_or_with_another_keys_is_refused() -> None:
    assert codes(f"{HEAD}.{BODY}.") == [Code.JWT_BAD_SIGNATURE]
    assert codes(token(header(KEY), key=OTHER_KEY)) == [Code.JWT_BAD_SIGNATURE]
    assert codes(f"{HEAD}.{text(claims(sub='spiffe://mesh.local/root'))}.{SIGNATURE}") == [
        Code.JWT_BAD_SIGNATURE
    ]


def test_the_key_must_be_in_the_bundle_of_the_subjects_own_trust_domain() -> None:
    assert codes(token(key=OTHER_KEY)) == [Code.JWT_UNKNOWN_KEY]
    other = TrustDomain("other.example")
    bundles = {**BUNDLES, other: jwks(OTHER_KEY)}
    # A key of one domain says nothing of another's workloads.
    with pytest.raises(JwtSvidRefused) as caught:
        validate(token(key=OTHER_KEY), "payments", bundles, NOW)
    assert caught.value.problems[0].code is Code.JWT_UNKNOWN_KEY
    with pytest.raises(JwtSvidRefused) as caught:
        validate(token(payload=claims(sub="spiffe://third.example/a")), "payments", bundles, NOW)
    assert caught.value.problems[0].code is Code.UNKNOWN_TRUST_DOMAIN


def test_an_algorithm_that_is_not_its_keys_is_refused() -> None:
    assert codes(token(header(RSA_KEY, alg="ES256"), key=RSA_KEY)) == [Code.JWT_BAD_SIGNATURE]
    assert codes(token(header(KEY, alg="RS256"))) == [Code.JWT_BAD_SIGNATURE]
    assert codes(token(header(KEY, alg="ES384"))) == [Code.JWT_BAD_SIGNATURE]
    assert codes(token(header(RSA_KEY, alg="PS256"), key=RSA_KEY)) == [Code.JWT_BAD_SIGNATURE]


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    pem = RSA_KEY.public_key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signed = f"{text(header(RSA_KEY, alg='HS256'))}.{text(claims())}"
    mac = hmac.digest(pem, signed.encode(), hashlib.sha256)
    assert codes(f"{signed}.{base64url(mac)}") == [Code.BAD_JWT]


def test_a_key_of_another_use_or_of_another_algorithm_verifies_nothing() -> None:
    for changes in ({"use": "sig"}, {"use": "x509-svid"}, {"use": None}, {"alg": "ES384"}):
        jwk = authority_of(KEY).to_jwk() | changes
        with pytest.raises(JwtSvidRefused) as caught:
            validate(GOOD, "payments", {MESH: json.dumps({"keys": [jwk]}).encode()}, NOW)
        assert caught.value.problems[0].code is Code.JWT_UNKNOWN_KEY
    narrowed = authority_of(RSA_KEY).to_jwk() | {"alg": "PS256"}
    with pytest.raises(JwtSvidRefused) as caught:
        document = json.dumps({"keys": [narrowed]}).encode()
        validate(token(key=RSA_KEY), "payments", {MESH: document}, NOW)
    assert caught.value.problems[0].code is Code.JWT_BAD_SIGNATURE


def test_a_token_is_good_until_it_expires_and_not_a_moment_longer() -> None:
    assert judged(GOOD, at=timedelta(seconds=299, microseconds=999_999))
    assert codes(GOOD, at=timedelta(seconds=300)) == [Code.JWT_EXPIRED]
    fraction = token(payload=claims(exp=AT + 300.9))
    assert codes(fraction, at=timedelta(seconds=300)) == [Code.JWT_EXPIRED]


def test_a_token_for_later_is_not_good_yet_but_for_a_clock_that_is_a_little_behind() -> None:
    later = token(payload=claims(nbf=AT + 61))
    assert codes(later) == [Code.JWT_NOT_YET_VALID]
    assert judged(later, at=timedelta(seconds=1))


@pytest.mark.parametrize("audience", ["Payments", "pay", "", "payments ", "x"])
def test_another_audience_is_refused(audience: str) -> None:
    assert codes(GOOD, audience) == [Code.JWT_WRONG_AUDIENCE]


def test_nobody_is_not_an_audience() -> None:
    assert codes(token(payload=claims(aud=[""])), "") == [Code.JWT_WRONG_AUDIENCE]


def test_every_reason_is_told_once_the_token_is_proven() -> None:
    assert codes(GOOD, "other", timedelta(hours=1)) == [
        Code.JWT_WRONG_AUDIENCE,
        Code.JWT_EXPIRED,
    ]


def signed_by(alg: str) -> tuple[str, JwtAuthority]:
    """By PyJWT, with a key of the kind that goes with it."""
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if alg.startswith("ES"):
        curve = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}[alg]
        key = ec.generate_private_key(curve)  # type: ignore[arg-type]
    else:
        assert isinstance(RSA_KEY.private_key, rsa.RSAPrivateKey)
        key = RSA_KEY.private_key
    authority = JwtAuthority("a", spki_der(key.public_key()))
    return jwt.encode(claims(), key, alg, headers={"kid": "a"}), authority


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_every_algorithm_of_the_specification_is_understood(alg: str) -> None:
    made, authority = signed_by(alg)
    document = write_jwks([authority])
    assert read_jwks(document) == (authority,)
    assert str(validate(made, "payments", {MESH: document}, NOW).spiffe_id) == ORDERS


def test_a_pss_signature_of_another_hash_is_refused() -> None:
    signed = f"{text(header(RSA_KEY, alg='PS256'))}.{text(claims())}".encode()
    assert isinstance(RSA_KEY.private_key, rsa.RSAPrivateKey)

    pss = padding.PSS(padding.MGF1(SHA384()), SHA384.digest_size)
    signature = RSA_KEY.private_key.sign(signed, pss, SHA384())
    assert codes(f"{signed.decode()}.{base64url(signature)}") == [Code.JWT_BAD_SIGNATURE]


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda b: f"{HEAD}.{BODY}.{text(b)}"))
def test_no_text_makes_it_raise_anything_but_a_refusal(found: str) -> None:
    with pytest.raises(PkiError):
        judged(found)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["alg", "kid", "typ", "sub", "aud", "exp", "keys", "use"]), inner
            )
        ),
        max_leaves=6,
    )
)
def test_no_json_makes_it_raise_anything_but_a_refusal(value: object) -> None:
    part = base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    for made in (f"{part}.{BODY}.{SIGNATURE}", f"{HEAD}.{part}.{SIGNATURE}"):
        with pytest.raises(PkiError):
            judged(made)


def test_another_trust_domain_that_is_believed_says_who_its_own_workloads_are() -> None:
    other, web = TrustDomain("other.example"), "spiffe://other.example/web"
    both = {MESH: jwks(KEY), other: jwks(OTHER_KEY)}
    theirs = token(header(OTHER_KEY), claims(sub=web), OTHER_KEY)
    assert validate(theirs, "payments", both, NOW).spiffe_id == SpiffeId.parse(web)
    for minted in (
        # Of our name, by the name that our key has; and by our key, of theirs.
        token(header(OTHER_KEY, kid=authority_of(KEY).kid), claims(sub=ORDERS), OTHER_KEY),
        token(header(KEY, kid=authority_of(OTHER_KEY).kid), claims(sub=web), KEY),
    ):
        with pytest.raises(JwtSvidRefused) as caught:
            validate(minted, "payments", both, NOW)
        assert [problem.code for problem in caught.value.problems] == [Code.JWT_BAD_SIGNATURE]
