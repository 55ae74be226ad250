"""Another path above our own certificate: taken up at once and without another one, or refused and said so."""

from collections.abc import Callable

import pytest
from cryptography import x509

from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.x509svid import X509Svid
from tests.authorities import MESH, Mesh, forge_issuing, forge_root, mesh, overlap, revocation_of
from tests.twisted_mesh.identity.test_manager import Rig
from twisted_mesh.identity.manager import SPREAD
from twisted_mesh.interfaces import TrustUpdate
from twisted_mesh.trust.store import TICK
from twisted_mesh.trust.trust import Trust

BOTH = overlap()
OLD, NEW = (BOTH.by_old.certificate,), (BOTH.by_new.certificate,)
OLD_ROOT_GONE = revocation_of(BOTH.old, BOTH.old.certificate)


def bundles(*roots: x509.Certificate, sequence: int = 0) -> BundleSet:
    return BundleSet.of(TrustBundle(MESH, roots, sequence))


BOTH_ROOTS = bundles(*BOTH.bundle.roots)


@pytest.fixture
def rig() -> Rig:
    """It serves by the old root, and believes both."""
    rig = Rig()
    rig.source.ca = Mesh(MESH, BOTH.old, BOTH.by_old)
    rig.source.bundles = BOTH_ROOTS
    rig.start()
    return rig


def shown(rig: Rig) -> tuple[x509.Certificate, ...]:
    assert rig.contexts.shown is not None
    return rig.contexts.shown.intermediates


def tell(rig: Rig, *path: x509.Certificate, update: TrustUpdate | None = None) -> bool:
    told = {BOTH.key_id: path}
    return rig.manager.follow(update or TrustUpdate(issuers=told))


def test_the_same_certificate_is_served_by_the_path_that_is_told(rig: Rig) -> None:
    before, generation = rig.manager.svid, rig.contexts.current()
    assert before is not None and generation is not None
    changes: list[X509Svid] = []
    rig.manager.on_change = lambda svid, trust: changes.append(svid)
    assert tell(rig, *NEW)
    svid = rig.manager.svid
    assert svid is not None
    assert (svid.leaf, svid.key) == (before.leaf, before.key)
    assert shown(rig) == svid.intermediates == NEW
    assert rig.contexts.current() != generation
    assert changes == [svid]
    assert len(rig.source.asked) == 1 and rig.manager.rotations == 0
    assert rig.log.count("path-switched") == 1
    assert not tell(rig, *NEW), "that is what is served"
    assert not rig.manager.follow(TrustUpdate()), "it says nothing of paths"
    assert tell(rig, *OLD), "and back again, as long as both are believed"
    assert shown(rig) == OLD
    rig.stop()


def test_a_renewal_whose_answer_is_older_than_what_is_told_serves_what_is_told(rig: Rig) -> None:
    tell(rig, *NEW)
    rig.manager.renew_now()
    rig.pass_time(TICK)
    assert rig.manager.rotations == 1
    assert shown(rig) == NEW


STRANGER = forge_root(70)
BAD = {
    "of another key": (forge_issuing(BOTH.new, 71, subject=NEW[0].subject).certificate,),
    "below a root that is not believed": (
        forge_issuing(STRANGER, "issuing CA of both", subject=NEW[0].subject).certificate,
    ),
    "two at once": (*NEW, *OLD),
    "of another CA": (mesh().issuing.certificate,),
    "many": NEW * 11,
}


@pytest.mark.parametrize("what", BAD)
def test_a_path_that_peers_would_refuse_is_refused_loudly_and_once(rig: Rig, what: str) -> None:
    context = rig.contexts.current()
    for _ in range(3):
        assert not tell(rig, *BAD[what])
    assert shown(rig) == OLD
    assert rig.contexts.current() == context
    assert rig.log.count("path-refused") == 1
    assert tell(rig, *NEW), "the next good one counts"
    rig.stop()


