"""The CA over HTTP: who may what, what each mistake is answered with, and what no answer ever shows."""

import json
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from importlib import import_module
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, evolve, field
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel

import pki
from pki.errors import PkiError
from pki.issuing.authority import LintFailed
from pki.issuing.csr import build_csr
from pki.keys import key_id
from pki.policy.principal import Principal, anonymous, workload
from pki.serial import serial_hex, serial_pairs
from pki.svid.bundle import TrustBundle
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import certificates_pem, load_certificates
from pki.validity import rfc3339
from tests.authorities import BACKEND, HOUR, MESH, NOW, OTHER, key
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of, ca_rig, result_of
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh import ca
from twisted_mesh.attest.evidence import Evidence
from twisted_mesh.attest.registry import Attested
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import Account
from twisted_mesh.ca.api.roots import STEPS
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.ca.api.status import status_of
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.ca.record import CertificateRecord
from twisted_mesh.http.json import BadRequest
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.limits.rate_limit import Rate
from twisted_mesh.runtime.event_text import event_text
from twisted_mesh.stores.records import Page, Query

NOBODY = anonymous("tls:no-certificate")
WORKLOAD = workload(BACKEND, 1)
SIGN, REVOKE = "/api/v1/sign", "/api/v1/revoke"
PARTNER = {
    "trust_domain": "partner.example",
    "url": "https://partner.example/bundle",
    "profile": "https_web",
}
Logged = list[LogEvent]


def csr(**names: Any) -> str:
    return build_csr(key(9), BACKEND, **names).decode()


@define(eq=False)
class Api:
    """The CA's API for a caller that the test chooses."""

    rig: CaRig
    caller: Principal = ADMIN
    guards_browsers: bool = False
    clock: Clock = field(factory=Clock)
    seconds: float = 0.0
    """By which lines of the log are limited."""
    site: BoundedSite = field(init=False)

    def __attrs_post_init__(self) -> None:
        api = CaApi(
            self.rig.ca,
            self,
            attestors_of(self.rig),
            guards_browsers=self.guards_browsers,
            seconds=lambda: self.seconds,
        )
        self.site = BoundedSite(api, self.clock)

    def read_from(self, store: Any) -> None:
        """From now on the record is what this store says."""
        self.site.resource.ca = evolve(self.rig.ca, record=CertificateRecord(store))

    def account(self, evidence: Evidence) -> Account:
        """It is the authenticator, too."""
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        return self.caller

    def ask(
        self, method: str, path: str, body: bytes | dict[str, Any] = b"", **headers: str
    ) -> Answer:
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        given = {"host": "localhost", "content-length": str(len(body))}
        if method == "POST":
            given["content-type"] = "application/json"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items() if v)]
        talk = Talk(self.site, self.clock)
        talk.say("\r\n".join((*lines, "", "")).encode() + body)
        (answer,) = read_answers(talk.wire.value(), to_head=method == "HEAD")
        return answer

    def sign(self, **changes: Any) -> Answer:
        return self.ask("POST", SIGN, {"csr": csr(), "requested_id": str(BACKEND), **changes})

    def certificates(self, query: str = "") -> Any:
        answer = self.ask("GET", f"/api/v1/certificates{query}")
        assert answer.status == 200
        return answer.json


@pytest.fixture
def api(rig: CaRig) -> Api:
    return Api(rig)


def problem(answer: Answer) -> Any:
    """The problem document, with what each of them has."""
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    document = answer.json
    assert document["type"] == "about:blank"
    assert document["status"] == answer.status
    assert document["title"]
    assert document["code"]
    assert document["detail"]
    for found in document.get("problems", ()):
        assert set(found) == {"code", "detail", "remedy", "rule", "subject"}
    return document


# Who may.

