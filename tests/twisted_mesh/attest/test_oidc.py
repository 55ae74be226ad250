"""Tokens of configured issuers: who is let in as what, and what a configuration may say."""

import json
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from pki.codes import Code
from pki.errors import PkiError
from pki.policy.selector import Selector
from pki.svid.x509svid import certificates_pem
from tests.authorities import NOW
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.issuers import (
    AUDIENCE,
    ISSUER,
    Moment,
    good_claims,
    jwk,
    jwks,
    keys_file,
    rsa_key,
    shown,
    signed,
)
from tests.twisted_mesh.attest.processes import outcome
from tests.twisted_mesh.federation.hostile import (
    answer,
    ok,
    reactor,
    serving,
    web_certificate,
    web_root,
)
from tests.twisted_mesh.grpc.sockets import run
from twisted_mesh.attest.attestors_file import read_attestors
from twisted_mesh.attest.errors import AttestorUnavailable, BadEvidence
from twisted_mesh.attest.evidence import AttestationData, Evidence
from twisted_mesh.attest.oidc import OidcAttestor
from twisted_mesh.attest.registry import Attestors

TABLE = f"""
[github]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
claims = {{ repository = "org/*", ref = ["refs/heads/main", "refs/tags/v*"] }}
selectors = ["repository", "ref", "environment", "protected"]
"""
CLAIMS: dict[str, Any] = {
    "repository": "org/api",
    "ref": "refs/heads/main",
    "environment": "production",
    "protected": True,
}


@pytest.fixture(autouse=True)
def _kinds() -> Any:
    with own_kinds():
        Attestors((OidcAttestor({}, Moment().means.challenges),))
        yield


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return keys_file(tmp_path)


def attestor(moment: Moment, keys: Path | None, text: str = TABLE, more: str = "") -> OidcAttestor:
    """By a table, with ``more`` lines in it."""
    said = text + more + (f'\njwks_file = "{keys}"\n' if keys else "")
    return OidcAttestor.of(OidcAttestor.read(tomllib.loads(said), "[oidc]"), moment.means)


def wrong(text: str) -> str:
    with pytest.raises(PkiError) as refusal:
        OidcAttestor.read(tomllib.loads(text), "[oidc]")
    assert str(refusal.value).isprintable()
    return str(refusal.value)


def token(**changes: Any) -> str:
    return signed(good_claims(**{**CLAIMS, **changes}))


def refused(found: OidcAttestor, evidence: Evidence) -> str:
    with pytest.raises(BadEvidence) as refusal:
        outcome(found.attest(evidence))
    assert str(refusal.value).isprintable()
    return str(refusal.value)


def test_a_token_tells_what_its_issuer_says_of_its_bearer(keys: Path) -> None:
    moment = Moment()
    attested = outcome(attestor(moment, keys).attest(shown("oidc", token())))
    assert sorted(map(str, attested.selectors)) == [
        "oidc:github:environment:production",
        "oidc:github:protected:true",
        "oidc:github:ref:refs/heads/main",
        "oidc:github:repository:org/api",
    ]
    assert attested.proof == "oidc:github:repo:org/api"
    assert attested.claim is None
    assert all(Selector.parse(str(selector)) == selector for selector in attested.selectors)


def test_without_an_audience_of_its_own_a_token_is_for_the_trust_domain(keys: Path) -> None:
    found = attestor(Moment(), keys, TABLE.replace(f'audience = "{AUDIENCE}"', ""))
    assert outcome(found.attest(shown("oidc", token(aud="spiffe://mesh.local"))))
    for audience in (AUDIENCE, "", "spiffe://mesh.local/", "spiffe://other.example"):
        assert "spiffe://mesh.local" in refused(found, shown("oidc", token(aud=audience)))


