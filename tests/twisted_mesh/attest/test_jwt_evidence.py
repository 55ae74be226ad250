"""Tokens of other issuers: what a good one is, and every forgery that is known, each with its verdict."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jwt
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.codes import Code
from pki.errors import PkiError
from tests.authorities import NOW
from tests.twisted_mesh.attest.issuers import (
    AUDIENCE,
    ISSUER,
    ec_key,
    good_claims,
    jwk,
    jwks,
    pem,
    rsa_key,
    seconds,
    signed,
)
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.jwks import KeySet
from twisted_mesh.attest.jwt_evidence import EvidenceToken, TokenRules

RULES = TokenRules(ISSUER, frozenset({AUDIENCE}))
KEYS = KeySet.parse(jwks(jwk(rsa_key(), "one"), jwk(ec_key(), "ec")))


def judged(text: str, rules: TokenRules = RULES, at: timedelta = timedelta()) -> str | None:
    """The challenge that it carries; raises why it is no good."""
    return outcome(rules.prove(EvidenceToken.parse(text), KEYS, NOW + at))  # type: ignore[no-any-return]


def encoded(part: Any) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(header: Any, claims: Any) -> str:
    """Signed by the issuer's own key, whatever it says."""
    told = f"{encoded(header)}.{encoded(claims)}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
        told.encode(), rsa_key()
    )
    return f"{told}.{encoded(signature)}"


def with_header(**members: Any) -> str:
    return raw({"alg": "RS256", "kid": "one", **members}, good_claims())


def claiming(**changes: Any) -> str:
    return signed(good_claims(**changes))


def hmac_by(secret: bytes) -> str:
    """What a library takes that goes by the token's own alg, and by whatever the key is (CVE-2015-9235)."""
    import hashlib
    import hmac

    told = f"{encoded({'alg': 'HS256', 'kid': 'one'})}.{encoded(good_claims())}"
    return f"{told}.{encoded(hmac.new(secret, told.encode(), hashlib.sha256).digest())}"


def unsigned(alg: str) -> str:
    return f"{encoded({'alg': alg, 'kid': 'one'})}.{encoded(good_claims())}."


def twice(part: bytes) -> bytes:
    return part.replace(b"{", b'{"sub": "x", "sub": "y", ', 1)


