"""Verdicts are remembered only as long as nothing they depend on has changed, the clock included."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import define, evolve, field
from cryptography import x509

from pki.errors import Problem
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict
from pki.svid.revocation_set import Reason, Revocation, RevocationSet
from pki.svid.x509svid import Purpose
from tests.authorities import HOUR, MESH, NOW, OTHER, key, mesh, overlap
from twisted_mesh.trust import judge as trust_module
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

CA = mesh()
ALL = (SpiffePattern.parse("spiffe://mesh.local/**"),)
Chain = tuple[x509.Certificate, ...]


def chain(**lives: Any) -> Chain:
    return (CA.leaf(**lives), *CA.issuing.intermediates)


@define(eq=False)
class Rig:
    """A judge whose trust notes what it was asked; verdicts that were remembered are not asked for."""

    time: datetime = NOW
    asked: list[Chain] = field(factory=list)
    judge: Judge = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.judge = Judge(lambda: self.time, self.trust(Trust(CA.bundles, allow=ALL)))

    def trust(self, trust: Trust) -> Trust:
        asked = self.asked

        class Noting(Trust):
            def judge(
                self, presented: Sequence[x509.Certificate], now: datetime, purpose: Purpose
            ) -> Verdict:
                asked.append(tuple(presented))
                return trust.judge(presented, now, purpose)

        return Noting(trust.bundles, trust.revocations, trust.allow)

    def verdict(self, presented: Sequence[x509.Certificate]) -> list[str]:
        """The codes of the problems; none for a good one."""
        verdict = self.judge.verdict(presented, Purpose.CLIENT)
        assert verdict.ok is not bool(verdict.problems)
        return [problem.code for problem in verdict.problems]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_good_verdict_is_remembered(rig: Rig) -> None:
    presented = chain()
    assert rig.verdict(presented) == rig.verdict(presented) == []
    assert len(rig.asked) == 1


def test_once_revocations_are_too_old_the_best_verdict_is_no(rig: Rig) -> None:
    presented, ended = chain(), chain(lifetime=HOUR / 2)
    assert rig.verdict(presented) == []
    rig.time += 0.75 * HOUR
    seconds = 100.0
    rig.judge.freshness = Freshness(timedelta(seconds=10), seconds=lambda: seconds)
    rig.judge.freshness.refresh(89.0, NOW)
    assert rig.verdict(presented) == ["stale-revocation"]
    assert rig.verdict(ended) == ["expired", "stale-revocation"]
    rig.judge.freshness.refresh(100.0, NOW)
    assert rig.verdict(presented) == []
    assert rig.asked.count(presented) == 1, "nothing was forgotten for it"


def test_swapping_trust_forgets_every_verdict(rig: Rig) -> None:
    presented = chain()
    assert rig.verdict(presented) == []
    revocation = Revocation(
        CA.issuing.key_id, presented[0].serial_number, NOW, Reason.KEY_COMPROMISE, NOW + HOUR
    )
    revocations = RevocationSet().merged([revocation], NOW)
    rig.judge.trust = rig.trust(evolve(Trust(CA.bundles, allow=ALL), revocations=revocations))
    assert rig.verdict(presented) == ["revoked"]
    rig.judge.trust = rig.trust(Trust(CA.bundles, allow=ALL))
    assert rig.verdict(presented) == []


def test_a_verdict_ends_with_its_certificate(rig: Rig) -> None:
    presented = chain()
    end = presented[0].not_valid_after_utc
    assert rig.verdict(presented) == []
    rig.time = end
    assert rig.verdict(presented) == []
    assert len(rig.asked) == 1
    rig.time = end + timedelta(microseconds=1)
    assert rig.verdict(presented) == ["expired"]
    rig.time = presented[0].not_valid_before_utc - timedelta(seconds=1)
    assert "not-yet-valid" in rig.verdict(presented)


def test_a_verdict_ends_with_the_issuing_ca_too(rig: Rig) -> None:
    presented = chain()
    assert rig.verdict(presented) == []
    rig.time = CA.issuing.certificate.not_valid_after_utc + timedelta(seconds=1)
    assert set(rig.verdict(presented)) == {"expired"}


def revoke(rig: Rig, leaf: x509.Certificate) -> None:
    news = Revocation(CA.issuing.key_id, leaf.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)
    revocations = RevocationSet().merged([news], NOW)
    rig.judge.trust = rig.trust(evolve(Trust(CA.bundles, allow=ALL), revocations=revocations))


def test_a_root_that_is_revoked_is_believed_by_no_remembered_verdict(rig: Rig) -> None:
    presented = chain()
    assert rig.verdict(presented) == []
    assert rig.verdict(presented) == []
    root = CA.root.certificate
    gone = Revocation(CA.root.key_id, root.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)
    old = rig.judge.trust
    revocations = old.revocations.merged([gone], NOW)
    rig.judge.trust = rig.trust(Trust(old.bundles, revocations, old.allow))
    assert rig.verdict(presented) == ["revoked"]


def test_a_refusal_is_remembered_until_what_is_believed_changes(rig: Rig) -> None:
    presented = chain()
    revoke(rig, presented[0])
    for _ in range(1000):
        assert rig.verdict(presented) == ["revoked"]
    assert len(rig.asked) == 1
    rig.judge.trust = rig.trust(Trust(CA.bundles, allow=ALL))
    assert rig.verdict(presented) == []


def test_a_refusal_for_the_clocks_sake_ends_with_its_reason(rig: Rig) -> None:
    presented = chain(now=NOW + 2 * HOUR)
    begin = presented[0].not_valid_before_utc
    assert rig.verdict(presented) == ["not-yet-valid"]
    rig.time = begin - timedelta(microseconds=1)
    assert rig.verdict(presented) == rig.verdict(presented) == ["not-yet-valid"]
    rig.time = begin
    assert rig.verdict(presented) == []
    assert len(rig.asked) == 3


def test_a_refusal_that_says_how_late_it_is_is_made_anew_after_a_second(rig: Rig) -> None:
    presented = chain(lifetime=HOUR / 2)
    rig.time = NOW + HOUR
    for late in (0.0, 0.5, 1.0, 1.5, -0.5):
        rig.time = NOW + HOUR + timedelta(seconds=late)
        assert rig.verdict(presented) == ["expired"]
    assert len(rig.asked) == 3, "the clock was put back, too"


@pytest.mark.parametrize("certificate", range(2))
def test_a_refusal_ends_where_any_certificate_that_was_looked_at_does(
    rig: Rig, certificate: int
) -> None:
    """Another path may be the better one from then on, and there is more to object."""
    presented = chain()
    revoke(rig, presented[0])
    assert rig.verdict(presented) == ["revoked"]
    rig.time = (*presented, CA.root.certificate)[certificate].not_valid_after_utc
    assert rig.verdict(presented) == rig.verdict(presented)
    before = len(rig.asked)
    rig.time += timedelta(microseconds=1)
    assert "expired" in rig.verdict(presented)
    assert len(rig.asked) == before + 1


def test_so_many_refusals_are_remembered_and_no_long_ones(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_module, "_CACHED_REFUSALS", 2)
    rig.judge.trust = rig.trust(Trust(allow=ALL))
    first, second, third = (chain(leaf_key=key(n)) for n in range(3))
    for presented in (
        first,
        second,
        first,
        third,
        first,
        second,
    ):  # the third pushes the second out
        assert rig.verdict(presented) == ["unknown-trust-domain"]
    assert rig.asked == [first, second, third, second]
    monkeypatch.setattr(trust_module, "_LONGEST_REFUSED", 100)
    fourth = chain(leaf_key=key(3))
    for _ in range(2):
        assert rig.verdict(fourth) == ["unknown-trust-domain"]
    assert len(rig.asked) == 6


def test_a_good_verdict_does_not_vouch_for_the_leaf_alone(rig: Rig) -> None:
    presented = chain()
    assert rig.verdict(presented) == []
    assert rig.verdict(presented[:1]) != []


def test_a_good_verdict_for_one_purpose_says_nothing_of_another(rig: Rig) -> None:
    presented = chain()
    for purpose in Purpose:
        rig.judge.verdict(presented, purpose)
    assert len(rig.asked) == len(Purpose)


def test_nobody_at_all_is_refused_each_time(rig: Rig) -> None:
    assert rig.verdict(()) == rig.verdict(()) == ["no-certificate"]
    assert len(rig.asked) == 2


@pytest.mark.parametrize("der", [b"", b"\x30\x80", b"nonsense"])
def test_what_is_no_certificate_is_refused_each_time(rig: Rig, der: bytes) -> None:
    for _ in range(2):
        verdict = rig.judge.verdict_on_der([der], Purpose.CLIENT)
        assert [problem.code for problem in verdict.problems] == ["malformed"]
        assert not verdict.ok
    assert rig.judge._verdicts == {}


def test_only_so_many_verdicts_are_remembered_the_oldest_go_first(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_module, "_CACHED_VERDICTS", 3)
    chains = [chain() for _ in range(4)]
    for presented in chains[:3]:
        rig.verdict(presented)
    rig.verdict(chains[0])
    rig.verdict(chains[3])
    assert len(rig.judge._verdicts) == 3
    before = len(rig.asked)
    for presented in (chains[0], chains[2], chains[3]):
        rig.verdict(presented)
    assert len(rig.asked) == before
    rig.verdict(chains[1])
    assert len(rig.asked) == before + 1


def test_who_is_not_allowed_reads_who_is() -> None:
    allow = ("spiffe://mesh.local/service/a", "spiffe://mesh.local/batch/*")
    trust = Trust(CA.bundles, allow=tuple(map(SpiffePattern.parse, allow)))
    (problem,) = trust.judge(chain(), NOW, Purpose.CLIENT).problems
    assert problem.code == "not-authorized"
    assert problem.detail == (
        "spiffe://mesh.local/service/backend is not among those that may: "
        "spiffe://mesh.local/service/a, spiffe://mesh.local/batch/*"
    )
    assert problem.remedy
    assert problem.subject == "spiffe://mesh.local/service/backend"


def test_without_a_pattern_nobody_is_allowed() -> None:
    (problem,) = Trust(CA.bundles).judge(chain(), NOW, Purpose.CLIENT).problems
    assert problem.detail.endswith("may: nobody")


def test_one_pattern_that_matches_is_enough() -> None:
    patterns = ("spiffe://other.example/**", "spiffe://mesh.local/service/backend")
    trust = Trust(CA.bundles, allow=tuple(map(SpiffePattern.parse, patterns)))
    assert trust.judge(chain(), NOW, Purpose.CLIENT).ok


def test_not_being_allowed_is_told_besides_what_else_is_wrong() -> None:
    trust = Trust(CA.bundles)
    presented = chain()
    codes = [p.code for p in trust.judge(presented, NOW + 2 * HOUR, Purpose.CLIENT).problems]
    assert codes == ["expired", "not-authorized"]


def test_another_domains_root_does_not_vouch_for_ours() -> None:
    other = mesh(OTHER)
    draft = other.issuing.draft(key(9).public_key, MESH.member("admin"), NOW, HOUR)
    minted = asyncio.run(other.issuing.sign(draft))
    trust = Trust(BundleSet.of(CA.bundle, other.bundle), allow=ALL)
    verdict = trust.judge((minted, *other.issuing.intermediates), NOW, Purpose.CLIENT)
    assert "unknown-authority" in [problem.code for problem in verdict.problems]


def test_while_it_is_not_known_who_is_revoked_nobody_is_let_in() -> None:
    doubt: list[Problem] = []
    judge = Judge(lambda: NOW, Trust(CA.bundles, allow=ALL))
    judge.freshness.doubts.append(lambda: doubt[0] if doubt else None)
    presented = chain()
    assert judge.verdict(presented, Purpose.CLIENT).ok
    doubt.append(Problem("stale-revocation", "a list is too old"))
    assert judge.verdict(presented, Purpose.CLIENT).problems == (doubt[0],)
    doubt.clear()
    assert judge.verdict(presented, Purpose.CLIENT).ok


def test_what_is_told_is_at_hand_only_where_one_root_follows_another() -> None:
    both = overlap()
    roots = [root.certificate for root in (both.old, both.new)]
    old, new, two = (TrustBundle(MESH, tuple(some)) for some in (roots[:1], roots[1:], roots))
    told = [(both.by_new.certificate,)]
    alone = Trust(BundleSet.of(old))
    assert alone.with_beside(told, BundleSet.of(old)) is alone
    assert Trust(BundleSet.of(two)).with_beside(told).beside == told[0]
    held = alone.with_beside(told, BundleSet.of(new))
    assert held.beside == told[0]
    after = evolve(held, bundles=BundleSet.of(new))
    assert after.with_beside(told, BundleSet.of(new)) is after  # for as long as it is told
    assert after.with_beside([], BundleSet.of(new)).beside == ()