def test_a_claim_is_told_by_the_name_that_the_map_gives_it(keys: Path) -> None:
    text = TABLE.replace(
        'selectors = ["repository", "ref", "environment", "protected"]',
        'selectors = { "/realm_access/roles" = "role", ref = "branch", missing = "m" }',
    )
    shown_token = token(realm_access={"roles": ["admin", "ops\n", "\u00e4"]})
    attested = outcome(attestor(Moment(), keys, text).attest(shown("oidc", shown_token)))
    assert sorted(map(str, attested.selectors)) == [
        "oidc:github:branch:refs/heads/main",
        "oidc:github:role:admin",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repository": "evil/api"}, "repository is evil/api"),
        ({"repository": "org/api/x"}, "repository is org/api/x"),
        ({"repository": None}, "repository is not there"),
        ({"repository": {"x": "org/api"}}, "repository is not there"),
        ({"ref": "refs/heads/evil"}, "ref is refs/heads/evil"),
        ({"aud": "other"}, "is for other"),
        ({"iss": "https://evil.example"}, "none of that issuer"),
    ],
)
def test_who_is_not_meant_is_refused(keys: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refused(attestor(Moment(), keys), shown("oidc", token(**changes)))


def test_evidence_of_another_kind_is_none_of_its(keys: Path) -> None:
    found = attestor(Moment(), keys)
    assert outcome(found.attest(Evidence())) is None
    assert outcome(found.attest(shown("gcp", token()))) is None
    assert outcome(found.challenge("gcp", b"")) is None


def test_what_is_no_token_is_refused(keys: Path) -> None:
    found = attestor(Moment(), keys)
    for data in (b"{}", b'"x"', b"\xff", b"null"):
        refused(found, Evidence(attestation=AttestationData("oidc", data)))


def test_a_token_with_the_cas_challenge_is_taken_once(keys: Path) -> None:
    found = attestor(Moment(), keys, more="nonce = true")
    challenge = outcome(found.challenge("oidc", b"")).decode()
    evidence = shown("oidc", token(aud=f"{AUDIENCE}?nonce={challenge}"))
    assert outcome(found.attest(evidence)) is not None
    with pytest.raises(PkiError, match="answered before"):
        outcome(found.attest(evidence))
    refused(found, shown("oidc", token()))


def test_a_challenge_counts_where_none_is_demanded_too(keys: Path) -> None:
    found = attestor(Moment(), keys)
    challenge = outcome(found.challenge("oidc", b"")).decode()
    evidence = shown("oidc", token(aud=f"{AUDIENCE}?nonce={challenge}"))
    assert outcome(found.attest(evidence)) is not None
    with pytest.raises(PkiError, match="answered before"):
        outcome(found.attest(evidence))


@pytest.mark.parametrize("forged", ["", "x", "1-2-3", "6f000000-" + "0" * 32 + "-" + "0" * 32])
def test_a_challenge_that_is_not_ours_is_refused(keys: Path, forged: str) -> None:
    found = attestor(Moment(), keys, more="nonce = true")
    with pytest.raises(PkiError, match="this challenge"):
        outcome(found.attest(shown("oidc", token(aud=f"{AUDIENCE}?nonce={forged}"))))


def test_a_challenge_for_another_kind_is_refused(keys: Path) -> None:
    moment = Moment()
    found = attestor(moment, keys, more="nonce = true")
    other = moment.means.challenges.make("x509pop")
    with pytest.raises(PkiError, match="this challenge"):
        outcome(found.attest(shown("oidc", token(aud=f"{AUDIENCE}?nonce={other}"))))


def test_a_forged_token_spends_no_challenge(keys: Path) -> None:
    found = attestor(Moment(), keys, more="nonce = true")
    challenge = outcome(found.challenge("oidc", b"")).decode()
    audience = f"{AUDIENCE}?nonce={challenge}"
    forged = signed(good_claims(**CLAIMS, aud=audience), rsa_key("two"))
    assert "signature" in refused(found, shown("oidc", forged))
    assert outcome(found.attest(shown("oidc", token(aud=audience)))) is not None


def test_what_counts_once_is_named_by_what_is_signed(keys: Path) -> None:
    found = attestor(Moment(), keys, more="once = true")
    attested = [
        outcome(found.attest(shown("oidc", text))) for text in (token(), token(), token(jti="2"))
    ]
    first, again, other = (one.claim for one in attested)
    assert first == again != other
    assert attested[0].claim_until == NOW + timedelta(seconds=660)
    assert first.startswith("oidc:github:") and len(first) == len("oidc:github:") + 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ('x = "y"', "each issuer has a table"),
        ("[[github]]\n", "each issuer has a table"),
        ("[GitHub]\n" + TABLE.partition("\n[github]\n")[2], "lower-case"),
        (TABLE.replace("issuer =", "isuer ="), "isuer"),
        (TABLE.replace(f'issuer = "{ISSUER}"', ""), "issuer"),
        (TABLE.replace(AUDIENCE, ""), "audience is a text"),
        (TABLE + f'other_audiences = ["{AUDIENCE}"]', "other_audiences"),
        (TABLE + 'algorithms = ["none"]', "algorithms none"),
        (TABLE + 'algorithms = ["HS256"]', "algorithms HS256"),
        (TABLE + "algorithms = []", "no token would"),
        (TABLE + 'clock_skew = "1h"', "at most 300s"),
        (TABLE + "clock_skew = 60", "clock_skew"),
        (TABLE + 'clock_skew = "-1s"', "duration"),
        (TABLE + 'max_lifetime = "0s"', "at least 1s"),
        (TABLE + 'jwks_url = "http://issuer.example/keys"', "plain http"),
        (TABLE + 'jwks_url = "http://169.254.169.254/"', "plain http"),
        (TABLE + 'jwks_url = "file:///etc/passwd"', "no URL"),
        (TABLE + 'jwks_file = "keys.json"', "absolute"),
        (TABLE + 'jwks_file = "/nonexistent/keys.json"', "cannot be read"),
        (TABLE + f'jwks_url = "{ISSUER}"\njwks_file = "/x"', "not both"),
        (TABLE + 'ca_file = "/nonexistent/ca.pem"', "cannot be read"),
        (TABLE.replace(ISSUER, "kubernetes"), "jwks_url or jwks_file"),
        (TABLE.replace(ISSUER, "http://issuer.example"), "plain http"),
        (TABLE.replace('"org/*"', '"org**"'), "claims repository"),
        (TABLE.replace('"org/*"', "[]"), "allows nothing"),
        (TABLE.replace("repository =", '"" ='), "names no claim"),
        (TABLE.replace('claims = { repository = "org/*", ref', "more = { ref"), "more"),
        (
            f'[x]\nissuer = "{ISSUER}"\naudience = "a"',
            "claims must say whose",
        ),
        (TABLE.replace('["repository",', '["a:b",'), "cannot stand in a selector"),
        (TABLE.replace('["repository",', '["",'), "cannot stand in a selector"),
        (TABLE.replace('["repository",', '["/a/b",'), ""),
        (TABLE + TABLE.replace("github", "gitlab"), "two tables are of one issuer"),
        (TABLE + 'nonce = "yes"', "nonce"),
    ],
)
def test_a_table_that_is_no_good_is_refused_by_name(text: str, words: str) -> None:
    if words:
        assert words in wrong(text)
    else:
        OidcAttestor.read(tomllib.loads(text), "[oidc]")


