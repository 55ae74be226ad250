"""Tokens through an agent: for what its own entries buy, by its word for the selectors, while it is one."""

from collections.abc import Callable

import pytest
from attrs import define

from pki.audit.log import Act
from pki.jwt_svid.validator import validate
from pki.policy.principal import Principal, workload
from pki.spiffe import SpiffeId
from tests.authorities import MESH
from tests.twisted_mesh.ca.api.test_wire import Api
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, result_of
from tests.twisted_mesh.talking import Answer
from twisted_mesh.stores.commands import RecordAct

WEB = MESH.member("service", "web")
SEEN = ["unix:uid:7", "unix:user:web"]
PATH = "/api/v1/agent/jwt"


@define(eq=False)
class Agent:
    """An agent that has joined, and one entry of its own."""

    api: Api
    name: str
    entry: str = ""

    @property
    def id(self) -> SpiffeId:
        return MESH.member("mesh", "agent", self.name)

    @property
    def principal(self) -> Principal:
        return workload(self.id, 7)

    def join(self) -> "Agent":
        self.api.caller = ADMIN
        self.api.ask("made", "POST", "/api/v1/agents", {"name": self.name})
        said = {"selectors": SEEN[:1], "spiffe_id": str(WEB), "parent": str(self.id)}
        self.entry = self.api.ask("its entry", "POST", "/api/v1/entries", said).json["id"]
        return self

    def end(self, action: str) -> None:
        self.api.caller = ADMIN
        self.api.ask("end", "POST", "/api/v1/agents/*", {"action": action}, rest=self.name)

    def ask(self, **more: object) -> Answer:
        self.api.caller = self.principal
        asked = {"entry": self.entry, "selectors": SEEN, "audience": ["reports"], **more}
        return self.api.ask("token", "POST", PATH, asked)


@pytest.fixture
def agent(rig: CaRig) -> Agent:
    result_of(rig.jwt_keys.attend())
    return Agent(Api(rig), "one").join()


def acts(rig: CaRig) -> list[str]:
    return [
        command.entry.actor
        for command in rig.store.told
        if isinstance(command, RecordAct) and command.entry.act is Act.ISSUE_JWT
    ]


def test_an_agent_gets_a_token_of_what_its_entry_buys(rig: CaRig, agent: Agent) -> None:
    answer = agent.ask(ttl="2m")
    assert answer.status == 201
    bundles = {MESH: rig.ca.bundle().to_jwt_bundle()}
    found = validate(answer.json["token"], "reports", bundles, rig.time)
    assert str(found.spiffe_id) == answer.json["spiffe_id"] == str(WEB)
    assert answer.json["expires_at"] == "2026-11-23T10:02:00Z"
    assert acts(rig) == [agent.principal.evidence]


BAD = {
    "no audience": ({"audience": []}, 400, "bad-audience"),
    "an empty audience": ({"audience": [""]}, 400, "bad-audience"),
    "selectors that do not meet it": ({"selectors": ["unix:uid:8"]}, 403, "not-authorized"),
    "no selector": ({"selectors": ["nonsense"]}, 400, "unknown-selector"),
    "too many selectors": ({"selectors": ["unix:uid:7"] * 65}, 400, "malformed"),
    "too long": ({"ttl": "2h"}, 422, "ttl-out-of-range"),
    "no duration": ({"ttl": "long"}, 400, "malformed"),
    "an entry that there is not": ({"entry": "0" * 16}, 403, "not-authorized"),
    "the CA's own entry": ({"entry": "file.backend"}, 403, "not-authorized"),
}


@pytest.mark.parametrize(("more", "status", "code"), BAD.values(), ids=BAD.keys())
def test_what_it_may_not_have_is_refused_and_nothing_is_recorded(
    rig: CaRig, agent: Agent, more: dict[str, object], status: int, code: str
) -> None:
    answer = agent.ask(**more)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert acts(rig) == []


def test_another_agents_entry_is_not_its_own(rig: CaRig, agent: Agent) -> None:
    other = Agent(agent.api, "two").join()
    assert agent.ask(entry=other.entry).status == 403
    assert other.ask().status == 201
    assert acts(rig) == [other.principal.evidence]


@pytest.mark.parametrize("action", ["ban", "evict"])
def test_an_agent_that_is_none_any_more_gets_nothing(agent: Agent, action: str) -> None:
    agent.end(action)
    assert agent.ask().status == 403


def test_an_entry_that_went_while_the_token_was_recorded_buys_nothing(
    rig: CaRig, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    record: Callable[..., object] = rig.log.record

    async def recorded(act: Act, *rest: object) -> None:
        await record(act, *rest)  # type: ignore[misc]
        if act is Act.ISSUE_JWT:
            await rig.ca.entries.delete(ADMIN, agent.entry, "meanwhile")

    monkeypatch.setattr(type(rig.log), "record", lambda self, *rest: recorded(*rest))
    assert agent.ask().status == 403


def test_a_workload_or_an_administrator_is_no_agent(agent: Agent) -> None:
    for caller in (ADMIN, workload(WEB, 9)):
        agent.api.caller = caller
        asked = {"entry": agent.entry, "selectors": SEEN, "audience": ["reports"]}
        assert agent.api.ask("token", "POST", PATH, asked).status == 403
