"""Who hears of revocations, one after the other."""

from collections.abc import Sequence

from attrs import define
from twisted.logger import Logger
from zope.interface import implementer

from pki.svid.revocation_set import Revocation
from twisted_mesh.interfaces import IRevocationListener


@implementer(IRevocationListener)
@define(eq=False, repr=False)
class RevocationListeners:
    """Tells each listener in the order in which it is given; one that raises keeps no other from hearing."""

    listeners: Sequence[IRevocationListener]
    log: Logger

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """Tell all of them. Raises nothing: who broke is in the log."""
        for listener in self.listeners:
            try:
                listener.revoked(revocations)
            except Exception:
                self.log.failure(
                    "{listener} broke when it heard of a revocation",
                    event="revocation-unheard",
                    listener=type(listener).__name__,
                )
