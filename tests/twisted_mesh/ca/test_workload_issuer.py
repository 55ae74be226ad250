"""What the CA's own workloads hold, while its root is replaced: the path that all are told, and nothing revoked."""

from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.task import Clock

from pki.svid.bundle import BundleSet
from pki.svid.revocation_set import RevocationSet
from pki.svid.x509svid import X509Svid
from tests.authorities import MESH, NOW, forge, key, mesh, overlap, revocation_of
from twisted_mesh.ca.published_trust import Published
from twisted_mesh.ca.workload_issuer import CaWorkloadIssuer

BOTH = overlap()
OLD, NEW = (BOTH.by_old.certificate,), (BOTH.by_new.certificate,)
SVID = X509Svid.assemble((forge(BOTH.by_old), *OLD), key(9))


@define(eq=False)
class Rig:
    """An issuer of a CA that publishes what the test says."""

    ca: Any = field(init=False)
    issuer: CaWorkloadIssuer = field(init=False)

    def __attrs_post_init__(self) -> None:
        nothing: list[Any] = []
        self.ca = SimpleNamespace(
            trust_domain=MESH,
            published=self.publishing(),
            publisher=SimpleNamespace(find=lambda *_: None, current=lambda _: None),
            authorities=SimpleNamespace(
                root=BOTH.old.certificate, roots=BOTH.bundle.roots, every_issuing=nothing
            ),
            entries=SimpleNamespace(by_age=lambda: nothing, watch=lambda _: int),
            now=lambda: NOW,
            bundle=lambda: BOTH.bundle,
            bundles=lambda: BundleSet.of(BOTH.bundle),
        )
        self.issuer = CaWorkloadIssuer(self.ca, RevocationSet, Clock())

    @staticmethod
    def publishing(**changes: Any) -> Published:
        published = Published(BundleSet.of(BOTH.bundle), {BOTH.key_id: OLD})
        return evolve(published, **changes)

    def publish(self, **changes: Any) -> None:
        self.ca.published = self.publishing(**changes)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_the_path_that_all_are_told_is_handed_out(rig: Rig) -> None:
    assert rig.issuer.as_served(SVID) is SVID
    rig.publish(issuers={BOTH.key_id: NEW})
    assert rig.issuer.as_served(SVID).chain == (SVID.leaf, *NEW)
    rig.publish(issuers={BOTH.key_id: (mesh().issuing.certificate,)})
    assert rig.issuer.as_served(SVID) is SVID, "that is no way to a root"


@pytest.mark.parametrize("cert", [BOTH.old.certificate, *OLD], ids=["root", "issuing CA"])
def test_what_rests_on_a_revoked_ca_is_replaced(rig: Rig, cert: Any) -> None:
    assert not rig.issuer.is_revoked(SVID)
    rig.publish(revoked_authorities=(revocation_of(BOTH.old, cert),))
    assert rig.issuer.is_revoked(SVID)
    assert not rig.issuer.is_revoked(evolve(SVID, intermediates=NEW))


def test_so_is_what_leads_to_a_root_that_is_gone(rig: Rig) -> None:
    rig.publish(bundles=BundleSet.of(BOTH.bundle_of(BOTH.new)))
    assert rig.issuer.is_revoked(SVID)


def test_whoever_watches_hears_of_another_path_before_anything_is_reviewed(rig: Rig) -> None:
    told: list[object] = []
    rig.issuer.watch(lambda: told.append(rig.issuer.sources().paths))
    rig.issuer.startService()
    assert told[0] is rig.ca.published
    rig.publish(issuers={BOTH.key_id: NEW})
    told.clear()
    rig.issuer.clock.advance(1)  # type: ignore[attr-defined]
    assert told[0] is rig.ca.published
    rig.issuer.stopService()
