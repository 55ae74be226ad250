"""How a CA federates: what follows other trust domains for it, wired."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from twisted.application.service import Service

from pki.errors import Problem
from pki.svid.bundle import BundleSet
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import Relationship
from pki.svid.revocation_set import Revocation, RevocationSet
from twisted_mesh.ca.federation import Federations, OnBundle, OnState
from twisted_mesh.ca.foreign_crls import ForeignCrls
from twisted_mesh.ca.issuance import Issuance
from twisted_mesh.federation.follower import Follower
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger

if TYPE_CHECKING:
    from pki.ct.receipt import SctDemand
    from twisted_mesh.ca.foreign_lists import ListWatches
    from twisted_mesh.federation.fetcher import BundleFetcher
    from twisted_mesh.revocation.crl_watch import CrlWatch

_log = logger("federation")

#: Whose the numbers of the lists are that were seen, among those of this machine's endpoints.
_NUMBERS = "mesh-ca: federation"


def federations_of(
    reactor: IReactor,
    issuance: Issuance,
    state: Path | None,
    revoked: Callable[[], RevocationSet],
    blocked: Callable[[PublicKeyTypes], Problem | None],
    *,
    requires_pq: bool,
    demand: "Callable[[], SctDemand | None]",
) -> Federations:
    """Who follows other trust domains for the CA that issues so.

    ``state`` is its state directory, None for one that keeps nothing; ``revoked`` is whom it has revoked itself;
    ``demand`` is of how many logs whoever serves their bundles must show receipts, where a SPIFFE ID proves it;
    ``blocked`` says why a key is nobody's any more, and whoever changes that has the follower review what it holds;
    ``requires_pq`` has bundles come over a hybrid key exchange alone.
    """

    def revocations() -> RevocationSet:
        return revoked().merged(crls.all_revocations(), issuance.now())

    current = issuance.authorities
    crls = ForeignCrls(_Watches(reactor, issuance.now, state), reactor, issuance.now)

    def make_follower(on_bundle: OnBundle, on_state: OnState) -> Follower:
        return Follower(
            _Fetcher(reactor, issuance.now, demand, requires_pq),
            current.bundle,
            reactor,
            issuance.now,
            _log,
            on_bundle,
            on_state,
            revocations,
            blocked=blocked,
        )

    return Federations(
        issuance.store, issuance.log, issuance.now, current.trust_domain, make_follower, crls
    )


@define(eq=False, repr=False)
class _Watches:
    """:class:`ListWatches`, loaded with the first list: most CAs follow none."""

    reactor: IReactor
    now: Now
    state: Path | None
    _watches: "ListWatches | None" = field(default=None, init=False)

    def __call__(
        self,
        url: str,
        revoke: Callable[[Sequence[Revocation]], None],
        known: Callable[[], RevocationSet],
        roots: Callable[[], Sequence[x509.Certificate]],
    ) -> "CrlWatch":
        if self._watches is None:
            from twisted_mesh.ca.foreign_lists import ListWatches
            from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers, crl_numbers_path

            path = None if self.state is None else crl_numbers_path(self.state, _NUMBERS)
            numbers = SeenCrlNumbers(path)
            numbers.recall()
            directory = None if path is None else path.parent
            self._watches = ListWatches(self.reactor, self.now, numbers, directory)
        return self._watches.watch_of(url, revoke, known, roots)


@define(eq=False, repr=False)
class _Fetcher:
    """A :class:`BundleFetcher`, loaded with the first question: most CAs federate with nobody."""

    reactor: IReactor
    now: Now
    demand: "Callable[[], SctDemand | None]"
    requires_pq: bool
    _fetcher: "BundleFetcher | None" = field(default=None, init=False)

    async def fetch_bundle(
        self,
        relationship: Relationship,
        bundles: BundleSet,
        revocations: RevocationSet | None = None,
    ) -> FederatedDocument:
        """What the endpoint has now. Raises :class:`PkiError`."""
        if self._fetcher is None:
            from twisted_mesh.federation import fetcher

            self._fetcher = fetcher.BundleFetcher(
                self.reactor, self.now, requires_pq=self.requires_pq, demand=self.demand
            )
        return await self._fetcher.fetch_bundle(relationship, bundles, revocations)


def services_of(federations: Federations) -> Sequence[Service]:
    """What runs once the record has been read."""
    return federations.crls, federations.follower
