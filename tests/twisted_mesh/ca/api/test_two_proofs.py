"""Whoever shows two proofs at once: no certificate slips from what it descends from, and nobody gets another's name."""

import pytest
from attrs import evolve

from pki.policy.principal import Principal, anonymous
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from tests.authorities import BACKEND, MESH
from tests.twisted_mesh.ca.api.test_agents import Api
from tests.twisted_mesh.ca.api.test_platform_agents import (
    ALLOW,
    CLAIM,
    CLAIMS,
    NODE,
    agent_of,
    code,
    come,
    seen,
    shown,
)
from tests.twisted_mesh.ca.rigs import CaRig
from twisted_mesh.attest.evidence import Attestation
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.ca.api.authentication import principal_of

declare_kinds()

OTHER_CLAIM = "aws_iid:1234:eu-west-1:i-8"
LOW = MESH.member("service", "low")


def instance(number: int, claim: str | None) -> Attestation:
    selector = Selector.parse(f"aws_iid:instance:id:i-{number:08x}")
    return Attestation(claim or f"aws:{number}", frozenset({selector}), claim=claim)


def beside(svid: Principal, evidence: Attestation) -> Principal:
    """Who shows both, as the CA puts it together."""
    return principal_of(svid, [evidence], lambda _: False)


def by(evidence: Attestation) -> Principal:
    return beside(anonymous("tls:no-certificate"), evidence)


@pytest.fixture
def api(rig: CaRig) -> Api:
    return Api(rig)


def entry(api: Api, spiffe_id: SpiffeId, *selectors: str, **more: object) -> str:
    said = {"selectors": list(selectors), "spiffe_id": str(spiffe_id), **more}
    made: str = api.made("POST", "/api/v1/entries", said)["id"]
    return made


VICTIMS, MINE = instance(7, CLAIM), instance(8, OTHER_CLAIM)
OF_VICTIM, OF_MINE = "aws_iid:instance:id:i-00000007", "aws_iid:instance:id:i-00000008"


def evicted(api: Api, claim: str) -> set[int]:
    return {int(serial, 16) for serial in api.made("POST", CLAIMS, {"claim": claim})["revoked"]}


def refused(api: Api, svid: Principal, whose: SpiffeId) -> None:
    answer = come(api, beside(svid, MINE), whose, 9)
    assert code(answer) == (403, "not-authorized")
    assert "rule two-claims" in answer.json["detail"]
    assert [row["claim"] for row in api.made("GET", CLAIMS)["claims"]] == [CLAIM]


def test_no_renewal_slips_from_its_claim_by_one_that_is_shown_beside(api: Api) -> None:
    entry(api, BACKEND, OF_VICTIM)
    stolen = agent_of(come(api, by(VICTIMS), BACKEND), BACKEND)
    refused(api, stolen, BACKEND)
    renewed = agent_of(come(api, stolen, BACKEND, 9), BACKEND)
    assert evicted(api, CLAIM) == {stolen.serial, renewed.serial}


def test_nor_does_what_the_certificate_alone_buys(api: Api) -> None:
    entry(api, BACKEND, OF_VICTIM)
    entry(api, LOW, f"x509:{BACKEND}")
    stolen = agent_of(come(api, by(VICTIMS), BACKEND), BACKEND)
    refused(api, stolen, LOW)
    more = agent_of(come(api, stolen, LOW, 9), LOW)
    assert evicted(api, CLAIM) == {stolen.serial, more.serial}


def test_what_the_evidence_alone_buys_descends_from_that(api: Api) -> None:
    entry(api, BACKEND, OF_VICTIM)
    entry(api, LOW, OF_MINE)
    first = agent_of(come(api, by(VICTIMS), BACKEND), BACKEND)
    mine = agent_of(come(api, beside(first, MINE), LOW, 9), LOW)
    assert evicted(api, CLAIM) == {first.serial}
    assert evicted(api, OTHER_CLAIM) == {mine.serial}