#: By the contract: what a caller without proof, a workload and an administrator are answered with.
WHO_MAY = {
    ("POST", "/api/v1/sign"): (401, 201, 201),
    ("POST", "/api/v1/attest/challenge"): (422, 422, 422),
    ("GET", "/api/v1/ca"): (200, 200, 200),
    ("GET", "/api/v1/bundle"): (200, 200, 200),
    ("GET", "/api/v1/crl"): (200, 200, 200),
    ("GET", "/api/v1/crls"): (200, 200, 200),
    ("POST", "/api/v1/ocsp"): (200, 200, 200),
    ("GET", "/api/v1/ocsp/*"): (200, 200, 200),
    ("GET", "/api/v1/trust"): (401, 200, 200),
    ("POST", "/api/v1/revoke"): (401, 200, 200),
    ("GET", "/api/v1/certificates"): (401, 403, 200),
    ("GET", "/api/v1/certificates/*"): (401, 403, 200),
    ("GET", "/api/v1/connections"): (401, 403, 200),
    ("POST", "/api/v1/connections"): (401, 200, 200),
    ("GET", "/api/v1/audit/checkpoint"): (401, 200, 200),
    ("GET", "/api/v1/audit/checkpoints"): (401, 403, 200),
    ("GET", "/api/v1/audit/entries"): (401, 403, 200),
    ("GET", "/api/v1/audit/record"): (401, 403, 200),
    ("GET", "/api/v1/audit/proof"): (401, 200, 200),
    ("GET", "/api/v1/health"): (401, 403, 200),
    ("POST", "/api/v1/ca/detach-root"): (401, 403, 409),
    ("POST", "/api/v1/ca/revoke-issuing"): (401, 403, 409),
    ("POST", "/api/v1/ca/rotate-issuing"): (401, 403, 409),
    ("POST", "/api/v1/ca/keys"): (401, 403, 200),
    ("POST", "/api/v1/ca/root/csr"): (401, 403, 409),
    ("POST", "/api/v1/ca/root/install"): (401, 403, 409),
    ("POST", "/api/v1/ca/sign-backup"): (401, 403, 200),
    ("GET", "/api/v1/ca/root"): (401, 403, 200),
    ("POST", "/api/v1/ca/root/distrust"): (401, 403, 409),
    ("POST", "/api/v1/ca/root/prepare"): (401, 403, 503),
    ("POST", "/api/v1/ca/root/activate"): (401, 403, 409),
    ("POST", "/api/v1/ca/root/retire"): (401, 403, 409),
    ("POST", "/api/v1/ca/root/revert"): (401, 403, 409),
    ("GET", "/api/v1/entries"): (401, 403, 200),
    ("POST", "/api/v1/entries"): (401, 403, 201),
    ("GET", "/api/v1/entries/*"): (401, 403, 200),
    ("DELETE", "/api/v1/entries/*"): (401, 403, 409),
    ("GET", "/api/v1/tokens"): (401, 403, 200),
    ("POST", "/api/v1/tokens"): (401, 403, 201),
    ("DELETE", "/api/v1/tokens/*"): (401, 403, 404),
    ("GET", "/api/v1/jwt/keys"): (401, 403, 200),
    ("POST", "/api/v1/jwt/rotate"): (401, 403, 200),
    ("DELETE", "/api/v1/jwt/keys/*"): (401, 403, 400),
    ("GET", "/api/v1/agent/entries"): (401, 403, 403),
    ("POST", "/api/v1/agent/sign"): (401, 403, 403),
    ("POST", "/api/v1/agent/jwt"): (401, 403, 403),
    ("GET", "/api/v1/agents"): (401, 403, 200),
    ("POST", "/api/v1/agents"): (401, 403, 201),
    ("GET", "/api/v1/agents/*"): (401, 403, 404),
    ("POST", "/api/v1/agents/*"): (401, 403, 404),
    ("POST", "/api/v1/entries/agents"): (401, 403, 201),
    ("POST", "/api/v1/entries/aliases"): (401, 403, 201),
    ("GET", "/api/v1/claims"): (401, 403, 200),
    ("POST", "/api/v1/claims"): (401, 403, 404),
    ("GET", "/api/v1/federation"): (401, 403, 200),
    ("POST", "/api/v1/federation"): (401, 403, 201),
    ("GET", "/api/v1/federation/*"): (401, 403, 404),
    ("POST", "/api/v1/federation/*"): (401, 403, 404),
    ("DELETE", "/api/v1/federation/*"): (401, 403, 404),
    ("GET", "/api/v1/keys/blocked"): (401, 403, 200),
    ("POST", "/api/v1/keys/blocked"): (401, 403, 201),
    ("DELETE", "/api/v1/keys/blocked/*"): (401, 403, 400),
    ("GET", "/api/v1/policy"): (401, 403, 200),
    ("POST", "/api/v1/policy/reload"): (401, 403, 409),
    ("POST", "/api/v1/policy/withdraw"): (401, 403, 403),
    ("GET", "/api/v1/policy/decisions"): (401, 403, 200),
    ("GET", "/livez"): (200, 200, 200),
    ("GET", "/readyz"): (401, 403, 200),
    ("GET", "/metrics"): (401, 403, 200),
}
CALLERS = {"nobody": NOBODY, "workload": WORKLOAD, "administrator": ADMIN}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_who_may_call_what(rig: CaRig, route: tuple[str, str], caller: str) -> None:
    expected = dict(zip(CALLERS, WHO_MAY[route], strict=True))[caller]
    leaf, *_ = rig.sign()
    rig.order.clear()
    body = {
        SIGN: {"csr": csr(), "requested_id": str(BACKEND)},
        REVOKE: {"serial": serial_hex(leaf.serial_number)},
        "/api/v1/attest/challenge": {"kind": "none"},
        "/api/v1/ca/detach-root": {"sha256": "0" * 64},
        "/api/v1/ca/revoke-issuing": {"issuer": "0" * 64},
        "/api/v1/ca/keys": {"nonce": "0" * 32},
        "/api/v1/ca/rotate-issuing": {},
        "/api/v1/ca/root/distrust": {"fingerprint": "0" * 64},
        "/api/v1/ca/root/csr": {},
        "/api/v1/ca/root/install": {},
        "/api/v1/ca/sign-backup": {"sha256": "0" * 64},
        **{f"/api/v1/ca/root/{step}": {} for step in STEPS},
        "/api/v1/connections": {"instance": "a", "connections": {}},
        "/api/v1/entries": {"selectors": ["unix:uid:7"], "spiffe_id": str(BACKEND)},
        "/api/v1/tokens": {"spiffe_id": str(BACKEND)},
        "/api/v1/jwt/rotate": {},
        "/api/v1/agents": {"name": "node-1"},
        "/api/v1/agents/*": {"action": "evict"},
        "/api/v1/entries/agents": {"agents": "{unix.user}", "selectors": ["unix:uid:7"]},
        "/api/v1/entries/aliases": {"alias": "all", "selectors": ["unix:uid:7"]},
        "/api/v1/claims": {"claim": "aws_iid:1:a:i-1"},
        "/api/v1/federation": PARTNER,
        "/api/v1/federation/*": {},
        "/api/v1/keys/blocked": {"key": "00" * 32},
        "/api/v1/policy/reload": {},
        "/api/v1/policy/withdraw": {},
    }.get(route[1], b"")
    method, path = route
    entries = path.startswith("/api/v1/entries")
    path = path.replace("*", "file.backend" if entries else serial_hex(leaf.serial_number))
    media = {"content_type": "application/ocsp-request"} if path == "/api/v1/ocsp" else {}
    answer = Api(rig, CALLERS[caller]).ask(method, path, body, **media)
    assert answer.status == expected
    if expected in (401, 403):
        assert problem(answer)["code"] == ("no-proof" if expected == 401 else "not-authorized")
        assert rig.order == []


