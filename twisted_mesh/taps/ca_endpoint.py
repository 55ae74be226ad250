"""The CA as an endpoint of its own mesh: the identity of its TLS port, and whom that believes."""

from collections.abc import Sequence

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pki.errors import ANY_ERROR
from pki.spiffe import SpiffePattern
from pki.svid.revocation_set import Revocation
from twisted_mesh.ca.authorities import CurrentAuthorities, Published
from twisted_mesh.ca.issuance import OwnCertificates
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.own_source import OwnSource
from twisted_mesh.interfaces import IRevocationListener, TrustUpdate
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.revocation.stapler import Stapler
from twisted_mesh.runtime.clock import Now
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.judge import Judge, Trust
from twisted_mesh.trust.store import TrustStore


def own_trust_store(
    authorities: CurrentAuthorities, clock: IReactorTime, now: Now, log: Logger
) -> TrustStore:
    """Whom the TLS port believes: every member of the CA's own trust domain."""
    everyone = SpiffePattern.parse(f"{authorities.trust_domain.id}/**")
    trust = Trust(authorities.bundles(), allow=(everyone,))
    judge = Judge(now, trust, Freshness(seconds=clock.seconds))
    return TrustStore(judge, ConnectionRegistry(), clock, now, log)


@implementer(IRevocationListener)
@frozen(eq=False)
class CaEndpoint:
    """What the TLS port shows: an identity that the CA issues to itself, stapled by its own responder."""

    trust_store: TrustStore
    feed: Feed
    manager: CertificateManager
    stapler: Stapler
    contexts: ContextFactory

    @classmethod
    def of(
        cls,
        own: OwnCertificates,
        responder: OcspResponder,
        trust_store: TrustStore,
        clock: IReactorTime,
        log: Logger,
    ) -> "CaEndpoint":
        """One whose certificates ``own`` issues, and of which ``responder`` says how they stand."""

        async def ask(request: bytes) -> bytes:
            return (await responder.answer(request, "the CA's own TLS port")).der

        now, judge = own.issuance.now, trust_store.judge
        staples = Staples(now)
        role = Role(serves=True, demands_certificate=False, sends_root=True)
        contexts = ContextFactory(role, staples)
        stapler = Stapler(ask, staples, clock, now, log)
        source = OwnSource(own.issue_tls, own.issuance.authorities.bundles, now)
        feed = Feed(source, trust_store.update, judge.freshness, clock, now, log)
        manager = CertificateManager(
            source,
            trust_store,
            [contexts],
            clock,
            now,
            log,
            feed=feed,
            preparations=[stapler.prepare],
            announce=False,
        )

        def follow(published: Published) -> None:
            if manager.svid is None:
                return  # who has no certificate yet gets one by what is published then
            try:
                manager.follow(TrustUpdate(bundles=published.bundles, issuers=published.issuers))
            except ANY_ERROR:
                log.failure(
                    "the CA's own port does not follow what the CA publishes",
                    event="own-path-broke",
                )
                manager.renew_now()

        own.issuance.authorities.watch(follow)
        return cls(trust_store, feed, manager, stapler, contexts)

    @property
    def services(self) -> Sequence[Service]:
        """What runs from the moment on at which there is to be an identity."""
        return (self.trust_store, self.feed, self.manager)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """Whoever has revoked our own certificate wants another here, and no CA that nobody believes."""
        self.stapler.revoked(revocations)
        svid = self.manager.svid
        if svid is not None and svid.leaf.serial_number in {r.serial for r in revocations}:
            self.manager.renew_now()
