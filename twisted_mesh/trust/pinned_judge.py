"""A judge of peers whose root is known by its fingerprint only, until it is met."""

from collections.abc import Sequence

from attrs import define, evolve, field

from pki.errors import Refused
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.chain import Verdict
from pki.svid.pin import RootPin
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import Purpose
from twisted_mesh.trust.judge import UNREADABLE_CHAIN, Judge, loaded
from twisted_mesh.trust.judgement import Judgement


@define(eq=False, repr=False)
class PinnedJudge(Judge):
    """A judge that knows one root by its fingerprint, until it has met it.

    The root comes in the handshake itself. OpenSSL, which does not hold it, objects to that and to
    nothing else; the verdict that counts is ours, with that root as the only one that is believed.
    Once it was met, the root is believed like any other and nothing is waived any more.
    """

    _pin: RootPin | None = field(default=None, kw_only=True)

    @property
    def pin(self) -> RootPin | None:
        """The root that has not been met yet."""
        return self._pin

    def recall(self, bundle: TrustBundle | None, revoked: Sequence[Revocation]) -> None:
        """See :meth:`Judge.recall`."""
        super().recall(bundle, revoked)
        if bundle is not None:
            self._pin = None

    def judgement(self, presented: Sequence[bytes], purpose: Purpose) -> Judgement:
        """The verdict on a chain in DER; the first good one has its root believed from then on."""
        if self._pin is None or not presented:
            return super().judgement(presented, purpose)
        now = self._now()
        try:
            bundle = self._pin.bundle(presented[-1])
        except Refused as error:
            return Judgement(Verdict(None, (), error.problems), (), self.changes, now, now)
        trust = self.trust
        met = evolve(trust, bundles=BundleSet.of(bundle), generation=trust.generation + 1)
        chain = loaded(presented)
        if chain is None:
            return Judgement(UNREADABLE_CHAIN, (), self.changes, now, now)
        judgement = self._unless_stale(self._judged(met, tuple(presented), chain, now, purpose))
        if judgement.verdict.ok:
            self._pin = None
            # Past the reviewer, which nobody needs here: without a root nobody can be connected yet.
            self.trust = met
            judgement = evolve(judgement, changes=self.changes)
        return judgement
