"""What an agent gets and what it is refused, how it waits for entries, and how it ends."""

import json
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from pki.audit.log import Entry
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm
from pki.policy.entry import RegistrationEntry
from pki.policy.principal import Principal, anonymous, workload
from pki.spiffe import SpiffeId
from pki.svid.x509svid import load_certificates
from tests.authorities import BACKEND, MESH, NOW, OTHER, key
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of, result_of
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.stores.records import StoredEntry

NODE = MESH.member("mesh", "agent", "node-1")
SEEN = ["unix:uid:7", "unix:user:web"]
SIGN = "/api/v1/agent/sign"


@define(eq=False)
class Api:
    """The API of a CA, where others wait, and whoever asks it."""

    rig: CaRig
    caller: Principal = ADMIN
    clock: Clock = field(factory=Clock)
    site: BoundedSite = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.rig.notifier = Notifier(self.clock)
        self.rig.found()
        self.site = BoundedSite(CaApi(self.rig.ca, self, attestors_of(self.rig)), self.clock)

    def account(self, evidence: Evidence) -> Account:
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        return self.caller

    def asking(self, caller: Principal, path: str) -> Talk:
        """A question that may take its time."""
        self.caller = caller
        talk = Talk(self.site, self.clock)
        talk.say(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        return talk

    def ask(self, caller: Principal, method: str, path: str, body: Any = None) -> Answer:
        self.caller = caller
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n"
            "content-type: application/json\r\n\r\n"
        )
        talk = Talk(self.site, self.clock)
        talk.say(head.encode() + content)
        (answer,) = read_answers(talk.wire.value())
        return answer

    def made(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(ADMIN, method, path, body)
        assert answer.status in (200, 201), answer.body
        return answer.json

    def joined(self, name: str = "node-1") -> Principal:
        """An agent that has joined by a token of its own."""
        token = self.made("POST", "/api/v1/agents", {"name": name})
        whose = MESH.member("mesh", "agent", name)
        answer = self.ask(anonymous("tls:no-certificate"), "POST", "/api/v1/sign", {
            "csr": build_csr(key(8), whose).decode(), "requested_id": str(whose), "token": token["token"],
        })  # fmt: skip
        assert answer.status == 201, answer.body
        return workload(whose, int(answer.json["serial"], 16))

    def entry(self, spiffe_id: object = BACKEND, parent: object = NODE, **more: Any) -> str:
        said = {"selectors": ["unix:uid:7"], "spiffe_id": str(spiffe_id), "parent": str(parent)}
        entry_id: str = self.made("POST", "/api/v1/entries", {**said, **more})["id"]
        return entry_id

    def sign(self, agent: Principal, entry: str, **changes: Any) -> Answer:
        spiffe_id = changes.pop("spiffe_id", BACKEND)
        signing = changes.pop("key", key(9))
        csr = build_csr(signing, spiffe_id, changes.pop("dns_names", ())).decode()
        asked = {"csr": csr, "requested_id": str(spiffe_id), "entry": entry, "selectors": SEEN}
        return self.ask(agent, "POST", SIGN, {**asked, **changes})

    def acts(self) -> list[Entry]:
        """All that is recorded."""
        result_of(self.rig.log.extend())
        rows, _ = self.rig.calls.result(self.rig.store.store.log_entries(0, 1000))
        return [Entry.parse(row.entry) for row in rows]


@pytest.fixture
def api(rig: CaRig) -> Api:
    return Api(rig)


def refusal(answer: Answer, status: int = 403) -> str:
    assert answer.status == status, answer.body
    detail: str = answer.json["detail"]
    return detail


# How one becomes an agent.


def test_its_token_buys_its_id_and_nothing_else(api: Api) -> None:
    token = api.made("POST", "/api/v1/agents", {"name": "node-1"})["token"]
    nobody = anonymous("tls:no-certificate")
    for whose, status in (
        (BACKEND, 403),
        (MESH.member("mesh", "agent", "node-2"), 403),
        (NODE, 201),
    ):
        asked = {
            "csr": build_csr(key(8), whose).decode(),
            "requested_id": str(whose),
            "token": token,
        }
        assert api.ask(nobody, "POST", "/api/v1/sign", asked).status == status


@pytest.mark.parametrize(
    "body",
    [
        {"selectors": ["unix:uid:7"], "spiffe_id": str(NODE)},
        {"selectors": ["unix:uid:7"], "spiffe_id": "spiffe://mesh.local/mesh/agent/*"},
        {"selectors": ["unix:uid:7"], "spiffe_id": "spiffe://mesh.local/mesh/**"},
        {"selectors": ["unix:uid:7"], "spiffe_id": "spiffe://mesh.local/**"},
        {"selectors": ["unix:uid:7"], "spiffe_id": "spiffe://mesh.local/mesh/agent/{unix.user}"},
    ],
    ids=["an entry", "a star", "a subtree", "everything", "a template"],
)  # fmt: skip
def test_no_entry_buys_the_id_of_an_agent(api: Api, body: Any) -> None:
    assert api.ask(ADMIN, "POST", "/api/v1/entries", body).status == 422


def test_no_ordinary_token_and_no_administrator_gets_the_id_of_an_agent(api: Api) -> None:
    assert api.ask(ADMIN, "POST", "/api/v1/tokens", {"spiffe_id": str(NODE)}).status == 422
    csr = build_csr(key(8), NODE).decode()
    asked = {"csr": csr, "requested_id": str(NODE)}
    assert "no-entry" in refusal(api.ask(ADMIN, "POST", "/api/v1/sign", asked))


def test_an_agent_renews_its_own_id_and_gets_no_other(api: Api) -> None:
    agent = api.joined()
    for whose, status in ((NODE, 201), (BACKEND, 403), (MESH.member("mesh", "agent", "x"), 403)):
        asked = {"csr": build_csr(key(8), whose).decode(), "requested_id": str(whose)}
        assert api.ask(agent, "POST", "/api/v1/sign", asked).status == status


def test_what_looks_like_an_agents_id_is_none(api: Api) -> None:
    for whose in ("mesh/agent", "mesh/agent/a/b", "mesh/agents/a", "mesh/x"):
        spiffe_id = SpiffeId.parse(f"spiffe://mesh.local/{whose}")
        body = {"csr": build_csr(key(8), spiffe_id).decode(), "requested_id": str(spiffe_id)}
        assert "is reserved" in refusal(api.ask(ADMIN, "POST", "/api/v1/sign", body), 422)


# Entries with a parent.


@pytest.mark.parametrize(
    "parent",
    [
        str(BACKEND), str(MESH.member("mesh", "ca")), str(MESH.member("mesh", "agent", "a", "b")),
        str(OTHER.member("mesh", "agent", "node-1")), f"{NODE}, {NODE}2", "node-1", "x" * 3000,
    ],
    ids=["a workload", "the CA", "below an agent", "another domain's", "two", "a name", "long"],
)  # fmt: skip
def test_what_is_no_agents_id_is_no_parent(api: Api, parent: str) -> None:
    body = {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND), "parent": parent}
    answer = api.ask(ADMIN, "POST", "/api/v1/entries", body)
    refusal(answer, 422)
    assert {found["subject"] for found in answer.json["problems"]} == {"parent"}


