"""The trust store: one door for what is believed, whoever changes it, with an identity or without."""

from collections.abc import Callable, Sequence

import pytest
from attrs import define, evolve, field
from twisted.internet.task import Clock
from zope.interface import implementer
from zope.interface.verify import verifyObject

from pki.errors import Problem
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import Purpose
from tests.authorities import HOUR, MESH, NOW, OTHER, Mesh, key, mesh
from tests.twisted_mesh.peers import Connected, peer_of
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.interfaces import IRevocationListener, TrustUpdate
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TICK, TrustStore
from twisted_mesh.trust.trust import Trust

THIRD = TrustDomain("third.example")
REPLACED = TrustBundle(OTHER, mesh(OTHER, root_key=key("the next root of the other")).bundle.roots)


@define(eq=False)
class User:
    """Has made something of the roots, and can make it anew or not."""

    is_able: bool = True
    prepared: list[BundleSet] = field(factory=list)
    used: list[BundleSet] = field(factory=list)

    def prepare(self, trust: Trust) -> Callable[[], None] | None:
        self.prepared.append(trust.bundles)
        return (lambda: self.used.append(trust.bundles)) if self.is_able else None


@implementer(IRevocationListener)
@define(eq=False)
class Listener:
    serials: list[int] = field(factory=list)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        self.serials += [revocation.serial for revocation in revocations]


@define(eq=False)
class Rig:
    clock: Clock = field(factory=Clock)
    log: RecordingLog = field(factory=RecordingLog)
    listener: Listener = field(factory=Listener)
    user: User = field(factory=User)
    store: TrustStore = field(init=False)

    def __attrs_post_init__(self) -> None:
        everyone = (
            SpiffePattern.parse("spiffe://mesh.local/**"),
            SpiffePattern.parse(f"{OTHER.id}/**"),
        )
        judge = Judge(lambda: NOW, Trust(mesh().bundles, allow=everyone), Freshness())
        registry = ConnectionRegistry()
        self.store = TrustStore(judge, registry, self.clock, lambda: NOW, self.log, [self.listener])
        self.store.users.append(self.user)

    @property
    def bundles(self) -> BundleSet:
        return self.store.trust.bundles

    def connect(self, of: Mesh, code: str) -> Connected:
        """Have a peer of that mesh connected, with ``code`` to object from now on."""
        connection = Connected(peer_of(of.leaf(), of))
        connection.objecting = (Problem(code, "in this test"),)
        self.store.registry.add(connection)
        return connection


@pytest.fixture
def rig() -> Rig:
    return Rig()


def revocation(serial: int) -> Revocation:
    return Revocation(mesh().issuing.key_id, serial, NOW, Reason.UNSPECIFIED, NOW + HOUR)


def test_it_hears_of_revocations_and_tells_each_once(rig: Rig) -> None:
    assert verifyObject(IRevocationListener, rig.store)
    rig.store.revoked([revocation(1), revocation(2)])
    rig.store.revoked([revocation(1)])
    rig.store.revoked([])
    assert rig.listener.serials == [1, 2]
    assert rig.user.prepared == [], "no root has changed"


def test_a_bundle_replaces_that_of_its_trust_domain_and_no_other(rig: Rig) -> None:
    assert rig.store.believe_bundle(mesh(OTHER).bundle)
    ours = rig.connect(mesh(), "unknown-authority")
    theirs = rig.connect(mesh(OTHER), "unknown-authority")
    assert rig.store.believe_bundle(REPLACED)
    assert rig.bundles == BundleSet.of(mesh().bundle, REPLACED)
    assert (ours.judged, theirs.severed) == (0, ["unknown-authority"])
    assert rig.user.used[-1] == rig.bundles


def test_the_log_says_which_roots_come_and_go(rig: Rig) -> None:
    assert rig.store.believe_bundle(mesh(OTHER).bundle)
    assert rig.log.count("root-believed") == 0, "the first of a trust domain is no other one"
    assert rig.store.believe_bundle(REPLACED)
    assert f"Another root of {OTHER} is believed" in rig.log.text("root-believed")
    assert f"A root of {OTHER} is believed no more" in rig.log.text("root-gone")
    assert rig.store.believe_bundle(REPLACED)
    assert (rig.log.count("root-believed"), rig.log.count("root-gone")) == (1, 1)


def test_the_same_bundle_again_changes_nothing(rig: Rig) -> None:
    assert rig.store.believe_bundle(mesh().bundle)
    assert rig.store.trust.generation == 0
    assert rig.user.prepared == []


