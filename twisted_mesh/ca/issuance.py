"""What is signed and recorded: intent, signature, certificate."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from attrs import define, field, frozen
from cryptography import x509

from pki.audit.log import Act
from pki.issuing.authority import Authority, Draft
from pki.policy.entry import DEFAULT_ENTRY
from pki.policy.policy import Grant, Principal, administrator
from pki.serial import serial_hex, serial_pairs
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Revocation
from pki.validity import rfc3339
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import (
    RecordCertificate,
    RecordIntent,
    WriteOff,
)
from twisted_mesh.stores.records import (
    IssuedCertificate,
    IssuedToken,
    OpenIntent,
    Unknown,
)

_log = logger("ca")


@frozen
class Issued:
    """What the caller gets. The certificate is decoded only for whoever asks for the ``chain``."""

    der: bytes
    serial: int
    expires_at: datetime
    intermediates: tuple[x509.Certificate, ...]

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The certificate and its intermediates, leaf first."""
        return (x509.load_der_x509_certificate(self.der), *self.intermediates)


@frozen
class Purchase:
    """Why something is signed, and what that uses up."""

    principal: Principal
    grant: Grant
    request_key: str | None = None
    """What the request is known by if it is repeated."""
    token: IssuedToken | None = None


@define(eq=False)
class Issuance:
    """Signs what is granted, with a record before and after, and writes off what was cut short."""

    _authorities: Callable[[], Authorities]
    store: Any
    """An :class:`IStore`."""
    _log: AuditLog
    _now: Now
    _registrar: RegistrationEntries
    _tell: Callable[[Sequence[Revocation]], None]
    """Says what was revoked to who must know."""
    issuance_log: IssuanceLog | None = None
    under_way: set[int] = field(factory=set, init=False)
    """Serials that are being signed."""

    async def issue(
        self,
        draft: Draft,
        spiffe_id: SpiffeId,
        purchase: Purchase,
        issuer: Authority | None = None,
    ) -> Issued:
        """Intent, signature, certificate, in this order: no crash leaves one that nobody can revoke.

        ``issuer`` is who has drafted it; None is the one that issues.
        """
        issuing, principal = issuer or self._authorities().issuing, purchase.principal
        bought_by = purchase.grant.entry
        intended = IssuedCertificate(
            issuer=issuing.key_id,
            serial=draft.serial,
            spiffe_id=spiffe_id,
            subject=draft.subject,
            key=draft.spki_digest,
            issued_at=self._now().replace(microsecond=0),
            expires_at=draft.not_after,
            requester=principal.evidence,
            entry=bought_by,
        )
        digest = hashlib.sha256(draft.tbs)
        facts = {"spiffe_id": str(spiffe_id), "tbs": digest.hexdigest()}
        if bought_by is not None:
            facts["entry"] = bought_by
        act = self._log.entry(
            Act.ISSUE if principal.serial is None else Act.RENEW,
            principal,
            serial_hex(draft.serial),
            facts,
        )
        intent_of = RecordIntent(
            intended,
            digest.digest(),
            act,
            principal.serial,
            purchase.request_key,
            requires=self._required(purchase),
            token=purchase.token.digest if purchase.token else None,
            at=self._now(),
        )
        self.under_way.add(draft.serial)
        try:
            intent: int = await self.store.apply(intent_of)
            der = await issuing.sign_der(draft)
            await self.store.apply(RecordCertificate(intent, der))
        finally:
            self.under_way.discard(draft.serial)
        if self.issuance_log is not None:
            self.issuance_log.record(intended)
        _log.info(
            "Certificate issued:\n  Serial: {serial}\n  Subject: {subject}\n  SAN URI: {spiffe_id}\n"
            "  Expires: {expires_at}",
            event="certificate-signed",
            serial=serial_pairs(draft.serial),
            subject=intended.subject,
            spiffe_id=str(spiffe_id),
            expires_at=rfc3339(intended.expires_at),
        )
        return Issued(der, draft.serial, draft.not_after, issuing.intermediates)

    def _required(self, purchase: Purchase) -> str | None:
        """The entry that the store must still have when the intent is recorded.

        Only what the file of entries buys needs none; and what nobody's entry buys, unless the caller
        may have it because the default entry stands.
        """
        entry = purchase.grant.entry
        if entry is None:
            return DEFAULT_ENTRY if purchase.principal.selectors else None
        return None if self._registrar.is_filed(entry) else entry

    async def write_off(self) -> int:
        """Resolve every intent whose signature is not under way any more; how many there were.

        What was signed, if anything, never left this process: its serial is revoked, so that it could
        do no harm if it had. Nothing is signed from the record: whoever can write the record could
        then have anything signed.
        """
        resolved = 0
        while abandoned := [
            intent
            for intent in await self.store.open_intents()
            if intent.certificate.serial not in self.under_way
        ]:
            for intent in abandoned:
                resolved += await self._write_off(intent)
        return resolved

    async def _write_off(self, intent: OpenIntent) -> bool:
        """False for one that got its certificate since it was read."""
        serial = intent.certificate.serial
        entry = self._log.entry(
            Act.WRITE_OFF,
            administrator("self"),
            serial_hex(serial),
            {"spiffe_id": str(intent.certificate.spiffe_id), "tbs": intent.digest.hex()},
        )
        try:
            revoked = await self.store.apply(WriteOff(intent.id, self._now(), entry))
        except Unknown:
            return False
        _log.warn(
            "A signature was cut short, and is written off: {serial} for {spiffe_id} is revoked",
            event="intent-written-off",
            serial=serial_pairs(serial),
            spiffe_id=str(intent.certificate.spiffe_id),
        )
        self._tell([revocation_of(revoked)])
        return True


def revocation_of(certificate: IssuedCertificate) -> Revocation:
    """What is told of a certificate that the store has revoked."""
    if certificate.revoked_at is None or certificate.reason is None:
        raise AssertionError("the store revoked and did not say when")
    return Revocation(
        certificate.issuer,
        certificate.serial,
        certificate.revoked_at,
        certificate.reason,
        certificate.expires_at,
    )