def test_nothing_descends_from_two_claims(api: Api) -> None:
    entry(api, BACKEND, OF_VICTIM)
    entry(api, LOW, f"x509:{BACKEND}", OF_MINE)
    first = agent_of(come(api, by(VICTIMS), BACKEND), BACKEND)
    refused(api, first, LOW)


def test_evidence_that_counts_once_is_shown_anew_where_the_entry_wants_it(api: Api) -> None:
    # As a CI system's tokens are: each is a claim of its own.
    entry(api, BACKEND, OF_VICTIM, reattest=True)
    first = agent_of(come(api, by(VICTIMS), BACKEND), BACKEND)
    later = evolve(VICTIMS, claim=OTHER_CLAIM)
    second = agent_of(come(api, beside(first, later), BACKEND, 9), BACKEND)
    assert evicted(api, OTHER_CLAIM) == {second.serial}


def test_a_claim_does_not_move_to_another_id(api: Api) -> None:
    entry(api, BACKEND, OF_VICTIM)
    entry(api, LOW, OF_VICTIM)
    first = agent_of(come(api, by(VICTIMS), BACKEND), BACKEND)
    assert code(come(api, beside(first, VICTIMS), LOW, 9)) == (409, "already-attested")
    # Nor back to the first by what that has bought for somebody else.
    entry(api, MESH.member("service", "child"), f"x509:{BACKEND}")
    child = MESH.member("service", "child")
    bought = agent_of(come(api, first, child, 10), child)
    assert code(come(api, beside(bought, VICTIMS), BACKEND, 11)) == (409, "already-attested")


def test_an_agent_is_evicted_with_what_it_got_by_evidence_beside_its_certificate(api: Api) -> None:
    agent = api.joined()
    assert agent.spiffe_id is not None
    entry(api, LOW, f"x509:{agent.spiffe_id}")
    got = agent_of(come(api, beside(agent, instance(8, None)), LOW, 9), LOW)
    ended = api.made("POST", "/api/v1/agents/node-1", {"action": "evict"})
    assert {int(serial, 16) for serial in ended["revoked"]} >= {agent.serial, got.serial}


# Names of agents.


@pytest.fixture
def allowed_twice(api: Api) -> None:
    for fact in ("k8s_psat.agent_node_name", "x509pop.cn"):
        kind = "k8s_psat:cluster:prod" if "k8s" in fact else f"x509pop:ca:fingerprint:{'0a' * 20}"
        api.made("POST", ALLOW, {"agents": f"prod.{{{fact}}}", "selectors": [kind]})


@pytest.mark.usefixtures("allowed_twice")
def test_an_agent_of_one_platform_is_not_taken_over_by_another_platforms_of_the_same_name(
    api: Api,
) -> None:
    agent = agent_of(come(api, seen()))
    texts = ("x509pop:subject:cn:node7", f"x509pop:ca:fingerprint:{'0a' * 20}")
    namesake = anonymous("x509pop:sha256:00", frozenset(map(Selector.parse, texts)))
    assert code(come(api, namesake, NODE, 9)) == (409, "already-attested")
    assert "k8s_psat:cluster:prod" in shown(api)["selectors"]
    # What it is itself, it may be again.
    agent_of(come(api, seen(), NODE, 10))
    assert api.ask(agent, "GET", "/api/v1/agent/entries").status == 200
    api.made("POST", "/api/v1/agents/prod.node7", {"action": "evict"})
    agent_of(come(api, namesake, NODE, 11))


# What agents state.


@pytest.mark.parametrize(
    "lie",
    ["k8s_psat:cluster:prod", OF_VICTIM, "oidc:github:ref:main", f"x509:{BACKEND}", "token:x"],
)
def test_an_agent_states_nothing_that_only_the_ca_can_find_out(api: Api, lie: str) -> None:
    agent = api.joined()
    made = api.entry()
    assert api.sign(agent, made).status == 201
    answer = api.sign(agent, made, selectors=["unix:uid:7", lie])
    assert code(answer) == (403, "not-authorized")
    assert "rule of-workloads-only" in answer.json["detail"]
