"""The bytes of the API, held against what it has always sent: each route's answer, and each request of the clients.

What differs each time (serials, ids, hashes, keys) stands as a word. Members, their order, and what is null and
what is left out are as they are on the wire.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from attrs import define, evolve, field
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.task import Clock

from pki.issuing.csr import build_csr
from pki.keys import key_id
from pki.policy.join_token import JoinToken
from pki.policy.principal import Principal, anonymous, workload
from pki.policy.selector import Selector
from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from tests.authorities import BACKEND, HOUR, MESH, OTHER, key, mesh
from tests.twisted_mesh.ca.policy.policies import NOBODY, rule_by
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of, result_of
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.api import client as clients
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.agent_client import AgentClient
from twisted_mesh.api.agent_messages import EndAgent, NewAgentToken
from twisted_mesh.api.blocked_key_messages import NewBlockedKey
from twisted_mesh.api.certification_messages import Installation
from twisted_mesh.api.client import CaClient
from twisted_mesh.api.federation_messages import NewFederation, RefreshFederation
from twisted_mesh.api.messages import ConnectionsReport, NewRegistration, NewToken
from twisted_mesh.api.policy_messages import DecisionRow
from twisted_mesh.api.root_messages import RootStepRequest
from twisted_mesh.api.trust_question import Belief, TrustQuestion
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.api.roots import STEPS as ROOT_STEPS
from twisted_mesh.ca.api.route import Route
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.ca.policy.journal import Decided
from twisted_mesh.http.address import CaAddress
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.identity.connection_reporter import ConnectionReporter
from twisted_mesh.runtime.log import logger
from twisted_mesh.trust.connections import ConnectionRegistry

HERE = Path(__file__).parent
CSR = build_csr(key(9), BACKEND).decode()
JSON = "application/json"

#: What differs from run to run, and what stands for it.
VARIES = (
    (r"-----BEGIN [A-Z ]+-----(\\n|[A-Za-z0-9+/=])*-----END [A-Z ]+-----\\n", "PEM"),
    (r"\b[0-9a-f]{12,}\b", "HEX"),
    (r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{40,}={0,2}", "BASE64"),
    (r"[0-9]+ of [0-9]+ file descriptors", "N of N file descriptors"),
)


def steady(body: str) -> str:
    for pattern, word in VARIES:
        body = re.sub(pattern, word, body)
    return body


def held(name: str, told: dict[str, str]) -> None:
    """``told`` is what the file has."""
    expected = json.loads((HERE / name).read_text(encoding="utf-8"))
    for what in expected | told:
        assert told.get(what) == expected.get(what), what


# What the CA answers.


@define(eq=False)
class Api:
    """The CA's API for a caller that the test chooses, and the answers so far."""

    rig: CaRig
    caller: Principal = ADMIN
    told: dict[str, str] = field(factory=dict)
    routes: set[tuple[str, str]] = field(factory=set)
    site: BoundedSite = field(init=False)
    clock: Clock = field(factory=Clock)

    def __attrs_post_init__(self) -> None:
        self.site = BoundedSite(CaApi(self.rig.ca, self, attestors_of(self.rig)), self.clock)

    def account(self, evidence: Evidence) -> Account:
        """It is the authenticator, too."""
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        return self.caller

    def ask(self, name: str, method: str, path: str, body: Any = None, **more: str) -> Answer:
        """Ask, and take note of the answer's head and body under ``name``."""
        rest, media = more.get("rest", ""), more.get("media", JSON)
        content = b"" if body is None else json.dumps(body).encode()
        head = [
            f"{method} {path.replace('*', rest.partition('?')[0])}{rest if '*' not in path else ''} HTTP/1.1",
            "host: localhost",
            f"content-length: {len(content)}",
            f"content-type: {media}",
        ]
        talk = Talk(self.site, self.clock)
        talk.say("\r\n".join((*head, "", "")).encode() + content)
        (answer,) = read_answers(talk.wire.value())
        self.routes.add((method, path))
        if answer.status < 300:
            holds(answer, ROUTES[method, path])
        kind = answer.headers["content-type"]
        text = steady(answer.body.decode()) if "json" in kind else "…"
        self.told[f"{name}: {method} {path}"] = f"{answer.status} {kind.partition(';')[0]} {text}"
        return answer