def test_the_table_above_has_no_route_that_is_gone() -> None:
    assert WHO_MAY.keys() == ROUTES.keys()


@pytest.mark.parametrize("route", [SIGN, REVOKE])
def test_whoever_may_not_is_told_so_before_the_body_is_looked_at(rig: CaRig, route: str) -> None:
    assert Api(rig, NOBODY).ask("POST", route, b"nonsense").status == 401


def test_a_workload_may_do_nothing_to_others(rig: CaRig) -> None:
    other, *_ = rig.sign(MESH.member("service", "other"))
    api = Api(rig, WORKLOAD)
    refused = api.sign(requested_id=str(MESH.member("service", "other")))
    assert refused.status == 422  # the CSR names another: the rule is told before who may
    body = {"serial": serial_hex(other.serial_number)}
    refused = api.ask("POST", REVOKE, body)
    assert refused.status == 403
    assert "own-certificate-only" in problem(refused)["detail"]
    assert api.ask("POST", REVOKE, {"serial": "2a"}).status == 403


# Signing.


def test_a_signed_certificate_comes_with_its_chain_and_its_facts(api: Api) -> None:
    answer = api.sign(ttl="30m")
    assert answer.status == 201
    assert set(answer.json) == {"certificate", "chain", "expires_at", "serial", "spiffe_id"}
    (leaf,) = load_certificates(answer.json["certificate"].encode())
    assert leaf.not_valid_after_utc - NOW == timedelta(minutes=30)
    assert answer.json["expires_at"] == "2026-11-23T10:30:00Z"
    assert answer.json["serial"] == serial_hex(leaf.serial_number)
    assert answer.json["spiffe_id"] == str(BACKEND)
    issuing = [x509.load_pem_x509_certificate(pem.encode()) for pem in answer.json["chain"]]
    assert issuing == [api.rig.home.issuing.certificate]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"csr": "nonsense"}, 400, "malformed"),
        ({"csr": ""}, 400, "malformed"),
        ({"csr": None}, 400, "malformed"),
        ({"csr": "\ud800"}, 400, "malformed"),
        ({"requested_id": "spiffe://mesh.local/other"}, 422, "refused"),
        ({"requested_id": "https://mesh.local/x"}, 422, "refused"),
        ({"requested_id": "\ud800"}, 400, "malformed"),
        ({"requested_id": str(OTHER.member("service", "backend"))}, 422, "refused"),
        ({"requested_id": str(MESH.member("mesh", "ca"))}, 422, "refused"),
        ({"ttl": "25h"}, 422, "refused"),
        ({"ttl": "0s"}, 422, "refused"),
        ({"ttl": "999999999d"}, 422, "refused"),
        ({"ttl": "1 hour"}, 400, "malformed"),
        ({"ttl": ""}, 400, "malformed"),
        ({"ttl": "\ud800"}, 400, "malformed"),
        ({"ttl": 3600}, 400, "malformed"),
    ],
)
def test_a_bad_request_to_sign_is_told_why(
    api: Api, changes: dict[str, Any], status: int, code: str
) -> None:
    answer = api.sign(**changes)
    assert (answer.status, problem(answer)["code"]) == (status, code)
    assert api.rig.order == []


def test_every_broken_rule_is_told_at_once(api: Api) -> None:
    document = problem(api.sign(requested_id="spiffe://other.example/mesh/x", ttl="25h"))
    codes = {found["code"] for found in document["problems"]}
    assert codes == {"ttl-out-of-range", "wrong-trust-domain", "wrong-uri"}


def test_ttl_null_is_no_ttl(api: Api) -> None:
    assert api.sign(ttl=None).json["expires_at"] == rfc3339(NOW + HOUR)


# Trust.


