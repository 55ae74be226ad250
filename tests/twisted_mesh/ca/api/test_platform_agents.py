"""Agents that their platform proves: how they come, what they may serve by aliases, and how it ends; first use wins."""

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from pki.audit.log import Act, Entry
from pki.issuing.csr import build_csr
from pki.policy.principal import Principal, anonymous, workload
from pki.policy.selector import Selector
from pki.spiffe import SpiffeId
from tests.authorities import BACKEND, HOUR, MESH, key
from tests.twisted_mesh.ca.api.test_agents import Api
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, result_of, settled
from tests.twisted_mesh.talking import Answer
from twisted_mesh.attest.registry import declare_kinds
from twisted_mesh.stores.commands import DeleteEntry
from twisted_mesh.stores.records import AlreadyAttested

declare_kinds()

NODE = MESH.member("mesh", "agent", "prod.node7")
OTHER_NODE = MESH.member("mesh", "agent", "prod.node8")
ALIAS = MESH.member("mesh", "alias", "prod-nodes")
ALLOW, ALIASES, CLAIMS = "/api/v1/entries/agents", "/api/v1/entries/aliases", "/api/v1/claims"
CLAIM = "aws_iid:1234:eu-west-1:i-7"


def seen(node: str = "node7", *more: str, claim: str | None = None) -> Principal:
    texts = ("k8s_psat:cluster:prod", f"k8s_psat:agent_node_name:{node}", *more)
    caller = anonymous(f"k8s:prod/{node}", frozenset(map(Selector.parse, texts)))
    return evolve(caller, claim=claim)


@pytest.fixture
def api(rig: CaRig) -> Api:
    return Api(rig)


@pytest.fixture
def allowed(api: Api) -> str:
    """What lets agents in."""
    asked = {"agents": "prod.{k8s_psat.agent_node_name}", "selectors": ["k8s_psat:cluster:prod"]}
    entry: str = api.made("POST", ALLOW, asked)["id"]
    return entry


def alias(api: Api, *selectors: str) -> str:
    said = {"alias": "prod-nodes", "selectors": selectors or ["k8s_psat:cluster:prod"]}
    entry: str = api.made("POST", ALIASES, said)["id"]
    return entry


def come(
    api: Api, caller: Principal, whose: SpiffeId = NODE, with_key: int = 8, **more: Any
) -> Answer:
    csr = build_csr(key(with_key), whose).decode()
    return api.ask(caller, "POST", "/api/v1/sign", {"csr": csr, "requested_id": str(whose), **more})


def agent_of(answer: Answer, whose: SpiffeId = NODE) -> Principal:
    assert answer.status == 201, answer.body
    return workload(whose, int(answer.json["serial"], 16))


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


def shown(api: Api, name: str = "prod.node7") -> Any:
    return api.made("GET", f"/api/v1/agents/{name}")


# How they come.


@pytest.mark.usefixtures("allowed")
def test_an_agent_comes_by_its_platform_and_is_listed_with_what_was_proven(api: Api) -> None:
    agent_of(come(api, seen(claim=CLAIM)))
    row = shown(api)
    assert row["status"] == "joined"
    assert row["selectors"] == ["k8s_psat:agent_node_name:node7", "k8s_psat:cluster:prod"]
    assert row["claim"] == CLAIM


@pytest.mark.usefixtures("allowed")
def test_it_renews_by_its_certificate_alone(api: Api) -> None:
    agent = agent_of(come(api, seen()))
    again = agent_of(come(api, agent, with_key=9))
    assert again.serial != agent.serial


def test_where_that_is_wanted_it_proves_its_machine_at_each_renewal(api: Api) -> None:
    asked = {
        "agents": "prod.{k8s_psat.agent_node_name}",
        "selectors": ["k8s_psat:cluster:prod"],
        "reattest": True,
    }
    assert api.made("POST", ALLOW, asked)["reattest"] is True
    agent = agent_of(come(api, seen()))
    assert code(come(api, agent, with_key=9)) == (403, "reattest-required")
    both = evolve(agent, selectors=agent.selectors | seen().selectors)
    again = agent_of(come(api, both, with_key=9))
    assert again.serial != agent.serial
    assert code(come(api, again, with_key=10)) == (403, "reattest-required")


