"""Claims of platforms: the first use wins, and whoever repeats it with the same key gets the same certificate."""

from attrs import frozen

from pki.issuing.csr import IssuanceRequest
from pki.keys import key_id
from pki.policy.policy import Principal
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stores.commands import Claim
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import (
    AlreadyAttested,
    IssuedCertificate,
    Status,
    StoreError,
)


@frozen(eq=False, repr=False)
class FirstUse:
    """Looks who has used a claim. The store has the last word, when it is used."""

    store: IStore
    now: Now

    async def judge(
        self,
        claim: str,
        principal: Principal,
        request: IssuanceRequest,
        presented: IssuedCertificate | None,
    ) -> Claim | IssuedCertificate:
        """How the claim is to be used, or the certificate that the same request has bought by it before.

        It may be used again by the key that has used it, once that certificate has ended; and by whoever shows a
        certificate that was bought by it (``presented``), since that could be renewed without the claim, too.
        Raises :class:`AlreadyAttested`, and :class:`StoreError` where its outcome is not known yet.
        """
        used = await self.store.find_claim(claim)
        if used is None:
            return Claim(claim, until=principal.claim_until)
        if presented is not None and presented.claim == claim and principal.serial is not None:
            return Claim(claim, used.serial, principal.claim_until)
        if used.key != key_id(request.public_key):
            raise AlreadyAttested.by(claim, used)
        if used.spiffe_id != request.spiffe_id:
            raise AlreadyAttested.by(claim, used, f"and not for {request.spiffe_id}")
        known = await self.store.find(used.serial)
        status = Status.EXPIRED if known is None else known.status(self.now())
        if known is None or status is Status.EXPIRED:
            return Claim(claim, used.serial, principal.claim_until)
        if status is Status.PENDING:
            raise StoreError("this request was interrupted and is being resolved: ask again later")
        if status is Status.REVOKED:
            raise AlreadyAttested.by(claim, used, "and that certificate is revoked")
        return known