GOOD = signed(good_claims())
HEAD, BODY, SIGNATURE = GOOD.split(".")
BAD, EXPIRED = Code.BAD_EVIDENCE, Code.EVIDENCE_EXPIRED
#: Each kind of forged evidence, its code, and words of the verdict.
FORGED: dict[str, tuple[Callable[[], str], Code, str]] = {
    "another key's signature": (lambda: signed(good_claims(), rsa_key("two")), BAD, "signature"),
    "a changed signature": (lambda: f"{HEAD}.{BODY}.{encoded(bytes(256))}", BAD, "signature"),
    "changed claims": (
        lambda: f"{HEAD}.{encoded(good_claims(sub='root'))}.{SIGNATURE}",
        BAD,
        "signature",
    ),
    "no signature": (lambda: f"{HEAD}.{BODY}.", BAD, "signature"),
    "alg none": (lambda: unsigned("none"), BAD, "alg is 'none'"),
    "alg nOnE": (lambda: unsigned("nOnE"), BAD, "alg is 'nOnE'"),
    "alg none, and a signature": (
        lambda: unsigned("none") + SIGNATURE,
        BAD,
        "alg is 'none'",
    ),
    "no alg": (lambda: raw({"kid": "one"}, good_claims()), BAD, "alg is none"),
    "alg that is no text": (lambda: with_header(alg=["RS256"]), BAD, "alg is none"),
    "HMAC with the public key's PEM": (lambda: hmac_by(pem(rsa_key())), BAD, "alg is 'HS256'"),
    "HMAC with the public key's JWK": (
        lambda: hmac_by(json.dumps(jwk(rsa_key(), "one")).encode()),
        BAD,
        "alg is 'HS256'",
    ),
    "HMAC with nothing": (lambda: hmac_by(b""), BAD, "alg is 'HS256'"),
    "an alg of another kind than the key": (
        lambda: signed(good_claims(), ec_key(), "ES256", kid="one"),
        BAD,
        "of another kind",
    ),
    "an RSA signature by the name of a curve's key": (
        lambda: signed(good_claims(), kid="ec"),
        BAD,
        "of another kind",
    ),
    "an alg that is not taken of this issuer": (
        lambda: signed(good_claims(), alg="RS512"),
        BAD,
        "alg is RS512",
    ),
    "another issuer with the same kid": (
        lambda: signed(good_claims(iss="https://other.example"), rsa_key("two")),
        BAD,
        "is of https://other.example",
    ),
    "another issuer's name, the same key": (
        lambda: claiming(iss="https://other.example"),
        BAD,
        "is of https://other.example",
    ),
    "an issuer with a slash more": (lambda: claiming(iss=f"{ISSUER}/"), BAD, "is of"),
    "no issuer": (lambda: claiming(iss=None), BAD, "no iss"),
    "several issuers": (
        lambda: raw({"alg": "RS256", "kid": "one"}, {**good_claims(), "iss": [ISSUER]}),
        BAD,
        "no iss",
    ),
    "another audience": (lambda: claiming(aud="other"), BAD, "is for other"),
    "no audience": (lambda: claiming(aud=None), BAD, "no aud"),
    "an empty audience": (lambda: claiming(aud=[]), BAD, "no aud"),
    "an audience that is no name": (lambda: claiming(aud=[AUDIENCE, 7]), BAD, "no aud"),
    "ours and another audience": (
        lambda: claiming(aud=[AUDIENCE, "other"]),
        BAD,
        "could show it here",
    ),
    "an audience that begins as ours": (lambda: claiming(aud=f"{AUDIENCE}.evil"), BAD, "is for"),
    "expired": (
        lambda: claiming(iat=seconds() - 700, nbf=None, exp=seconds() - 61),
        EXPIRED,
        "was good until",
    ),
    "not yet valid": (lambda: claiming(nbf=seconds() + 61), EXPIRED, "is good from"),
    "dated in the future": (
        lambda: claiming(iat=seconds() + 61, nbf=None),
        EXPIRED,
        "is good from",
    ),
    "no end": (lambda: claiming(exp=None), BAD, "no exp"),
    "no age": (lambda: claiming(iat=None), BAD, "no iat"),
    "good for too long": (
        lambda: claiming(exp=seconds() + 86_401),
        BAD,
        "good for longer than 1d",
    ),
    "good for too long since long ago": (
        lambda: claiming(iat=seconds() - 86_400, exp=seconds() + 600),
        BAD,
        "good for longer than 1d",
    ),
    "an end that is text": (lambda: claiming(exp=str(seconds() + 60)), BAD, "exp is no time"),
    "an end that is true": (lambda: claiming(exp=True), BAD, "exp is no time"),
    "an end beyond all time": (lambda: claiming(exp=10**30), BAD, "exp is no time"),
    "an end that is infinite": (
        lambda: raw(
            {"alg": "RS256", "kid": "one"},
            json.dumps({**good_claims(), "exp": 0}).replace('"exp": 0', '"exp": 1e999').encode(),
        ),
        BAD,
        "exp is no time",
    ),
    "a beginning that is a list": (lambda: claiming(nbf=[]), BAD, "nbf is no time"),
    "no kid": (lambda: signed(good_claims(), kid=None), BAD, "no kid"),
    "an empty kid": (lambda: with_header(kid=""), BAD, "no kid"),
    "a kid that is no text": (lambda: with_header(kid=1), BAD, "no kid"),
    "a kid without end": (lambda: with_header(kid="k" * 300), BAD, "no kid"),
    "an unknown kid": (lambda: signed(good_claims(), kid="three"), BAD, "no such key"),
    "a kid that is a path": (
        lambda: signed(good_claims(), b"x" * 32, "HS256", kid="../../dev/null"),
        BAD,
        "alg is 'HS256'",
    ),
    "jku": (lambda: with_header(jku="https://evil.example/jwks"), BAD, "has jku"),
    "jwk": (lambda: with_header(jwk=jwk(rsa_key("two"), "one")), BAD, "has jwk"),
    "x5u": (lambda: with_header(x5u="https://evil.example/cert"), BAD, "has x5u"),
    "x5c": (lambda: with_header(x5c=["MII"]), BAD, "has x5c"),
    "crit": (lambda: with_header(crit=["exp"], exp=1), BAD, "has crit"),
    "an empty crit": (lambda: with_header(crit=[]), BAD, "has crit"),
    "b64": (lambda: with_header(b64=False), BAD, "has b64"),
    "compressed": (lambda: with_header(zip="DEF"), BAD, "has zip"),
    "nested": (lambda: raw({"alg": "RS256", "kid": "one", "cty": "JWT"}, GOOD.encode()), BAD, ""),
    "nested, and an object": (lambda: with_header(cty="JWT"), BAD, "has cty"),
    "for its audience alone to verify": (lambda: with_header(nonce="x"), BAD, "has nonce"),
    "encrypted": (
        lambda: f"{encoded({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.a.b.c.d",
        BAD,
        "encrypted",
    ),
    "of another type": (lambda: with_header(typ="logout+jwt"), BAD, "another type"),
    "of a type that is no text": (lambda: with_header(typ=7), BAD, "another type"),
    "huge": (lambda: claiming(more="x" * 17_000), BAD, "characters"),
    "a claim twice": (
        lambda: raw(
            {"alg": "RS256", "kid": "one"}, twice(json.dumps(good_claims(sub=None)).encode())
        ),
        BAD,
        "payload has a member twice",
    ),
    "a header's member twice": (
        lambda: raw(b'{"alg":"none","alg":"RS256","kid":"one"}', good_claims()),
        BAD,
        "header has a member twice",
    ),
    "nested deeply": (
        lambda: claiming(more=json.loads("[" * 20 + "]" * 20)),
        BAD,
        "nested too deeply",
    ),
    "claims that are a list": (
        lambda: raw({"alg": "RS256", "kid": "one"}, [good_claims()]),
        BAD,
        "not an object",
    ),
    "claims that are no JSON": (
        lambda: raw({"alg": "RS256", "kid": "one"}, b"\xff\xfe"),
        BAD,
        "not JSON",
    ),
    "half of a surrogate pair": (
        lambda: raw(
            {"alg": "RS256", "kid": "one"},
            json.dumps(good_claims()).replace("repo:", "\\ud800").encode(),
        ),
        BAD,
        "not JSON",
    ),
    "another spelling of the same bytes": (
        lambda: f"{HEAD}.{BODY}.{SIGNATURE}==",
        BAD,
        "base64url",
    ),
    "the other base64": (lambda: f"{HEAD}.{BODY}.+/{SIGNATURE[2:]}", BAD, "base64url"),
    "a line break": (lambda: f"{GOOD}\n", BAD, "base64url"),
    "two parts": (lambda: f"{HEAD}.{BODY}", BAD, "three parts"),
    "as JSON, not compact": (
        lambda: json.dumps({"protected": HEAD, "payload": BODY, "signature": SIGNATURE}),
        BAD,
        "three parts",
    ),
    "empty": (lambda: "", BAD, "three parts"),
}