@pytest.mark.parametrize(
    ("caller", "whose"),
    [
        (seen("node8"), NODE),
        (seen(), OTHER_NODE),
        (seen(), MESH.member("mesh", "agent", "node7")),
        (seen(), MESH.member("mesh", "alias", "prod-nodes")),
        (anonymous("k8s:dev", frozenset()), NODE),
        (seen("node7", "k8s_psat:agent_node_name:node8"), NODE),
        (seen("NODE"), MESH.member("mesh", "agent", "prod.NODE")),
        (seen("n" * 60), MESH.member("mesh", "agent", "prod." + "n" * 60)),
    ],
    ids=["another's", "another", "bare", "alias", "nobody", "two facts", "capitals", "too long"],
)
@pytest.mark.usefixtures("allowed")
def test_nobody_comes_under_a_name_that_was_not_proven(
    api: Api, caller: Principal, whose: SpiffeId
) -> None:
    alias(api)
    assert come(api, caller, whose).status in (401, 403, 422)
    assert api.made("GET", "/api/v1/agents")["agents"] == []


@pytest.mark.parametrize(
    "asked",
    [
        {"agents": "prod"},
        {"agents": "{k8s_psat.cluster}.{k8s_psat.agent_node_name}"},
        {"agents": "prod.{hostname}"},
        {"agents": "prod/{k8s_psat.agent_node_name}"},
        {"agents": "{k8s_psat.agent_node_name}/../ca"},
        {"agents": "*"},
        {"selectors": []},
        {"selectors": ["token:x"]},
        {"selectors": ["x509:spiffe://mesh.local/service/web"]},
        {"selectors": ["nonsense"]},
    ],
    ids=str,
)
def test_nothing_lets_agents_in_that_tells_them_not_apart(api: Api, asked: Any) -> None:
    said = {"agents": "{k8s_psat.agent_node_name}", "selectors": ["k8s_psat:cluster:prod"]}
    assert api.ask(ADMIN, "POST", ALLOW, said | asked).status in (400, 422)
    assert [e["id"] for e in api.made("GET", "/api/v1/entries")["entries"]] == ["file.backend"]


@pytest.mark.parametrize("path", ["/mesh/agent/x", "/mesh/alias/x", "/mesh/agent/{unix.user}"])
def test_entries_of_workloads_buy_nothing_of_the_mesh(api: Api, path: str) -> None:
    said = {"selectors": ["unix:uid:7"], "spiffe_id": f"spiffe://mesh.local{path}"}
    assert api.ask(ADMIN, "POST", "/api/v1/entries", said).status in (400, 422)


@pytest.mark.usefixtures("allowed")
def test_a_reusable_proof_replaces_what_was_proven_before(api: Api) -> None:
    first = agent_of(come(api, seen()))
    second = agent_of(come(api, seen("node7", "k8s_psat:agent_node_label:tier:front"), with_key=9))
    assert "k8s_psat:agent_node_label:tier:front" in shown(api)["selectors"]
    assert len(api.made("GET", "/api/v1/agents")["agents"]) == 1
    assert code(come(api, seen("node7", claim=CLAIM), with_key=10)) == (409, "already-attested")
    for agent in (first, second):
        assert api.ask(agent, "GET", "/api/v1/agent/entries").status == 200


@pytest.mark.usefixtures("allowed")
def test_one_that_came_by_a_token_is_not_taken_for_one_of_the_platform(api: Api) -> None:
    api.joined("prod.node7")
    refused = come(api, seen(), with_key=9)
    assert code(refused) == (409, "already-attested")
    assert "mesh-ctl agent evict prod.node7" in refused.json["detail"]