def holds(answer: Answer, route: Route) -> None:
    """The answer is what the table says: nothing is in it that its struct does not have."""
    assert answer.status == route.status
    if isinstance(route.answer, str):
        assert answer.headers["content-type"].startswith(route.answer)
        return
    for shape in get_args(route.answer) or (route.answer,):
        with suppress(msgspec.ValidationError):
            read = msgspec.json.decode(answer.body, type=shape)
            assert msgspec.json.encode(read) == answer.body
            return
    raise AssertionError(f"{answer.body!r} is no {route.answer}")


def test_every_answer_is_what_it_was(rig: CaRig) -> None:
    api = Api(rig)
    api.ask("of a CA that has done nothing", "GET", "/api/v1/trust", rest="?after=0&log=0")
    api.ask("of an empty log", "GET", "/api/v1/audit/checkpoint")
    asked = {"csr": CSR, "requested_id": str(BACKEND)}
    signed = api.ask("signed", "POST", "/api/v1/sign", asked).json
    other = api.ask("signed for a while", "POST", "/api/v1/sign", asked | {"ttl": "30m"}).json
    api.ask("refused for many reasons", "POST", "/api/v1/sign", asked | {"ttl": "25h"})
    api.ask("malformed", "POST", "/api/v1/sign", {})
    api.ask("not taken here", "POST", "/api/v1/attest/challenge", {"kind": "k8s"})
    for path in (
        "/api/v1/ca",
        "/api/v1/crl",
        "/api/v1/crls",
        "/api/v1/bundle",
        "/metrics",
        "/livez",
        "/readyz",
    ):
        api.ask("read", "GET", path)
    api.ask("nonsense", "POST", "/api/v1/ocsp", media="application/ocsp-request")
    api.ask("nonsense", "GET", "/api/v1/ocsp/*", rest="AA")
    counts = {rig.home.issuing.key_id: {signed["serial"]: 3}}
    report = {"instance": "a", "connections": counts, "goes_on": False}
    api.ask("none", "GET", "/api/v1/connections")
    api.ask("told", "POST", "/api/v1/connections", report)
    api.ask("some", "GET", "/api/v1/connections")
    api.ask("one", "POST", "/api/v1/revoke", {"serial": signed["serial"], "reason": "superseded"})
    both = [signed["serial"], other["serial"], "2a"]
    api.ask("many", "POST", "/api/v1/revoke", {"serials": both})
    api.ask("unknown", "POST", "/api/v1/revoke", {"serial": "2a"})
    third = serial_hex(rig.sign()[0].serial_number)
    api.ask("revoked ones", "GET", "/api/v1/certificates", rest="?status=revoked")
    api.ask("the first", "GET", "/api/v1/certificates", rest="?limit=1")
    api.ask("one that is revoked", "GET", "/api/v1/certificates/*", rest=signed["serial"])
    api.ask("one that is good", "GET", "/api/v1/certificates/*", rest=third)
    api.ask("news", "GET", "/api/v1/trust", rest="?after=0")
    api.ask("news with the log", "GET", "/api/v1/trust", rest="?after=0&log=0")
    size = result_of(rig.log.extend()).checkpoint.size
    api.ask("news with a newer log", "GET", "/api/v1/trust", rest="?after=2&log=1")
    api.ask("no news", "GET", "/api/v1/trust", rest=f"?after=2&log={size}")
    api.ask("signed", "GET", "/api/v1/audit/checkpoint")
    api.ask("all", "GET", "/api/v1/audit/checkpoints")
    api.ask("one", "GET", "/api/v1/audit/checkpoints", rest="?limit=1")
    api.ask("one", "GET", "/api/v1/audit/entries", rest="?limit=1")
    api.ask("the last", "GET", "/api/v1/audit/entries", rest=f"?start={size - 1}")
    api.ask("beyond the last", "GET", "/api/v1/audit/entries", rest=f"?start={size}")
    api.ask("all of it", "GET", "/api/v1/audit/record", rest="?limit=1")
    api.ask("inclusion", "GET", "/api/v1/audit/proof", rest=f"?position=0&size={size}")
    api.ask("consistency", "GET", "/api/v1/audit/proof", rest=f"?from=1&to={size}")
    api.ask("of a CA without a root key", "POST", "/api/v1/ca/detach-root", {"sha256": "0" * 64})
    api.ask("of a root alone", "GET", "/api/v1/ca/root")
    for step, body in (("prepare", {"dry_run": True}), *((s, {}) for s in ROOT_STEPS)):
        api.ask(f"{step} {body}", "POST", f"/api/v1/ca/root/{step}", body)
    named = {"fingerprint": "0" * 64}
    api.ask("of a CA without files", "POST", "/api/v1/ca/root/distrust", named)
    body = {"issuer": "0" * 64}
    api.ask("of a CA without files", "POST", "/api/v1/ca/revoke-issuing", body)
    api.ask("of a CA without files", "POST", "/api/v1/ca/rotate-issuing", {})
    api.ask("proven", "POST", "/api/v1/ca/keys", {"nonce": "0" * 32})
    api.ask("without files", "POST", "/api/v1/ca/root/csr", {})
    api.ask("without files", "POST", "/api/v1/ca/root/install", {"crls": ["AAAA"]})
    api.ask("signed", "POST", "/api/v1/ca/sign-backup", {"sha256": "0" * 64})
    api.ask("no digest", "POST", "/api/v1/ca/sign-backup", {"sha256": "x"})
    _entries_and_tokens(api)
    api.ask("before there is one", "GET", "/api/v1/jwt/keys")
    result_of(rig.jwt_keys.attend())
    active = api.ask("one", "GET", "/api/v1/jwt/keys").json["keys"][0]["kid"]
    api.ask("prepared", "POST", "/api/v1/jwt/rotate", {"reason": "why"})
    api.ask("retired", "DELETE", "/api/v1/jwt/keys/*", rest=f"{active}?reason=why")
    api.ask("unknown", "DELETE", "/api/v1/jwt/keys/*", rest=active)
    api.ask("with JWT keys", "GET", "/api/v1/bundle")
    _agents(api)
    _token_by_an_agent(api)
    _federation(api)
    _keys(api)
    rig.store.broken = {"Probe"}
    rig.seconds += 2
    api.ask("unwell", "GET", "/api/v1/health")
    api.ask("unwell", "GET", "/readyz")
    api.caller = anonymous("tls:no-certificate")
    api.ask("nobody", "GET", "/api/v1/health")
    _policy(api)
    assert api.routes == ROUTES.keys()
    held("answers.json", api.told)


