"""First trust: the CA is met by the fingerprint of its root, within one handshake.

The root comes in the handshake itself. OpenSSL, which does not hold it, objects to that and to
nothing else; the verdict that counts is ours, with that root as the only one that is believed.
Once it was met, the root is believed like any other and nothing is waived any more.
"""

from collections.abc import Sequence

from attrs import define, evolve, field

from pki.errors import Refused
from pki.svid.bundle import BundleSet
from pki.svid.chain import Verdict
from pki.svid.pin import RootPin
from pki.svid.x509svid import Purpose
from twisted_mesh.trust.judge import Judge


@define(eq=False)
class PinnedJudge(Judge):
    """A judge that knows one root by its fingerprint, until it has met it."""

    _pin: RootPin | None = field(default=None, kw_only=True)

    @property
    def pin(self) -> RootPin | None:
        return self._pin

    def verdict_on_der(self, presented: Sequence[bytes], purpose: Purpose) -> Verdict:
        if self._pin is None or not presented:
            return super().verdict_on_der(presented, purpose)
        try:
            bundle = self._pin.bundle(presented[-1])
        except Refused as error:
            return Verdict(None, (), error.problems)
        before = self.trust
        self.trust = evolve(before, bundles=BundleSet.of(bundle), generation=before.generation + 1)
        verdict = super().verdict_on_der(presented, purpose)
        if verdict.ok:
            self._pin = None
        else:
            self.trust = before
        return verdict
