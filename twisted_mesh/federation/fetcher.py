"""Fetches the bundle of another trust domain from its endpoint (SPIFFE Federation section 5.2), within bounds."""

from collections.abc import Sequence

from attrs import define
from cryptography import x509

from pki.svid.bundle import BundleSet
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import Relationship
from pki.svid.revocation_set import RevocationSet
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import Now


@define(eq=False)
class BundleFetcher:
    """Asks bundle endpoints, each time over a connection of its own."""

    reactor: IReactor
    now: Now
    web_roots: Sequence[x509.Certificate] | None = None
    """Whom ``https_web`` believes; None for the CAs that this machine believes."""
    timeout: float = 10.0
    """Seconds for a whole answer, connecting and redirections included."""

    async def fetch_bundle(
        self,
        relationship: Relationship,
        bundles: BundleSet,
        revocations: RevocationSet | None = None,
    ) -> FederatedDocument:
        """What the endpoint has now. ``bundles`` are what is held, our own included. Raises :class:`PkiError`."""
        raise NotImplementedError