@pytest.mark.usefixtures("allowed")
def test_no_token_is_made_for_one_of_the_platform(api: Api) -> None:
    agent_of(come(api, seen()))
    answer = api.ask(ADMIN, "POST", "/api/v1/agents", {"name": "prod.node7"})
    assert code(answer) == (409, "not-by-token")


@pytest.mark.usefixtures("allowed")
def test_a_banned_one_does_not_come_again(api: Api) -> None:
    agent_of(come(api, seen(claim=CLAIM)))
    api.made("POST", "/api/v1/agents/prod.node7", {"action": "ban"})
    assert code(come(api, seen(claim=CLAIM))) == (422, "refused"), "its key is compromised"
    assert code(come(api, seen(claim=CLAIM), with_key=9)) == (409, "already-attested")
    assert code(come(api, seen(), with_key=9)) == (403, "not-authorized")
    api.made("POST", "/api/v1/agents/prod.node7", {"action": "unban"})
    assert come(api, seen(claim=CLAIM), with_key=9).status == 409  # its claim is used still
    api.made("POST", CLAIMS, {"claim": CLAIM})
    agent_of(come(api, seen(claim=CLAIM), with_key=9))


# The first use wins.


@pytest.mark.usefixtures("allowed")
def test_the_same_key_gets_the_same_answer_and_another_is_told_the_remedy(api: Api) -> None:
    first = come(api, seen(claim=CLAIM))
    assert come(api, seen(claim=CLAIM)).json["serial"] == first.json["serial"]
    stolen = come(api, seen(claim=CLAIM), with_key=9)
    assert code(stolen) == (409, "already-attested")
    assert f"mesh-ctl agent evict '{CLAIM}'" in stolen.json["detail"]
    assert str(NODE) in stolen.json["detail"]


@pytest.mark.usefixtures("allowed")
def test_once_the_certificate_has_ended_its_key_gets_another(api: Api) -> None:
    first = come(api, seen(claim=CLAIM))
    api.rig.time += 24 * HOUR
    second = come(api, seen(claim=CLAIM))
    assert second.json["serial"] != first.json["serial"]
    assert come(api, seen(claim=CLAIM), with_key=9).status == 409
    (row,) = api.made("GET", CLAIMS)["claims"]
    assert row["serial"] == second.json["serial"]


@pytest.mark.usefixtures("allowed")
def test_a_revoked_certificate_is_no_answer(api: Api) -> None:
    first = come(api, seen(claim=CLAIM))
    api.made("POST", "/api/v1/revoke", {"serial": first.json["serial"]})
    assert code(come(api, seen(claim=CLAIM))) == (409, "already-attested")


@pytest.mark.usefixtures("allowed")
def test_whoever_holds_what_it_bought_may_show_it_again_for_another_key(api: Api) -> None:
    agent = agent_of(come(api, seen(claim=CLAIM)))
    both = evolve(agent, selectors=agent.selectors | seen().selectors, claim=CLAIM)
    renewed = come(api, both, with_key=9)
    assert renewed.status == 201
    (row,) = api.made("GET", CLAIMS)["claims"]
    assert row["serial"] == renewed.json["serial"]
    # And nobody by the certificate of another.
    other = agent_of(come(api, seen("node8", claim="other"), OTHER_NODE), OTHER_NODE)
    thief = evolve(other, selectors=other.selectors | seen("node8").selectors, claim=CLAIM)
    assert code(come(api, thief, OTHER_NODE, 10)) == (409, "already-attested")