def test_the_root_is_pem_and_the_bundle_is_jwks(api: Api) -> None:
    api.caller = NOBODY
    root = api.rig.home.root.certificate
    pem = api.ask("GET", "/api/v1/ca")
    assert pem.headers["content-type"] == "application/x-pem-file"
    assert load_certificates(pem.body) == (root,)
    for path in ("/api/v1/bundle", "/api/v1/bundle?keys=all"):
        assert TrustBundle.from_jwks(MESH, api.ask("GET", path).body).roots == (root,)
    refused = api.ask("GET", "/api/v1/bundle?keys=some")
    assert (refused.status, refused.json["code"]) == (400, "malformed")


def test_trust_shows_the_log_to_whoever_comes_from_another_store(api: Api) -> None:
    first = api.ask("GET", "/api/v1/trust?log=0").json
    api.sign()
    size = result_of(api.rig.log.extend()).checkpoint.size
    asked = f"/api/v1/trust?log={size}&store="
    assert api.ask("GET", asked + first["store"]).json["log"] is None
    elsewhere = api.ask("GET", asked + "another").json["log"]
    assert (elsewhere["verifier"], elsewhere["proof"]) == (str(api.rig.log.key.verifier), [])


def test_trust_tells_what_was_revoked_since(api: Api) -> None:
    api.caller = WORKLOAD
    nothing = api.ask("GET", "/api/v1/trust").json
    assert nothing["revocations"] == []
    assert set(nothing["bundles"]) == {"mesh.local"}
    leaf, *_ = api.rig.sign()
    api.ask("POST", REVOKE, {"serial": serial_pairs(leaf.serial_number), "reason": "superseded"})
    position = nothing["generation"]
    news = api.ask("GET", f"/api/v1/trust?after={position}&store={nothing['store']}").json
    assert news["revocations"] == [
        {
            "issuer": api.rig.home.issuing.key_id,
            "serial": serial_hex(leaf.serial_number),
            "revoked_at": "2026-11-23T10:00:00Z",
            "reason": "superseded",
            "expires_at": "2026-11-23T11:00:00Z",
        }
    ]
    after = f"?after={news['generation']}&store="
    assert api.ask("GET", "/api/v1/trust" + after + news["store"]).json["revocations"] == []
    anew = api.ask("GET", "/api/v1/trust" + after + "another").json
    assert anew["revocations"] == news["revocations"]


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "1_0", "9" * 20, "9" * 5000, "%D9%A3"])
def test_a_position_that_is_none_is_refused(api: Api, after: str) -> None:
    answer = api.ask("GET", f"/api/v1/trust?after={after}")
    assert answer.status == 400
    assert "after is a whole number" in problem(answer)["detail"]


# Revoking.


def test_revoking_twice_is_answered_alike(api: Api) -> None:
    leaf, *_ = api.rig.sign()
    first = api.ask("POST", REVOKE, {"serial": serial_hex(leaf.serial_number)})
    api.rig.time += HOUR
    body = {"serial": serial_pairs(leaf.serial_number).lower(), "reason": "keyCompromise"}
    again = api.ask("POST", REVOKE, body)
    assert (again.status, again.body) == (first.status, first.body)
    assert first.json == {
        "serial": serial_hex(leaf.serial_number),
        "revoked_at": "2026-11-23T10:00:00Z",
        "reason": "unspecified",
    }


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"serial": "2a"}, 404, "no certificate has the serial 2a"),
        ({"serial": "x"}, 400, "not a serial number"),
        ({"serial": "\ud800\n"}, 400, "half of a surrogate pair"),
        ({"serial": "1a", "reason": "boredom"}, 400, "keyCompromise"),
        ({"serial": "1a", "reason": "removeFromCRL"}, 400, "is no reason"),
        ({"serial": "1a", "reason": "\ud800"}, 400, "half of a surrogate pair"),
        ({"serial": 42}, 400, "does not fit"),
        ({}, 400, "either serial or serials"),
        ({"serial": None, "serials": None}, 400, "either serial or serials"),
        ({"serial": "1a", "serials": ["1a"]}, 400, "either serial or serials"),
        ({"serial": ""}, 400, "not a serial number"),
        ({"serials": []}, 400, "a list of 1 to 1000 serials"),
        ({"serials": ["1a"] * 1001}, 400, "a list of 1 to 1000 serials"),
        ({"serials": ["1a", "x"]}, 400, "not a serial number"),
        ({"serials": "1a"}, 400, "does not fit"),
        ({"serials": ["1a"], "reason": "certificateHold"}, 400, "is no reason"),
    ],
)
def test_a_bad_request_to_revoke_is_told_why(
    api: Api, body: dict[str, Any], status: int, words: str
) -> None:
    answer = api.ask("POST", REVOKE, body)
    assert answer.status == status
    assert words in problem(answer)["detail"]


