"""The keys of an issuer: which documents are taken, and when they are asked for, of issuers well and ill."""

import json
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock

from pki.codes import Code
from pki.errors import Malformed, PkiError
from tests.twisted_mesh.attest.issuers import ISSUER, ec_key, jwk, jwks, rsa_key
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence
from twisted_mesh.attest.jwks import (
    ASK_AGAIN_AFTER,
    DISCOVERY_PATH,
    LARGEST_JWKS,
    MOST_KEYS,
    MOST_WAITING,
    REFRESH_AFTER,
    USABLE_FOR,
    BadJwks,
    Jwks,
    JwksAddress,
    KeySet,
)
from twisted_mesh.http.fetch import NotServed
from twisted_mesh.http.https_client import WebUrl

KEYS_URL = f"{ISSUER}/keys"
ONE, EC = jwk(rsa_key(), "one"), jwk(ec_key(), "ec")


def long_rsa(bits: int, exponent: bytes = b"\x01\x00\x01") -> dict[str, str]:
    from pki.keys.kind import base64url

    n = base64url(((1 << bits) - 1).to_bytes((bits + 7) // 8, "big"))
    return {"kty": "RSA", "kid": "weak", "n": n, "e": base64url(exponent)}


#: Keys that are passed over, beside one that is good.
PASSED_OVER: dict[str, Any] = {
    "a modulus of 1024 bits": jwk(rsa_key("weak", 1024), "weak"),
    "a modulus of 512 bits": long_rsa(512),
    "a modulus without end": long_rsa(16384),
    "an exponent of 3": jwk(rsa_key("three", 2048, 3), "weak"),
    "an exponent of 1": long_rsa(2048, b"\x01"),
    "an exponent without end": long_rsa(2048, b"\x01" * 200),
    "symmetric": {"kty": "oct", "kid": "weak", "k": "c2VjcmV0c2VjcmV0", "alg": "HS256"},
    "symmetric, by another's alg": {"kty": "oct", "kid": "weak", "k": "c2Vj", "alg": "RS256"},
    "for encryption": jwk(rsa_key("two"), "weak", use="enc"),
    "for signing": jwk(rsa_key("two"), "weak", key_ops=["sign"]),
    "operations that are no list": jwk(rsa_key("two"), "weak", key_ops="verify"),
    "a private key": jwk(rsa_key("two"), "weak", d="AQAB"),
    "for HMAC": jwk(rsa_key("two"), "weak", alg="HS256"),
    "an alg of another kind": jwk(rsa_key("two"), "weak", alg="ES256"),
    "an alg that is a list": jwk(rsa_key("two"), "weak", alg=["RS256"]),
    "a curve that nobody knows": {**EC, "kid": "weak", "crv": "P-192"},
    "a point beside the curve": {**EC, "kid": "weak", "x": EC["y"]},
    "no name": {name: value for name, value in ONE.items() if name != "kid"},
    "a name that is a number": {**ONE, "kid": 7},
    "Ed25519": {"kty": "OKP", "crv": "Ed25519", "kid": "weak", "x": "A" * 43},
    "no object": "key",
    "a list": [],
    "nothing": None,
}
#: Documents that are not taken.
REFUSED: dict[str, bytes] = {
    "not JSON": b"<html>gone</html>",
    "nothing": b"",
    "a list": b"[]",
    "without keys": b"{}",
    "keys that are no list": b'{"keys": {}}',
    "keys twice": b'{"keys": [], "keys": []}',
    "ten thousand keys": jwks(*[{}] * 10_000),
    "ten thousand keys with names": jwks(*({"kid": str(n)} for n in range(10_000))),
    "one key too many": jwks(*[ONE] * (MOST_KEYS + 1)),
    "oversize": jwks(ONE) + b" " * LARGEST_JWKS,
    "nested deeply": b'{"keys": ' + b"[" * 50 + b"]" * 50 + b"}",
    "not UTF-8": b'{"keys": ["\xff"]}',
}


@pytest.mark.parametrize("name", PASSED_OVER)
def test_a_key_that_is_no_good_is_passed_over_and_the_rest_stays(name: str) -> None:
    found = KeySet.parse(jwks(PASSED_OVER[name], ONE))
    assert [*found.keys] == ["one"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_jwks_is_refused_in_words(name: str) -> None:
    with pytest.raises(BadJwks, match=r"^the JWKS ") as refusal:
        KeySet.parse(REFUSED[name])
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "other",
    [
        jwk(rsa_key("two"), "one"),
        ONE,
        jwk(ec_key(), "one"),
        PASSED_OVER["symmetric"] | {"kid": "one"},
    ],
)
def test_of_a_name_that_two_keys_have_neither_is_believed(other: dict[str, Any]) -> None:
    for keys in ((ONE, other, EC), (other, ONE, EC)):
        found = KeySet.parse(jwks(*keys))
        assert [*found.keys] == ["ec"]
        with pytest.raises(BadEvidence, match="several keys"):
            found.get("one")


def test_what_is_for_something_else_takes_no_name() -> None:
    assert [*KeySet.parse(jwks(jwk(rsa_key("two"), "one", use="enc"), ONE)).keys] == ["one"]


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(max_size=10)
        | st.sampled_from(["RSA", "EC", "P-256", "AQAB", "one"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["keys", "kty", "kid", "n", "e", "crv", "x", "y", "use", "alg", "key_ops"]
                ),
                inner,
                max_size=8,
            )
        ),
        max_leaves=20,
    )
)
def test_no_document_breaks_it(document: object) -> None:
    try:
        KeySet.parse(json.dumps(document).encode())
    except BadJwks as refusal:
        assert str(refusal).isprintable()