def test_two_parents_are_no_parent(api: Api) -> None:
    body = {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND), "parent": [str(NODE)] * 2}
    assert "parent" in refusal(api.ask(ADMIN, "POST", "/api/v1/entries", body), 400)
    twice = b'{"selectors":["unix:uid:7"],"spiffe_id":"x","parent":"a","parent":"b"}'
    talk = Talk(api.site, api.clock)
    head = f"POST /api/v1/entries HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(twice)}\r\n"
    talk.say(f"{head}content-type: application/json\r\n\r\n".encode() + twice)
    assert talk.answers[0].status == 400


def test_an_entry_with_a_parent_counts_through_it_alone(api: Api) -> None:
    agent, other = api.joined(), api.joined("node-2")
    entry = api.entry(selectors=["unix:uid:7"])
    here = anonymous("unix:uid:7", frozenset())
    csr = build_csr(key(9), BACKEND).decode()
    asked = {"csr": csr, "requested_id": str(BACKEND)}
    assert api.ask(here, "POST", "/api/v1/sign", asked).status == 401
    assert "own-identity-only" in refusal(api.ask(agent, "POST", "/api/v1/sign", asked))
    assert "own-entries-only" in refusal(api.sign(other, entry))
    assert api.ask(ADMIN, "POST", "/api/v1/tokens", {"entry": entry}).status == 409
    assert api.sign(agent, entry).status == 201


