"""Tokens: for what an entry buys and for nothing else, recorded before they are signed."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from twisted.logger import LogEvent

from pki.audit.log import Act
from pki.errors import PkiError
from pki.jwt_svid.claims import BadAudience
from pki.jwt_svid.validator import validate
from pki.policy.entry import RegistrationEntry
from pki.policy.lifetimes import TtlOutOfRange
from pki.policy.policy import Forbidden
from pki.policy.principal import workload
from pki.policy.selector import Selector
from pki.rules.facts import Facts
from pki.svid.revocation_set import RevocationSet
from tests.authorities import HOUR, MESH, NOW
from tests.twisted_mesh.ca.policy.policies import ALL, Point, policy
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, entry, result_of
from twisted_mesh.ca.audit_log import OURSELVES
from twisted_mesh.ca.jwt_issuer import JwtIssuer
from twisted_mesh.ca.record_clock import ClockBehind
from twisted_mesh.ca.workload_issuer import CaWorkloadIssuer
from twisted_mesh.limits.quota import Allowance, Quota, QuotaUsedUp
from twisted_mesh.stores.commands import RecordAct
from twisted_mesh.stores.records import StoreError
from twisted_mesh.workload.interface import JwtSvid

AGENT = workload(MESH.member("mesh", "agent", "one"), 0x2A)
UID = Selector("unix:uid", "7")
SEEN = frozenset({UID, Selector("unix:user", "web")})
WEB = entry("1234", "unix:uid:7", "spiffe://mesh.local/service/web")


@pytest.fixture
def issuer(rig: CaRig) -> JwtIssuer:
    result_of(rig.jwt_keys.attend())
    assert rig.ca.jwt is not None
    return rig.ca.jwt


def issue(
    issuer: JwtIssuer,
    bought: RegistrationEntry = WEB,
    audience: tuple[str, ...] = ("reports",),
    ttl: timedelta | None = None,
    selectors: frozenset[Selector] = SEEN,
    *,
    look_again: Callable[[], object] = bool,
) -> JwtSvid:
    found: JwtSvid = result_of(
        issuer.issue(AGENT, bought, selectors, audience, ttl, look_again=look_again)
    )
    return found


def acts(rig: CaRig) -> list[Any]:
    return [
        command.entry
        for command in rig.store.told
        if isinstance(command, RecordAct) and command.entry.act is Act.ISSUE_JWT
    ]


def test_a_token_is_of_what_the_entry_buys(rig: CaRig, issuer: JwtIssuer) -> None:
    made = issue(issuer)
    bundles = {MESH: rig.ca.bundle().to_jwt_bundle()}
    found = validate(made.token, "reports", bundles, NOW)
    assert found.spiffe_id == made.spiffe_id == MESH.member("service", "web")
    assert found.expires_at == made.expires_at == NOW + timedelta(minutes=5)
    assert found.claims["iss"] == "https://mesh.example"
    assert made.token not in repr(made)


def test_each_token_is_in_the_audit_log_and_never_its_text(
    rig: CaRig, issuer: JwtIssuer, logged: list[LogEvent]
) -> None:
    made = issue(issuer, audience=("a", "b, c"))
    (act,) = acts(rig)
    claims = validate(made.token, "a", {MESH: rig.ca.bundle().to_jwt_bundle()}, NOW).claims
    assert act.object == claims["jti"]
    assert act.actor == AGENT.evidence
    assert "serial" in act.actor
    assert json.loads(act.facts["audience"]) == ["a", "b, c"]
    assert act.facts | {"audience": ""} == {
        "spiffe_id": "spiffe://mesh.local/service/web",
        "audience": "",
        "expires_at": "2026-11-23T10:05:00Z",
        "kid": rig.jwt_keys.line.keys[0].kid,
        "entry": "1234",
        "selectors": "unix:uid:7, unix:user:web",
    }
    assert issue(issuer).token != made.token
    (event, _) = [event for event in logged if event["event"] == "jwt-signed"]
    assert event["jti"] == act.object
    assert made.token not in str(event)


def test_what_cannot_be_recorded_is_not_signed(rig: CaRig, issuer: JwtIssuer) -> None:
    rig.store.broken = {"RecordAct"}
    with pytest.raises(StoreError):
        issue(issuer)


def test_a_log_that_contradicts_itself_stops_tokens_too(rig: CaRig, issuer: JwtIssuer) -> None:
    rig.log.contradiction = StoreError("it is not what it was")
    with pytest.raises(StoreError, match="mesh-ctl doctor"):
        issue(issuer)


def test_the_time_is_the_shortest_of_all_that_say_something(rig: CaRig, issuer: JwtIssuer) -> None:
    short = evolve(WEB, max_ttl=timedelta(minutes=2))
    assert issue(issuer, short).expires_at == NOW + timedelta(minutes=2)
    assert issue(issuer, ttl=HOUR).expires_at == NOW + HOUR
    with pytest.raises(TtlOutOfRange):
        issue(issuer, ttl=HOUR + timedelta(seconds=1))
    with pytest.raises(TtlOutOfRange):
        issue(issuer, ttl=timedelta(0))
    with pytest.raises(Forbidden, match="1234"):
        issue(issuer, short, ttl=timedelta(minutes=3))


def test_a_template_is_filled_with_what_was_seen_and_many_ids_are_none(
    issuer: JwtIssuer,
) -> None:
    of_user = entry("1", "unix:uid:7", "spiffe://mesh.local/user/{unix.user}")
    assert issue(issuer, of_user).spiffe_id == MESH.member("user", "web")
    with pytest.raises(Forbidden, match="no value"):
        issue(issuer, of_user, selectors=frozenset({UID}))
    with pytest.raises(Forbidden, match="many IDs"):
        issue(issuer, entry("1", "unix:uid:7", "spiffe://mesh.local/service/**"))


def test_selectors_that_were_not_seen_buy_nothing(rig: CaRig, issuer: JwtIssuer) -> None:
    with pytest.raises(Forbidden, match="unix:uid:7"):
        issue(issuer, selectors=frozenset({Selector("unix:uid", "8")}))
    assert acts(rig) == []


@pytest.mark.parametrize("audience", [(), ("",), ("a\n",)], ids=["none", "empty", "newline"])
def test_an_audience_is_mandatory(issuer: JwtIssuer, audience: tuple[str, ...]) -> None:
    with pytest.raises(BadAudience):
        issue(issuer, audience=audience)


def test_without_a_key_nothing_is_signed_or_recorded(rig: CaRig) -> None:
    assert rig.ca.jwt is not None
    with pytest.raises(PkiError, match="no JWT key"):
        issue(rig.ca.jwt)
    assert acts(rig) == []


def test_a_clock_behind_the_record_signs_no_token_that_is_over_by_then(
    rig: CaRig, issuer: JwtIssuer
) -> None:
    rig.sign()
    rig.time -= HOUR
    result_of(rig.ca.issuance.record_clock.recall(rig.ca.store))
    with pytest.raises(ClockBehind):
        issue(issuer)
    assert acts(rig) == []


def test_who_has_had_as_many_as_may_be_is_told_to_come_later(rig: CaRig, issuer: JwtIssuer) -> None:
    for _ in range(5):
        issue(issuer)
    with pytest.raises(QuotaUsedUp, match="5 JWT-SVIDs"):
        issue(issuer)
    assert len(acts(rig)) == 5
    rig.time += HOUR
    assert issue(issuer)


def test_a_failure_is_not_counted(rig: CaRig, issuer: JwtIssuer) -> None:
    rig.store.broken = {"RecordAct"}
    for _ in range(9):
        with pytest.raises(StoreError):
            issue(issuer)
    rig.store.broken = set()
    assert issue(issuer)


def test_what_is_so_no_more_when_it_is_to_be_signed_is_neither_recorded_nor_counted(
    rig: CaRig, issuer: JwtIssuer
) -> None:
    issuer.quota = Quota(rig.now, Allowance(1, 1))

    def gone() -> None:
        raise Forbidden("no-entry", "gone")

    with pytest.raises(Forbidden):
        issue(issuer, look_again=gone)
    assert acts(rig) == []
    issue(issuer)
    assert len(acts(rig)) == 1


def test_an_entry_that_goes_while_somebody_decides_buys_no_token(
    rig: CaRig, issuer: JwtIssuer
) -> None:
    class Deciding(Point):
        async def ask(self, asked: Facts) -> tuple[bool, str]:
            await rig.ca.entries.delete(ADMIN, WEB.id, "")
            return await super().ask(asked)

    result_of(rig.ca.entries.create(ADMIN, WEB, ""))
    rig.gate.read = lambda: policy(ALL, Deciding([(True, "")]), on=("issue-jwt",))
    result_of(rig.gate.reload(OURSELVES))
    workloads = CaWorkloadIssuer(rig.ca, RevocationSet, rig.clock)
    with pytest.raises(Forbidden, match="is gone"):
        result_of(workloads.issue_jwt(WEB, SEEN, ["reports"], None))
    assert acts(rig) == []
