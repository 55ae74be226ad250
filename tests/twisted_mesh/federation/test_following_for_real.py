"""Following over real sockets: a peer replaces its root, and the certificate of its endpoint with it."""

from attrs import define, evolve
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from zope.interface import implementer

from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.federation import Profile, Relationship
from pki.svid.refresh import Refresh
from tests.authorities import mesh
from tests.twisted_mesh.federation.hostile import Shown, ok, reactor, serving, svid
from tests.twisted_mesh.grpc.sockets import run, turn_until
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.federation.fetcher import BundleFetcher
from twisted_mesh.federation.follower import Follower
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.testing import MemoryCa

PEER = TrustDomain("peer.example")
ENDPOINT = PEER.member("mesh", "ca")
SOON = Refresh(least=0.05, together=100.0)


@implementer(IOpenSSLContextFactory)
@define(eq=False)
class Replaceable:
    """A certificate that is replaced while the endpoint runs."""

    now: Shown

    def getContext(self) -> SSL.Context:
        return self.now.getContext()


def test_a_peer_replaces_its_root_under_which_its_own_endpoint_is() -> None:
    old, new = MemoryCa(PEER), MemoryCa(PEER)
    published = [evolve(old.bundle, sequence=1, refresh_hint=0)]
    believed: list[TrustBundle | None] = []
    log = RecordingLog()
    follower = Follower(
        *(BundleFetcher(reactor(), wall_clock), lambda: mesh().bundle, reactor(), wall_clock, log),
        on_bundle=lambda _, bundle: believed.append(bundle),
        refresh=SOON,
    )

    def publish(sequence: int, *authorities: MemoryCa) -> None:
        roots = tuple(root for ca in authorities for root in ca.bundle.roots)
        published[0] = TrustBundle(PEER, roots, sequence, 0)
        turn_until(lambda: believed[-1] == published[0], log.all_text)

    shown = Replaceable(svid(old.issue(str(ENDPOINT))))
    with serving(lambda _: ok(published[0].to_jwks()), shown) as endpoint:
        relationship = Relationship(PEER, endpoint.url(), Profile.HTTPS_SPIFFE, ENDPOINT)
        follower.startService()
        follower.follow(relationship, old.bundle)
        turn_until(lambda: believed, log.all_text)
        publish(2, old, new)
        shown.now = svid(new.issue(str(ENDPOINT)))
        publish(3, new)
        # The old root is no way in any more, also not for the endpoint.
        shown.now = svid(old.issue(str(ENDPOINT)))
        turn_until(lambda: log.count("federation-failed"))
        assert believed[-1] == published[0]
        (state,) = follower
        assert [problem.code for problem in state.problems] == ["unknown-authority"]
        shown.now = svid(new.issue(str(ENDPOINT)))
        assert run(follower.refresh_now(PEER)).failures == 0
        follower.stopService()
    assert log.count("federation-believed") >= 3
