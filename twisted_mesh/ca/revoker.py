"""Revoking: what may be revoked is, on record first; then endpoints hear of it, and a CRL says so."""

from collections.abc import Sequence

from attrs import define

from pki.audit.log import Act, Entry
from pki.policy import policy
from pki.policy.policy import Action
from pki.policy.principal import Principal
from pki.serial import serial_hex, serial_pairs
from pki.svid.revocation_set import Reason
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.blocked_keys import BlockedKeys
from twisted_mesh.ca.issuance import revocation_of
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import Revoke, RevokeAll
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import IssuedCertificate, Unknown

_log = logger("ca")
#: So many names of those that were revoked together stand in the log; the audit log has all.
_NAMES_TOLD = 3


@define(eq=False, repr=False)
class Revoker:
    """Revokes certificates. Asks :mod:`pki.policy.policy` first."""

    store: IStore
    log: AuditLog
    now: Now
    """The wall clock."""
    listener: IRevocationListener
    """Hears of each revocation, when it is durable and before it is published."""
    publisher: CrlPublisher
    """What a revocation waits for: a CRL that says so."""
    blocked: BlockedKeys
    """Keys that nothing is certified for."""

    async def revoke(self, principal: Principal, serial: int, reason: Reason) -> IssuedCertificate:
        """Revoke for good; repeated, the first answer again. Answers once a CRL that says so is served.

        Raises :class:`Unknown` and refusals, and :class:`NotPublished` where it is revoked, endpoints
        hear of it, and there can be no CRL now.
        """
        known = await self.store.find(serial)
        target = policy.Certificate(serial, known.spiffe_id if known else None)
        policy.permit(principal, Action.REVOKE, target)
        if known is None:
            raise Unknown(f"no certificate has the serial {serial_hex(serial)}")
        revoked = await self.store.apply(
            Revoke(
                serial,
                self.now(),
                reason,
                self._act_of(principal, known, reason),
                known.issuer,
            )
        )
        if known.revoked_at is None:
            _log.info(
                "Certificate revoked:\n  Serial: {serial}\n  SAN URI: {spiffe_id}\n"
                "  Reason: {reason}\n  By: {requester}",
                event="certificate-revoked",
                serial=serial_pairs(serial),
                spiffe_id=str(revoked.spiffe_id),
                reason=str(revoked.reason),
                requester=str(principal),
            )
        await self._take_note([revoked])
        self.listener.revoked([revocation_of(revoked)])
        await self.publisher.published(revoked.issuer)
        return revoked

    async def revoke_all(
        self, principal: Principal, serials: Sequence[int], reason: Reason
    ) -> tuple[IssuedCertificate, ...]:
        """Revoke many in one step, each as :meth:`revoke` does; those that are unknown are left out.

        Raises refusals: where one of them may not be revoked, none is.
        """
        known: dict[int, IssuedCertificate] = {
            found.serial: found for found in await self.store.find_all(serials)
        }
        for serial in serials:
            found = known.get(serial)
            target = policy.Certificate(serial, found.spiffe_id if found else None)
            policy.permit(principal, Action.REVOKE, target)
        acts = tuple(
            (serial, self._act_of(principal, known[serial], reason))
            for serial in serials
            if serial in known
        )
        revoked = await self.store.apply(RevokeAll(acts, self.now(), reason))
        new = [found for found in revoked if known[found.serial].revoked_at is None]
        if new:
            names = list(dict.fromkeys(str(found.spiffe_id) for found in new))
            _log.info(
                "Certificates revoked: {count}\n  SAN URI: {spiffe_ids}\n  Reason: {reason}\n  By: {requester}",
                event="certificates-revoked",
                count=len(new),
                spiffe_ids=", ".join(names[:_NAMES_TOLD]) + ", …" * (len(names) > _NAMES_TOLD),
                reason=str(reason),
                requester=str(principal),
            )
        await self.tell(revoked)
        return revoked

    async def tell(self, revoked: Sequence[IssuedCertificate]) -> None:
        """Have endpoints hear of what is revoked on record, and wait for CRLs that say so.

        Raises :class:`NotPublished` where there can be none now; all have heard of it then, too.
        """
        await self._take_note(revoked)
        self.listener.revoked([revocation_of(found) for found in revoked])
        for issuer in {found.issuer for found in revoked}:
            await self.publisher.published(issuer)

    async def _take_note(self, revoked: Sequence[IssuedCertificate]) -> None:
        """The store has blocked the keys of what was compromised, and lets nobody record another of theirs."""
        if any(found.reason is Reason.KEY_COMPROMISE for found in revoked):
            await self.blocked.load()

    def _act_of(self, principal: Principal, known: IssuedCertificate, reason: Reason) -> Entry:
        facts = {"spiffe_id": str(known.spiffe_id), "reason": str(reason)}
        if reason is Reason.KEY_COMPROMISE:
            facts["key"] = known.key
        return self.log.entry(Act.REVOKE, principal, serial_hex(known.serial), facts)