def _entries_and_tokens(api: Api) -> None:
    api.ask("well", "GET", "/api/v1/health")
    small = {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND)}
    whole = small | {
        "dns_names": ["b.example", "a.example"],
        "ip_addresses": ["192.0.2.1", "2001:db8::1"],
        "ttl": "30m",
        "max_ttl": "1h",
        "keys": ["ec-p256"],
        "comment": "für alle",
        "reason": "ticket 4711",
    }
    made = api.ask("small", "POST", "/api/v1/entries", small).json["id"]
    api.ask("whole", "POST", "/api/v1/entries", whole)
    bad = {"selectors": [], "spiffe_id": "x", "ttl": "2h", "max_ttl": "1h", "ip_addresses": ["y"]}
    api.ask("bad", "POST", "/api/v1/entries", bad)
    api.ask("unfit", "POST", "/api/v1/entries", small | {"ttl": 3600})
    api.ask("one of a file", "GET", "/api/v1/entries/*", rest="file.backend")
    api.ask("one of the store", "GET", "/api/v1/entries/*", rest=made)
    listed = api.ask("all", "GET", "/api/v1/entries")
    shown = {f"{e['id']} {e['selectors']}" for e in listed.json["entries"]}
    assert len(shown) == 3
    # By random ids: which comes first is no part of it.
    api.told["all: GET /api/v1/entries"] = steady(
        json.dumps(sorted(listed.json["entries"], key=lambda e: (e["source"], e["comment"])))
    )
    api.told["members of all: GET /api/v1/entries"] = ", ".join(listed.json)
    token = api.ask(
        "its own entry", "POST", "/api/v1/tokens", {"spiffe_id": str(BACKEND), "max_ttl": "1h"}
    ).json
    api.ask("live", "GET", "/api/v1/tokens")
    api.ask("revoked", "DELETE", "/api/v1/tokens/*", rest=token["id"])
    api.ask("revoked", "GET", "/api/v1/tokens")
    spent = {"entry": token["entry"], "ttl": "5m", "key": key_id(key(9).public_key)}
    # By a clock that does not stand: they are listed by their time.
    api.rig.time += timedelta(seconds=1)
    secret = api.ask("an entry that is there", "POST", "/api/v1/tokens", spent).json["token"]
    asked = {"csr": CSR, "requested_id": str(BACKEND), "token": secret}
    api.ask("by token", "POST", "/api/v1/sign", asked)
    api.ask("spent", "GET", "/api/v1/tokens")
    api.ask("unfit", "POST", "/api/v1/tokens", {"entry": made, "spiffe_id": str(BACKEND)})
    api.ask("deleted", "DELETE", "/api/v1/entries/*", rest=made)
    api.ask("of a file", "DELETE", "/api/v1/entries/*", rest="file.backend")