def test_a_good_token_is_taken() -> None:
    assert judged(GOOD) is None
    assert judged(signed(good_claims(), ec_key(), "ES256", kid="ec")) is None
    assert judged(with_header(typ="at+JWT", x5t="abc")) is None
    assert judged(claiming(aud=[AUDIENCE], exp=seconds() + 0.5)) is None


@pytest.mark.parametrize("name", FORGED)
def test_forged_evidence_is_refused_in_words(name: str) -> None:
    make, code, words = FORGED[name]
    text = make()
    with pytest.raises(BadEvidence) as refusal:
        judged(text)
    said = str(refusal.value)
    assert (refusal.value.problems[0].code, words in said) == (code, True), said
    assert said.isprintable() and len(said) < 800
    assert SIGNATURE[:40] not in said and BODY[:40] not in said


def test_the_clocks_may_differ_by_so_much_and_no_more() -> None:
    early, late = claiming(iat=seconds() + 60, nbf=seconds() + 60), claiming(exp=seconds() - 59)
    assert judged(early) is None
    assert judged(late) is None
    exact = evolve(RULES, skew=timedelta())
    for text in (early, late):
        with pytest.raises(BadEvidence):
            judged(text, exact)


def test_a_token_ends_in_the_second_that_it_says() -> None:
    rules = evolve(RULES, skew=timedelta())
    assert judged(GOOD, rules, timedelta(seconds=599)) is None
    with pytest.raises(BadEvidence):
        judged(GOOD, rules, timedelta(seconds=600))


