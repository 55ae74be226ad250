"""The policy is asked of all that is issued, before anything is signed or spent; whoever it locks out gets back in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from pki.audit.log import Act, Entry
from pki.errors import Malformed
from pki.issuing.csr import build_csr
from pki.policy.principal import anonymous, workload
from pki.policy.selector import Selector
from pki.rules.errors import PolicyDenied, PolicyUnavailable
from pki.rules.rules_file import read_rules
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from tests.authorities import BACKEND, HOUR, MESH, key
from tests.twisted_mesh.ca.policy.policies import (
    ALL,
    BROKEN,
    NOBODY,
    Point,
    allowing,
    policy,
    rule_by,
    undecided,
)
from tests.twisted_mesh.ca.rigs import ADMIN, CaRig, entry, result_of, settled
from twisted_mesh.ca.check import Standing
from twisted_mesh.ca.policy.gate import PolicyNotTaken
from twisted_mesh.ca.policy.journal import DecisionJournal
from twisted_mesh.ca.policy.policy import Policy
from twisted_mesh.ca.policy.source import Source, Transport
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.limits.quota import Quota
from twisted_mesh.stores.records import Conflict, StoreError

AGENT = SpiffeId.parse("spiffe://mesh.local/mesh/agent/node-1")
UID = Selector.parse("unix:uid:1000")


def recorded(rig: CaRig, act: Act) -> list[Entry]:
    result_of(rig.log.extend())
    listed, _ = result_of(settled(rig.ca.store.log_entries(0, 100)))
    found = [Entry.parse(one.entry) for one in listed]
    return [one for one in found if one.act is act]


def changes(rig: CaRig) -> list[str]:
    return [one.facts["did"] for one in recorded(rig, Act.ADMINISTER) if one.object == "policy"]


def agents_entry(rig: CaRig) -> Any:
    return entry("of-agent", "unix:uid:1000", BACKEND, parent=str(AGENT))


# What is asked.


def test_without_a_policy_entries_alone_decide(rig: CaRig) -> None:
    rig.sign()
    (issued,) = recorded(rig, Act.ISSUE)
    assert not {"policy", "rule"} & issued.facts.keys()


def test_what_is_allowed_has_the_rule_and_the_digest_in_the_audit_log(rig: CaRig) -> None:
    rule_by(rig, ALL)
    rig.sign()
    (issued,) = recorded(rig, Act.ISSUE)
    assert issued.facts["rule"] == "all"
    assert issued.facts["policy"] == policy(ALL).digest


@pytest.mark.parametrize("text", [NOBODY, BROKEN])
def test_what_is_not_allowed_is_neither_signed_nor_charged_nor_recorded(
    rig: CaRig, text: str
) -> None:
    rule_by(rig, text)
    rig.order.clear()
    expected = PolicyDenied if text == NOBODY else PolicyUnavailable
    with patch.object(Quota, "charge") as charge, pytest.raises(expected):
        rig.sign()
    assert "sign" not in rig.order and "RecordIssue" not in rig.order
    assert recorded(rig, Act.ISSUE) == []
    assert not charge.called


def test_a_refusal_names_the_rule_and_its_reason(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    with pytest.raises(PolicyDenied, match="'nobody' says no: nothing is issued today"):
        rig.sign()


def test_where_no_rule_allows_the_answer_is_no(rig: CaRig) -> None:
    rule_by(rig, ALL.replace('"true"', '"false"'))
    with pytest.raises(PolicyDenied, match="no rule of the policy allows it"):
        rig.sign()


def test_refusals_are_counted_in_the_audit_log_by_rule_and_policy(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    for _ in range(3):
        with pytest.raises(PolicyDenied):
            rig.sign()
    result_of(rig.log.tell_refusals())
    (told,) = recorded(rig, Act.REFUSE)
    ((kind, number),) = told.facts.items()
    assert kind.startswith(f"policy-denied rule nobody of policy {policy(NOBODY).digest[:19]}: ")
    assert kind.endswith(ADMIN.proof) and number == "3"


RENEWALS_ONLY = ALL.replace('when = "true"', 'when = "true"\non = ["renew"]')


def test_whoever_shows_an_svid_and_asks_for_its_id_again_renews(rig: CaRig) -> None:
    first, *_ = rig.sign()
    rule_by(rig, RENEWALS_ONLY)
    with pytest.raises(PolicyDenied):
        rig.sign()
    rig.sign(principal=workload(BACKEND, first.serial_number))
    (renewed,) = recorded(rig, Act.RENEW)
    assert renewed.facts["rule"] == "all"


def test_whoever_shows_an_svid_and_asks_for_another_id_does_not(rig: CaRig) -> None:
    first, *_ = rig.sign()
    other = MESH.member("service", "other")
    rig.ca.entries.filed = (
        *rig.ca.entries.filed,
        entry("file.other", f"x509:{BACKEND}", other),
    )
    result_of(rig.ca.entries.load())
    rule_by(rig, RENEWALS_ONLY)
    with pytest.raises(PolicyDenied):
        rig.sign(other, workload(BACKEND, first.serial_number))


def test_an_agent_is_asked_about_for_its_workloads(rig: CaRig) -> None:
    rule_by(
        rig,
        allowing(
            'principal.agent == "node-1" && selectors == ["unix:uid:1000"] && entry.id == "of-agent" '
            '&& source.transport == "tls" && source.address == "192.0.2.7" && action == "issue"'
        ),
    )
    rig.ca.entries.filed = (agents_entry(rig),)
    agent = workload(AGENT, 7)
    asking = rig.ca.certificates.sign_through(
        agent,
        agents_entry(rig),
        frozenset({UID}),
        build_csr(key(9), BACKEND),
        str(BACKEND),
        ttl=None,
        source=Source.at("::ffff:192.0.2.7", 4711, Transport.TLS),
    )
    result_of(asking)
    (issued,) = recorded(rig, Act.ISSUE)
    assert issued.facts["rule"] == "all"


def test_a_workload_of_the_cas_own_socket_is_asked_about(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    with pytest.raises(PolicyDenied):
        result_of(
            rig.ca.certificates.sign_by(
                anonymous("unix:uid:1000", frozenset({UID})),
                entry("own", "unix:uid:1000", BACKEND),
                build_csr(key(9), BACKEND),
                str(BACKEND),
            )
        )


def token_of(rig: CaRig) -> Any:
    assert rig.ca.jwt is not None
    if not rig.jwt_keys.line.keys:
        result_of(rig.jwt_keys.attend())
    found = entry("own", "unix:uid:1000", BACKEND)
    asking = rig.ca.jwt.issue(ADMIN, found, [UID], ["shop"], timedelta(minutes=2), look_again=bool)
    return result_of(asking)


def test_a_token_is_asked_about(rig: CaRig) -> None:
    rule_by(
        rig,
        allowing(
            'action == "issue-jwt" && "shop" in request.audience && request.ttl == 120 && request.kind == "jwt"'
        ),
    )
    token_of(rig)
    (issued,) = recorded(rig, Act.ISSUE_JWT)
    assert issued.facts["rule"] == "all"


def test_a_token_that_is_not_allowed_is_not_made(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    with pytest.raises(PolicyDenied):
        token_of(rig)
    assert recorded(rig, Act.ISSUE_JWT) == []


def test_what_the_ca_needs_for_itself_is_not_asked_about(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    result_of(rig.ca.own.issue_tls(key(3)))
    (issued,) = recorded(rig, Act.ISSUE)
    assert "policy" not in issued.facts


def test_a_repeated_request_gets_its_old_answer(rig: CaRig) -> None:
    csr = build_csr(key(9), BACKEND)

    def ask() -> Any:
        return result_of(rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None, "key-1"))

    rule_by(rig, ALL)
    first = ask()
    rule_by(rig, NOBODY)
    assert ask().serial == first.serial


def test_what_waits_for_its_turn_is_allowed_by_the_policy_of_its_turn(rig: CaRig) -> None:
    rule_by(rig, ALL)
    held: Deferred[None] = Deferred()

    @asynccontextmanager
    async def enter(*_: object) -> AsyncIterator[None]:
        await held
        yield

    outcome: list[Any] = []
    csr = build_csr(key(9), BACKEND)
    with patch.object(FairQueue, "enter", enter):
        asking = rig.ca.certificates.sign(ADMIN, csr, str(BACKEND), None)
        Deferred.fromCoroutine(asking).addBoth(outcome.append)
        assert outcome == []
        rule_by(rig, NOBODY)
        held.callback(None)
    assert outcome[0].check(PolicyDenied)
    assert recorded(rig, Act.ISSUE) == []


# Decision points.


def test_a_point_that_says_no_is_enough(rig: CaRig) -> None:
    point = Point([(False, "not in the inventory")])
    rule_by(rig, ALL, point)
    with pytest.raises(PolicyDenied, match="'opa' says no: not in the inventory"):
        rig.sign()


def test_a_point_that_says_yes_is_asked_what_the_rules_were_asked(rig: CaRig) -> None:
    point = Point([(True, "")])
    rule_by(rig, ALL, point)
    rig.sign()
    (asked,) = point.asked
    assert asked.request.spiffe_id == str(BACKEND)
    assert asked.time == rig.time
    (issued,) = recorded(rig, Act.ISSUE)
    assert issued.facts["rule"] == "all"


def test_a_point_is_not_asked_what_the_rules_refuse(rig: CaRig) -> None:
    point = Point([(True, "")])
    rule_by(rig, NOBODY, point)
    with pytest.raises(PolicyDenied):
        rig.sign()
    assert point.asked == []


def test_a_point_is_not_asked_about_other_actions(rig: CaRig) -> None:
    first, *_ = rig.sign()
    point = Point([(False, "")])
    rule_by(rig, ALL, point)
    rig.sign(principal=workload(BACKEND, first.serial_number))
    assert point.asked == []


@pytest.mark.parametrize("error", [undecided(), RuntimeError("a bug"), Malformed("?")])
def test_a_point_that_does_not_decide_has_nothing_issued(rig: CaRig, error: Exception) -> None:
    rule_by(rig, ALL, Point([error]))
    with pytest.raises(PolicyUnavailable):
        rig.sign()
    assert recorded(rig, Act.ISSUE) == []


# What changes it.


def test_what_is_read_again_counts_at_once_and_is_recorded(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    rule_by(rig, ALL)
    rig.sign()
    before, now = (one.facts for one in recorded(rig, Act.ADMINISTER) if one.object == "policy")
    assert now["before"] == before["digest"] == policy(NOBODY).digest
    assert now["digest"] == policy(ALL).digest


def test_the_same_read_again_is_no_change(rig: CaRig) -> None:
    rule_by(rig, ALL)
    assert result_of(rig.gate.reload(ADMIN)) == ""
    assert changes(rig) == ["reload-policy"]


def test_one_that_cannot_be_used_leaves_the_old_one_in_force(rig: CaRig) -> None:
    rule_by(rig, ALL)
    rig.gate.read = lambda: policy(ALL.replace("true", "no_such_name"))
    with pytest.raises(PolicyNotTaken, match=r"^(?!.*bad-policy|.*stays in force)"):
        result_of(rig.gate.reload(ADMIN, "try"))
    rig.sign()
    assert changes(rig) == ["reload-policy", "refuse-policy"]
    _, problem = rig.gate.standing()
    assert problem is not None and "no_such_name" in problem.detail
    checks = {check.name: check for check in result_of(rig.ca.health.examine())}
    assert checks["policy"].standing is Standing.WARN
    rule_by(rig, ALL)
    assert rig.gate.standing()[1] is None


def test_one_without_the_file_that_denied_leaves_the_old_one_in_force(rig: CaRig) -> None:
    both = {"all.toml": ALL, "nobody.toml": NOBODY}
    rig.gate.read = lambda: Policy("/etc/mesh/policy", read_rules(both))
    result_of(rig.gate.reload(ADMIN))
    del both["nobody.toml"]
    with pytest.raises(PolicyNotTaken, match=r"nobody\.toml is gone, by which nobody said no"):
        result_of(rig.gate.reload(ADMIN))
    with pytest.raises(PolicyDenied):
        rig.sign()
    both["nobody.toml"] = "version = 1"
    result_of(rig.gate.reload(ADMIN))
    rig.sign()


@pytest.mark.parametrize("act", ["reload", "withdraw"])
def test_what_cannot_be_recorded_is_not_done(rig: CaRig, act: str) -> None:
    rule_by(rig, NOBODY)
    rig.gate.read = lambda: policy(ALL)
    rig.store.broken.add("RecordAct")
    with pytest.raises(StoreError):
        result_of(rig.gate.reload(ADMIN) if act == "reload" else rig.gate.withdraw(ADMIN, "why"))
    rig.store.broken.clear()
    with pytest.raises(PolicyDenied):
        rig.sign()


def test_a_withdrawn_policy_is_not_asked_and_everybody_can_see_that(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    result_of(rig.gate.withdraw(ADMIN, "locked out"))
    rig.sign()
    (issued,) = recorded(rig, Act.ISSUE)
    assert issued.facts["policy"] == "withdrawn" and "rule" not in issued.facts
    taken_back = [one for one in recorded(rig, Act.ADMINISTER) if one.object == "policy"][-1]
    assert taken_back.actor == ADMIN.proof
    assert taken_back.facts["did"] == "withdraw-policy"
    assert taken_back.facts["reason"] == "locked out"
    checks = {check.name: check for check in result_of(rig.ca.health.examine())}
    assert checks["policy"].standing is Standing.WARN
    assert ADMIN.proof in checks["policy"].detail


def test_a_withdrawal_is_logged_as_critical(rig: CaRig) -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        rule_by(rig, NOBODY)
        result_of(rig.gate.withdraw(ADMIN, "locked out"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    (event,) = [e for e in events if e.get("event") == "policy-withdrawn"]
    assert event["log_level"] is LogLevel.critical


def test_a_withdrawal_ends_when_it_is_read_again_though_nothing_has_changed(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    result_of(rig.gate.withdraw(ADMIN, ""))
    assert result_of(rig.gate.reload(ADMIN)) == "in force again"
    with pytest.raises(PolicyDenied):
        rig.sign()
    assert changes(rig) == ["reload-policy", "withdraw-policy", "reload-policy"]


def test_a_withdrawal_stays_where_what_is_read_again_cannot_be_used(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    result_of(rig.gate.withdraw(ADMIN, ""))
    rig.gate.read = lambda: policy("version = 2")
    with pytest.raises(PolicyNotTaken):
        result_of(rig.gate.reload(ADMIN))
    rig.sign()


def test_withdrawn_twice_is_withdrawn_once(rig: CaRig) -> None:
    rule_by(rig, NOBODY)
    for _ in range(2):
        result_of(rig.gate.withdraw(ADMIN, ""))
    assert changes(rig) == ["reload-policy", "withdraw-policy"]


@pytest.mark.parametrize("act", ["reload", "withdraw"])
def test_without_a_policy_there_is_nothing_to_change(rig: CaRig, act: str) -> None:
    with pytest.raises(Conflict, match="--policy"):
        result_of(rig.gate.reload(ADMIN) if act == "reload" else rig.gate.withdraw(ADMIN, ""))


def test_what_is_in_force_from_the_start_is_recorded(rig: CaRig) -> None:
    rig.gate.policy = policy(ALL)
    result_of(rig.gate.begin())
    assert changes(rig) == ["load-policy"]
    assert rig.gate.status().state == "in-force"


def test_nobody_can_lock_himself_out(rig: CaRig) -> None:
    """Revoking is never subject to policy; all routes are gone through in the tests of the API."""
    leaf, *_ = rig.sign()
    rule_by(rig, NOBODY)
    result_of(rig.ca.certificates.revoke(ADMIN, leaf.serial_number, Reason.SUPERSEDED))


# The journal.


def test_decisions_are_kept_with_their_input(rig: CaRig, tmp_path: Path) -> None:
    rig.gate.journal = DecisionJournal(tmp_path / "policy")
    rule_by(rig, ALL)
    rig.sign(ttl=HOUR)
    rule_by(rig, NOBODY)
    with pytest.raises(PolicyDenied):
        rig.sign()
    rule_by(rig, BROKEN)
    with pytest.raises(PolicyUnavailable):
        rig.sign()
    found = result_of(rig.gate.last(10))
    assert [(one.outcome, one.rule) for one in found] == [
        ("allow", "all"),
        ("deny", "nobody"),
        ("unavailable", "broken"),
    ]
    assert found[0].input["request"]["ttl"] == 3600
    assert [one.policy for one in found] == [policy(t).digest for t in (ALL, NOBODY, BROKEN)]


def test_what_cannot_be_kept_is_issued_all_the_same(rig: CaRig, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text("in the way")
    rig.gate.journal = DecisionJournal(tmp_path / "policy")
    rule_by(rig, ALL)
    rig.sign()
    assert rig.gate.journal.memory.problem is not None
    (issued,) = recorded(rig, Act.ISSUE)
    assert issued.facts["rule"] == "all"
