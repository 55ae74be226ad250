"""In which order a request costs something: charged, attested, permitted, and only then read."""

import json
import os
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from zope.interface import implementer

from pki.policy.policy import Action, NoProof
from pki.policy.principal import Kind, Principal, anonymous, workload
from pki.policy.selector import SelectorKind
from tests.authorities import BACKEND
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, attestors_of
from tests.twisted_mesh.talking import Answer, Talk, read_answers
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.interface import IAttestor
from twisted_mesh.attest.registry import Attested, Attestors
from twisted_mesh.ca.api import admission, request
from twisted_mesh.ca.api.admission import Arrived, Charged, Known, Permitted
from twisted_mesh.ca.api.app import CaApi
from twisted_mesh.ca.api.authentication import Account, SocketAuthenticator
from twisted_mesh.ca.api.routes import ROUTES
from twisted_mesh.ca.api.throttle import Throttle
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.http.server import BoundedSite
from twisted_mesh.http.whole_request import WholeRequest
from twisted_mesh.limits.rate_limit import DEFAULT_RATE, Rate

NOBODY = anonymous("tls:no-certificate")
WORKLOAD = workload(BACKEND, 1)
SIGN, REVOKE, LIVEZ = "POST /api/v1/sign", "POST /api/v1/revoke", "GET /livez"
CHALLENGE = "POST /api/v1/attest/challenge"
GARBAGE = b"{" * 100


@implementer(IAttestor)
@define(eq=False)
class Noting:
    """An attestor that notes when it is asked; ``refuses`` everybody."""

    steps: list[str]
    refuses: bool = False
    name = "noting"
    kinds: tuple[SelectorKind, ...] = ()

    async def attest(self, evidence: Evidence) -> Attestation | None:
        self.steps.append("attest")
        if self.refuses:
            raise NoProof("this evidence is forged")
        return None

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        return None


class NotingThrottle(Throttle):
    """Notes when it is asked, before it answers."""

    steps: list[str]

    def charge(
        self,
        account: Account,
        action: Action | None,
        address: Any,
        holder: str | None = None,
    ) -> None:
        self.steps.append("charge")
        super().charge(account, action, address, holder)


@define(eq=False)
class Api:
    """The CA's API, which notes what is done with a request, and its caller."""

    rig: CaRig
    caller: Principal = ADMIN
    steps: list[str] = field(factory=list)
    clock: Clock = field(factory=Clock)
    rate: Rate = DEFAULT_RATE
    refuses: bool = False
    site: BoundedSite = field(init=False)
    attestors: Attestors = field(init=False)

    def __attrs_post_init__(self) -> None:
        throttle = NotingThrottle(self.clock, self.rate)
        throttle.steps = self.steps
        attestors = (Noting(self.steps, self.refuses), *attestors_of(self.rig).attestors)
        self.attestors = Attestors(attestors)
        api = CaApi(self.rig.ca, self, self.attestors, throttle=throttle)
        self.site = BoundedSite(api, self.clock)

    def account(self, evidence: Evidence) -> Account:
        self.steps.append("account")
        return Account(self.caller.proof, self.caller.kind)

    def principal(self, attested: Attested) -> Principal:
        self.steps.append("principal")
        return self.caller

    def ask(self, what: str, body: bytes = b"") -> Answer:
        self.steps.clear()
        talk = Talk(self.site, self.clock)
        head = f"{what} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        talk.say(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        (answer,) = read_answers(talk.wire.value())
        return answer