def _policy(api: Api) -> None:
    api.caller = ADMIN
    api.ask("none", "GET", "/api/v1/policy")
    api.ask("none", "POST", "/api/v1/policy/reload", {})
    api.ask("not at the socket", "POST", "/api/v1/policy/withdraw", {"reason": "why"})
    api.ask("none", "GET", "/api/v1/policy/decisions")
    rule_by(api.rig, NOBODY)
    api.rig.gate.journal = Kept()  # type: ignore[assignment]
    api.ask("in force", "GET", "/api/v1/policy")
    api.ask("the same", "POST", "/api/v1/policy/reload", {"reason": "why"})
    csr = build_csr(key(7), BACKEND).decode()
    api.ask("refused", "POST", "/api/v1/sign", {"csr": csr, "requested_id": str(BACKEND)})
    api.ask("one", "GET", "/api/v1/policy/decisions")
    result_of(api.rig.gate.withdraw(ADMIN, "why"))
    api.ask("withdrawn", "GET", "/api/v1/policy")


@define
class Kept:
    """A journal in memory."""

    rows: list[DecisionRow] = field(factory=list)

    def note(self, decided: Decided) -> None:
        self.rows.append(msgspec.convert(msgspec.to_builtins(decided), DecisionRow))

    def reader(self, count: int) -> Callable[[], list[DecisionRow]]:
        return lambda: self.rows[-count:]


def _federation(api: Api) -> None:
    partner = {"trust_domain": "other.example", "url": "https://o.example/b", "reason": "why"}
    web, spiffe = {"profile": "https_web"}, {"profile": "https_spiffe"}
    api.ask("none", "GET", "/api/v1/federation")
    api.ask("added", "POST", "/api/v1/federation", partner | web)
    api.ask("added twice", "POST", "/api/v1/federation", partner | web)
    api.ask("without a bundle", "POST", "/api/v1/federation", partner | spiffe)
    api.ask("shown", "GET", "/api/v1/federation/*", rest="other.example")
    api.ask("unreachable", "POST", "/api/v1/federation/*", {}, rest="other.example")
    api.rig.endpoints.bundles[OTHER] = mesh(OTHER).bundle
    older = {"accept_older": True}
    api.ask("refreshed", "POST", "/api/v1/federation/*", older, rest="other.example")
    told = {"selectors": ["unix:uid:9"], "spiffe_id": str(BACKEND)}
    whole = {"federates_with": ["other.example"], **told}
    api.ask("that federates", "POST", "/api/v1/entries", whole)
    api.caller = workload(BACKEND, 1)
    api.ask("of one that federates with nobody", "GET", "/api/v1/trust", rest="?after=3")
    api.caller = evolve(ADMIN, selectors=frozenset({Selector.parse("unix:uid:9")}))
    api.ask("of one that federates", "GET", "/api/v1/trust", rest="?after=3")
    api.caller = ADMIN
    api.ask("removed", "DELETE", "/api/v1/federation/*", rest="other.example?reason=why")
    api.ask("removed twice", "DELETE", "/api/v1/federation/*", rest="other.example")


def _keys(api: Api) -> None:
    path = "/api/v1/keys/blocked"
    api.ask("none", "GET", path)
    # Listed by their time here too.
    api.rig.time += timedelta(milliseconds=1)
    api.ask("by its digest", "POST", path, {"key": "5f" * 32, "reason": "found on a wall"})
    api.ask("again", "POST", path, {"key": "5f" * 32})
    api.rig.time += timedelta(milliseconds=1)
    pem = key(5).public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    api.ask("itself", "POST", path, {"public_key": pem.decode()})
    api.ask("both", "POST", path, {"key": "5f" * 32, "public_key": pem.decode()})
    api.ask("no key", "POST", path, {"public_key": "nonsense"})
    api.ask("in capitals", "POST", path, {"key": "5F" * 32})
    api.ask("two", "GET", path)
    api.ask("let go", "DELETE", f"{path}/*", rest=f"{'5f' * 32}?reason=why")
    api.ask("let go twice", "DELETE", f"{path}/*", rest="5f" * 32)
    api.rig.time -= timedelta(milliseconds=2)