def test_many_are_revoked_by_one_request(api: Api) -> None:
    leaves = [api.rig.sign()[0].serial_number for _ in range(3)]
    api.ask("POST", REVOKE, {"serial": serial_hex(leaves[1]), "reason": "keyCompromise"})
    api.rig.time += HOUR / 2
    serials = [serial_pairs(leaves[2]), serial_hex(leaves[1]), "2a", serial_hex(leaves[2])]
    answer = api.ask("POST", REVOKE, {"serials": serials, "reason": "superseded"})
    assert answer.status == 200
    late, early = "2026-11-23T10:30:00Z", "2026-11-23T10:00:00Z"
    assert answer.json == {
        "revoked": [
            {"serial": serial_hex(leaves[2]), "revoked_at": late, "reason": "superseded"},
            {"serial": serial_hex(leaves[1]), "revoked_at": early, "reason": "keyCompromise"},
        ],
        "unknown": ["2a"],
    }
    assert api.ask("POST", REVOKE, {"serials": serials}).body == answer.body
    assert [row["status"] for row in api.certificates()["certificates"]] == [
        "revoked", "revoked", "valid",
    ]  # fmt: skip


def test_a_workload_revokes_many_of_its_own_or_none(rig: CaRig) -> None:
    mine, other = rig.sign()[0], rig.sign(MESH.member("service", "other"))[0]
    api = Api(rig, WORKLOAD)
    serials = [serial_hex(mine.serial_number), serial_hex(other.serial_number)]
    for asked in (serials, [serials[0], "2a"]):
        answer = api.ask("POST", REVOKE, {"serials": asked})
        assert answer.status == 403
        assert "own-certificate-only" in problem(answer)["detail"]
    assert api.ask("GET", "/api/v1/trust").json["revocations"] == []
    assert api.ask("POST", REVOKE, {"serials": serials[:1]}).status == 200


# Listing.


def test_a_listed_certificate_has_its_facts(api: Api) -> None:
    leaf, *_ = api.rig.sign()
    (listed,) = api.certificates()["certificates"]
    assert listed == {
        "serial": serial_hex(leaf.serial_number),
        "subject": "CN=backend",
        "spiffe_id": str(BACKEND),
        "issued_at": "2026-11-23T10:00:00Z",
        "expires_at": "2026-11-23T11:00:00Z",
        "status": "valid",
        "revoked_at": None,
        "reason": None,
        "issuer": api.rig.ca.authorities.issuing.key_id,
        "key": key_id(leaf.public_key()),
        "requester": "unix:uid:0",
        "entry": None,
        "connections": 0,
    }
    result_of(api.rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))
    (listed,) = api.certificates()["certificates"]
    assert (listed["status"], listed["reason"]) == ("revoked", "superseded")
    assert listed["revoked_at"] == "2026-11-23T10:00:00Z"


def test_a_list_is_read_page_by_page(api: Api) -> None:
    serials = {serial_hex(api.rig.sign()[0].serial_number) for _ in range(5)}
    seen: list[str] = []
    query, pages = "?limit=2", 0
    while query:
        page = api.certificates(query)
        pages += 1
        seen += [listed["serial"] for listed in page["certificates"]]
        query = f"?limit=2&cursor={page['next']}" if page["next"] else ""
    assert pages == 3
    assert len(seen) == 5
    assert set(seen) == serials


def test_a_list_can_be_narrowed(api: Api) -> None:
    api.rig.sign()
    api.rig.sign(MESH.member("service", "other"), ttl=timedelta(minutes=5))
    assert len(api.certificates(f"?spiffe_id={BACKEND}")["certificates"]) == 1
    assert len(api.certificates("?expires_before=2026-11-23T10:30:00Z")["certificates"]) == 1
    assert len(api.certificates("?status=valid")["certificates"]) == 2
    assert api.certificates("?status=revoked")["certificates"] == []
    newest, oldest = (row["serial"] for row in api.certificates()["certificates"])
    assert [r["serial"] for r in api.certificates(f"?serial={oldest}")["certificates"]] == [oldest]
    pairs = serial_pairs(int(newest, 16))
    assert api.certificates(f"?serial={pairs}&spiffe_id={BACKEND}")["certificates"] == []
    assert api.certificates("?entry=nobody")["certificates"] == []
    api.rig.time += timedelta(minutes=10)
    assert len(api.certificates("?status=expired")["certificates"]) == 1


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=0", "limit is a whole number from 1 to 1000"),
        ("limit=1001", "limit is a whole number"),
        ("limit=", "limit is a whole number"),
        ("limit=1&limit=2", "given 2 times"),
        ("status=good", "no status: choose one of pending, valid, revoked, expired"),
        ("status=%00%1b", "no status"),
        ("spiffe_id=x", "not a SPIFFE ID"),
        ("spiffe_id=", "not a SPIFFE ID"),
        ("expires_before=soon", "not a time"),
        ("expires_before=2026-11-23T10:00:00", "not a time"),
        ("serial=x", "not a serial number"),
        ("serial=", "not a serial number"),
        ("cursor=nonsense", "cursor"),
        ("cursor=%ff%fe", "cursor"),
        ("cursor=", "cursor"),
        ("%ff=1&%ff=2", "given 2 times"),
    ],
)
def test_a_query_that_cannot_be_used_is_told_why(api: Api, query: str, words: str) -> None:
    answer = api.ask("GET", f"/api/v1/certificates?{query}")
    assert answer.status == 400
    document = problem(answer)
    assert words in document["detail"]
    assert document["detail"].isprintable()