def test_all_that_is_wrong_is_told_at_once() -> None:
    text = wrong(TABLE.replace("org/*", "**x") + '[gitlab]\nissuer = "x"')
    assert "[oidc.github] claims repository" in text and "[oidc.gitlab]" in text


def test_keys_of_a_file_that_others_may_write_are_refused(keys: Path) -> None:
    keys.chmod(0o666)
    assert "jwks_file" in wrong(TABLE + f'jwks_file = "{keys}"')


def test_the_whole_file_is_read(tmp_path: Path, keys: Path) -> None:
    path = tmp_path / "attestors.toml"
    path.write_text(TABLE.replace("[github]", "[oidc.github]") + f'jwks_file = "{keys}"\n')
    path.chmod(0o600)
    configured = read_attestors(path)
    assert configured["oidc"].attestor(Moment().means).name == "oidc"


def test_nothing_that_a_token_names_is_ever_asked() -> None:
    """Neither its issuer, nor where it says that its keys are: only what is configured is."""
    evil = ok(jwks(jwk(rsa_key("two"), "two")))
    with serving(evil, None) as inside, serving(ok(jwks(jwk(rsa_key(), "one"))), None) as issuer:
        place = f"http://127.0.0.1:{inside.port}"
        means = evolve(Moment().means, reactor=reactor())
        said = tomllib.loads(TABLE + f'jwks_url = "http://127.0.0.1:{issuer.port}/keys"')
        found = OidcAttestor.of(OidcAttestor.read(said, "[oidc]"), means)
        for text in (
            token(iss=place),
            signed(good_claims(**CLAIMS), rsa_key("two"), jku=f"{place}/keys"),
            signed(good_claims(**CLAIMS), rsa_key("two"), x5u=f"{place}/keys"),
            signed(good_claims(**CLAIMS), rsa_key("two"), kid=f"{place}/keys"),
            signed(good_claims(**CLAIMS, jwks_uri=f"{place}/keys"), rsa_key("two"), kid="two"),
        ):
            with pytest.raises(BadEvidence):
                run(found.attest(shown("oidc", text)))
        assert run(found.attest(shown("oidc", token()))) is not None
        assert not inside.asked
        assert [head.split()[1] for head in issuer.asked] == [b"/keys"]