def _agents(api: Api) -> None:
    agent = MESH.member("mesh", "agent", "node-1")
    api.ask("none", "GET", "/api/v1/agents")
    made = api.ask("of an agent", "POST", "/api/v1/agents", {"name": "node-1"}).json
    api.ask("no name", "POST", "/api/v1/agents", {"name": "Node 1"})
    api.ask("expected", "GET", "/api/v1/agents/*", rest="node-1")
    csr = build_csr(key(8), agent).decode()
    joined = {"csr": csr, "requested_id": str(agent), "token": made["token"]}
    serial = api.ask("an agent", "POST", "/api/v1/sign", joined).json["serial"]
    said = {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND)}
    of_agent = said | {"parent": str(agent), "hint": "main"}
    entry = api.ask("of an agent", "POST", "/api/v1/entries", of_agent).json["id"]
    api.ask("of no agent", "POST", "/api/v1/entries", said | {"parent": str(BACKEND)})
    api.caller = workload(agent, int(serial, 16))
    api.ask("its own", "GET", "/api/v1/agent/entries")
    asked = {"csr": CSR, "requested_id": str(BACKEND), "entry": entry}
    api.ask("by an agent", "POST", "/api/v1/agent/sign", asked | {"selectors": ["unix:uid:7"]})
    api.ask("beyond", "POST", "/api/v1/agent/sign", asked | {"selectors": ["unix:uid:8"]})
    api.caller = ADMIN
    obtained = f"?agent={agent}&limit=1"
    api.ask("of an agent", "GET", "/api/v1/certificates", rest=obtained)
    api.ask("joined", "GET", "/api/v1/agents")
    api.ask("bad", "POST", "/api/v1/agents/*", {"action": "shoot"}, rest="node-1")
    api.ask("banned", "POST", "/api/v1/agents/*", {"action": "ban"}, rest="node-1")
    api.ask("banned", "GET", "/api/v1/agents/*", rest="node-1")
    api.ask("of a banned one", "POST", "/api/v1/agents", {"name": "node-1"})
    api.ask("unbanned", "POST", "/api/v1/agents/*", {"action": "unban"}, rest="node-1")
    api.ask("gone", "POST", "/api/v1/agents/*", {"action": "evict"}, rest="node-1")
    _by_platform(api)


def _by_platform(api: Api) -> None:
    proven = ["unix:uid:7", "unix:user:node7"]
    lets_in = {"agents": "prod.{unix.user}", "selectors": ["unix:uid:7"]}
    api.ask("by platform", "POST", "/api/v1/entries/agents", lets_in)
    api.ask("of no fact", "POST", "/api/v1/entries/agents", lets_in | {"agents": "prod"})
    api.ask("of many", "POST", "/api/v1/entries/aliases", {"alias": "prod", "selectors": proven})
    api.ask("of many", "POST", "/api/v1/entries/aliases", {"alias": "prod", "selectors": proven})
    agent = MESH.member("mesh", "agent", "prod.node7")
    seen = anonymous("badge:7", frozenset(map(Selector.parse, proven)))
    api.caller = evolve(seen, claim="badge:7")
    asked = {"csr": build_csr(key(6), agent).decode(), "requested_id": str(agent)}
    api.ask("by platform", "POST", "/api/v1/sign", asked)
    api.ask("again", "POST", "/api/v1/sign", asked)
    api.ask("stolen", "POST", "/api/v1/sign", asked | {"csr": build_csr(key(7), agent).decode()})
    api.caller = ADMIN
    api.ask("by platform", "GET", "/api/v1/agents/*", rest="prod.node7")
    api.ask("used", "GET", "/api/v1/claims")
    api.ask("evicted", "POST", "/api/v1/claims", {"claim": "badge:7"})
    api.ask("free", "POST", "/api/v1/claims", {"claim": "badge:7"})


def _token_by_an_agent(api: Api) -> None:
    agent = MESH.member("mesh", "agent", "node-2")
    api.ask("of a second agent", "POST", "/api/v1/agents", {"name": "node-2"})
    said = {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND), "parent": str(agent)}
    asked = {"entry": api.ask("of a second agent", "POST", "/api/v1/entries", said).json["id"]}
    api.caller = workload(agent, 42)
    asked |= {"selectors": ["unix:uid:7"], "audience": ["reports"]}
    told = api.ask("a token", "POST", "/api/v1/agent/jwt", asked)
    api.told["a token: POST /api/v1/agent/jwt"] = f"{told.status} {', '.join(told.json)}"
    api.ask("for nobody", "POST", "/api/v1/agent/jwt", asked | {"audience": []})
    api.caller = ADMIN