def test_a_claim_of_a_workload_is_evicted_with_all_that_was_renewed_of_it(api: Api) -> None:
    said = {"selectors": ["k8s_psat:cluster:prod"], "spiffe_id": str(BACKEND)}
    api.made("POST", "/api/v1/entries", said)
    first = agent_of(come(api, seen(claim=CLAIM), BACKEND), BACKEND)
    second = agent_of(come(api, first, BACKEND, 9), BACKEND)
    third = agent_of(come(api, second, BACKEND, 10), BACKEND)
    agent_of(come(api, seen("node8", claim="other"), BACKEND, 11), BACKEND)
    listed = api.made("GET", f"/api/v1/certificates?claim={CLAIM}&status=valid")["certificates"]
    assert len(listed) == 3
    told = len(api.rig.told)
    ended = api.made("POST", CLAIMS, {"claim": CLAIM, "reason": "reinstalled"})
    serials = {int(serial, 16) for serial in ended["revoked"]}
    assert serials == {first.serial, second.serial, third.serial}
    assert {one.serial for one in api.rig.told[told:]} == serials
    assert come(api, third, BACKEND, 12).status == 401
    agent_of(come(api, seen(claim=CLAIM), BACKEND, 12), BACKEND)
    (act,) = [a for a in api.acts() if a.object == f"claim {CLAIM}"]
    assert act.facts == {"did": "release-claim", "reason": "reinstalled"}
    issues = [a.facts for a in api.acts() if a.facts.get("claim") == CLAIM]
    assert [facts.get("uses") for facts in issues] == ["claim", None, None, "claim"]


def test_nobody_has_used_it(api: Api) -> None:
    assert code(api.ask(ADMIN, "POST", CLAIMS, {"claim": "x" * 300 + "\n"})) == (404, "not-found")


# How it ends.


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("by", ["name", "claim"])
def test_an_evicted_agent_comes_again_by_its_platform(api: Api, by: str) -> None:
    agent = agent_of(come(api, seen(claim=CLAIM)))
    if by == "name":
        api.made("POST", "/api/v1/agents/prod.node7", {"action": "evict"})
    else:
        assert api.made("POST", CLAIMS, {"claim": CLAIM})["name"] == "prod.node7"
    assert api.ask(agent, "GET", "/api/v1/agent/entries").status == 403
    assert come(api, agent, with_key=9).status in (401, 403)
    assert api.made("GET", CLAIMS)["claims"] == []
    agent_of(come(api, seen(claim=CLAIM), with_key=9))


def test_once_nothing_lets_it_in_its_rights_end_and_they_come_back(api: Api, allowed: str) -> None:
    alias(api)
    entry = api.entry(parent=ALIAS)
    agent = agent_of(come(api, seen(claim=CLAIM)))
    assert api.sign(agent, entry).status == 201
    api.made("DELETE", f"/api/v1/entries/{allowed}")
    assert code(api.ask(agent, "GET", "/api/v1/agent/entries")) == (403, "not-authorized")
    assert api.sign(agent, entry).status == 403
    assert come(api, agent, with_key=9).status == 403
    again = {"agents": "prod.{k8s_psat.agent_node_name}", "selectors": ["k8s_psat:cluster:prod"]}
    api.made("POST", ALLOW, again)
    assert api.sign(agent, entry).status == 201
    agent_of(come(api, agent, with_key=9))


# Aliases.


@pytest.mark.usefixtures("allowed")
def test_an_entry_counts_through_every_agent_of_its_alias_and_no_other(api: Api) -> None:
    alias(api, "k8s_psat:cluster:prod", "k8s_psat:agent_node_label:tier:front")
    entry = api.entry(parent=ALIAS)
    front = agent_of(come(api, seen("node7", "k8s_psat:agent_node_label:tier:front")))
    back = agent_of(come(api, seen("node8"), OTHER_NODE), OTHER_NODE)
    by_token = api.joined("node-1")
    for agent, status in ((front, 201), (back, 403), (by_token, 403)):
        assert api.sign(agent, entry).status == status
        listed = api.ask(agent, "GET", "/api/v1/agent/entries").json["entries"]
        assert [e["id"] for e in listed] == ([entry] if status == 201 else [])
    assert shown(api)["aliases"] == [str(ALIAS)]
    assert shown(api)["entries"] == 1