def test_a_path_that_openssl_would_refuse_is_not_served(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from twisted_mesh.identity import manager
    from twisted_mesh.tls.rehearsal import CannotShakeHands

    def refuse(*_: object) -> None:
        raise CannotShakeHands("in this test")

    monkeypatch.setattr(manager, "rehearse", refuse)
    assert not tell(rig, *NEW)
    assert shown(rig) == OLD
    assert "in this test" in rig.log.text("path-refused")


def test_a_bundle_without_the_old_root_and_the_new_path_come_together(rig: Rig) -> None:
    """As for who was away while the path was switched: nothing is vetoed, and no certificate is asked for."""
    update = TrustUpdate(bundles=bundles(BOTH.new.certificate), issuers={BOTH.key_id: NEW})
    assert rig.manager.follow(update)
    assert rig.store.trust.bundles == bundles(BOTH.new.certificate)
    assert shown(rig) == NEW
    rig.pass_time(2 * SPREAD)
    assert len(rig.source.asked) == 1


def test_a_planned_removal_waits_for_who_cannot_serve_under_it(rig: Rig) -> None:
    rig.source.bundles = BOTH_ROOTS
    assert not rig.manager.follow(TrustUpdate(bundles=bundles(BOTH.new.certificate)))
    assert rig.store.trust.bundles == BOTH_ROOTS
    assert rig.contexts.current() is not None, "the old one serves meanwhile"
    rig.source.ca = Mesh(MESH, BOTH.new, BOTH.by_new)
    rig.source.bundles = bundles(BOTH.new.certificate)
    rig.pass_time(TICK)
    assert shown(rig) == NEW
    assert rig.store.trust.bundles == bundles(BOTH.new.certificate)


def test_a_distrusted_root_is_left_at_once_where_there_is_another_path(rig: Rig) -> None:
    update = TrustUpdate(
        [OLD_ROOT_GONE], bundles=bundles(BOTH.new.certificate), issuers={BOTH.key_id: NEW}
    )
    before = rig.manager.svid
    assert rig.manager.follow(update)
    assert shown(rig) == NEW
    assert before is not None and rig.manager.svid is not None
    assert before.leaf == rig.manager.svid.leaf
    assert rig.contexts.current() is not None
    assert rig.log.count("identity-taken-away") == 0


@pytest.mark.parametrize(
    "gone", [OLD_ROOT_GONE, revocation_of(BOTH.old, BOTH.by_old.certificate)], ids=["root", "CA"]
)
@pytest.mark.parametrize("by_feed", [True, False])
def test_who_is_refused_by_what_stands_above_it_serves_nobody_and_has_another_soon(
    rig: Rig, gone: object, by_feed: bool
) -> None:
    if by_feed:
        rig.manager.follow(TrustUpdate([gone]))
    else:
        rig.store.revoked([gone])
    assert rig.contexts.current() is None
    assert "revoked" in rig.log.text("identity-taken-away")
    assert len(rig.source.asked) == 1
    rig.source.ca = Mesh(MESH, BOTH.new, BOTH.by_new)
    rig.pass_time(SPREAD + TICK)
    assert len(rig.source.asked) == 2
    assert shown(rig) == NEW
    assert rig.contexts.current() is not None


def test_a_fleet_whose_issuer_is_revoked_does_not_ask_all_at_once() -> None:
    moments = set()
    for seed in range(20):
        rig = Rig()
        rig.manager.draw.seed(seed)
        rig.source.ca, rig.source.bundles = Mesh(MESH, BOTH.old, BOTH.by_old), BOTH_ROOTS
        rig.start()
        rig.store.revoked([OLD_ROOT_GONE])
        rig.source.away = True
        rig.pass_time(SPREAD + TICK, step=TICK / 4)
        moments.add(rig.source.asked[1])
        assert rig.source.asked[1] <= SPREAD + TICK
        rig.stop()
    assert max(moments) - min(moments) > SPREAD / 2


def test_a_leaf_of_ours_that_is_revoked_is_not_given_up_by_us(rig: Rig) -> None:
    svid = rig.manager.svid
    assert svid is not None
    rig.manager.follow(TrustUpdate([revocation_of(BOTH.by_old, svid.leaf)]))
    assert rig.contexts.current() is not None


def test_a_distrusted_root_that_goes_at_once_takes_along_who_has_no_other(rig: Rig) -> None:
    rig.manager.follow(TrustUpdate([OLD_ROOT_GONE], bundles=bundles(BOTH.new.certificate)))
    assert rig.store.trust.bundles == bundles(BOTH.new.certificate)
    assert rig.contexts.current() is None
    rig.source.ca = Mesh(MESH, BOTH.new, BOTH.by_new)
    rig.pass_time(SPREAD + TICK)
    assert shown(rig) == NEW
    assert rig.contexts.current() is not None


def test_nobodys_veto_keeps_a_root_that_is_revoked(rig: Rig) -> None:
    class Unable:
        def prepare(self, trust: Trust) -> Callable[[], None] | None:
            return None

    rig.store.users.append(Unable())
    assert not rig.manager.follow(TrustUpdate(bundles=bundles(BOTH.new.certificate)))
    rig.manager.follow(TrustUpdate([OLD_ROOT_GONE], bundles=bundles(BOTH.new.certificate)))
    assert rig.store.trust.bundles == bundles(BOTH.new.certificate)


def test_before_the_first_certificate_what_is_told_waits_for_it() -> None:
    rig = Rig()
    rig.source.ca, rig.source.bundles = Mesh(MESH, BOTH.old, BOTH.by_old), BOTH_ROOTS
    assert not rig.manager.follow(TrustUpdate(issuers={BOTH.key_id: NEW}))
    rig.start()
    assert shown(rig) == NEW
    rig.stop()