# What the clients send.


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Each request that a client would send, its body as it would."""
    told: dict[str, str] = {}

    async def send(
        self: CaClient, method: str, path: str, body: Any = None, more: Any = None, *, wait: int = 0
    ) -> bytes:
        kind, data = ("", b"") if body is None else clients.encoded(body)
        told[f"{len(told):02} {method} {path}"] = steady(f"{kind} {data.decode()}".strip())
        return b"{}"

    monkeypatch.setattr(CaClient, "send", send)
    return told


def test_every_request_of_the_clients_is_what_it_was(sent: dict[str, str]) -> None:
    client = CaClient(Clock(), CaAddress.parse("http://127.0.0.1:1"))
    administration = Administration(client)
    reporter = ConnectionReporter(client, ConnectionRegistry(), Clock(), logger("test"), "me")
    token = JoinToken("mesh-token")
    agent, seen = AgentClient(client), [Selector.parse("unix:uid:7")]
    for asking in (
        client.sign(CSR.encode(), BACKEND),
        client.sign(CSR.encode(), BACKEND, HOUR, "key", token),
        client.trust(TrustQuestion(7, "störe", log_size=3, wait=30)),
        administration.revoke("2a", Reason.UNSPECIFIED),
        administration.revoke("2a", Reason.KEY_COMPROMISE),
        administration.revoke_all(["2a", "2b"], Reason.UNSPECIFIED),
        administration.detach_root("0" * 64),
        administration.root(),
        administration.step_root("prepare", RootStepRequest()),
        administration.step_root("retire", RootStepRequest(True, True, "why")),
        administration.register(NewRegistration(selectors=["unix:uid:7"], spiffe_id=str(BACKEND))),
        administration.register(
            NewRegistration(
                selectors=["unix:uid:7"],
                spiffe_id="x",
                dns_names=["a"],
                ip_addresses=["192.0.2.1"],
                ttl="30m",
                max_ttl="1h",
                keys=["ec-p256"],
                comment="für",
                reason="ja",
            )
        ),
        administration.create_token(NewToken(entry="1234")),
        administration.create_token(
            NewToken(None, "x", ["a"], ["::1"], "30m", "5m", "0" * 64, "why")
        ),
        reporter._send(ConnectionsReport("me", {"0" * 64: {"2a": 3}})),
        reporter._send(ConnectionsReport("me", {}, goes_on=True)),
        administration.delete_registration("a/b", "why so"),
        administration.revoke_token("1234", ""),
        administration.jwt_keys(),
        administration.rotate_jwt_key(at_once=False, reason=""),
        administration.rotate_jwt_key(at_once=True, reason="why"),
        administration.retire_jwt_key("0" * 64, "why"),
        administration.agents(),
        administration.agent("node-1"),
        administration.create_agent_token(NewAgentToken("node-1")),
        administration.create_agent_token(NewAgentToken("node-1", "1h", "0" * 64, "why")),
        administration.end_agent("node-1", EndAgent("ban", "stolen")),
        administration.federations(),
        administration.federation("b.example"),
        administration.federate(NewFederation("b.example", "https://b.example/", "https_web")),
        administration.refresh_federation("b.example", RefreshFederation(True, "why")),
        administration.end_federation("b.example", "why"),
        agent.entries("0123", 45),
        agent.sign(CSR.encode(), BACKEND, "e1", seen),
        agent.jwt("e1", seen, ["backend"], HOUR),
        client.trust(TrustQuestion(7, "store", "0e", 3, 30, Belief("me", 5, "sha256:00"))),
        administration.request_certification(new_key=False),
        administration.install(Installation("PEM", ["AAAA"], dry_run=True)),
        administration.blocked_keys(),
        administration.block_key(NewBlockedKey("5f" * 32, reason="why")),
        administration.unblock_key("5f" * 32, "why"),
        administration.policy(),
        administration.reload_policy("why"),
        administration.withdraw_policy("why"),
        administration.decisions(7),
    ):
        try:
            result_of(asking)
        except Exception as error:
            assert "is no CA of the mesh" in str(error) or "no certificate" in str(error)
    held("requests.json", sent)