@pytest.mark.usefixtures("allowed")
def test_the_version_is_another_once_the_alias_or_what_was_proven_is(api: Api) -> None:
    agent = agent_of(come(api, seen()))

    def version() -> tuple[str, int]:
        told = api.ask(agent, "GET", "/api/v1/agent/entries").json
        return told["version"], len(told["entries"])

    own = api.entry(parent=NODE)
    before = version()
    called = alias(api)
    api.entry(parent=ALIAS, spiffe_id=MESH.member("service", "other"))
    both = version()
    assert (before[1], both[1]) == (1, 2)
    assert version() == both
    api.made("DELETE", f"/api/v1/entries/{called}")
    assert version() == before
    assert own


@pytest.mark.usefixtures("allowed")
def test_a_signature_under_way_ends_with_its_alias(api: Api) -> None:
    called = alias(api)
    entry = api.entry(parent=ALIAS)
    agent = agent_of(come(api, seen()))
    # As another replica would: this one has not heard of it.
    rig = api.rig
    gone = DeleteEntry(called, rig.now(), Entry(rig.now(), Act.ADMINISTER, "x", "y"))
    rig.calls.result(rig.store.store.apply(gone))
    assert code(api.sign(agent, entry)) == (403, "not-authorized")


def test_there_is_one_alias_of_a_name(api: Api) -> None:
    alias(api)
    said = {"alias": "prod-nodes", "selectors": ["k8s_psat:cluster:dev"]}
    assert code(api.ask(ADMIN, "POST", ALIASES, said)) == (409, "conflict")


@pytest.mark.usefixtures("allowed")
def test_whoever_meets_an_alias_is_let_in_by_nothing(api: Api) -> None:
    alias(api, "unix:uid:77")
    who = anonymous("unix:uid:77", frozenset({Selector.parse("unix:uid:77")}))
    assert come(api, who, BACKEND).status in (401, 403)


# Races, and what is cut short.


def signing(api: Api, caller: Principal, with_key: int) -> Deferred[Any]:
    csr = build_csr(key(with_key), NODE)
    asked = api.rig.ca.certificates.sign(caller, csr, str(NODE), None)
    return Deferred.fromCoroutine(asked)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("in_memory", [True, False])
def test_of_two_at_once_with_one_claim_one_gets_it(api: Api, in_memory: bool) -> None:
    api.rig.signer.is_in_memory = in_memory
    held = api.rig.signer.held = Deferred()
    first = signing(api, seen(claim=CLAIM), 8)
    second, third = signing(api, seen(claim=CLAIM), 9), signing(api, seen(claim=CLAIM), 8)
    assert not (first.called or second.called or third.called)
    api.rig.signer.held = None
    held.callback(None)
    issued = result_of(settled(first))
    with pytest.raises(AlreadyAttested):
        result_of(settled(second))
    assert result_of(settled(third)).serial == issued.serial


@pytest.mark.usefixtures("allowed", "elsewhere")
def test_what_was_cut_short_has_used_no_claim(api: Api) -> None:
    api.rig.store.broken = {"RecordCertificate"}
    assert come(api, seen(claim=CLAIM)).status == 503
    api.rig.store.broken = set()
    assert come(api, seen(claim=CLAIM)).status == 503  # being resolved
    assert result_of(api.rig.ca.write_offs.resolve()) == 1
    agent_of(come(api, seen(claim=CLAIM), with_key=9))


@pytest.mark.usefixtures("allowed", "elsewhere")
def test_an_agent_that_is_evicted_while_it_renews_gets_nothing_that_is_good(api: Api) -> None:
    agent = agent_of(come(api, seen(claim=CLAIM)))
    held = api.rig.signer.held = Deferred()
    renewal = signing(api, agent, 9)
    api.made("POST", "/api/v1/agents/prod.node7", {"action": "evict"})
    api.rig.signer.held = None
    held.callback(None)
    renewed = result_of(settled(renewal))
    assert renewed.serial in {one.serial for one in api.rig.told}
    assert api.ask(agent, "GET", "/api/v1/agent/entries").status == 403