# What is signed.


def test_what_an_agent_obtains_is_recorded_with_it_and_its_word(api: Api) -> None:
    agent = api.joined()
    entry = api.entry(dns_names=["web.example"], ttl="30m")
    answer = api.sign(agent, entry, dns_names=["web.example", "localhost"])
    assert answer.status == 201
    (leaf,) = load_certificates(answer.json["certificate"].encode())
    assert (leaf.not_valid_after_utc - NOW).total_seconds() == 1800
    (act,) = [act for act in api.acts() if act.object == answer.json["serial"]]
    assert str(act.act) == "issue"
    assert act.actor.startswith(f"x509:{NODE} serial ")
    assert act.facts["stated"] == "unix:uid:7, unix:user:web"
    assert act.facts["entry"] == entry


@pytest.mark.parametrize(
    ("changes", "status", "rule"),
    [
        ({"selectors": ["unix:uid:8"]}, 403, "selectors-of-entry"),
        ({"selectors": []}, 403, "selectors-of-entry"),
        ({"selectors": ["nonsense"]}, 400, "no selector"),
        ({"selectors": ["unix:uid:7"] * 65}, 400, "at most 64"),
        ({"key": key(9, KeyAlgorithm.EC_P384)}, 403, "keys-granted-only"),
        ({"dns_names": ["evil.example"]}, 403, "names-granted-only"),
        ({"ttl": "2h"}, 403, "ttl-granted-only"),
        ({"ttl": "9d"}, 422, "out of range"),
        ({"spiffe_id": MESH.member("service", "other")}, 403, "ids-granted-only"),
        ({"spiffe_id": MESH.member("mesh", "agent", "node-1")}, 403, "ids-granted-only"),
        ({"spiffe_id": MESH.member("mesh", "ca")}, 422, "reserved"),
        ({"entry": "0123456789abcdef"}, 403, "own-entries-only"),
        ({"entry": "file.backend"}, 403, "own-entries-only"),
        ({"csr": "nonsense"}, 400, "CSR"),
    ],
    ids=[
        "other selectors", "no selectors", "nonsense", "many selectors", "another algorithm", "other names",
        "too long", "far too long", "another ID", "the agent's ID", "the CA's ID", "no entry", "an entry of the CA's",
        "no CSR",
    ],
)  # fmt: skip
def test_what_the_entry_does_not_buy_is_refused(
    api: Api, changes: dict[str, Any], status: int, rule: str
) -> None:
    agent = api.joined()
    entry = api.entry(keys=["ec-p256"], max_ttl="1h")
    assert rule in refusal(api.sign(agent, changes.pop("entry", entry), **changes), status)
    assert not [act for act in api.acts() if "stated" in act.facts]


def test_a_template_is_filled_with_what_the_agent_states(api: Api) -> None:
    agent = api.joined()
    entry = api.entry("spiffe://mesh.local/user/{unix.user}")
    assert api.sign(agent, entry, spiffe_id=MESH.member("user", "web")).status == 201
    other = api.sign(agent, entry, spiffe_id=MESH.member("user", "root"))
    assert "ids-granted-only" in refusal(other)


@pytest.mark.parametrize(
    "caller", [ADMIN, workload(BACKEND, 1), anonymous("tls:no-certificate")], ids=str
)
def test_who_is_no_agent_is_told_so(api: Api, caller: Principal) -> None:
    entry = api.entry()
    status = 401 if caller.spiffe_id is None and caller is not ADMIN else 403
    for answer in (api.sign(caller, entry), api.ask(caller, "GET", "/api/v1/agent/entries")):
        assert answer.status == status


def test_a_token_is_told_of_with_the_agent(api: Api) -> None:
    agent, entry = api.joined(), api.entry()
    result_of(api.rig.jwt_keys.attend())
    asked = {"entry": entry, "selectors": SEEN, "audience": ["shop"]}
    assert api.ask(agent, "POST", "/api/v1/agent/jwt", asked).json["spiffe_id"] == str(BACKEND)
    (act,) = [act for act in api.acts() if str(act.act) == "issue-jwt"]
    assert act.actor.startswith(f"x509:{NODE} serial ")
    assert act.facts["selectors"] == "unix:uid:7, unix:user:web"
    other = {**asked, "selectors": ["unix:uid:8"]}
    assert "selectors-of-entry" in refusal(api.ask(agent, "POST", "/api/v1/agent/jwt", other))


