"""Identity tokens of Google's compute metadata: which instances are let in, and what a token must say."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pki.errors import PkiError
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.issuers import (
    AUDIENCE,
    Moment,
    good_claims,
    keys_file,
    shown,
    signed,
)
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.gcp import ISSUER, JWKS_URL, GcpAttestor
from twisted_mesh.attest.jwks import JwksAddress
from twisted_mesh.attest.registry import Attestors

TABLE = f'audience = "{AUDIENCE}"\nprojects = ["shop-1", "shop-2"]\n'
ENGINE = {
    "project_id": "shop-1",
    "project_number": 739419398126,
    "zone": "europe-west1-b",
    "instance_id": "152986662232938449",
    "instance_name": "blog-7",
    "instance_creation_timestamp": 1552951495,
}
EMAIL = "web@shop-1.iam.gserviceaccount.example"


@pytest.fixture(autouse=True)
def _kinds(found: GcpAttestor) -> Iterator[None]:
    with own_kinds():
        Attestors((found,))
        yield


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return keys_file(tmp_path)


def attestor(keys: Path, more: str = "") -> GcpAttestor:
    said = tomllib.loads(f'{TABLE}jwks_file = "{keys}"\n{more}')
    return GcpAttestor.of(GcpAttestor.read(said, "[gcp]"), Moment().means)


@pytest.fixture
def found(keys: Path) -> GcpAttestor:
    return attestor(keys)


def token(found: GcpAttestor, engine: Any = ENGINE, **changes: Any) -> Evidence:
    """With a fresh challenge, as a machine fetches it."""
    challenge = outcome(found.challenge("gcp", b"")).decode()
    claims = {
        "iss": ISSUER,
        "aud": f"{AUDIENCE}?nonce={challenge}",
        "sub": "107517467455664443766",
        "azp": "107517467455664443766",
        "email": EMAIL,
        "email_verified": True,
        "google": {"compute_engine": engine},
        **changes,
    }
    return shown("gcp", signed(good_claims(**claims)))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ENGINE.items() if key != name}


def test_an_instance_is_told_as_spire_tells_it(found: GcpAttestor) -> None:
    attested = outcome(found.attest(token(found)))
    assert sorted(map(str, attested.selectors)) == [
        "gcp_iit:instance-name:blog-7",
        "gcp_iit:project-id:shop-1",
        f"gcp_iit:sa:{EMAIL}",
        "gcp_iit:zone:europe-west1-b",
    ]
    assert attested.proof == "gcp_iit:shop-1:europe-west1-b:152986662232938449"
    assert attested.claim is None


def test_a_token_is_good_once(found: GcpAttestor) -> None:
    evidence = token(found)
    assert outcome(found.attest(evidence)) is not None
    with pytest.raises(PkiError, match="answered before"):
        outcome(found.attest(evidence))


def test_a_tables_own_word_lets_an_instances_first_use_win(keys: Path) -> None:
    found = attestor(keys, "once = true")
    first, second = (outcome(found.attest(token(found))) for _ in range(2))
    assert first.claim == second.claim == first.proof


@pytest.mark.parametrize(
    ("engine", "changes", "words"),
    [
        ({**ENGINE, "project_id": "evil-1"}, {}, "the project evil-1"),
        ({**ENGINE, "project_id": "shop-1\n"}, {}, "the project shop-1"),
        ({**ENGINE, "project_id": ["shop-1"] * 2}, {}, "nothing of an instance"),
        ({**ENGINE, "project_id": {"x": 1}}, {}, "nothing of an instance"),
        (without("project_id"), {}, "nothing of an instance"),
        (without("instance_id"), {}, "nothing of an instance"),
        (without("zone"), {}, "nothing of an instance"),
        ({**ENGINE, "instance_name": ""}, {}, "nothing of an instance"),
        ({}, {}, "nothing of an instance"),
        (None, {}, "nothing of an instance"),
        ("shop-1", {}, "nothing of an instance"),
        (ENGINE, {"google": None}, "nothing of an instance"),
        (ENGINE, {"google": "x"}, "nothing of an instance"),
        (ENGINE, {"email": None}, "which service account"),
        (ENGINE, {"email_verified": None}, "which service account"),
        (ENGINE, {"email_verified": "true"}, "which service account"),
        (ENGINE, {"iss": "accounts.google.com"}, "is of accounts.google.com"),
        (ENGINE, {"iss": "https://evil.example"}, "is of https://evil.example"),
        (ENGINE, {"aud": AUDIENCE}, "must be for"),
        (ENGINE, {"aud": "https://other.example"}, "must be for"),
    ],
)
def test_what_is_not_of_an_instance_that_is_meant_is_refused(
    found: GcpAttestor, engine: Any, changes: dict[str, Any], words: str
) -> None:
    evidence = token(found, engine, **changes)
    with pytest.raises(BadEvidence) as refusal:
        outcome(found.attest(evidence))
    assert words in str(refusal.value) and str(refusal.value).isprintable()


def test_only_the_service_accounts_that_are_named_may(keys: Path) -> None:
    found = attestor(keys, 'service_accounts = ["web@*"]')
    assert outcome(found.attest(token(found))) is not None
    with pytest.raises(BadEvidence, match="none of the service accounts"):
        outcome(found.attest(token(found, email="ci@shop-1.example")))


def test_another_kind_is_none_of_its(found: GcpAttestor) -> None:
    assert outcome(found.attest(Evidence())) is None
    assert outcome(found.attest(shown("oidc", json.dumps("x")))) is None
    assert outcome(found.challenge("oidc", b"")) is None


def test_googles_keys_are_where_they_are() -> None:
    settings = GcpAttestor.read(tomllib.loads(TABLE), "[gcp]")
    keys = settings.issuer.keys
    assert isinstance(keys, JwksAddress)
    assert (keys.issuer, str(keys.url)) == (ISSUER, JWKS_URL)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "projects"),
        (f'audience = "{AUDIENCE}"', "projects"),
        (f'audience = "{AUDIENCE}"\nprojects = []', "projects names those"),
        (f'audience = "{AUDIENCE}"\nprojects = [""]', "projects names those"),
        (TABLE + "project_ids = []", "project_ids"),
        (TABLE + 'service_accounts = ["a**"]', "service_accounts"),
        (TABLE + 'algorithms = ["none"]', "algorithms"),
    ],
)
def test_a_table_that_is_no_good_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(PkiError, match=words) as refusal:
        GcpAttestor.read(tomllib.loads(text), "[gcp]")
    assert "[gcp]" in str(refusal.value)


def test_several_tables_are_a_mistake() -> None:
    with pytest.raises(PkiError, match=r"\[gcp\]"):
        GcpAttestor.read([tomllib.loads(TABLE)], "[gcp]")