# What HTTP itself can get wrong.


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1/sign/", "/api/v1/SIGN", "/%6civez", "//livez"]
)
def test_a_path_that_is_none_is_not_found(api: Api, path: str) -> None:
    answer = api.ask("GET", path)
    assert answer.status == 404
    assert problem(answer)["code"] == "not-found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", SIGN, "POST"),
        ("HEAD", SIGN, "POST"),
        ("POST", "/livez", "GET"),
        ("DELETE", "/api/v1/ca", "GET"),
        ("get", "/livez", "GET"),
        ("OPTIONS", "/api/v1/ca", "GET"),
    ],
)
def test_a_method_that_is_not_done_reads_which_is(
    api: Api, method: str, path: str, allowed: str
) -> None:
    answer = api.ask(method, path)
    assert answer.status == 405
    assert answer.headers["allow"] == allowed
    if method != "HEAD":
        assert problem(answer)["code"] == "method-not-allowed"


def _rest(api: Api, path: str, serial: str) -> str:
    if "federation" in path:
        assert api.ask("POST", "/api/v1/federation", PARTNER).status == 201
        return "partner.example"
    if "agent" not in path:
        return "file.backend" if "entries" in path else serial
    assert api.ask("POST", "/api/v1/agents", {"name": "node-1"}).status == 201
    if "entries" in path:
        api.caller = workload(MESH.member("mesh", "agent", "node-1"), 7)
    return "node-1"


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "GET"])
def test_head_is_answered_like_get_without_the_body(api: Api, path: str) -> None:
    serial = serial_hex(api.rig.sign()[0].serial_number)
    path = path.replace("*", _rest(api, path, serial))
    head, get = api.ask("HEAD", path), api.ask("GET", path)
    assert head.status == get.status == 200
    assert head.body == b""
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_a_body_that_does_not_say_json_is_refused(api: Api, content_type: str) -> None:
    answer = api.ask("POST", SIGN, b"{}", content_type=content_type)
    assert answer.status == 415
    assert problem(answer)["code"] == "unsupported-media-type"


def test_a_charset_beside_json_does_no_harm(api: Api) -> None:
    body = {"csr": csr(), "requested_id": str(BACKEND)}
    answer = api.ask("POST", SIGN, body, content_type="Application/JSON; charset=utf-8")
    assert answer.status == 201


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    answer = api.ask("POST", SIGN, b"x" * 65537)
    assert answer.status == 413
    assert answer.json["code"] == "too-large"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"host": "127.0.0.1:8080"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:8080"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "[::1]:80"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8080"}, 403),
    ],
)
def test_the_plaintext_port_answers_no_web_page(
    rig: CaRig, headers: dict[str, str], status: int
) -> None:
    guarded, open_ = Api(rig, guards_browsers=True), Api(rig)
    answer = guarded.ask("GET", "/livez", **headers)
    assert answer.status == status
    if status == 403:
        assert problem(answer)["code"] == "cross-origin"
    assert open_.ask("GET", "/livez", **headers).status == 200


# What goes wrong inside.


@pytest.mark.parametrize(
    ("broken", "method", "path", "body"),
    [
        ("RecordIssue", "POST", SIGN, {"csr": csr(), "requested_id": str(BACKEND)}),
        ("find", "POST", REVOKE, {"serial": "2a"}),
        ("feed", "GET", "/api/v1/trust", b""),
        ("list", "GET", "/api/v1/certificates", b""),
        ("log_entries", "GET", "/api/v1/audit/entries", b""),
    ],
)
def test_a_store_that_fails_is_a_503(
    api: Api, broken: str, method: str, path: str, body: Any
) -> None:
    api.rig.store.broken = {broken}
    answer = api.ask(method, path, body)
    assert answer.status == 503
    document = problem(answer)
    assert document["code"] == "store-unavailable"
    assert "the disk is full" in document["detail"]
    assert answer.headers["retry-after"].isdigit()


def test_livez_does_not_ask_the_store(api: Api) -> None:
    api.rig.store.broken = {"find"}
    assert api.ask("GET", "/livez").json == {"status": "alive"}
    assert api.rig.order == []


def test_readyz_says_that_it_is_ready(api: Api) -> None:
    assert api.ask("GET", "/readyz").json == {"status": "ready"}


def test_readyz_names_what_is_broken(api: Api) -> None:
    api.rig.store.broken = {"Probe"}
    answer = api.ask("GET", "/readyz")
    assert answer.status == 503
    document = problem(answer)
    assert document["code"] == "not-ready"
    (found,) = document["problems"]
    assert found["code"] == "unhealthy-store"
    assert "the disk is full" in found["detail"]


def test_a_flood_of_refusals_is_counted_and_told_in_part(rig: CaRig, logged: Logged) -> None:
    api = Api(rig, NOBODY)
    for _ in range(100):
        assert api.ask("GET", "/api/v1/health").status == 401
    api.seconds += 1
    api.ask("GET", "/api/v1/health")
    told = [e for e in logged if e["log_level"] is LogLevel.warn]
    assert [event["event"] for event in told] == [
        *["request-refused"] * 20,
        "refusals-untold",
        "request-refused",
    ]
    assert told[20]["untold"] == 80
    assert len([e for e in logged if e["event"] == "request-refused"]) == 101, "each is counted"


