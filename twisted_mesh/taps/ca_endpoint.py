"""The CA as an endpoint of its own mesh: the identity of its TLS port, and whom that believes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from pki.errors import ANY_ERROR
from pki.keys import key_id
from pki.spiffe import SpiffePattern
from pki.svid.revocation_set import Revocation
from pki.svid.x509svid import X509Svid
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.issuance import OwnCertificates
from twisted_mesh.ca.published_trust import Published
from twisted_mesh.ca.record_judge import RecordJudge
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.identity.own_source import OwnSource
from twisted_mesh.interfaces import IRevocationListener, TrustUpdate
from twisted_mesh.revocation.feed import Feed
from twisted_mesh.revocation.stapler import Stapler
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.tasks import sleep
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.freshness import Freshness
from twisted_mesh.trust.store import TICK, TrustStore
from twisted_mesh.trust.trust import Trust

if TYPE_CHECKING:  # loaded where receipts are demanded
    from pki.ct.receipt import SctDemand

#: Seconds that a certificate of the CA's own may take.
_RENEWAL = 5.0


def own_trust_store(
    authorities: CurrentAuthorities,
    clock: IReactorTime,
    now: Now,
    log: Logger,
    *,
    demand: "SctDemand | None" = None,
    withdrawn: frozenset[str] = frozenset(),
) -> TrustStore:
    """Whom the TLS port believes: every member of the CA's own trust domain.

    ``demand``: who has these receipts besides, an administrator too, whose name can be minted like any other.
    ``withdrawn`` are ids of logs, in base64, whose receipts count no more.
    """
    everyone = SpiffePattern.parse(f"{authorities.trust_domain.id}/**")
    trust = Trust(authorities.bundles(), allow=(everyone,), demand=demand)
    judge = RecordJudge(now, trust, Freshness(seconds=clock.seconds), authorities.all_revoked)
    store = TrustStore(judge, ConnectionRegistry(), clock, now, log)
    store.withdraw_logs(withdrawn)
    return store


@implementer(IRevocationListener)
@frozen(eq=False)
class CaEndpoint:
    """What the TLS port shows: an identity that the CA issues to itself, stapled by its own responder."""

    trust_store: TrustStore
    feed: Feed
    manager: CertificateManager
    stapler: Stapler
    contexts: ContextFactory
    authorities: CurrentAuthorities

    @classmethod
    def of(
        cls,
        own: OwnCertificates,
        responder: OcspResponder,
        trust_store: TrustStore,
        clock: IReactorTime,
        log: Logger,
        *,
        requires_pq: bool = False,
    ) -> "CaEndpoint":
        """One whose certificates ``own`` issues, and of which ``responder`` says how they stand."""

        async def ask(request: bytes) -> bytes:
            return (await responder.answer(request, "the CA's own TLS port")).der

        now, judge = own.issuance.now, trust_store.judge
        staples = Staples(now)
        role = Role(
            serves=True, demands_certificate=False, sends_root=True, requires_pq=requires_pq
        )
        # Whoever rests on a root that is distrusted is let in by OpenSSL, and judged by the judge.
        contexts = ContextFactory(role, staples, trust_store.judge.forgiven_roots)
        stapler = Stapler(ask, staples, clock, now, log)
        authorities = own.issuance.authorities
        source = OwnSource(own.issue_tls, authorities.bundles, now)
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
                manager.retry_now()  # by what is published now it may get one
                return
            try:
                manager.follow(TrustUpdate(bundles=published.bundles, issuers=published.issuers))
            except ANY_ERROR:
                log.failure(
                    "the CA's own port does not follow what the CA publishes",
                    event="own-path-broke",
                )
                manager.renew_now()
                return
            if _issuer(manager.svid) != authorities.current.issuing.key_id:
                manager.renew_now()  # so that nothing of ours keeps the issuing CA before, or its root

        authorities.watch(follow)
        return cls(trust_store, feed, manager, stapler, contexts, authorities)

    @property
    def services(self) -> Sequence[Service]:
        """What runs from the moment on at which there is to be an identity."""
        return (self.trust_store, self.feed, self.manager)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """Whoever has revoked our own certificate wants another here, and no CA that nobody believes."""
        self.stapler.revoked(revocations)
        svid = self.manager.svid
        if svid is None:
            return
        serials = {certificate.serial_number for certificate in svid.chain}
        if not serials.isdisjoint(revocation.serial for revocation in revocations):
            self.manager.renew_now()

    async def renew(self) -> None:
        """Show a certificate of the CA that issues now. It takes no longer than that should."""
        clock, before = self.manager.clock, self.manager.svid
        issuing = self.authorities.current.issuing
        if before is None or before.chain[1:2] == issuing.intermediates[:1]:
            return
        self.manager.renew_now()
        self.manager.retry_now()
        until = clock.seconds() + _RENEWAL
        while self.manager.svid is before and clock.seconds() < until:
            await sleep(clock, TICK / 4)


def _issuer(svid: X509Svid | None) -> str:
    """The key id of the issuing CA; empty for none."""
    return key_id(svid.intermediates[0].public_key()) if svid and svid.intermediates else ""
