"""All routes of the API under a policy that refuses everybody: what it is asked about, and what never."""

from typing import Any

import pytest
from twisted.internet.address import UNIXAddress

from pki.issuing.csr import build_csr
from pki.policy.principal import Principal, workload
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from tests.authorities import BACKEND, key
from tests.twisted_mesh.ca.api.test_app import Api, problem
from tests.twisted_mesh.ca.policy.policies import BROKEN, NOBODY, rule_by
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, entry, result_of
from twisted_mesh.ca.api.roots import STEPS
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.ca.policy.gate import PolicyGate

AGENT = workload(SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1"), 7)
CSR = build_csr(key(9), BACKEND).decode()
#: Those that issue something to somebody, by whom they are called here.
ISSUING = {
    ("POST", "/api/v1/sign"): ADMIN,
    ("POST", "/api/v1/agent/sign"): AGENT,
    ("POST", "/api/v1/agent/jwt"): AGENT,
}
STATED = ["unix:uid:1000"]
BODIES: dict[str, dict[str, Any]] = {
    "/api/v1/sign": {"csr": CSR, "requested_id": str(BACKEND)},
    "/api/v1/agent/sign": {
        "csr": CSR, "requested_id": str(BACKEND), "entry": "of-agent", "selectors": STATED
    },
    "/api/v1/agent/jwt": {"entry": "of-agent", "selectors": STATED, "audience": ["shop"]},
    "/api/v1/ca/detach-root": {"sha256": "0" * 64},
    "/api/v1/ca/revoke-issuing": {"issuer": "0" * 64},
    "/api/v1/ca/keys": {"nonce": "0" * 32},
    "/api/v1/ca/rotate-issuing": {},
    "/api/v1/ca/root/distrust": {"fingerprint": "0" * 64},
    "/api/v1/ca/sign-backup": {"sha256": "0" * 64},
    "/api/v1/connections": {"instance": "a", "connections": {}},
    "/api/v1/entries": {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND)},
    "/api/v1/tokens": {"spiffe_id": str(BACKEND)},
    "/api/v1/agents": {"name": "node-2"},
    "/api/v1/agents/*": {"action": "evict"},
    "/api/v1/attest/challenge": {"kind": "k8s"},
    **{f"/api/v1/ca/root/{step}": {} for step in STEPS},
}  # fmt: skip


def called(rig: CaRig, route: tuple[str, str], caller: Principal, serial: str = "2a") -> Any:
    method, path = route
    body: Any = BODIES.get(path, {}) if method == "POST" else b""
    if path == "/api/v1/revoke":
        body = {"serial": serial}
    elif path == "/api/v1/ocsp":
        body = b"nonsense"
    media = {"content_type": "application/ocsp-request"} if path == "/api/v1/ocsp" else {}
    return Api(rig, caller).ask(method, path.replace("*", serial), body, **media)


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_nothing_but_what_is_issued_is_asked_about(
    rig: CaRig, route: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf, *_ = rig.sign()
    asked: list[object] = []
    ask = PolicyGate.ask
    monkeypatch.setattr(
        PolicyGate, "ask", lambda self, facts: asked.append(facts) or ask(self, facts)
    )
    rule_by(rig, NOBODY)
    answer = called(rig, route, ADMIN, serial_hex(leaf.serial_number))
    code = problem(answer)["code"] if answer.status >= 400 else ""
    if route == ("POST", "/api/v1/sign"):
        assert asked and (answer.status, code) == (403, "policy-denied")
    else:
        assert asked == []
        assert code not in ("policy-denied", "policy-unavailable")


def test_what_locked_everybody_out_is_taken_back_at_the_socket(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    api = Api(rig)
    assert api.sign().status == 403
    elsewhere = api.ask("POST", "/api/v1/policy/withdraw", {"reason": "locked out"})
    assert elsewhere.status == 403 and "local-only" in problem(elsewhere)["detail"]
    assert api.sign().status == 403
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:
        patched.setattr("twisted_mesh.ca.api.request._peer_of", lambda channel: UNIXAddress(None))
        answer = api.ask("POST", "/api/v1/policy/withdraw", {"reason": "locked out"})
        assert (answer.status, answer.json["state"]) == (200, "withdrawn")
    assert api.sign().status == 201


def test_an_error_is_503_and_says_when_to_come_again(rig: CaRig) -> None:
    rule_by(rig, BROKEN)
    answer = Api(rig).sign()
    assert answer.status == 503
    assert problem(answer)["code"] == "policy-unavailable"
    assert int(answer.headers["retry-after"]) > 0


def test_a_refusal_is_403_with_the_rules_name_and_reason(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    answer = Api(rig).sign()
    assert answer.status == 403
    document = problem(answer)
    assert document["code"] == "policy-denied"
    assert "'nobody'" in document["detail"] and "nothing is issued today" in document["detail"]


def test_what_is_in_force_is_told(rig: CaRig) -> None:
    assert Api(rig).ask("GET", "/api/v1/policy").json["state"] == "none"
    rule_by(rig, NOBODY)
    told = Api(rig).ask("GET", "/api/v1/policy").json
    assert told["state"] == "in-force" and told["digest"].startswith("sha256:")
    assert told["rules"] == [
        {
            "name": "nobody", "effect": "deny", "when": "true", "reason": "nothing is issued today",
            "on": ["accept", "connect", "issue", "issue-jwt", "renew"],
        }
    ]  # fmt: skip


@pytest.mark.parametrize("last", ["0", "2001", "-1", "x", ""])
def test_a_number_of_decisions_that_is_none_is_refused(rig: CaRig, last: str) -> None:
    assert Api(rig).ask("GET", f"/api/v1/policy/decisions?last={last}").status == 400


def test_an_agents_requests_are_refused_too(rig: CaRig) -> None:
    rig.ca.entries.filed = (
        *rig.ca.entries.filed,
        entry("of-agent", STATED[0], BACKEND, parent=str(AGENT.spiffe_id)),
    )
    rig.ca.entries._index()
    result_of(rig.jwt_keys.attend())
    rule_by(rig, NOBODY)
    monkey = pytest.MonkeyPatch()
    for route, caller in ISSUING.items():
        with monkey.context() as patched:
            patched.setattr(type(rig.ca.agents), "bought_by", lambda *_: rig.ca.entries.filed[-1])
            answer = called(rig, route, caller)
        assert (answer.status, problem(answer)["code"]) == (403, "policy-denied"), route