def test_one_certificate_is_shown_whole(api: Api) -> None:
    leaf, *_ = api.rig.sign()
    shown = api.ask("GET", f"/api/v1/certificates/{serial_pairs(leaf.serial_number)}").json
    assert shown["certificate"] == certificates_pem([leaf]).decode()
    assert shown["serial"] == serial_hex(leaf.serial_number)
    assert api.ask("GET", "/api/v1/certificates/2a").status == 404
    assert api.ask("GET", "/api/v1/certificates/x").status == 400
    assert api.ask("POST", "/api/v1/certificates/2a", {}).status == 405


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 2),
        ("?spiffe_id=spiffe://mesh.local/service/backend", 1),
        ("?spiffe_id=spiffe://mesh.local/service/**", 2),
        ("?spiffe_id=spiffe://mesh.local/serv/**", 0),
        ("?issued_after=2026-11-23T10:00:00Z", 0),
        ("?issued_before=2026-11-23T10:00:01Z", 2),
        ("?expires_after=2026-11-23T10:59:59Z&expires_before=2026-11-23T11:00:01Z", 2),
        (f"?key={'0' * 64}", 0),
        (f"?issuer={'0' * 64}", 0),
    ],
)
def test_a_list_is_narrowed(api: Api, query: str, count: int) -> None:
    for name in ("backend", "frontend"):
        api.rig.sign(MESH.member("service", name))
    assert len(api.certificates(query)["certificates"]) == count


def test_metrics_are_prometheus_text(api: Api) -> None:
    answer = api.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"# TYPE" in answer.body


@pytest.mark.parametrize("where", ["attest", "handler"])
def test_a_bug_is_a_500_without_details_and_a_traceback_in_the_log(
    api: Api, logged: Logged, where: str
) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("secret words")

    if where == "attest":
        api.site.resource.attestors = SimpleNamespace(attest=broken)
    else:
        api.read_from(SimpleNamespace(list=broken))
    answer = api.ask("GET", "/api/v1/certificates")
    assert answer.status == 500
    document = problem(answer)
    assert document["code"] == "internal"
    assert b"secret" not in answer.body
    (event,) = [e for e in logged if e.get("event") == "request-broke"]
    assert event["log_failure"].check(RuntimeError)


def test_a_caller_that_has_gone_away_is_not_answered(api: Api, logged: Logged) -> None:
    waiting: list[Deferred[Page]] = []

    def listed(query: Query) -> Deferred[Page]:
        waiting.append(Deferred())
        return waiting[-1]

    api.read_from(SimpleNamespace(list=listed))
    talk = Talk(api.site, api.clock)
    talk.say(b"GET /api/v1/certificates HTTP/1.1\r\nHost: localhost\r\n\r\n")
    talk.wire.lose(ConnectionError())
    waiting[0].callback(Page((), None))
    assert talk.wire.value() == b""
    assert logged == []


#: Every error that the API's own modules know, and what it is answered with.
STATUSES = {
    400: {
        *(
            "Malformed",
            "BadBundle",
            "BadFederation",
            "BadEntry",
            "BadCursor",
            "NotASpiffeId",
            "UnusableKey",
            "UnknownAlgorithm",
            "BadKeyList",
            "Undecryptable",
            "OtherKey",
            "BadDnsName",
            "BadRequestForm",
            "_TooMany",
            "PassphraseMismatch",
            "BadAudience",
            "BadJwt",
        ),
        *("BadToken", "BadDocument", "UnknownSelector", "UnknownEntry", "BadFingerprint", "BadPin"),
        "BadQuorum",
        *("PassphraseMismatch", "BadFederation", "ForeignRoot"),
    },
    401: {"NoProof", "Revoked", "TokenDead"},
    403: {"Forbidden", "EntryGone", "PolicyDenied", "ReattestRequired", "RefusedByRule"},
    404: {"Unknown", "UnknownJwtKey"},
    409: {
        *("Conflict", "CannotDetach", "NoRootKey", "NoCopy", "NoSuccessor"),
        *("OutOfTurn", "RootWaits", "RootKeyAway"),
        *("TokenSpent", "NotByToken", "EntryInFile", "EntryOfAgent", "AgentBanned"),
        *("AlreadyAttested", "AgentTaken", "AgentByPlatform"),
        *("OlderBundle", "AlteredBundle", "PolicyNotTaken"),
    },
    422: {
        "Refused",
        "KeyBlocked",
        "JwtSvidRefused",
        "NameTaken",
        "TtlOutOfRange",
        "BadCrl",
        "BadAnswer",
        "BadPolicy",
        "BadSigningPolicy",
    },
    500: {"LintFailed", "ProofFailed"},
    503: {
        *("SignsNoTokens", "NotPossessed"),
        *("NotSignable", "SigningRefused"),
        *(
            "PkiError",
            "ClockBehind",
            "IssuerExpired",
            "IssuerRevoked",
            "SigningFailed",
            "StoreError",
            "Full",
            "PolicyUnavailable",
            "KeyStoreAway",
            "KeyStoreRefused",
        ),
        *("BadProof", "BadCheckpoint", "LogContradicts", "RolledBack", "Forked", "Replaced"),
        *("Unvouched", "LogCut", "Damaged"),
        "DamagedTree",
        *(
            "StateError",
            "AlreadyRunning",
            "WrongState",
            "BadEntriesFile",
            "BadBlockedKeys",
            "CannotFill",
        ),
        *("RotationBroke", "UnfitResponder", "NotPublished", "JwtKeysBroke", "NoJwtKey"),
        *(
            "BadSct",
            "BadLogList",
            "LogAway",
            "LogsAway",
            "NotAcceptedHere",
            "LogReadOnly",
            "BadNote",
        ),
        *("BadLog", "EntryMissing", "LogForked", "LogRolledBack", "Unproven"),
    },
}
MODULES = ("pki.", "twisted_mesh.ca.", "twisted_mesh.stores.", "twisted_mesh.state.directory")