def test_a_real_issuer_over_https_survives_a_change_of_its_keys(tmp_path: Path) -> None:
    """Discovery and keys over TLS by a CA of a file; a key that is new; and an issuer that is away, as a 503."""
    pages: dict[str, bytes] = {}
    gone = answer(503)
    shown_certificate = web_certificate("localhost")
    roots = tmp_path / "ca.pem"
    roots.write_bytes(certificates_pem([web_root()[0]]))
    with serving(lambda path: pages.get(path, gone), shown_certificate) as endpoint:
        name = f"https://localhost:{endpoint.port}"
        moment = Moment()
        clock = Clock()
        means = evolve(moment.means, reactor=reactor())
        said = tomllib.loads(TABLE.replace(ISSUER, name) + f'ca_file = "{roots}"')
        (settings,) = OidcAttestor.read(said, "[oidc]")
        found = OidcAttestor.of((settings,), means)
        _, issuer = found.issuers[name]
        issuer.keys.clock = clock  # type: ignore[attr-defined]
        with pytest.raises(AttestorUnavailable, match="answers 503"):
            run(found.attest(shown("oidc", token(iss=name))))
        clock.advance(60)
        said_there = {"issuer": name, "jwks_uri": f"{name}/keys"}
        pages["/.well-known/openid-configuration"] = ok(json.dumps(said_there).encode())
        pages["/keys"] = ok(jwks(jwk(rsa_key(), "one")))
        assert run(found.attest(shown("oidc", token(iss=name)))) is not None
        pages["/keys"] = ok(jwks(jwk(rsa_key(), "one"), jwk(rsa_key("two"), "two")))
        changed = signed(good_claims(**CLAIMS, iss=name), rsa_key("two"), kid="two")
        with pytest.raises(BadEvidence, match="no such key"):
            run(found.attest(shown("oidc", changed)))
        clock.advance(60)
        assert run(found.attest(shown("oidc", changed))) is not None
        pages.clear()
        clock.advance(3600)
        assert run(found.attest(shown("oidc", changed))) is not None


def test_an_issuer_whose_certificate_is_anothers_is_not_believed(tmp_path: Path) -> None:
    with serving(ok(jwks(jwk(rsa_key(), "one"))), web_certificate("localhost")) as endpoint:
        said = tomllib.loads(TABLE + f'jwks_url = "https://localhost:{endpoint.port}/keys"')
        means = evolve(Moment().means, reactor=reactor())
        found = OidcAttestor.of(OidcAttestor.read(said, "[oidc]"), means)
        with pytest.raises(AttestorUnavailable) as refusal:
            run(found.attest(shown("oidc", token())))
        assert refusal.value.problems[0].code == Code.ATTESTOR_UNAVAILABLE
        assert not endpoint.asked
