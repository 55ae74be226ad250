"""Rotation under a clock that the test moves: what is asked of the CA, when, and what serves meanwhile."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pki.errors import Problem
from pki.jwt_svid.jwks import JwtAuthority
from pki.keys import KeyAlgorithm, MemoryKey
from pki.renewal import BACKOFF_LAST
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import Purpose, X509Svid
from tests.authorities import BACKEND, HOUR, MESH, NOW, OTHER, Mesh, key, mesh
from tests.twisted_mesh.peers import Connected, peer_of
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.identity import manager as manager_module
from twisted_mesh.identity.manager import CertificateManager, Preparation
from twisted_mesh.interfaces import Identity, ISource, TrustUpdate
from twisted_mesh.revocation.feed import LONGEST_PAUSE, POLL, Feed
from twisted_mesh.runtime.clock import Now
from twisted_mesh.tls.alerts import Unreachable
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness, OnStale
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TICK, TrustStore
from twisted_mesh.trust.trust import Trust

AWAY = Unreachable(Problem("unreachable", "nobody answers", "start it"))


@implementer(ISource)
@define(eq=False, slots=False)
class FakeCa:
    """A CA in this process: it issues, or is away, as the test says."""

    clock: Clock
    ca: Mesh = field(factory=mesh)
    lifetime: timedelta = HOUR
    away: bool = False
    late: bool = False
    bundles: BundleSet | None = None
    asked: list[float] = field(factory=list)
    keys: list[MemoryKey] = field(factory=list)
    pending: "list[Deferred[None]]" = field(factory=list)
    news: list[Revocation] = field(factory=list)
    is_of_all: bool = True
    """Whether those who come with an identity are all."""
    told: BundleSet | None = None
    """By the feed."""
    renewals: int = 0
    where: str = "the test"

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.clock.seconds())

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        self.asked.append(self.clock.seconds())
        if self.late:
            waiting: Deferred[None] = Deferred()
            self.pending.append(waiting)
            await waiting
        if self.away:
            raise AWAY
        fresh = key(f"rotation {len(self.keys)}", algorithm)
        self.keys.append(fresh)
        issuing = self.ca.issuing
        draft = issuing.draft(fresh.public_key, BACKEND, self.now(), self.lifetime)
        leaf = await issuing.sign(draft)
        svid = X509Svid.assemble((leaf, *issuing.intermediates), fresh)
        bundles = self.bundles or self.ca.bundles
        return Identity(svid, bundles, self.now(), is_of_all=self.is_of_all)

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        if self.away:
            raise AWAY
        found, self.news = self.news, []
        return TrustUpdate(found, bundles=self.told)

    def renewed(self) -> None:
        self.renewals += 1


@define(eq=False)
class Rig:
    """A manager of one server's identity, on a clock of the test's own."""

    clock: Clock = field(factory=Clock)
    rotate_at: float = 0.5
    log: RecordingLog = field(factory=RecordingLog)
    registry: ConnectionRegistry = field(factory=ConnectionRegistry)
    contexts: ContextFactory = field(factory=lambda: ContextFactory(Role(serves=True)))
    heard: list[int] = field(factory=list)
    """Serials, as whoever listens hears of them."""
    preparations: list[Preparation] = field(factory=list)
    source: FakeCa = field(init=False)
    wall: Now = field(init=False)
    """The wall clock of all of them."""
    store: TrustStore = field(init=False)
    feed: Feed = field(init=False)
    manager: CertificateManager = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.source = FakeCa(self.clock)
        self.wall = self.source.now
        everyone = (SpiffePattern.parse("spiffe://mesh.local/**"),)
        known = Freshness(seconds=self.clock.seconds)
        judge = Judge(self.source.now, Trust(allow=everyone), known)
        self.store = TrustStore(judge, self.registry, self.clock, self.now, self.log, [self])
        draw = random.Random(7)
        self.feed = Feed(
            self.source,
            self.store.update,
            known,
            self.clock,
            self.now,
            self.log,
            draw,
        )
        self.manager = CertificateManager(
            self.source,
            self.store,
            [self.contexts],
            self.clock,
            self.now,
            self.log,
            rotate_at=self.rotate_at,
            feed=self.feed,
            preparations=self.preparations,
            draw=draw,
        )

    def now(self) -> datetime:
        return self.wall()

    def start(self) -> None:
        for service in (self.store, self.feed, self.manager):
            service.startService()

    def stop(self) -> None:
        for service in (self.manager, self.feed, self.store):
            service.stopService()

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        found = self.store.trust.revocations
        assert all(found.find(r.issuer, r.serial) for r in revocations), "not before it is believed"
        self.heard += [revocation.serial for revocation in revocations]

    def pass_time(self, seconds: float, step: float = TICK) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_fake_ca_of_these_tests_is_a_source(rig: Rig) -> None:
    assert verifyObject(ISource, rig.source)


def test_the_first_certificate_is_asked_for_at_once(rig: Rig) -> None:
    assert rig.contexts.current() is None
    got: list[X509Svid] = []
    rig.manager.ready().addCallback(got.append)
    rig.start()
    assert [svid.spiffe_id for svid in got] == [BACKEND]
    assert rig.contexts.current() is not None
    rig.stop()


def test_it_is_renewed_around_half_of_its_life_and_not_before(rig: Rig) -> None:
    rig.start()
    rig.pass_time(0.474 * 3600, step=10)
    assert len(rig.source.asked) == 1
    rig.pass_time(0.052 * 3600, step=10)
    assert len(rig.source.asked) == 2


def test_it_is_renewed_at_once_where_that_is_asked_for(rig: Rig) -> None:
    rig.manager.renew_now()  # there is nothing to renew yet
    rig.start()
    rig.pass_time(1)
    assert rig.manager.rotations == 0
    rig.manager.renew_now()
    rig.pass_time(TICK)
    assert rig.manager.rotations == 1
    rig.pass_time(1)
    assert rig.manager.rotations == 1


def test_what_a_source_has_by_itself_is_taken_at_once_through_any_pause(rig: Rig) -> None:
    rig.source.away = True
    rig.start()
    rig.pass_time(20)
    rig.source.away = False
    rig.manager.take_fresh()
    rig.pass_time(TICK)
    assert rig.manager.svid is not None
    rig.manager.take_fresh()
    rig.pass_time(TICK)
    assert rig.manager.rotations == 1
    assert "the CA has a new one" in rig.log.text("rotation-triggered")


def test_what_is_taken_away_is_shown_no_more_until_there_is_another(rig: Rig) -> None:
    rig.manager.give_up(AWAY)  # there is nothing to give up yet
    rig.start()
    assert rig.contexts.current() is not None
    rig.source.away = True
    rig.manager.give_up(AWAY)
    rig.manager.give_up(AWAY)
    assert rig.contexts.current() is None
    assert rig.store.freshness.refuses, "open connections end too"
    assert rig.log.count("identity-taken-away") == 1
    assert "nobody answers" in rig.log.text("identity-taken-away")
    rig.pass_time(5)
    assert rig.contexts.current() is None
    rig.source.away = False
    rig.manager.take_fresh()
    rig.pass_time(1)
    assert rig.contexts.current() is not None
    assert not rig.store.freshness.refuses
    assert rig.log.count("identity-recovered") == 1
    rig.stop()


def test_a_short_life_counts_from_its_issue_and_not_from_the_backdated_start(rig: Rig) -> None:
    rig.source.lifetime = timedelta(seconds=4)
    rig.start()
    rig.pass_time(1.8)
    assert len(rig.source.asked) == 1
    rig.pass_time(10)
    assert 4 <= len(rig.source.asked) <= 7


def test_the_renewal_point_is_drawn_once_per_certificate(rig: Rig) -> None:
    rig.start()
    point = rig.manager.next_rotation
    rig.pass_time(600)
    assert rig.manager.next_rotation == point


def test_a_fleet_spreads_around_the_renewal_point() -> None:
    points = set()
    for seed in range(20):
        rig = Rig()
        rig.manager.draw = random.Random(seed)
        rig.start()
        assert rig.manager.next_rotation is not None
        points.add(rig.manager.next_rotation)
    assert len(points) == 20
    assert max(points) - min(points) > timedelta(seconds=60)


def test_each_renewal_makes_a_new_key_and_swaps_a_whole_new_context(rig: Rig) -> None:
    rig.source.lifetime = timedelta(seconds=10)
    rig.start()
    contexts = [rig.contexts.current()]
    for _ in range(3):
        rig.pass_time(5.5)
        contexts.append(rig.contexts.current())
    numbers = {k.public_key.public_numbers() for k in rig.source.keys}
    assert len(numbers) == len(rig.source.keys) == 4
    assert len({id(found[0]) for found in contexts if found}) == 4
    assert [found[1] for found in contexts if found] == [1, 2, 3, 4]


def test_the_old_certificate_serves_while_the_ca_is_away(rig: Rig) -> None:
    rig.start()
    before = rig.contexts.current()
    rig.source.away = True
    rig.pass_time(3500, step=5)
    assert rig.contexts.current() == before
    assert rig.log.count("renewal-failed") > 10
    assert "good for" in rig.log.text("renewal-failed")


def test_at_its_end_new_work_is_refused_loudly_and_once(rig: Rig) -> None:
    rig.start()
    rig.source.away = True
    rig.pass_time(3700, step=1)
    assert rig.contexts.current() is None
    assert rig.log.count("identity-expired") == 1


def test_it_recovers_by_itself_when_the_ca_returns(rig: Rig) -> None:
    rig.start()
    rig.source.away = True
    rig.pass_time(4000, step=1)
    rig.source.away = False
    rig.pass_time(BACKOFF_LAST + 2 * TICK)
    assert rig.contexts.current() is not None
    assert rig.log.count("identity-recovered") == 1
    assert rig.manager.seconds_left > 3000


def test_an_expired_certificate_is_renewed_as_soon_as_the_ca_is_heard_of_again(rig: Rig) -> None:
    rig.start()
    rig.source.away = True
    rig.pass_time(4000, step=1)
    rig.source.away = False
    rig.pass_time(LONGEST_PAUSE + 2 * TICK)
    assert rig.contexts.current() is not None


def test_attempts_are_spaced_out_at_the_start_too(rig: Rig) -> None:
    rig.source.away = True
    rig.start()
    rig.pass_time(300)
    gaps = [b - a for a, b in zip(rig.source.asked, rig.source.asked[1:], strict=False)]
    assert 12 < len(rig.source.asked) < 60
    assert max(gaps) <= BACKOFF_LAST + 2 * TICK
    assert gaps[0] < 1 < min(gaps[8:])


def test_a_short_lived_certificate_gets_many_attempts_before_it_ends(rig: Rig) -> None:
    rig.source.lifetime = timedelta(seconds=20)
    rig.start()
    rig.source.away = True
    rig.pass_time(20)
    assert len(rig.source.asked) >= 6


def test_only_one_renewal_is_under_way_at_a_time(rig: Rig) -> None:
    rig.source.late = True
    rig.start()
    rig.pass_time(30)
    assert len(rig.source.asked) == 1
    rig.source.pending.pop().callback(None)
    assert rig.contexts.current() is not None


def test_the_clock_goes_on_being_watched_while_a_renewal_hangs(rig: Rig) -> None:
    rig.source.lifetime = timedelta(seconds=10)
    rig.start()
    rig.source.late = True
    rig.pass_time(15)
    assert rig.contexts.current() is None
    assert rig.log.count("identity-expired") == 1


def test_a_certificate_that_peers_would_refuse_is_not_put_to_use(rig: Rig) -> None:
    rig.source.bundles = mesh(OTHER).bundles
    rig.start()
    assert rig.contexts.current() is None
    assert "unknown-trust-domain" in rig.log.text("renewal-failed")


def test_bundles_are_refreshed_at_every_renewal(rig: Rig) -> None:
    rig.start()
    rig.source.bundles = BundleSet.of(mesh().bundle, mesh(OTHER).bundle)
    rig.pass_time(2000, step=10)
    assert rig.store.judge.trust.bundles.get(OTHER) is not None


def test_a_wall_clock_put_back_an_hour_does_not_put_off_the_retries(rig: Rig) -> None:
    rig.source.away = True
    rig.start()
    rig.pass_time(10)
    rig.wall = lambda: NOW - HOUR + timedelta(seconds=rig.clock.seconds())
    before = len(rig.source.asked)
    rig.pass_time(2 * BACKOFF_LAST)
    assert len(rig.source.asked) > before


def test_revocations_are_asked_for_every_second_and_believed(rig: Rig) -> None:
    rig.start()
    ca = mesh()
    leaf = ca.leaf()
    revocation = Revocation(
        ca.issuing.key_id, leaf.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + HOUR
    )
    chain = (leaf, *ca.issuing.intermediates)
    assert rig.store.judge.verdict(chain, Purpose.CLIENT).ok
    rig.source.news = [revocation]
    rig.pass_time(POLL + TICK)
    verdict = rig.store.judge.verdict(chain, Purpose.CLIENT)
    assert [problem.code for problem in verdict.problems] == ["revoked"]


def connect(rig: Rig, connection: Connected, code: str) -> Connected:
    """Have it open, with ``code`` to object from now on."""
    connection.objecting = (Problem(code, "in this test"),)
    rig.registry.add(connection)
    return connection


def test_who_is_connected_by_what_is_revoked_is_severed_at_once(rig: Rig) -> None:
    rig.start()
    ca = mesh()
    gone, other = (connect(rig, Connected(peer_of(ca.leaf())), "revoked") for _ in range(2))
    serial = gone.peer.leaf.serial_number  # type: ignore[union-attr]
    revocation = Revocation(ca.issuing.key_id, serial, NOW, Reason.KEY_COMPROMISE, NOW + HOUR)
    before = rig.store.judge.trust.generation
    rig.store.revoked([revocation])
    assert (gone.severed, other.severed) == (["revoked"], [])
    rig.store.revoked([])
    assert rig.store.judge.trust.generation == before + 1


def test_who_expires_is_severed_at_the_next_tick(rig: Rig) -> None:
    rig.start()
    short = connect(rig, Connected(peer_of(mesh().leaf(lifetime=HOUR / 60))), "expired")
    long = connect(rig, Connected(peer_of(mesh().leaf())), "expired")
    rig.pass_time(60)
    assert short.severed == []
    rig.pass_time(2 * TICK)
    assert (short.severed, long.severed) == (["expired"], [])


def test_who_has_expired_by_a_wall_clock_that_was_set_is_severed_too(rig: Rig) -> None:
    rig.start()
    connection = connect(rig, Connected(peer_of(mesh().leaf())), "expired")
    rig.wall = lambda: NOW + 2 * HOUR
    rig.pass_time(TICK)
    assert connection.severed == ["expired"]


def test_peers_that_expire_are_severed_while_our_own_renewal_hangs_or_breaks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.source.late = True
    rig.start()
    monkeypatch.setattr(manager_module.renewal, "next_action", lambda *args: 1 / 0)
    connection = connect(rig, Connected(peer_of(mesh().leaf(lifetime=HOUR / 60))), "expired")
    rig.pass_time(61)
    assert connection.severed == ["expired"]


def test_the_rules_change_while_it_runs_and_cut_whoever_may_no_longer(rig: Rig) -> None:
    rig.start()
    connection = connect(rig, Connected(peer_of(mesh().leaf())), "not-authorized")
    rig.store.allow([SpiffePattern.parse("spiffe://mesh.local/service/*")])
    assert connection.judged == 0
    rig.store.allow([SpiffePattern.parse("spiffe://mesh.local/batch/*")])
    assert connection.severed == ["not-authorized"]
    assert not rig.store.judge.verdict(
        (mesh().leaf(), *mesh().issuing.intermediates), Purpose.CLIENT
    ).ok
    rig.pass_time(2000, step=10)
    assert [str(p) for p in rig.store.judge.trust.allow] == ["spiffe://mesh.local/batch/*"]


def test_a_renewal_that_brings_another_bundle_cuts_who_ends_in_the_old_root(rig: Rig) -> None:
    rig.source.bundles = BundleSet.of(mesh().bundle, mesh(OTHER).bundle)
    rig.start()
    others = connect(rig, Connected(peer_of(mesh(OTHER).leaf(), mesh(OTHER))), "unknown-authority")
    ours = connect(rig, Connected(peer_of(mesh().leaf())), "unknown-authority")
    rig.source.bundles = None
    rig.pass_time(2000, step=10)
    assert (others.severed, ours.judged) == (["unknown-authority"], 0)


def test_who_is_revoked_is_known_before_the_first_context_is_in_use(rig: Rig) -> None:
    ca = mesh()
    leaf = ca.leaf()
    rig.source.news = [
        Revocation(ca.issuing.key_id, leaf.serial_number, NOW, Reason.SUPERSEDED, NOW + HOUR)
    ]
    rig.start()
    assert rig.contexts.current() is not None
    verdict = rig.store.judge.verdict((leaf, *ca.issuing.intermediates), Purpose.CLIENT)
    assert [problem.code for problem in verdict.problems] == ["revoked"]


def test_a_bug_in_a_source_is_logged_and_retried_with_a_pause(rig: Rig) -> None:
    async def broken(algorithm: KeyAlgorithm) -> Identity:
        rig.source.asked.append(rig.clock.seconds())
        raise ZeroDivisionError("a bug")

    rig.source.obtain = broken  # type: ignore[method-assign]
    rig.start()
    rig.pass_time(60)
    assert 3 < len(rig.source.asked) < 20
    assert rig.log.count("renewal-broke") == len(rig.source.asked)


def test_the_same_trouble_is_not_told_at_every_attempt(rig: Rig) -> None:
    rig.source.away = True
    rig.start()
    rig.pass_time(20)
    assert len(rig.source.asked) > 4
    warnings = [e for e in rig.log.events if e["log_level"].name == "warn"]
    assert len(warnings) == 1


def test_a_renewal_asks_again_under_the_fresh_identity(rig: Rig) -> None:
    rig.start()
    assert rig.source.renewals == 1
    rig.pass_time(2000, step=10)
    assert rig.source.renewals == 2


def test_a_bundle_that_the_feed_brings_is_believed_at_once(rig: Rig) -> None:
    rig.start()
    before = rig.contexts.current()
    both = BundleSet.of(mesh().bundle, mesh(OTHER).bundle)
    rig.source.told = both
    rig.pass_time(POLL + TICK)
    assert rig.store.judge.trust.bundles == both
    after = rig.contexts.current()
    assert after != before
    rig.pass_time(10 * POLL)
    assert rig.contexts.current() == after, "it is the same one that comes again"
    assert len(rig.source.asked) == 1


@pytest.mark.parametrize("is_of_all", [True, False])
def test_a_bundle_that_was_told_after_an_identity_was_made_is_not_put_back(
    rig: Rig, is_of_all: bool
) -> None:
    """The source has told it, and waits for something newer before it speaks again."""
    new = mesh(root_key=key("the next root"), issuing_key=key("the next issuer"))
    both = BundleSet.of(TrustBundle(MESH, (*mesh().bundle.roots, *new.bundle.roots), 2))
    rig.source.is_of_all, rig.source.told = is_of_all, both
    rig.start()
    assert rig.manager.svid is not None
    assert rig.store.judge.trust.bundles == both
    assert rig.log.count("root-gone") == 0


def test_what_is_told_while_a_renewal_is_prepared_is_not_put_back(rig: Rig) -> None:
    waiting: Deferred[None] = Deferred()

    async def prepare(identity: Identity) -> None:
        if rig.manager.svid is not None:
            await waiting

    rig.preparations.append(prepare)
    rig.start()
    rig.manager.renew_now()
    rig.pass_time(TICK)
    with_other = BundleSet.of(mesh().bundle, mesh(OTHER).bundle)
    rig.manager.follow(TrustUpdate(bundles=with_other))
    waiting.callback(None)
    assert rig.manager.rotations == 1
    assert rig.store.judge.trust.bundles == with_other
    # What was told before an identity is asked for is the older.
    rig.source.bundles = mesh().bundles
    rig.manager.renew_now()
    rig.pass_time(TICK)
    assert rig.manager.rotations == 2
    assert rig.store.judge.trust.bundles == mesh().bundles


def test_a_key_for_tokens_that_the_feed_brings_cuts_nobody(rig: Rig) -> None:
    rig.start()
    home = mesh()
    staying = connect(rig, Connected(peer_of(home.leaf(), home)), "unknown-authority")
    authority = JwtAuthority.of(key("jwt").public_key)  # type: ignore[arg-type]
    with_key = evolve(home.bundle, sequence=9, jwt_authorities=(authority,))
    rig.source.told = BundleSet.of(with_key)
    rig.pass_time(POLL + TICK)
    believed = rig.store.judge.trust.bundles.get(home.trust_domain)
    assert believed == with_key
    assert staying.severed == []
    assert len(rig.source.asked) == 1
    assert rig.contexts.current() is not None


def test_a_root_that_goes_takes_who_rests_on_it_along(rig: Rig) -> None:
    old, new = mesh(), mesh(root_key=key("another root"), issuing_key=key("another issuer"))
    both = BundleSet.of(TrustBundle(old.trust_domain, (*new.bundle.roots, *old.bundle.roots)))
    rig.source.ca, rig.source.bundles = new, both
    rig.start()
    gone = connect(rig, Connected(peer_of(old.leaf(), old)), "unknown-authority")
    staying = connect(rig, Connected(peer_of(new.leaf(), new)), "unknown-authority")
    rig.source.told = new.bundles
    rig.pass_time(POLL + TICK)
    assert (gone.severed, staying.severed) == (["unknown-authority"], [])


def test_a_bundle_under_which_our_own_certificate_is_none_has_it_renewed(rig: Rig) -> None:
    rig.start()
    other = mesh(root_key=key("another root"), issuing_key=key("another issuer"))
    rig.source.told = rig.source.bundles = other.bundles
    rig.pass_time(POLL + TICK)
    assert rig.store.judge.trust.bundles == mesh().bundles, "until there is one that fits"
    assert rig.contexts.current() is not None
    assert rig.log.count("renewal-failed") >= 1
    rig.source.ca = other
    rig.pass_time(2 * BACKOFF_LAST)
    assert rig.store.judge.trust.bundles == other.bundles


@pytest.mark.parametrize("told", [BundleSet(), BundleSet.of(TrustBundle(MESH, ()))])
def test_an_answer_without_a_root_of_ours_changes_nothing(rig: Rig, told: BundleSet) -> None:
    rig.start()
    rig.source.told = told
    rig.pass_time(10 * POLL)
    assert rig.store.judge.trust.bundles == mesh().bundles
    assert len(rig.source.asked) == 1


# Freshness.


def stale_after(rig: Rig, seconds: int, on_stale: OnStale = OnStale.FAIL_CLOSED) -> None:
    known = rig.store.judge.freshness
    known.max_age, known.on_stale = timedelta(seconds=seconds), on_stale


def test_once_revocations_are_too_old_nobody_is_let_in_and_nobody_stays(rig: Rig) -> None:
    rig.start()
    stale_after(rig, 10)
    connections = [
        connect(rig, Connected(peer_of(mesh().leaf())), "stale-revocation") for _ in range(40)
    ]
    chain = (mesh().leaf(), *mesh().issuing.intermediates)
    assert rig.store.judge.verdict(chain, Purpose.CLIENT).ok
    before = rig.store.judge.trust.generation
    rig.source.away = True
    rig.pass_time(9)
    assert all(connection.severed == [] for connection in connections)
    rig.pass_time(2)
    assert all(connection.severed == ["stale-revocation"] for connection in connections)
    problems = rig.store.judge.verdict(chain, Purpose.CLIENT).problems
    assert [problem.code for problem in problems] == ["stale-revocation"]
    assert rig.store.judge.trust.generation == before + 1, "handshakes under way are judged again"
    rig.source.away = False
    rig.pass_time(LONGEST_PAUSE + TICK)
    assert rig.store.judge.verdict(chain, Purpose.CLIENT).ok
    assert rig.log.count("revocations-fresh") == 1


def test_what_was_revoked_meanwhile_is_known_before_anybody_is_let_in_again(rig: Rig) -> None:
    rig.start()
    stale_after(rig, 10)
    ca = mesh()
    leaf = ca.leaf()
    chain = (leaf, *ca.issuing.intermediates)
    revocation = Revocation(
        ca.issuing.key_id, leaf.serial_number, NOW, Reason.KEY_COMPROMISE, NOW + HOUR
    )
    rig.source.away = True
    rig.pass_time(20)
    rig.source.away, rig.source.news = False, [revocation]
    seen = set()
    for _ in range(50):
        rig.pass_time(0.1)
        codes = [p.code for p in rig.store.judge.verdict(chain, Purpose.CLIENT).problems]
        seen.add(tuple(codes))
    assert seen == {("stale-revocation",), ("revoked",)}


def test_with_grace_all_goes_on(rig: Rig) -> None:
    rig.start()
    stale_after(rig, 10, OnStale.GRACE)
    connection = connect(rig, Connected(peer_of(mesh().leaf())), "stale-revocation")
    rig.source.away = True
    rig.pass_time(60)
    assert connection.severed == []
    assert rig.store.judge.freshness.is_stale
    assert rig.log.count("revocations-too-old") == 1


def test_without_a_limit_revocations_are_too_old_once_our_own_certificate_has_ended(
    rig: Rig,
) -> None:
    rig.start()
    connection = connect(
        rig, Connected(peer_of(mesh().leaf(lifetime=5 * HOUR))), "stale-revocation"
    )
    rig.source.away = True
    rig.pass_time(3590, step=5)
    assert connection.severed == []
    rig.pass_time(20)
    assert connection.severed == ["stale-revocation"]
    rig.source.away = False
    rig.pass_time(LONGEST_PAUSE + BACKOFF_LAST)
    assert not rig.store.judge.freshness.is_stale


def test_a_wall_clock_that_is_set_makes_nothing_older_or_younger(rig: Rig) -> None:
    rig.start()
    stale_after(rig, 100)
    rig.source.away = True
    rig.wall = lambda: NOW - HOUR
    rig.pass_time(99)
    assert not rig.store.judge.freshness.is_stale
    rig.pass_time(2)
    assert rig.store.judge.freshness.is_stale


def test_revocations_survive_a_renewal(rig: Rig) -> None:
    rig.start()
    ca = mesh()
    revocation = Revocation(ca.issuing.key_id, 5, NOW, Reason.UNSPECIFIED, NOW + 10 * HOUR)
    rig.store.revoked([revocation])
    rig.pass_time(2000, step=10)
    assert len(rig.source.asked) == 2
    assert rig.store.judge.trust.revocations.find(ca.issuing.key_id, 5) == revocation


def test_that_revocations_cannot_be_refreshed_is_said_once_and_so_is_the_recovery(rig: Rig) -> None:
    rig.start()
    rig.source.away = True
    rig.pass_time(20)
    assert rig.log.count("revocations-stale") == 1
    rig.source.away = False
    rig.pass_time(3)
    assert rig.log.count("revocations-fresh") == 1


def test_the_log_tells_what_a_rotation_did(rig: Rig) -> None:
    rig.start()
    rig.pass_time(2000, step=10)
    text = rig.log.all_text()
    for fact in (
        "Certificate rotation triggered (50% lifetime reached)",
        "New certificate issued:",
        "Serial: ",
        "Valid: ",
        "Hot-swapping certificate...",
        "Active connections: 0 (will use new cert for new connections)",
        "Certificate rotation complete.",
        "Next rotation: ",
    ):
        assert fact in text


def test_a_stopped_manager_asks_for_nothing_more(rig: Rig) -> None:
    rig.source.late = True
    rig.start()
    rig.stop()
    rig.pass_time(100)
    assert len(rig.source.asked) == 1
    assert rig.clock.getDelayedCalls() == []
    assert rig.log.events == []


def test_one_broken_tick_does_not_end_the_rotation(rig: Rig) -> None:
    rig.start()
    wall, rig.wall = rig.wall, lambda: 1 / 0  # type: ignore[assignment, return-value]
    rig.pass_time(1)
    rig.wall = wall
    assert rig.log.count("tick-broke") > 0
    rig.pass_time(2000, step=10)
    assert len(rig.source.asked) == 2


def test_the_issuing_ca_before_the_present_one_is_still_known(rig: Rig) -> None:
    """A peer that forgets its intermediates is told so, whichever of the two its leaf is of."""
    rig.source.lifetime = timedelta(seconds=10)
    rig.start()
    old = rig.source.ca
    rig.source.ca = mesh(issuing_key=key("the next issuing CA"))
    rig.pass_time(6)
    assert len(rig.source.asked) == 2
    for ca in (old, rig.source.ca):
        leaf = ca.leaf(now=rig.source.now())
        verdict = rig.store.judge.verdict([leaf], Purpose.CLIENT)
        assert [problem.code for problem in verdict.problems] == ["incomplete-chain"]


def test_what_prepares_an_identity_is_awaited_before_each_is_used(rig: Rig) -> None:
    prepared: list[tuple[Identity, X509Svid | None]] = []
    held: list[Deferred[None]] = []

    async def prepare(identity: Identity) -> None:
        prepared.append((identity, rig.manager.svid))
        held.append(Deferred())
        await held[-1]

    rig.preparations.append(prepare)
    rig.start()
    rig.pass_time(1)
    assert rig.contexts.current() is None
    held[0].callback(None)
    first = rig.manager.svid
    assert rig.contexts.current() is not None
    rig.pass_time(0.53 * 3600, step=10)
    assert rig.manager.svid is first
    assert prepared[1][1] is first
    held[1].callback(None)
    assert rig.manager.svid is prepared[1][0].svid
    rig.stop()


def test_who_wants_to_hears_what_is_revoked_once_it_is_believed(rig: Rig) -> None:
    rig.store.revoked([Revocation("issuer", 5, NOW, Reason.UNSPECIFIED, NOW + HOUR)])
    rig.store.revoked([Revocation("issuer", 5, NOW, Reason.UNSPECIFIED, NOW + HOUR)])
    assert rig.heard == [5]


# The three of them, each with or without the others.


def test_a_bundle_from_elsewhere_is_in_the_contexts_and_outlives_a_renewal(rig: Rig) -> None:
    rig.store.believe_bundle(mesh(OTHER).bundle)  # before there is an identity
    rig.start()
    both = BundleSet.of(mesh().bundle, mesh(OTHER).bundle)
    assert rig.store.trust.bundles == both
    rig.source.told = mesh().bundles
    rig.pass_time(POLL + TICK)
    rig.pass_time(2000, step=10)
    assert len(rig.source.asked) == 2
    assert rig.store.trust.bundles == both, "the source does not speak for it"
    before = rig.contexts.current()
    assert rig.store.forget(OTHER)
    assert rig.contexts.current() != before
    assert rig.store.trust.bundles == mesh().bundles


def test_nobody_can_take_away_the_root_of_our_own_certificate(rig: Rig) -> None:
    rig.start()
    before = rig.contexts.current()
    assert not rig.store.forget(MESH)
    rig.pass_time(1)
    assert (rig.contexts.current(), len(rig.source.asked)) == (before, 1), "none could be better"
    other = mesh(root_key=key("another root"), issuing_key=key("another issuer"))
    rig.source.ca = other
    assert not rig.store.believe_bundle(other.bundle), (
        "not before our certificate is one of that root"
    )
    rig.pass_time(TICK)
    assert rig.store.trust.bundles == other.bundles
    assert len(rig.source.asked) == 2


def test_who_serves_nobody_believes_bundles_and_has_contexts_of_them_again_with_a_certificate(
    rig: Rig,
) -> None:
    rig.start()
    rig.source.away = True
    rig.pass_time(4000, step=1)
    assert rig.store.believe_bundle(mesh(OTHER).bundle)
    assert not rig.store.forget(MESH)
    assert rig.contexts.current() is None
    rig.source.away = False
    rig.pass_time(LONGEST_PAUSE + 2 * TICK)
    assert rig.contexts.current() is not None
    assert rig.store.trust.bundles.get(OTHER) is not None


def test_an_identity_is_kept_fresh_without_a_feed(rig: Rig) -> None:
    source = FakeCa(rig.clock, news=[Revocation("ab", 5, NOW, Reason.UNSPECIFIED, NOW + HOUR)])
    store = TrustStore(Judge(source.now), rig.registry, rig.clock, source.now, rig.log)
    manager = CertificateManager(
        source, store, [rig.contexts], rig.clock, source.now, rig.log, draw=random.Random(7)
    )
    manager.startService()
    rig.pass_time(2000, step=10)
    assert (len(source.asked), manager.rotations) == (2, 1)
    assert source.news and not source.renewals, "nobody has asked"
    source.away = True
    rig.pass_time(3700, step=5)
    assert rig.contexts.current() is None
    assert not store.freshness.refuses, "nothing was known that could be too old"
    manager.stopService()
    assert rig.clock.getDelayedCalls() == []