for found in (*walk_packages(pki.__path__, "pki."), *walk_packages(ca.__path__, f"{ca.__name__}.")):
    import_module(found.name)


def errors(kind: type[PkiError] = PkiError) -> Iterator[type[PkiError]]:
    """All of these modules, but for those that carry their status with them."""
    if kind.__module__.startswith(MODULES) and not issubclass(kind, BadRequest):
        yield kind
    for below in kind.__subclasses__():
        yield from errors(below)


@pytest.mark.parametrize("kind", sorted(set(errors()), key=str), ids=lambda kind: kind.__name__)
def test_every_error_has_its_status(kind: type[PkiError]) -> None:
    (expected,) = [status for status, names in STATUSES.items() if kind.__name__ in names]
    assert status_of(kind.__new__(kind)) == expected
    assert kind.code


def test_a_bug_of_ours_is_not_blamed_on_the_caller() -> None:
    assert status_of(LintFailed.__new__(LintFailed)) == 500


@pytest.mark.parametrize("status", [400, 404, 405, 415])
def test_a_bad_request_carries_its_status(status: int) -> None:
    assert status_of(BadRequest(HTTPStatus(status), "why")) == status


# The log of refusals.


def test_a_refusal_is_logged_with_its_reason_and_counted_by_its_code(
    api: Api, logged: Logged
) -> None:
    api.caller = NOBODY
    api.sign()
    (event,) = logged
    assert event["event"] == "request-refused"
    assert event["codes"] == "no-proof"
    assert event["status"] == 401
    assert event_text(event).startswith(
        "POST /api/v1/sign answered 401: no-proof: sign needs proof"
    )


@pytest.mark.parametrize(
    "asked", [("GET", "/nope"), ("PUT", "/api/v1/ca"), ("PATCH", "/api/v1/entries/x")]
)
def test_what_there_is_not_is_limited_and_told_like_all_else(
    rig: CaRig, logged: Logged, asked: tuple[str, str]
) -> None:
    api = Api(rig, NOBODY)
    api.site.resource.throttle = Throttle(api.clock, Rate(1, 50))
    statuses = [api.ask(*asked).status for _ in range(60)]
    assert statuses[:50].count(statuses[0]) == 50 and statuses[0] in (404, 405)
    assert set(statuses[50:]) == {429}
    told = [event for event in logged if event["log_level"] >= LogLevel.warn]
    assert len(told) <= 42, "20 a second, and a line that counts the rest"


def test_nothing_of_a_request_adds_a_line_to_the_log_or_holds_its_body(
    api: Api, logged: Logged
) -> None:
    api.ask("GET", "/a%0a%1b" + "b" * 3000)
    api.sign(requested_id="spiffe://mesh.local/\nforged", csr=csr())
    for event in logged:
        text = event_text(event)
        assert "\n" not in text or event["event"] == "csr-received"
        assert len(text) < 1500
        assert "BEGIN CERTIFICATE" not in text
    assert len(logged) == 2


WORDS = st.text(max_size=20) | st.sampled_from([csr(), str(BACKEND), "1h", "2a", "superseded"])
FIELDS = st.sampled_from(["csr", "requested_id", "ttl", "serial", "reason", "token"])


@given(st.sampled_from([SIGN, REVOKE]), st.dictionaries(FIELDS, WORDS | st.none()) | st.binary())
@example(SIGN, {"csr": csr(), "requested_id": "spiffe://mesh.local/\x00", "ttl": "\x7f"})
def test_no_body_at_all_is_answered_with_a_5xx(path: str, body: Any) -> None:
    answer = Api(SHARED).ask("POST", path, body)
    assert answer.status < 500
    if answer.status >= 400:
        problem(answer)


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    """One CA for all that hypothesis tries."""
    global SHARED
    with ca_rig() as SHARED:
        yield


SHARED: CaRig


def test_a_bundle_of_our_own_is_refused_for_another_trust_domain(api: Api) -> None:
    spiffe = {
        **PARTNER,
        "profile": "https_spiffe",
        "endpoint_id": "spiffe://partner.example/mesh/ca",
        "bundle": api.rig.ca.bundle().to_jwks().decode(),
    }
    answer = api.ask("POST", "/api/v1/federation", spiffe)
    assert (answer.status, problem(answer)["code"]) == (400, "foreign-root")
    assert api.ask("GET", "/api/v1/federation").json["federations"] == []