def test_whom_one_trusts_besides_may_be_an_audience_too() -> None:
    rules = evolve(RULES, other_audiences=frozenset({"account"}))
    assert judged(claiming(aud=["account", AUDIENCE]), rules) is None
    for audience in (["account"], ["account", AUDIENCE, "other"]):
        with pytest.raises(BadEvidence, match="must be for"):
            judged(claiming(aud=audience), rules)


def test_an_audience_may_carry_a_challenge() -> None:
    carrying = claiming(aud=f"{AUDIENCE}?nonce=c1")
    demanding = evolve(RULES, with_nonce=True)
    assert judged(carrying) == judged(carrying, demanding) == "c1"
    for audience in (AUDIENCE, [AUDIENCE, f"{AUDIENCE}?nonce=c1"], "other?nonce=c1", "?nonce=c1"):
        with pytest.raises(BadEvidence, match=r"must be for mesh.local\?nonce=CHALLENGE"):
            judged(claiming(aud=audience), demanding)
    with pytest.raises(BadEvidence, match="several challenges"):
        judged(claiming(aud=[f"{AUDIENCE}?nonce=a", f"{AUDIENCE}?nonce=b"]), demanding)


@pytest.mark.parametrize("data", [b"{}", b"7", b"null", b'"', b"", b'{"token": "x"}', b'["a"]'])
def test_evidence_that_is_no_json_string_is_refused(data: bytes) -> None:
    with pytest.raises(BadEvidence, match="JSON string"):
        EvidenceToken.read(data)


def test_it_is_read_from_a_json_string_and_shows_nothing() -> None:
    token = EvidenceToken.read(json.dumps(GOOD).encode())
    assert (token.text, token.alg, token.kid, token.issuer) == (GOOD, "RS256", "one", ISSUER)
    assert "org" not in repr(token) and BODY not in repr(token)


_parts = st.binary(max_size=60).map(encoded) | st.sampled_from([HEAD, BODY, SIGNATURE])
_objects = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "iss", "aud", "exp", "iat", "nbf", "crit", "x"]),
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.sampled_from(["RS256", "one", "JWT", ISSUER, AUDIENCE])
    | st.text(max_size=8)
    | st.lists(st.sampled_from([AUDIENCE, "x", 1]), max_size=3),
)


@given(
    st.text(max_size=200)
    | st.lists(_parts, min_size=2, max_size=5).map(".".join)
    | st.builds(lambda head, claims: f"{encoded(head)}.{encoded(claims)}.AAAA", _objects, _objects)
)
def test_no_text_is_taken_for_a_token(text: str) -> None:
    """But for the good one itself, whose parts are among those that are put together."""
    if text == GOOD:
        return
    with pytest.raises(PkiError) as refusal:
        judged(text)
    assert isinstance(refusal.value, BadEvidence)
    assert str(refusal.value).isprintable()


@given(_objects)
def test_no_claims_that_the_issuer_has_signed_break_anything(claims: dict[str, Any]) -> None:
    try:
        judged(raw({"alg": "RS256", "kid": "one"}, claims))
    except BadEvidence as refusal:
        assert str(refusal).isprintable()
    else:
        assert claims["iss"] == ISSUER