def test_a_trust_domain_that_is_forgotten_is_believed_no_more(rig: Rig) -> None:
    rig.store.believe_bundle(mesh(OTHER).bundle)
    chain = (mesh(OTHER).leaf(), *mesh(OTHER).issuing.intermediates)
    assert rig.store.judge.verdict(chain, Purpose.CLIENT).ok
    theirs = rig.connect(mesh(OTHER), "unknown-trust-domain")
    assert rig.store.forget(OTHER)
    assert rig.bundles == mesh().bundles
    assert theirs.severed == ["unknown-trust-domain"]
    assert not rig.store.judge.verdict(chain, Purpose.CLIENT).ok
    assert rig.store.forget(THIRD), "it never was believed"


def test_a_source_replaces_what_it_has_said_and_nothing_from_elsewhere(rig: Rig) -> None:
    third = TrustBundle(THIRD, mesh(OTHER).bundle.roots)
    rig.store.believe_bundle(mesh(OTHER).bundle)
    assert rig.store.update(TrustUpdate(bundles=BundleSet.of(mesh().bundle, third)))
    assert {bundle.trust_domain for bundle in rig.bundles} == {MESH, OTHER, THIRD}
    assert rig.store.update(TrustUpdate(bundles=mesh().bundles)), "it leaves one out"
    assert {bundle.trust_domain for bundle in rig.bundles} == {MESH, OTHER}
    assert not rig.store.update(TrustUpdate(bundles=mesh().bundles))
    assert not rig.store.update(TrustUpdate()), "it says nothing of bundles"
    rig.store.forget(OTHER)
    rig.store.update(TrustUpdate(bundles=BundleSet.of(mesh().bundle, mesh(OTHER).bundle)))
    rig.store.update(TrustUpdate(bundles=mesh().bundles))
    assert rig.bundles == mesh().bundles, "what is forgotten is the source's again"


def test_all_who_use_the_roots_are_ready_before_they_count(rig: Rig) -> None:
    unable = User(is_able=False)
    rig.store.users.append(unable)
    assert not rig.store.believe_bundle(mesh(OTHER).bundle)
    assert not rig.store.forget(MESH)
    assert not rig.store.update(TrustUpdate(bundles=BundleSet.of(REPLACED)))
    assert rig.bundles == mesh().bundles
    # The last one changes two trust domains, and each was tried by itself too.
    assert len(rig.user.prepared) == 5 and rig.user.used == []
    assert rig.store.update(TrustUpdate([revocation(3)], bundles=BundleSet.of(REPLACED)))
    assert rig.listener.serials == [3], "that needs nobody to be ready"
    assert rig.bundles == mesh().bundles
    unable.is_able = True
    assert rig.store.believe_bundle(mesh(OTHER).bundle)


def test_a_veto_against_one_trust_domain_keeps_no_other_from_going(rig: Rig) -> None:
    theirs = rig.connect(mesh(OTHER), "unknown-authority")
    rig.store.update(TrustUpdate(bundles=BundleSet.of(mesh().bundle, mesh(OTHER).bundle)))
    before = mesh().bundle
    new = evolve(before, sequence=before.sequence + 1)

    class OfOurs(User):
        """As one whose own certificate would be none under the new roots."""

        def prepare(self, trust: Trust) -> Callable[[], None] | None:
            is_good = trust.bundles.get(MESH) == before
            return super().prepare(trust) if is_good else None

    rig.store.users.append(OfOurs())
    rig.store.update(TrustUpdate(bundles=BundleSet.of(new)))
    assert rig.bundles == BundleSet.of(before)
    assert theirs.severed == ["unknown-authority"]


def test_who_brings_an_identity_is_ready_itself_and_others_follow_as_they_can(rig: Rig) -> None:
    able, unable = User(), User(is_able=False)
    rig.store.users += [able, unable]
    both = rig.store.merged(BundleSet.of(mesh().bundle, mesh(OTHER).bundle))
    rig.store.believe(Trust(both), by=rig.user)
    assert rig.bundles == both
    assert (rig.user.prepared, able.used, unable.used) == ([], [both], [])


def test_it_watches_the_clock_while_it_runs(rig: Rig) -> None:
    ending = rig.connect(mesh(), "expired")
    rig.store.now = lambda: NOW + 2 * HOUR
    rig.store.startService()
    assert ending.severed == ["expired"]
    rig.store.now = lambda: 1 / 0  # type: ignore[assignment, return-value]
    rig.clock.advance(TICK)
    assert rig.log.text("tick-broke") == "a tick of the review broke"
    rig.store.stopService()
    assert rig.clock.getDelayedCalls() == []