@define(eq=False)
class Issuer:
    """An issuer that answers when the test says so, and what it was asked."""

    clock: Clock = field(factory=Clock)
    pages: dict[str, bytes] = field(factory=lambda: {KEYS_URL: jwks(ONE)})
    asked: list[str] = field(factory=list)
    waits: "Deferred[None] | None" = None
    limits: list[int] = field(factory=list)

    async def get(self, url: WebUrl, limit: int) -> bytes:
        self.asked.append(str(url))
        self.limits.append(limit)
        if self.waits is not None:
            await self.waits
        if str(url) not in self.pages:
            raise NotServed(f"{url} answers 404: look whether the URL is right")
        return self.pages[str(url)]

    def keys(self, url: str | None = KEYS_URL) -> Jwks:
        client: Any = self
        where = None if url is None else WebUrl.parse(url, "jwks_url")
        return Jwks(JwksAddress(ISSUER, where), client, self.clock)


def found(keys: Jwks, kid: str = "one") -> Any:
    """A key's name, or the error; None while it is waited for."""
    outcome: list[Any] = []
    task = Deferred.fromCoroutine(keys.find(kid))
    task.addCallbacks(lambda key: outcome.append(key.kid), lambda f: outcome.append(f.value))
    return outcome[0] if outcome else task


def code_of(outcome: Any) -> Any:
    assert isinstance(outcome, PkiError), outcome
    return outcome.problems[0].code


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


def test_keys_are_asked_for_once_and_kept(issuer: Issuer) -> None:
    keys = issuer.keys()
    assert not issuer.asked
    for _ in range(5):
        assert found(keys) == "one"
        issuer.clock.advance(REFRESH_AFTER / 6)
    assert issuer.asked == [KEYS_URL]
    assert issuer.limits == [LARGEST_JWKS]


def test_many_callers_share_one_question(issuer: Issuer) -> None:
    keys, issuer.waits = issuer.keys(), Deferred()
    waiting = [found(keys) for _ in range(100)]
    assert len(issuer.asked) == 1 and not any(task.called for task in waiting)
    issuer.waits.callback(None)
    assert all(task.called for task in waiting)


def test_who_gives_up_waiting_ends_it_for_nobody_else(issuer: Issuer) -> None:
    keys, issuer.waits = issuer.keys(), Deferred()
    first, second = found(keys), found(keys)
    first.cancel()
    issuer.waits.callback(None)
    assert second.called and found(keys) == "one"
    assert len(issuer.asked) == 1