# Waiting for entries.


def test_an_agent_sees_its_own_entries_by_age_and_no_others(api: Api) -> None:
    agent = api.joined()
    made = [api.entry(MESH.member("service", f"s{n}"), hint=f"h{n}") for n in range(6)]
    api.entry(parent=MESH.member("mesh", "agent", "node-2"))
    told = api.ask(agent, "GET", "/api/v1/agent/entries").json
    assert [entry["id"] for entry in told["entries"]] == made
    again = api.ask(agent, "GET", f"/api/v1/agent/entries?after={told['version']}").json
    assert again == told


def test_who_waits_is_told_of_an_entry_at_once(api: Api) -> None:
    agent = api.joined()
    version = api.ask(agent, "GET", "/api/v1/agent/entries").json["version"]
    waiting = api.asking(agent, f"/api/v1/agent/entries?after={version}&wait=45s")
    api.entry(parent=MESH.member("mesh", "agent", "node-2"))
    api.clock.advance(1)
    assert waiting.answers == []  # another's
    entry = api.entry()
    api.clock.advance(0.05)
    (answer,) = waiting.answers
    assert [found["id"] for found in answer.json["entries"]] == [entry]
    later = api.asking(agent, f"/api/v1/agent/entries?after={answer.json['version']}&wait=45s")
    api.made("DELETE", f"/api/v1/entries/{entry}")
    api.clock.advance(0.05)
    assert later.answers[0].json == {"version": version, "entries": []}


def test_a_wait_without_news_ends_with_the_same(api: Api) -> None:
    agent = api.joined()
    told = api.ask(agent, "GET", "/api/v1/agent/entries").json
    waiting = api.asking(agent, f"/api/v1/agent/entries?after={told['version']}&wait=45s")
    waiting.pass_time(44)
    assert waiting.answers == []
    waiting.pass_time(1.1)
    assert waiting.answers[0].json == told


def test_where_many_wait_an_agent_is_answered_at_once(api: Api) -> None:
    agent, notifier = api.joined(), api.rig.ca.notifier
    assert notifier is not None
    told = api.ask(agent, "GET", "/api/v1/agent/entries").json
    notifier.most = 1
    path = f"/api/v1/agent/entries?after={told['version']}&wait=45s"
    waiting = api.asking(agent, path)
    (answer,) = api.asking(agent, path).answers
    assert answer.json == told
    assert answer.headers["connection"] == "close"
    assert waiting.answers == []


def test_who_waits_while_it_is_banned_hears_it(api: Api) -> None:
    agent = api.joined()
    version = api.ask(agent, "GET", "/api/v1/agent/entries").json["version"]
    waiting = api.asking(agent, f"/api/v1/agent/entries?after={version}&wait=45s")
    api.made("POST", "/api/v1/agents/node-1", {"action": "ban"})
    api.clock.advance(0.05)
    assert "is banned" in refusal(waiting.answers[0])


# How it ends.


@pytest.mark.parametrize("action", ["evict", "ban"])
def test_all_that_it_obtained_is_revoked_and_it_gets_no_more(api: Api, action: str) -> None:
    agent, other = api.joined(), api.joined("node-2")
    entry, gone = api.entry(), api.entry(MESH.member("service", "gone"))
    theirs = api.entry(parent=MESH.member("mesh", "agent", "node-2"))
    kept = api.sign(other, theirs).json["serial"]
    obtained = [api.sign(agent, entry).json["serial"]]
    obtained.append(api.sign(agent, gone, spiffe_id=MESH.member("service", "gone")).json["serial"])
    api.made("DELETE", f"/api/v1/entries/{gone}")
    told = api.made("POST", "/api/v1/agents/node-1", {"action": action, "reason": "stolen"})
    assert {*obtained, f"{agent.serial:x}".zfill(32)} == {s.zfill(32) for s in told["revoked"]}
    heard = {f"{one.serial:032x}" for one in api.rig.told}
    assert {serial.zfill(32) for serial in told["revoked"]} <= heard
    assert api.made("GET", f"/api/v1/certificates/{kept}")["status"] == "valid"
    assert "agents-only" in refusal(api.sign(agent, entry))
    assert "agents-only" in refusal(api.ask(agent, "GET", "/api/v1/agent/entries"))
    asked = {"csr": build_csr(key(8), NODE).decode(), "requested_id": str(NODE)}
    assert api.ask(agent, "POST", "/api/v1/sign", asked).status in (401, 403)
    # The other may have what it has for another key: what a banned one had is compromised.
    assert api.sign(other, theirs).status == (422 if action == "ban" else 201)
    assert api.sign(other, theirs, key=key(7)).status == 201
    acts = [act for act in api.acts() if str(act.act) == "revoke"]
    assert {act.facts["spiffe_id"] for act in acts} >= {str(NODE), str(BACKEND)}
    ended = [act for act in api.acts() if act.facts.get("did") == "delete-entry"][-1]
    assert (ended.facts["spiffe_id"], ended.facts["reason"]) == (str(NODE), "stolen")