@pytest.fixture
def api(rig: CaRig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    """Makes one; what is asked of others than its own is noted too."""

    def make(**facts: Any) -> Api:
        made = Api(rig, **facts)

        def noted(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                made.steps.append(step)
                return function(*args)

            return call

        monkeypatch.setattr(admission, "permit", noted("permit", admission.permit))
        body = property(noted("read", lambda whole: whole._body))
        monkeypatch.setattr(WholeRequest, "body", body)
        monkeypatch.setattr(admission, "parse_json", noted("parse", admission.parse_json))
        monkeypatch.setattr(request, "parse_json", noted("parse", request.parse_json))
        return made

    return make


IN_ORDER = ["account", "charge", "attest", "principal", "permit", "read"]
#: Where the body may hold the proof, it is read for that, once.
IN_ORDER_WHERE_IT_PROVES = ["account", "charge", "read", "parse", "attest", "principal", "permit"]


def test_every_route_but_one_is_read_when_its_caller_is_permitted() -> None:
    assert [path for (_, path), route in ROUTES.items() if route.proving] == ["/api/v1/sign"]


@pytest.mark.parametrize("what", [LIVEZ, REVOKE, "GET /api/v1/health", "POST /api/v1/entries"])
def test_a_request_goes_through_all_steps_in_order(what: str, api: Callable[..., Api]) -> None:
    made = api()
    made.ask(what, b"{}" if what.startswith("POST") else b"")
    assert made.steps == IN_ORDER + (["parse"] if what.startswith("POST") else [])


def test_a_body_that_may_prove_is_read_once_for_that_before_anybody_is_asked(
    api: Callable[..., Api],
) -> None:
    made = api()
    assert made.ask(SIGN, b'{"csr": "x", "requested_id": "y"}').status == 400
    assert made.steps == IN_ORDER_WHERE_IT_PROVES


# Evidence of a platform.


@define(eq=False)
class Seeing:
    """A platform that notes what it is shown."""

    seen: list[Evidence] = field(factory=list)
    name = "drill"
    kinds = ()

    async def attest(self, evidence: Evidence) -> Attestation | None:
        self.seen.append(evidence)
        return Attestation("drill:1", frozenset())

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        return b"c0ffee"


def signing(**more: Any) -> bytes:
    return json.dumps({"csr": "the CSR", "requested_id": "y", **more}).encode()


def shown(data: Any, kind: Any = "drill") -> dict[str, Any]:
    return {"attestation": {"kind": kind, "data": data}}


@pytest.mark.parametrize("data", ["eyJ…", {"a": [1, None, True]}, None, [], 1.5])
def test_evidence_goes_to_its_platform_with_the_csr_and_whence_it_came(
    data: Any, api: Callable[..., Api]
) -> None:
    made, platform = api(), Seeing()
    made.attestors.replace({"drill": platform})
    made.ask(SIGN, signing(**shown(data)))
    (evidence,) = platform.seen
    assert evidence.attestation is not None
    assert json.loads(evidence.attestation.data) == data
    assert (evidence.csr, evidence.token) == ("the CSR", None)
    assert evidence.address.startswith("address:")
    assert made.ask(SIGN, signing()).status == 400
    assert len(platform.seen) == 1


def test_a_challenge_is_for_whoever_asks(api: Callable[..., Api]) -> None:
    made = api(caller=NOBODY)
    made.attestors.replace({"drill": Seeing()})
    answer = made.ask(CHALLENGE, b'{"kind": "drill"}')
    assert (answer.status, answer.json) == (200, {"challenge": "c0ffee", "expires_in": 60})
    assert made.ask(CHALLENGE, b'{"kind": "other"}').json["code"] == "unknown-attestation"
    assert made.ask(CHALLENGE, b"{}").status == 400


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({**shown("x"), "token": "mj1_x"}, 400),
        (shown("x", "other"), 422),
        (shown("x", ""), 422),
        ({"attestation": "x"}, 401),
        ({"attestation": {"kind": "drill"}}, 401),
        ({"attestation": None}, 401),
        (shown("x", 3), 401),
    ],
)
def test_evidence_in_another_form_reaches_no_platform(
    more: dict[str, Any], status: int, api: Callable[..., Api]
) -> None:
    made, platform = api(caller=NOBODY), Seeing()
    made.attestors.replace({"drill": platform})
    assert made.ask(SIGN, signing(**more)).status == status
    assert platform.seen == []


def test_who_shows_evidence_too_often_costs_no_platform_anything(api: Callable[..., Api]) -> None:
    made, platform = api(caller=NOBODY, rate=Rate(1, 3)), Seeing()
    made.attestors.replace({"drill": platform})
    statuses = [made.ask(SIGN, signing(**shown("x"))).status for _ in range(50)]
    assert statuses[3:] == [429] * 47
    assert len(platform.seen) == 3