def test_old_keys_are_used_while_new_ones_are_asked_for(issuer: Issuer) -> None:
    keys = issuer.keys()
    assert found(keys) == "one"
    issuer.clock.advance(REFRESH_AFTER)
    issuer.pages[KEYS_URL], issuer.waits = jwks(EC), Deferred()
    assert found(keys) == found(keys) == "one"
    assert len(issuer.asked) == 2
    issuer.waits.callback(None)
    assert found(keys, "ec") == "ec"
    assert code_of(found(keys)) == Code.BAD_EVIDENCE
    assert len(issuer.asked) == 2


def test_a_changed_key_is_found_by_the_first_token_that_names_it(issuer: Issuer) -> None:
    keys = issuer.keys()
    assert found(keys) == "one"
    issuer.clock.advance(ASK_AGAIN_AFTER)
    issuer.pages[KEYS_URL] = jwks(ONE, EC)
    assert found(keys, "ec") == "ec"
    assert len(issuer.asked) == 2


def test_forgers_have_it_asked_no_more_often_than_so(issuer: Issuer) -> None:
    keys = issuer.keys()
    for n in range(10_000):
        assert code_of(found(keys, f"k{n}")) == Code.BAD_EVIDENCE
        assert n % 100 or found(keys) == "one"
        issuer.clock.advance(60 / 10_000)
    assert len(issuer.asked) <= 1 + 60 / ASK_AGAIN_AFTER


def test_an_issuer_that_is_away_is_a_503_with_a_time(issuer: Issuer) -> None:
    issuer.pages = {}
    keys = issuer.keys()
    error = found(keys)
    assert code_of(error) == Code.ATTESTOR_UNAVAILABLE
    assert isinstance(error, AttestorUnavailable) and error.retry_after >= 1
    assert "answers 404" in str(error) and ISSUER in str(error)
    assert code_of(found(keys)) == Code.ATTESTOR_UNAVAILABLE
    assert len(issuer.asked) == 1
    issuer.pages = {KEYS_URL: jwks(ONE)}
    issuer.clock.advance(error.retry_after)
    assert found(keys) == "one"


def test_it_is_tried_again_more_and_more_rarely(issuer: Issuer) -> None:
    issuer.pages = {}
    keys = issuer.keys()
    for _ in range(600):
        assert code_of(found(keys)) == Code.ATTESTOR_UNAVAILABLE
        issuer.clock.advance(1)
    assert 8 <= len(issuer.asked) <= 18


def test_keys_are_used_while_the_issuer_is_away_and_not_for_ever(issuer: Issuer) -> None:
    keys = issuer.keys()
    assert found(keys) == "one"
    issuer.pages = {}
    issuer.clock.advance(USABLE_FOR - 1)
    assert found(keys) == "one"
    assert code_of(found(keys, "new")) == Code.ATTESTOR_UNAVAILABLE
    issuer.clock.advance(1)
    assert code_of(found(keys)) == Code.ATTESTOR_UNAVAILABLE
    issuer.pages = {KEYS_URL: jwks(ONE)}
    issuer.clock.advance(60)
    assert found(keys) == "one"


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_that_is_none_changes_nothing(issuer: Issuer, name: str) -> None:
    keys = issuer.keys()
    assert found(keys) == "one"
    issuer.pages[KEYS_URL] = REFUSED[name]
    issuer.clock.advance(REFRESH_AFTER)
    assert found(keys) == found(keys) == "one"
    assert len(issuer.asked) == 2
    assert (
        code_of(found(Issuer(pages={KEYS_URL: REFUSED[name]}).keys())) == Code.ATTESTOR_UNAVAILABLE
    )


def test_an_issuer_that_takes_all_its_keys_back_is_believed(issuer: Issuer) -> None:
    keys = issuer.keys()
    assert found(keys) == "one"
    issuer.pages[KEYS_URL] = jwks()
    issuer.clock.advance(REFRESH_AFTER)
    found(keys)
    assert code_of(found(keys)) == Code.BAD_EVIDENCE


