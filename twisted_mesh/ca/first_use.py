"""Claims of platforms: the first use wins, and whoever repeats it with the same key gets the same certificate."""

from collections.abc import Callable

from attrs import evolve, frozen

from pki.issuing.csr import IssuanceRequest
from pki.keys import key_id
from pki.policy.policy import Forbidden
from pki.policy.principal import Principal
from twisted_mesh.runtime.clock import Now
from twisted_mesh.stores.commands import Claim
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import (
    AlreadyAttested,
    IssuedCertificate,
    Status,
    StoreError,
)


def demand_one_claim(
    principal: Principal, descends_from: str | None, is_granted: Callable[[Principal], bool]
) -> None:
    """Of a caller who shows a certificate that ``descends_from`` a claim, and evidence beside it.

    Evidence that counts once has to buy by itself what is asked for, if its claim is another one: what is issued ends
    with one claim, so it must not be bought by what descends from another. Raises :class:`Forbidden`.
    """
    if descends_from is None or principal.claim in (None, descends_from):
        return
    evidence = frozenset(s for s in principal.selectors if s.kind != "x509")
    alone = evolve(principal, spiffe_id=None, serial=None, entry=None, selectors=evidence)
    if not is_granted(alone):
        raise Forbidden(
            "two-claims",
            f"the certificate of {principal} descends from another claim than the evidence beside it, which does not "
            "buy this by itself: ask with the certificate alone",
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

        It may be used again by the key that has used it, once that certificate has ended; and, for the same ID, by
        whoever shows a certificate of that ID that was bought by it (``presented``).
        Raises :class:`AlreadyAttested`, and :class:`StoreError` where its outcome is not known yet.
        """
        used = await self.store.find_claim(claim)
        if used is None:
            return Claim(claim, until=principal.claim_until)
        is_its_own = principal.spiffe_id == request.spiffe_id == used.spiffe_id
        if presented is not None and presented.claim == claim and is_its_own:
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
