"""Who gives an identity in place of a CA of ours: a source that an agent also asks for what it asks a CA."""

from collections.abc import Callable, Sequence

from attrs import define
from cryptography import x509
from zope.interface import Attribute

from pki.errors import PkiError, Problem
from pki.svid.chain import revoked_in
from pki.svid.revocation_set import Revocation
from twisted_mesh.api.messages import PublishedCrls
from twisted_mesh.interfaces import ISource
from twisted_mesh.tls.security import PeerCheck
from twisted_mesh.trust.store import TrustStore


class IProvider(ISource):
    """A source that says by itself when there is something new. SPIRE's agent is one, and our own."""

    on_fresh: Callable[[], object] = Attribute(
        "To be set: called when there is another certificate, or when a trouble is over."
    )
    on_loss: Callable[[PkiError], object] = Attribute(
        "To be set: called when the certificate in use is to be used no more."
    )

    async def crls() -> PublishedCrls:
        """The CRLs of the moment; none where it has none."""

    async def learn(issuers: Sequence[x509.Certificate]) -> Sequence[Revocation]:
        """What is known to be revoked once those issuers, judged above a peer, are known. Raises nothing."""

    def doubt() -> Problem | None:
        """Why it may not be known who is revoked."""

    def too_slow() -> PkiError:
        """What is to be said where nobody waits for an answer any longer."""

    def compared_clocks() -> str:
        """How its clock is to ours, for people; empty where that is not known."""

    def close() -> None:
        """Ask no more. May be said again."""


@define(eq=False, repr=False)
class IssuerCheck:
    """Shows a provider the issuers of each peer before that gets in: it may hold a CRL of one that it did not know."""

    provider: IProvider
    trust: TrustStore
    then: PeerCheck | None = None
    """What is found out about a peer besides."""

    async def objections(
        self, path: Sequence[x509.Certificate], seconds: float
    ) -> Sequence[Problem]:
        """See :class:`~twisted_mesh.tls.security.PeerCheck`."""
        news = await self.provider.learn(path[1:])
        if news:
            self.trust.revoked(news)
            known = self.trust.trust.revocations
            if revoked := revoked_in(path, known):
                return revoked
        return () if self.then is None else await self.then.objections(path, seconds)