def test_an_issuer_that_mends_a_doubled_name_is_asked_again(issuer: Issuer) -> None:
    issuer.pages[KEYS_URL] = jwks(ONE, jwk(rsa_key("two"), "one"))
    keys = issuer.keys()
    assert "several keys" in str(found(keys))
    issuer.pages[KEYS_URL] = jwks(ONE)
    assert "several keys" in str(found(keys))
    issuer.clock.advance(ASK_AGAIN_AFTER)
    assert found(keys) == "one"
    assert len(issuer.asked) == 2


def test_what_breaks_while_it_is_asked_is_no_key(issuer: Issuer) -> None:
    issuer.pages = {KEYS_URL: 7}  # type: ignore[dict-item]
    assert code_of(found(issuer.keys())) == Code.ATTESTOR_UNAVAILABLE


def test_so_many_wait_and_no_more(issuer: Issuer) -> None:
    keys, issuer.waits = issuer.keys(), Deferred()
    waiting = [found(keys) for _ in range(MOST_WAITING)]
    assert code_of(found(keys)) == Code.ATTESTOR_UNAVAILABLE
    issuer.waits.callback(None)
    assert all(done for done, _ in DeferredList(waiting).result)


def discovery(**changes: Any) -> dict[str, bytes]:
    said = {"issuer": ISSUER, "jwks_uri": KEYS_URL, **changes}
    return {
        f"{ISSUER}{DISCOVERY_PATH}": json.dumps(said).encode(),
        KEYS_URL: jwks(ONE),
        "https://evil.example/keys": jwks(ONE),
    }


def test_without_an_address_the_issuer_says_where_its_keys_are(issuer: Issuer) -> None:
    issuer.pages = discovery()
    assert found(issuer.keys(None)) == "one"
    assert issuer.asked == [f"{ISSUER}{DISCOVERY_PATH}", KEYS_URL]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://evil.example"}, "of another issuer"),
        ({"issuer": f"{ISSUER}/"}, "of another issuer"),
        ({"issuer": None}, "of another issuer"),
        ({"jwks_uri": None}, "no jwks_uri"),
        ({"jwks_uri": ["x"]}, "no jwks_uri"),
        ({"jwks_uri": "https://evil.example/keys"}, "configure it as jwks_url"),
        ({"jwks_uri": "https://issuer.example:8443/keys"}, "configure it as jwks_url"),
        ({"jwks_uri": "https://issuer.example@evil.example/keys"}, "no URL"),
        ({"jwks_uri": "http://issuer.example/keys"}, "plain http"),
        ({"jwks_uri": "http://localhost:80/keys"}, "configure it as jwks_url"),
        ({"jwks_uri": "http://169.254.169.254/latest"}, "plain http"),
        ({"jwks_uri": "file:///etc/passwd"}, "no URL"),
        ({"jwks_uri": "/keys"}, "no URL"),
    ],
)
def test_a_discovery_document_leads_nowhere_else(
    issuer: Issuer, changes: dict[str, Any], words: str
) -> None:
    issuer.pages = discovery(**changes)
    error = found(issuer.keys(None))
    assert code_of(error) == Code.ATTESTOR_UNAVAILABLE
    assert words in str(error) and str(error).isprintable()
    assert issuer.asked == [f"{ISSUER}{DISCOVERY_PATH}"]


@pytest.mark.parametrize("page", [b"<html>", b"[]", b'{"issuer": "a", "issuer": "b"}', b"\xff"])
def test_a_discovery_document_that_is_none_is_told(issuer: Issuer, page: bytes) -> None:
    issuer.pages = {f"{ISSUER}{DISCOVERY_PATH}": page}
    assert "discovery document" in str(found(issuer.keys(None)))


@pytest.mark.parametrize("name", ["kubernetes", "http://issuer.example", "https://h/#x"])
def test_an_issuer_that_is_no_place_has_no_discovery(name: str) -> None:
    with pytest.raises(Malformed, match="issuer"):
        JwksAddress(name).discovery()
