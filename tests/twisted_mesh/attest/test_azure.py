"""Tokens of Azure's managed identities: whose are let in, and what a token proves."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pki.errors import PkiError
from tests.pki.policy.kinds import own_kinds
from tests.twisted_mesh.attest.issuers import (
    Moment,
    good_claims,
    keys_file,
    shown,
    signed,
)
from tests.twisted_mesh.attest.processes import outcome
from twisted_mesh.attest.azure import AzureAttestor
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.jwks import JwksAddress
from twisted_mesh.attest.registry import Attestors

TENANT, OTHER = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
SUBSCRIPTION = "d5b40d61-272e-48da-beb9-05f295c42bd6"
PRINCIPAL = "0f3c1f52-7a5e-4a8e-9d0b-3c9e1c2a4b5d"
AUDIENCE = "api://mesh.local"
TABLE = f'audience = "{AUDIENCE}"\ntenants = ["{TENANT}"]\n'
MACHINE = (
    f"/subscriptions/{SUBSCRIPTION}/resourcegroups/frontend/providers/Microsoft.Compute/"
    "virtualMachines/blog"
)
ASSIGNED = (
    f"/subscriptions/{SUBSCRIPTION}/resourcegroups/frontend/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/deployer"
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return keys_file(tmp_path)


def attestor(keys: Path, more: str = "") -> AzureAttestor:
    said = tomllib.loads(f'{TABLE}jwks_file = "{keys}"\n{more}')
    return AzureAttestor.of(AzureAttestor.read(said, "[azure]"), Moment().means)


@pytest.fixture
def found(keys: Path) -> AzureAttestor:
    return attestor(keys)


@pytest.fixture(autouse=True)
def _kinds(found: AzureAttestor) -> Iterator[None]:
    with own_kinds():
        Attestors((found,))
        yield


def token(**changes: Any) -> Evidence:
    claims = {
        "iss": f"https://sts.windows.net/{TENANT}/",
        "aud": AUDIENCE,
        "sub": PRINCIPAL,
        "oid": PRINCIPAL,
        "tid": TENANT,
        "idtyp": "app",
        "xms_mirid": MACHINE,
        **changes,
    }
    return shown("azure", signed(good_claims(**claims), x5t="abc"))


def test_a_machines_own_identity_tells_the_machine(found: AzureAttestor) -> None:
    attested = outcome(found.attest(token()))
    assert sorted(map(str, attested.selectors)) == [
        f"azure_msi:principal-id:{PRINCIPAL}",
        f"azure_msi:subscription-id:{SUBSCRIPTION}",
        f"azure_msi:tenant-id:{TENANT}",
        "azure_msi:vm-name:frontend:blog",
    ]
    assert attested.proof == f"azure_msi:{TENANT}:{PRINCIPAL}"
    assert attested.claim is None


def test_an_identity_that_people_assign_tells_no_machine(found: AzureAttestor) -> None:
    attested = outcome(found.attest(token(xms_mirid=ASSIGNED)))
    assert "azure_msi:identity:frontend:deployer" in map(str, attested.selectors)
    assert not [s for s in attested.selectors if s.kind == "azure_msi:vm-name"]


def test_what_is_neither_tells_the_identity_alone(found: AzureAttestor) -> None:
    other = MACHINE.replace("Microsoft.Compute/virtualMachines", "Microsoft.Web/sites")
    kinds = {selector.kind for selector in outcome(found.attest(token(xms_mirid=other))).selectors}
    assert kinds == {"azure_msi:tenant-id", "azure_msi:principal-id", "azure_msi:subscription-id"}


def test_both_versions_of_tokens_are_taken(found: AzureAttestor) -> None:
    assert outcome(found.attest(token(iss=f"https://login.microsoftonline.com/{TENANT}/v2.0")))


def test_a_tables_own_word_lets_an_identitys_first_use_win(keys: Path) -> None:
    attested = outcome(attestor(keys, "once = true").attest(token()))
    assert attested.claim == attested.proof


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iss": f"https://sts.windows.net/{OTHER}/", "tid": OTHER}, "none of that issuer"),
        ({"iss": f"https://sts.windows.net/{TENANT}"}, "none of that issuer"),
        ({"iss": f"https://evil.example/{TENANT}/"}, "none of that issuer"),
        ({"tid": OTHER}, "another tenant"),
        ({"tid": None}, "another tenant"),
        ({"scp": "user_impersonation"}, "of a user"),
        ({"xms_mirid": None}, "not of a managed identity"),
        ({"xms_mirid": 7}, "not of a managed identity"),
        ({"xms_mirid": f"{MACHINE}/extensions/x"}, "not of a managed identity"),
        ({"xms_mirid": f"x{MACHINE}"}, "not of a managed identity"),
        ({"xms_mirid": f"{MACHINE}\n"}, "not of a managed identity"),
        ({"xms_mirid": MACHINE.replace("/blog", "/")}, "not of a managed identity"),
        ({"oid": None}, "not of a managed identity"),
        ({"oid": "root"}, "not of a managed identity"),
        ({"aud": "https://management.azure.com/"}, "must be for"),
        ({"aud": f"{AUDIENCE}?nonce=x"}, "this challenge"),
    ],
)
def test_what_is_of_nobody_that_is_meant_is_refused(
    found: AzureAttestor, changes: dict[str, Any], words: str
) -> None:
    evidence = token(**changes)
    with pytest.raises(PkiError) as refusal:
        outcome(found.attest(evidence))
    assert words in str(refusal.value) and str(refusal.value).isprintable()


def test_only_what_the_table_names_is_taken(keys: Path) -> None:
    others = attestor(keys, f'subscriptions = ["{OTHER}"]')
    with pytest.raises(BadEvidence, match="the subscription"):
        outcome(others.attest(token()))
    named = attestor(keys, f'identities = ["{MACHINE.rpartition("/")[0]}/*"]')
    assert outcome(named.attest(token())) is not None
    with pytest.raises(BadEvidence, match="the identity"):
        outcome(named.attest(token(xms_mirid=ASSIGNED)))


def test_another_kind_is_none_of_its(found: AzureAttestor) -> None:
    assert outcome(found.attest(Evidence())) is None
    assert outcome(found.challenge("azure", b"")) is None


def test_each_tenants_keys_are_its_own() -> None:
    settings = AzureAttestor.read(tomllib.loads(TABLE), "[azure]")
    urls = []
    for _, issuer in settings.issuers.values():
        assert isinstance(issuer.keys, JwksAddress)
        urls.append(str(issuer.keys.url))
    authority = f"https://login.microsoftonline.com/{TENANT}/discovery"
    assert urls == [f"{authority}/keys", f"{authority}/v2.0/keys"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "tenants"),
        (f'audience = "{AUDIENCE}"\ntenants = []', "tenants names those"),
        (f'audience = "{AUDIENCE}"\ntenants = ["example.com"]', "UUIDs"),
        (f'audience = "{AUDIENCE}"\ntenants = ["{PRINCIPAL.upper()}"]', "UUIDs"),
        (f'tenants = ["{TENANT}"]', "audience is the ID of an application"),
        (TABLE + "nonce = true", "nonce"),
        (TABLE + 'subscriptions = ["x"]', "UUIDs"),
        (TABLE + 'identities = ["a**"]', "identities"),
        (TABLE + 'authority = "http://login.example"', "plain http"),
        (TABLE + "tenant = 1", "tenant"),
    ],
)
def test_a_table_that_is_no_good_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(PkiError, match=words) as refusal:
        AzureAttestor.read(tomllib.loads(text), "[azure]")
    assert "[azure]" in str(refusal.value)