def test_a_spent_token_is_told_with_the_command_that_makes_another(api: Api) -> None:
    token = api.made("POST", "/api/v1/agents", {"name": "node-1"})["token"]
    for number, status in ((8, 201), (9, 409)):
        csr = build_csr(key(number), NODE).decode()
        asked = {"csr": csr, "requested_id": str(NODE), "token": token}
        answer = api.ask(anonymous("tls:no-certificate"), "POST", "/api/v1/sign", asked)
        assert answer.status == status
    assert "mesh-ctl agent token create node-1" in refusal(answer, 409)


def test_an_evicted_agent_comes_again_with_another_token(api: Api) -> None:
    api.joined()
    entry = api.entry()
    api.made("POST", "/api/v1/agents/node-1", {"action": "evict"})
    assert api.sign(api.joined(), entry).status == 201


def test_a_banned_agent_comes_again_once_it_is_unbanned(api: Api) -> None:
    token = api.made("POST", "/api/v1/agents", {"name": "node-1"})["token"]
    api.made("POST", "/api/v1/agents/node-1", {"action": "ban"})
    assert "banned" in refusal(api.ask(ADMIN, "POST", "/api/v1/agents", {"name": "node-1"}), 409)
    asked = {"csr": build_csr(key(8), NODE).decode(), "requested_id": str(NODE), "token": token}
    assert api.ask(anonymous("tls:no-certificate"), "POST", "/api/v1/sign", asked).status == 401
    api.made("POST", "/api/v1/agents/node-1", {"action": "unban"})
    again = api.ask(ADMIN, "POST", "/api/v1/agents/node-1", {"action": "unban"})
    assert "there is no agent" in refusal(again, 404) or "not banned" in refusal(again, 404)
    api.joined()


def test_an_agent_that_nobody_knows_can_be_banned(api: Api) -> None:
    assert api.made("POST", "/api/v1/agents/ghost", {"action": "ban"})["revoked"] == []
    (row,) = api.made("GET", "/api/v1/agents")["agents"]
    assert (row["name"], row["status"]) == ("ghost", "banned")
    api.made("POST", "/api/v1/agents/ghost", {"action": "ban"})
    api.made("POST", "/api/v1/agents/ghost", {"action": "unban"})
    assert api.made("GET", "/api/v1/agents")["agents"] == []


def test_an_agents_own_entry_and_its_ban_are_not_deleted_as_entries(api: Api) -> None:
    own = api.made("POST", "/api/v1/agents", {"name": "node-1"})["entry"]
    assert "agent evict node-1" in refusal(api.ask(ADMIN, "DELETE", f"/api/v1/entries/{own}"), 409)
    api.made("POST", "/api/v1/agents/node-1", {"action": "ban"})
    (ban,) = [e["id"] for e in api.made("GET", "/api/v1/entries")["entries"] if e.get("banned")]
    assert "agent unban node-1" in refusal(api.ask(ADMIN, "DELETE", f"/api/v1/entries/{ban}"), 409)


def test_a_ban_counts_whatever_else_the_record_has(api: Api) -> None:
    """As where a token was made for it in the same moment."""
    agent, entries = api.joined(), api.rig.ca.entries
    api.made("POST", "/api/v1/agents/node-1", {"action": "ban"})
    entries.took(StoredEntry(RegistrationEntry.of_agent("late", NODE), NOW))
    assert entries.entry_of("late") is None
    assert "is banned" in refusal(api.ask(agent, "GET", "/api/v1/agent/entries"))
