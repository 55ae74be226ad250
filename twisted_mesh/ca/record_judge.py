"""The judge of the CA's own port: whoever rests on a revoked CA of ours is let in to renew, and for nothing else.

Nobody is needed then to bring workloads back. TLS has shown that the peer holds the key of its leaf. Whether that
leaf is one that this CA has issued, byte for byte, is asked of the record for each request
(:mod:`twisted_mesh.attest.svid`): the stolen key of a CA can make any other. Connections that are open stay so, and
hear in that way what was revoked.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from attrs import define, evolve
from cryptography import x509

from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict, revoked_above
from pki.svid.x509svid import Purpose, uri_names
from twisted_mesh.ca.revoked_authorities import RevokedAuthority
from twisted_mesh.trust.connections import Peer
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.judgement import Judgement
from twisted_mesh.trust.trust import Trust


@define(eq=False, repr=False)
class RecordJudge(Judge):
    """Forgives that a CA certificate of ours is revoked, and nothing else."""

    revoked: Callable[[], Sequence[RevokedAuthority]] = tuple
    """The CA certificates of ours that are revoked now."""

    def only_renews(self, peer: Peer) -> bool:
        """Whether the peer is here by a CA that is revoked: it may renew, if its leaf is on record."""
        path, trust = peer.path, self.trust
        bundle = trust.bundles.get(peer.spiffe_id.trust_domain)
        is_anchored = bundle is not None and path[-1] in bundle.roots
        return not is_anchored or any(revoked_above(path, trust.revocations))

    def forgiven_roots(self) -> tuple[x509.Certificate, ...]:
        """Those that are distrusted."""
        return tuple(row.certificate for row in self.revoked() if row.is_root)

    def _judged(
        self,
        trust: Trust,
        presented: tuple[bytes, ...],
        chain: Sequence[x509.Certificate],
        now: datetime,
        purpose: Purpose,
    ) -> Judgement:
        judgement = super()._judged(trust, presented, chain, now, purpose)
        if judgement.verdict.ok or not self.revoked():
            return judgement
        wider = evolve(trust, bundles=self._with_former_roots(trust.bundles))
        again = super()._judged(wider, presented, chain, now, purpose)
        verdict = again.verdict
        forgiven = set(revoked_above(verdict.path, trust.revocations))
        if not forgiven or set(verdict.problems) - forgiven:
            return judgement
        good = Verdict(verdict.spiffe_id, verdict.path, ())
        return evolve(again, verdict=good, presented=presented)

    def _with_former_roots(self, bundles: BundleSet) -> BundleSet:
        former = self.forgiven_roots()
        for bundle in bundles:
            ours = tuple(
                root
                for root in former
                if root not in bundle.roots and _is_of(root, bundle.trust_domain.id)
            )
            if ours:
                bundles = bundles.with_bundle(evolve(bundle, roots=(*bundle.roots, *ours)))
        return bundles


def _is_of(root: x509.Certificate, spiffe_id: object) -> bool:
    return uri_names(root) == [str(spiffe_id)]
