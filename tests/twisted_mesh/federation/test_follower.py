"""Federated trust domains that are followed: when each is asked, what is believed of it, and what stays."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pki.errors import PkiError, Problem
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import key_id
from pki.spiffe import TrustDomain
from pki.svid.bundle import BadBundle, BundleSet, TrustBundle
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import Profile, Relationship
from pki.svid.refresh import Refresh
from pki.svid.revocation_set import RevocationSet
from tests.authorities import DAY, MESH, OTHER, key, mesh, nameless_root
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.federation.follower import Follower
from twisted_mesh.federation.following import Following
from twisted_mesh.testing import Clock

THIRD = TrustDomain("third.example")
ROOTS = tuple(nameless_root(f"other {n}") for n in range(3))


def bundle(
    sequence: int, *roots: int, hint: int = 60, trust_domain: TrustDomain = OTHER
) -> TrustBundle:
    return TrustBundle(trust_domain, tuple(ROOTS[n] for n in roots), sequence, hint)


def web(trust_domain: TrustDomain = OTHER) -> Relationship:
    return Relationship(trust_domain, f"https://{trust_domain}/bundle", Profile.HTTPS_WEB)


def spiffe(endpoint: TrustDomain = OTHER) -> Relationship:
    return evolve(web(), profile=Profile.HTTPS_SPIFFE, endpoint_id=endpoint.member("bundle-server"))


@define(eq=False)
class Peers:
    """All bundle endpoints that there are."""

    bundles: dict[TrustDomain, TrustBundle | PkiError] = field(factory=dict)
    asked: list[TrustDomain] = field(factory=list)
    proofs: list[BundleSet] = field(factory=list)
    waiting: list[Deferred[FederatedDocument]] = field(factory=list)
    is_slow: bool = False
    at_once: int = 0

    async def fetch_bundle(
        self,
        relationship: Relationship,
        bundles: BundleSet,
        revocations: RevocationSet | None = None,
    ) -> FederatedDocument:
        self.asked.append(relationship.trust_domain)
        self.proofs.append(bundles)
        if self.is_slow:
            answer: Deferred[FederatedDocument] = Deferred()
            self.waiting.append(answer)
            open_ = [d for d in self.waiting if not d.called]
            self.at_once = max(self.at_once, len(open_))
            return await answer
        found = self.bundles[relationship.trust_domain]
        if isinstance(found, Exception):
            raise found
        return FederatedDocument(found)


@define(eq=False)
class World:
    """A follower, its peers, and what it has told."""

    clock: Clock = field(factory=Clock)
    peers: Peers = field(factory=Peers)
    told: list[tuple[TrustDomain, TrustBundle | None]] = field(factory=list)
    states: list[Following] = field(factory=list)
    log: RecordingLog = field(factory=RecordingLog)
    stolen: dict[str, Problem] = field(factory=dict)
    """Why keys are blocked, by their ids."""
    follower: Follower = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.follower = Follower(
            self.peers,
            lambda: mesh().bundle,
            self.clock,
            self.clock.now,
            self.log,
            lambda domain, bundle: self.told.append((domain, bundle)),
            self.states.append,
            blocked=lambda key: self.stolen.get(key_id(key)),
            draw=random.Random(1),
        )

    @property
    def other(self) -> Following:
        found = self.follower.following(OTHER)
        assert found is not None
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log.events if event.get("event") == name]

    def refresh(
        self, trust_domain: TrustDomain = OTHER, *, accept_older: bool = False
    ) -> Following:
        outcome: list[Following | Failure] = []
        asking = self.follower.refresh_now(trust_domain, accept_older=accept_older)
        Deferred.fromCoroutine(asking).addBoth(outcome.append)
        (found,) = outcome
        if isinstance(found, Failure):
            found.raiseException()
        return found  # type: ignore[return-value]

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(int(seconds / step)):
            self.clock.advance(step)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.peers.bundles[OTHER] = bundle(1, 0)
    yield made
    if made.follower.running:
        made.follower.stopService()
    assert made.clock.getDelayedCalls() == []


def started(world: World, relationship: Relationship | None = None) -> Follower:
    world.follower.startService()
    world.follower.follow(relationship or web())
    world.clock.advance(0)
    return world.follower


def test_who_is_followed_is_asked_at_once_and_then_by_its_hint(world: World) -> None:
    follower = started(world)
    assert world.told == [(OTHER, bundle(1, 0))]
    assert follower.believed == BundleSet.of(bundle(1, 0))
    assert (world.other.sequence, world.other.fetched_at) == (1, world.clock.now())
    world.pass_time(53)
    assert len(world.peers.asked) == 1
    world.pass_time(7)
    assert len(world.peers.asked) == 2
    # The same bundle is no news; how it stands is.
    assert (len(world.told), len(world.states)) == (1, 2)
    world.pass_time(600)
    assert 11 <= len(world.peers.asked) <= 13


def test_a_new_hint_moves_the_next_question(world: World) -> None:
    started(world)
    world.peers.bundles[OTHER] = bundle(2, 0, hint=3000)
    world.refresh()
    assert world.other.next_at is not None
    assert world.other.next_at - world.clock.now() > timedelta(seconds=2600)
    world.peers.bundles[OTHER] = bundle(3, 0, hint=0)
    world.refresh()
    world.pass_time(6)
    assert len(world.peers.asked) == 4


def test_a_failure_keeps_the_last_good_bundle_and_shows_its_age(world: World) -> None:
    follower = started(world)
    had_at = world.clock.now()
    world.peers.bundles[OTHER] = BadBundle("it is no SPIFFE bundle")
    world.pass_time(300)
    state = world.other
    assert follower.believed == BundleSet.of(bundle(1, 0))
    assert (state.fetched_at, state.bundle) == (had_at, bundle(1, 0))
    assert state.failed_since is not None
    assert [problem.code for problem in state.problems] == ["bad-bundle"]
    age = state.age(world.clock.now())
    assert age is not None
    assert age.total_seconds() == 300
    # Less often each time, and told once.
    assert 2 <= state.failures <= 3
    assert len([e for e in world.events("federation-failed") if e["log_level"].name == "warn"]) == 1
    world.peers.bundles[OTHER] = bundle(2, 0, 1)
    world.pass_time(600)
    assert (world.other.failures, world.other.failed_since, world.other.problems) == (0, None, ())
    assert world.told[-1] == (OTHER, bundle(2, 0, 1))


def test_a_root_whose_key_is_blocked_is_believed_no_more_and_again_once_it_is_not(
    world: World,
) -> None:
    follower = started(world)
    world.peers.bundles[OTHER] = bundle(2, 0, 1)
    world.refresh()
    stolen = key_id(ROOTS[1].public_key())
    world.stolen[stolen] = Problem("blocked-key", "this key is on the list stolen.txt")
    follower.review()
    assert world.told[-1] == (OTHER, bundle(2, 0))
    assert follower.believed == BundleSet.of(bundle(2, 0))
    (told,) = world.other.passed_over
    assert told.code == "blocked-key"
    assert "on the list stolen.txt" in told.detail
    assert len(world.events("federation-passed-over")) == 1
    # It is so when it comes again, too, and told once.
    count = len(world.told)
    world.refresh()
    follower.review()
    assert (len(world.told), len(world.events("federation-passed-over"))) == (count, 1)
    # What is on record is what was published.
    assert world.other.bundle == bundle(2, 0, 1)
    del world.stolen[stolen]
    follower.review()
    assert world.told[-1] == (OTHER, bundle(2, 0, 1))
    assert world.other.passed_over == ()


def test_what_is_held_from_an_earlier_life_is_held_without_what_is_blocked(world: World) -> None:
    authority = JwtAuthority.of(key("a JWT key").public_key)  # type: ignore[arg-type]
    with_jwt = evolve(bundle(1, 0), jwt_authorities=(authority,))
    world.stolen[key_id(ROOTS[0].public_key())] = Problem("blocked-key", "stolen")
    world.stolen[authority.kid] = Problem("blocked-key", "stolen too")
    world.follower.follow(web(), with_jwt, world.clock.now())
    believed = world.follower.believed.get(OTHER)
    assert believed is not None
    assert (believed.roots, believed.jwt_authorities) == ((), ())
    assert [problem.code for problem in world.other.passed_over] == ["blocked-key"] * 2


def test_a_bundle_that_goes_back_is_not_believed_but_by_an_administrators_word(
    world: World,
) -> None:
    started(world)
    world.peers.bundles[OTHER] = bundle(5, 1)
    world.refresh()
    for older, code in ((bundle(4, 0), "older-bundle"), (bundle(5, 0), "altered-bundle")):
        world.peers.bundles[OTHER] = older
        with pytest.raises(PkiError) as refusal:
            world.refresh()
        assert refusal.value.problems[0].code == code
        assert world.follower.believed == BundleSet.of(bundle(5, 1))
        assert world.other.problems == refusal.value.problems
    world.refresh(accept_older=True)
    assert world.told[-1] == (OTHER, bundle(5, 0))
    assert world.other.problems == ()


def test_an_empty_bundle_is_believed_nobody_is(world: World) -> None:
    follower = started(world)
    world.peers.bundles[OTHER] = bundle(2)
    world.refresh()
    assert world.told[-1] == (OTHER, bundle(2))
    assert follower.believed == BundleSet.of(bundle(2))


def test_a_bundle_that_grows_too_old_is_believed_no_more_until_another_comes(world: World) -> None:
    follower = started(world)
    world.peers.bundles[OTHER] = BadBundle("gone")
    world.pass_time(3 * 86_400, 60)
    assert follower.believed == BundleSet.of(bundle(1, 0))
    world.pass_time(60)
    assert world.told[-1] == (OTHER, None)
    assert follower.believed == BundleSet()
    assert world.other.is_too_old(world.clock.now())
    assert [e["codes"] for e in world.events("federation-too-old")] == ["stale-bundle"]
    # The same bundle as before: it counts again.
    world.peers.bundles[OTHER] = bundle(1, 0)
    world.refresh()
    assert world.told[-1] == (OTHER, bundle(1, 0))


def test_what_is_too_old_still_proves_its_own_endpoint(world: World) -> None:
    world.follower.refresh = Refresh(max_age=timedelta(minutes=1))
    world.follower.startService()
    world.peers.bundles[OTHER] = BadBundle("gone")
    world.follower.follow(spiffe(), bundle(1, 0))
    world.pass_time(600)
    assert world.follower.believed == BundleSet()
    world.peers.bundles[OTHER] = bundle(2, 1)
    world.refresh()
    assert world.peers.proofs[-1] == BundleSet.of(bundle(1, 0))
    assert world.follower.believed == BundleSet.of(bundle(2, 1))


def test_by_https_spiffe_what_was_fetched_verifies_the_next_connection(world: World) -> None:
    started(world)
    world.follower.follow(spiffe(), bundle(0, 2))
    assert world.follower.believed == BundleSet.of(bundle(0, 2))
    for sequence in (1, 2):
        world.peers.bundles[OTHER] = bundle(sequence, sequence)
        world.refresh()
    assert world.peers.proofs[-2:] == [BundleSet.of(bundle(0, 2)), BundleSet.of(bundle(1, 1))]


def test_by_https_spiffe_it_is_the_endpoints_own_domain_that_proves_it(world: World) -> None:
    started(world, spiffe(THIRD))
    assert world.peers.proofs == [BundleSet()]
    third = mesh(THIRD).bundle
    world.peers.bundles[THIRD] = third
    world.follower.follow(web(THIRD))
    world.clock.advance(0)
    world.refresh()
    assert world.peers.proofs[-1] == BundleSet.of(third)
    world.follower.follow(spiffe(MESH))
    world.clock.advance(0)
    assert world.peers.proofs[-1] == mesh().bundles


def test_our_own_roots_and_a_thirds_are_nobody_elses(world: World) -> None:
    follower = started(world)
    world.peers.bundles[OTHER] = evolve(bundle(2), roots=mesh().bundle.roots)
    with pytest.raises(PkiError, match="one of our own"):
        world.refresh()
    assert follower.believed == BundleSet.of(bundle(1, 0))
    world.peers.bundles[THIRD] = bundle(9, 0, 1, trust_domain=THIRD)
    follower.follow(web(THIRD))
    world.clock.advance(0)
    assert follower.believed.get(THIRD) == bundle(9, 1, trust_domain=THIRD)
    third = follower.following(THIRD)
    assert third is not None
    assert [problem.code for problem in third.passed_over] == ["foreign-root"]
    assert len(world.events("federation-passed-over")) == 1
    # Once nobody else has it, it is believed with the next answer, which is no other than before.
    follower.forget(OTHER)
    world.refresh(THIRD)
    assert world.told[-1] == (THIRD, world.peers.bundles[THIRD])


def test_what_was_held_is_believed_again_after_a_restart(world: World) -> None:
    had_at = world.clock.now()
    world.follower.follow(web(), bundle(1, 0), had_at - timedelta(seconds=20))
    assert world.follower.believed == BundleSet.of(bundle(1, 0))
    world.follower.startService()
    world.pass_time(39)
    assert world.peers.asked == []
    world.pass_time(2)
    assert world.peers.asked == [OTHER]
    assert world.told == []
    too_old = had_at - 4 * DAY
    world.follower.follow(web(), bundle(1, 0), too_old)
    assert world.follower.believed == BundleSet()


def test_a_machine_that_slept_believes_nobody_until_it_has_asked(world: World) -> None:
    follower = started(world)
    now, slept = world.clock.now, timedelta(days=5)
    follower.now = lambda: now() + slept
    world.clock.advance(10)
    assert world.told[-1] == (OTHER, None)
    world.clock.advance(1)
    assert world.told[-1] == (OTHER, bundle(1, 0))
    assert len(world.peers.asked) == 2


def test_a_clock_that_was_ahead_makes_nothing_last_longer(world: World) -> None:
    world.follower.follow(web(), bundle(1, 0), world.clock.now() + 9 * DAY)
    assert world.other.fetched_at == world.clock.now()


def test_what_was_held_and_is_our_own_by_now_is_not_believed(world: World) -> None:
    ours = evolve(bundle(2), roots=mesh().bundle.roots)
    world.follower.follow(web(), ours, world.clock.now())
    assert world.follower.believed == BundleSet()
    assert [problem.code for problem in world.other.problems] == ["foreign-root"]


def test_who_is_forgotten_is_asked_no_more_and_what_comes_late_is_not_believed(
    world: World,
) -> None:
    follower = started(world)
    world.peers.is_slow = True
    world.pass_time(60)
    (late,) = world.peers.waiting
    assert follower.forget(OTHER)
    assert not follower.forget(OTHER)
    assert late.called
    world.pass_time(1000, 10)
    assert (follower.believed, len(world.peers.waiting), list(follower)) == (BundleSet(), 1, [])
    with pytest.raises(PkiError, match="is not followed"):
        world.refresh()


def test_who_is_forgotten_while_an_administrator_waits_is_told_so(world: World) -> None:
    follower = started(world)
    world.peers.is_slow = True
    outcome: list[object] = []
    Deferred.fromCoroutine(follower.refresh_now(OTHER)).addErrback(outcome.append)
    follower.forget(OTHER)
    world.peers.waiting[0].callback(FederatedDocument(bundle(2, 1)))
    (failure,) = outcome
    assert isinstance(failure, Failure)
    assert "was removed" in str(failure.value)
    assert (follower.believed, len(world.told)) == (BundleSet(), 1)


def test_what_is_said_anew_replaces_what_was_said(world: World) -> None:
    follower = started(world)
    other_place = evolve(web(), url="https://elsewhere.example/bundle")
    follower.follow(other_place, bundle(1, 0), world.clock.now())
    (state,) = follower
    assert state.relationship == other_place
    world.pass_time(60)
    assert len(world.peers.asked) == 2


def test_a_thousand_are_no_herd(world: World) -> None:
    many = [TrustDomain(f"d{n}.example") for n in range(1000)]
    for domain in many:
        world.peers.bundles[domain] = TrustBundle(domain, (), 1, 5)
        world.follower.follow(web(domain))
    world.follower.startService()
    busiest, before = 0, 0
    for second in range(200):
        world.clock.advance(1)
        busiest = max(busiest, len(world.peers.asked) - before)
        before = len(world.peers.asked)
        if second == 101:
            assert set(world.peers.asked) == set(many)
    # Each wants to be asked every 5 seconds; together they are asked about ten times a second.
    assert 1500 < len(world.peers.asked) < 2600
    assert busiest < 40


def test_only_so_many_are_asked_at_once_and_a_slow_one_keeps_nobody_else_waiting_for_ever(
    world: World,
) -> None:
    world.peers.is_slow = True
    many = [TrustDomain(f"d{n}.example") for n in range(20)]
    world.follower.startService()
    for domain in many:
        world.follower.follow(web(domain))
    world.clock.advance(0)
    assert (len(world.peers.asked), world.peers.at_once) == (8, 8)
    for answer in world.peers.waiting:
        answer.errback(BadBundle("slow"))
    assert (len(world.peers.asked), world.peers.at_once) == (20, 8)


def test_many_that_fail_at_once_do_so_one_after_the_other(world: World) -> None:
    world.peers.bundles = {}
    many = [TrustDomain(f"d{n}.example") for n in range(500)]
    world.follower.startService()
    for domain in many:
        world.peers.bundles[domain] = BadBundle("no")
        world.follower.follow(web(domain))
    world.clock.advance(0)
    assert len(world.peers.asked) == 500


def test_a_bug_of_a_listener_or_of_ours_stops_nothing(
    world: World,
) -> None:
    world.follower.on_bundle = lambda *_: 1 / 0
    follower = started(world)
    world.peers.bundles = {}
    world.pass_time(70)
    assert [problem.code for problem in world.other.problems] == ["internal"]
    world.peers.bundles[OTHER] = bundle(2, 0)
    world.refresh()
    assert follower.believed == BundleSet.of(bundle(2, 0))
    assert len(world.events("federation-broke")) >= 2


def test_a_listener_may_forget_whom_it_hears_of(world: World) -> None:
    forget: Callable[..., object] = lambda domain, _: world.follower.forget(domain)  # noqa: E731
    world.follower.on_bundle = forget
    started(world)
    assert list(world.follower) == []


def test_it_stops_and_starts_again(world: World) -> None:
    follower = started(world)
    world.peers.is_slow = True
    world.pass_time(60)
    follower.stopService()
    assert world.peers.waiting[0].called
    world.peers.is_slow = False
    follower.startService()
    world.pass_time(60)
    assert 3 <= len(world.peers.asked) <= 4
    assert follower.believed == BundleSet.of(bundle(1, 0))