@pytest.mark.parametrize("what", [LIVEZ, SIGN, REVOKE, "GET /api/v1/trust", "GET /nowhere"])
def test_who_asks_too_often_costs_no_attestation_and_is_not_read(
    what: str, api: Callable[..., Api]
) -> None:
    made = api(caller=WORKLOAD, rate=Rate(1, 1))
    made.ask(LIVEZ)
    made.rig.order.clear()
    assert made.ask(what, GARBAGE).status == 429
    assert made.steps == ["account", "charge"]
    assert made.rig.order == []


@pytest.mark.parametrize("what", ["GET /nowhere", "DELETE /livez"])
def test_who_asks_for_what_there_is_not_pays_and_costs_no_attestation(
    what: str, api: Callable[..., Api]
) -> None:
    made = api()
    assert made.ask(what).status in (404, 405)
    assert made.steps == ["account", "charge"]


@pytest.mark.parametrize(
    "what",
    [what for what in map(" ".join, ROUTES) if not what.startswith(("GET", SIGN, CHALLENGE))],
)
def test_who_is_refused_is_not_read(what: str, api: Callable[..., Api]) -> None:
    made = api(caller=NOBODY)
    answer = made.ask(what.replace("*", "x"), GARBAGE)
    if answer.status != 415:  # OCSP, which is for everybody
        assert (answer.status, answer.json["code"]) == (401, "no-proof")
        assert made.steps == IN_ORDER[:-1]


def test_a_stranger_with_a_body_that_cannot_be_read_is_told_that_it_is_one(
    api: Callable[..., Api],
) -> None:
    for caller, status in ((NOBODY, 401), (WORKLOAD, 400), (ADMIN, 400)):
        assert api(caller=caller).ask(SIGN, GARBAGE).status == status


@pytest.mark.parametrize("caller", [NOBODY, WORKLOAD, ADMIN], ids=lambda caller: caller.kind)
@pytest.mark.parametrize("what", [LIVEZ, SIGN, REVOKE])
def test_evidence_that_is_no_good_is_refused_whoever_brings_it(
    what: str, caller: Principal, api: Callable[..., Api]
) -> None:
    made = api(caller=caller, refuses=True)
    answer = made.ask(what, b"{}")
    assert (answer.status, answer.json["code"]) == (401, "no-proof")
    assert "permit" not in made.steps


def test_a_bad_token_is_refused_also_of_an_administrator(api: Callable[..., Api]) -> None:
    answer = api().ask(SIGN, b'{"csr": "x", "requested_id": "y", "token": "mj1_"}')
    assert (answer.status, answer.json["code"]) == (401, "no-proof")


def test_refusals_are_counted_by_what_the_connection_shows(
    api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[tuple[str, str]] = []
    made = api(caller=WORKLOAD, rate=Rate(1, 2))
    monkeypatch.setattr(AuditLog, "refused", lambda log, *told: counted.append(told))
    made.ask("GET /api/v1/health")
    made.ask(SIGN, b'{"csr": "x", "requested_id": "y", "token": "mj1_"}')
    made.ask(LIVEZ)
    assert counted == [
        (code, WORKLOAD.proof) for code in ("not-authorized", "no-proof", "rate-limited")
    ]


@pytest.mark.parametrize(
    ("step", "next_ones"),
    [
        (Arrived, {"account", "on", "charge"}),
        (Charged, {"attest"}),
        (Known, {"principal", "permit"}),
        (Permitted, {"principal", "read"}),
    ],
)
def test_with_a_step_nothing_can_be_done_but_the_next(step: type, next_ones: set[str]) -> None:
    assert {name for name in dir(step) if not name.startswith("_")} == next_ones


def test_who_is_charged_is_nobody_who_may(rig: CaRig) -> None:
    """An account is no principal: nothing but what was attested lets anybody do anything."""
    assert not isinstance(Account("unix:uid:0", Kind.ADMINISTRATOR), Principal)


def test_users_of_this_machine_are_in_line_each_by_itself(rig: CaRig) -> None:
    rig.found()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = SimpleNamespace(
            transport=SimpleNamespace(socket=ours), getPeer=lambda: UNIXAddress("")
        )
        asked: Any = SimpleNamespace(channel=channel, requestHeaders=Headers())
        arrived = Arrived.on(asked, SocketAuthenticator(rig.ca.entries))
    assert arrived._evidence.address == f"unix:uid:{os.geteuid()}"
