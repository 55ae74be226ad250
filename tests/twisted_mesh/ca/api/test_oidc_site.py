"""OpenID Connect Discovery: two documents, which strict readers take, and nothing else."""

import json

import jwt
import pytest
from joserfc import jwt as jose
from joserfc.jwk import KeySet
from twisted.internet.task import Clock

from pki.policy.selector import Selector
from tests.authorities import MESH
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, entry, result_of
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.ca.api.oidc_site import OidcSite
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.limits.rate_limit import Rate

ISSUER = "https://mesh.example"
CONFIGURATION, KEYS = "/.well-known/openid-configuration", "/keys"


def ask(
    rig: CaRig, path: str, method: str = "GET", issuer: str = ISSUER, rate: Rate | None = None
) -> Answer:
    clock = Clock()
    resource = OidcSite(rig.jwt_keys, issuer, rate or Rate(100, 100), clock)
    talk = Talk(BoundedSite(resource, clock), clock)
    talk.say(
        f"{method} {path} HTTP/1.1\r\nhost: mesh.example\r\ncontent-length: 0\r\n\r\n".encode()
    )
    (answer,) = read_answers(talk.wire.value(), to_head=method == "HEAD")
    return answer


@pytest.fixture(autouse=True)
def with_two_keys(rig: CaRig) -> None:
    result_of(rig.jwt_keys.attend())
    result_of(rig.jwt_keys.rotate(ADMIN))


def test_the_configuration_says_who_issues_and_where_the_keys_are(rig: CaRig) -> None:
    answer = ask(rig, CONFIGURATION)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.json == {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/keys",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "ES384", "RS256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti"],
    }


def test_strict_readers_verify_a_token_by_the_keys_as_a_cloud_does(rig: CaRig) -> None:
    assert rig.ca.jwt is not None
    web = entry("1", "unix:uid:7", "spiffe://mesh.local/service/web")
    seen = frozenset({Selector("unix:uid", "7")})
    token = result_of(
        rig.ca.jwt.issue(ADMIN, web, seen, ["sts.amazonaws.com"], look_again=bool)
    ).token
    document = ask(rig, KEYS).json
    keys = KeySet.import_key_set(document)
    assert [jwk["use"] for jwk in document["keys"]] == ["sig", "sig"]
    claims = jose.decode(token, keys, algorithms=["ES256"]).claims
    registry = jose.JWTClaimsRegistry(
        now=int(rig.time.timestamp()),
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": "sts.amazonaws.com"},
        sub={"essential": True, "value": str(MESH.member("service", "web"))},
        exp={"essential": True},
        iat={"essential": True},
    )
    registry.validate(claims)
    by_kid = jwt.PyJWKSet.from_dict(document)[jwt.get_unverified_header(token)["kid"]]
    assert by_kid.public_key_use == "sig"
    assert jwt.decode(
        token,
        by_kid,
        algorithms=["ES256"],
        audience="sts.amazonaws.com",
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False},
    )["sub"] == str(MESH.member("service", "web"))


def test_nothing_of_a_private_key_is_in_it(rig: CaRig) -> None:
    for jwk in ask(rig, KEYS).json["keys"]:
        assert set(jwk) == {"use", "kid", "alg", "kty", "crv", "x", "y"}


def test_below_an_issuer_with_a_path_they_are_below_that_path(rig: CaRig) -> None:
    issuer = f"{ISSUER}/td/one"
    told = json.loads(ask(rig, f"/td/one{CONFIGURATION}", issuer=issuer).body)
    assert told["jwks_uri"] == f"{issuer}/keys"
    assert ask(rig, "/td/one/keys", issuer=issuer).status == 200
    assert ask(rig, "/keys", issuer=issuer).status == 404


PATHS = [
    "/",
    "/keys/",
    "/keys/x",
    "//keys",
    "/KEYS",
    "/%6beys",
    "/.well-known",
    "/.well-known/openid-configuration/",
    "/.well-known/../keys",
    "/.well-known/jwks.json",
    "/api/v1/sign",
    "/api/v1/bundle",
    "/metrics",
    "/livez",
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", PATHS)
def test_another_path_is_not_found_whatever_is_done_to_it(
    rig: CaRig, path: str, method: str
) -> None:
    assert ask(rig, path, method).status == 404


@pytest.mark.parametrize("path", [CONFIGURATION, KEYS])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_another_method_is_not_allowed(rig: CaRig, path: str, method: str) -> None:
    answer = ask(rig, path, method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", [CONFIGURATION, f"{KEYS}?x=1"])
def test_head_is_get_without_the_body_and_a_query_changes_nothing(rig: CaRig, path: str) -> None:
    head, get = ask(rig, path, "HEAD"), ask(rig, path)
    assert head.status == get.status == 200
    assert head.body == b""


def test_a_stranger_who_asks_too_often_is_told_to_come_later(rig: CaRig) -> None:
    assert ask(rig, KEYS, rate=Rate(1, 0)).status == 429
