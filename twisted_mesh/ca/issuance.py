"""What is signed and recorded, so that nothing leaves unrecorded. And what becomes of what was cut short."""

import hashlib
import ipaddress
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from time import monotonic

from attrs import define, field, frozen
from cryptography import x509

from pki.audit.log import Act
from pki.crl.schedule import RESPONDER_LIFE
from pki.errors import PkiError
from pki.issuing.authority import Authority
from pki.issuing.draft import Draft
from pki.issuing.profile import OCSP_RESPONDER
from pki.keys import MemoryKey
from pki.policy.entry import DEFAULT_ENTRY
from pki.policy.policy import Grant
from pki.policy.principal import Principal, administrator
from pki.policy.selector import Selector, spoken
from pki.serial import serial_hex, serial_pairs
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Revocation
from pki.validity import rfc3339
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.policy.gate import Approval
from twisted_mesh.ca.record_clock import RecordClock
from twisted_mesh.ca.transparency.receipts import Receipts
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.keystores.stored_key import StoredKey
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import (
    Admission,
    Claim,
    RecordCertificate,
    RecordIntent,
    RecordIssue,
    WriteOff,
)
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import (
    IssuedCertificate,
    IssuedToken,
    OpenIntent,
    Unknown,
)

_log = logger("ca")
#: What the CA's own certificate lives at most.
OWN_LIFETIME = timedelta(hours=24)


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
    stated: frozenset[Selector] | None = None
    """Of a workload, by its agent, who is the principal then; None where the principal asks for itself."""
    claim: Claim | None = None
    """What its platform vouches for once."""
    descends_from: str | None = None
    """The claim that bought what the principal has shown."""
    admits: Admission | None = None
    """What is recorded of an agent that is let in."""
    rests_on: tuple[str, ...] = ()
    """Other entries without which it would not be granted."""
    approval: Approval | None = None
    """What the policy has said; None for what the CA issues to itself."""

    @property
    def bought_by_claim(self) -> str | None:
        """The claim that the certificate ends with."""
        return self.descends_from if self.claim is None else self.claim.text


async def _left(intent: OpenIntent) -> None:
    """Nobody writes it off now: housekeeping will."""


@define(eq=False, repr=False)
class Issuance:
    """Signs what is granted, and hands it out once it is on record."""

    authorities: CurrentAuthorities
    store: IStore
    log: AuditLog
    now: Now
    entries: RegistrationEntries
    issuance_log: IssuanceLog | None = None
    receipts: Receipts | None = None
    """What certificates are shown to before they are signed; None where there are no logs."""
    record_clock: RecordClock = field(init=False)
    """What time it is at least."""
    signed: Callable[[float], None] = lambda seconds: None
    """Hears how long each took, from its draft to its certificate on record."""
    seconds: Callable[[], float] = monotonic
    under_way: set[int] = field(factory=set, init=False)
    """Serials that are being signed."""
    given_up: Callable[[OpenIntent], Awaitable[None]] = field(default=_left, init=False)
    """Writes off an intent that has come to nothing."""

    def __attrs_post_init__(self) -> None:
        self.record_clock = RecordClock(self.now)

    async def issue(
        self,
        draft: Draft,
        spiffe_id: SpiffeId,
        purchase: Purchase,
        issuer: Authority | None = None,
    ) -> Issued:
        """Nothing that is signed leaves this process before it is on record, with all that it uses up.

        Where the key is in memory, so is what it has signed until the one transaction is durable that records it;
        where that fails, or nobody knows, it is thrown away. A key elsewhere has seen what it signs: there the
        intent is on record first, and so it is where logs are shown a precertificate: that comes after the intent, and
        the certificate after what they answer. Either way no crash leaves a certificate that nobody can revoke.

        ``issuer`` is who has drafted it; None is the one that issues. Raises what the store and the signer raise, and
        :class:`ClockBehind` for what would be dead on arrival.
        """
        self.record_clock.demand_life(draft.not_after)
        now = self.now()
        issuing = issuer or self.authorities.current.issuing
        self.authorities.current.demand_in_use(issuing)
        principal = purchase.principal
        bought_by = purchase.grant.entry
        serial, id_text = serial_hex(draft.serial), str(spiffe_id)
        intended = IssuedCertificate(
            issuer=issuing.key_id,
            serial=draft.serial,
            spiffe_id=spiffe_id,
            subject=draft.subject,
            key=draft.spki_digest,
            issued_at=now.replace(microsecond=0),
            expires_at=draft.not_after,
            requester=principal.evidence,
            entry=bought_by,
            claim=purchase.bought_by_claim,
        )
        if isinstance(issuing.key, StoredKey):
            issuing.key.demand_store()  # before an intent is on record, which would have to be written off
        logs = None if draft.profile.is_responder else self.receipts
        if logs is not None:
            logs.demand_logs()  # likewise
        # Of what is drafted: neither the poison nor what logs answer is in it, and in no digest on record.
        digest = hashlib.sha256(draft.tbs)
        expires_at = rfc3339(draft.not_after)
        facts = {
            "spiffe_id": id_text,
            "tbs": digest.hexdigest(),
            "expires_at": expires_at,
            "issuer": issuing.key_id,
        }
        if bought_by is not None:
            facts["entry"] = bought_by
        facts |= _of_claim(purchase)
        stated = purchase.stated
        if stated is not None:
            facts["stated"] = spoken(stated)
        if purchase.approval is not None:
            facts |= purchase.approval.facts
        act = self.log.entry(
            Act.ISSUE if principal.serial is None or stated is not None else Act.RENEW,
            principal,
            serial,
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
            at=now,
            claim=purchase.claim,
            admits=purchase.admits,
            rests_on=tuple(e for e in purchase.rests_on if not self.entries.is_filed(e)),
        )
        self.under_way.add(draft.serial)
        began = self.seconds()
        try:
            if logs is None and issuing.key.is_in_memory and not self.store.is_shared:
                der = await issuing.sign_der(draft)
                await self.store.apply(RecordIssue(intent_of, der))
                self._admitted(purchase)
            else:
                intent = await self.store.apply(intent_of)
                self._admitted(purchase)
                opened = OpenIntent(intent, intended, digest.digest())
                der = await self._finished(opened, draft, issuing, logs)
        finally:
            self.under_way.discard(draft.serial)
        self.signed(self.seconds() - began)
        if self.issuance_log is not None:
            self.issuance_log.record(intended)
        _log.info(
            "Certificate issued:\n  Serial: {serial}\n  Subject: {subject}\n  SAN URI: {spiffe_id}\n"
            "  Expires: {expires_at}",
            event="certificate-signed",
            serial=serial_pairs(draft.serial),
            subject=intended.subject,
            spiffe_id=id_text,
            expires_at=expires_at,
        )
        return Issued(der, draft.serial, draft.not_after, issuing.intermediates)

    async def _finished(
        self, intent: OpenIntent, draft: Draft, issuing: Authority, logs: Receipts | None
    ) -> bytes:
        """The certificate of an intent that is on record, once it is there too. What cannot be had is written off."""
        try:
            final = draft
            if logs is not None:
                scts = await logs.obtain(
                    lambda: issuing.sign_der(draft.precertificate()), issuing.intermediates
                )
                final = draft.with_receipts(scts) if scts else draft
            der = await issuing.sign_der(final)
            await self.store.apply(RecordCertificate(intent.id, der))
        except PkiError:
            if logs is not None:
                # At once: a token that was spent on it is to be good again when its bearer repeats the request.
                self.under_way.discard(draft.serial)
                await self.given_up(intent)
            raise
        return der

    def give_up_by(self, given_up: Callable[[OpenIntent], Awaitable[None]]) -> None:
        """Have intents that come to nothing written off by that. It raises nothing."""
        self.given_up = given_up

    def _admitted(self, purchase: Purchase) -> None:
        if purchase.admits is not None:
            self.entries.took(purchase.admits.entry)

    def _required(self, purchase: Purchase) -> str | None:
        """The entry that the store must still have when what it buys is recorded; None for no entry.

        - Bought by an entry of the store: that entry.
        - Bought by an entry of the file of ``--entries``: none, since the store has never had it.
        - Bought by no entry, for an administrator by the socket: the default entry, which lets them issue.
        - Bought by no entry, for any other: none.
        """
        entry = purchase.grant.entry
        if entry is not None:
            return None if self.entries.is_filed(entry) else entry
        return DEFAULT_ENTRY if purchase.principal.selectors else None


def _of_claim(purchase: Purchase) -> dict[str, str]:
    """What the audit log says of the claim that a certificate is bought by, or descends from."""
    told = {"claim": purchase.bought_by_claim or ""}
    if purchase.claim is not None:
        told["uses"] = "claim"
        told["until"] = "" if purchase.claim.until is None else rfc3339(purchase.claim.until)
    return {name: text for name, text in told.items() if text}


@frozen(eq=False, repr=False)
class OwnCertificates:
    """What the CA issues to itself."""

    issuance: Issuance

    async def issue_tls(self, key: MemoryKey) -> tuple[x509.Certificate, ...]:
        """The chain of the CA's own TLS certificate, leaf first: the one name in ``/mesh/**``."""
        authorities = self.issuance.authorities
        own_id = authorities.trust_domain.member("mesh", "ca")
        lifetime = min(OWN_LIFETIME, authorities.lifetimes.maximum)
        issuer = authorities.current.issuing
        draft = issuer.draft(
            key.public_key,
            own_id,
            self.issuance.now(),
            lifetime,
            dns_names=["localhost"],
            ip_addresses=[ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")],
        )
        purchase = Purchase(administrator("self"), Grant(None, lifetime))
        return (await self.issuance.issue(draft, own_id, purchase, issuer)).chain

    async def issue_responder(self, issuer: Authority, key: MemoryKey) -> x509.Certificate:
        """A certificate for ``key`` to sign ``issuer``'s OCSP answers, recorded like every other."""
        lifetime = min(RESPONDER_LIFE, OCSP_RESPONDER.lifetime)
        draft = issuer.draft_responder(key.public_key, self.issuance.now(), lifetime)
        purchase = Purchase(administrator("self"), Grant(None, lifetime))
        # What responders' certificates are on record under; they name nobody themselves.
        spiffe_id = self.issuance.authorities.trust_domain.member("mesh", "ocsp-responder")
        issued = await self.issuance.issue(draft, spiffe_id, purchase, issuer)
        return x509.load_der_x509_certificate(issued.der)


@frozen(eq=False, repr=False)
class WriteOffs:
    """Resolves what was cut short between its intent and its certificate."""

    issuance: Issuance
    listener: IRevocationListener
    """Hears what is revoked by that."""

    async def resolve(self) -> int:
        """Resolve every intent whose signature is not under way any more; how many there were.

        What was signed, if anything, never left this process: its serial is revoked, so that it could
        do no harm if it had. Nothing is signed from the record: whoever can write the record could
        then have anything signed.
        """
        resolved = 0
        while abandoned := [
            intent
            for intent in await self.issuance.store.open_intents()
            if intent.certificate.serial not in self.issuance.under_way
        ]:
            for intent in abandoned:
                resolved += await self._write_off(intent)
        return resolved

    async def give_up(self, intent: OpenIntent) -> None:
        """Write off one that has come to nothing a moment ago; where that cannot be now, housekeeping will."""
        with suppress(PkiError):
            await self._write_off(intent)

    async def _write_off(self, intent: OpenIntent) -> bool:
        """False for one that got its certificate since it was read."""
        serial, issuance = intent.certificate.serial, self.issuance
        entry = issuance.log.entry(
            Act.WRITE_OFF,
            administrator("self"),
            serial_hex(serial),
            {"spiffe_id": str(intent.certificate.spiffe_id), "tbs": intent.digest.hex()},
        )
        try:
            revoked = await issuance.store.apply(WriteOff(intent.id, issuance.now(), entry))
        except Unknown:
            return False
        _log.warn(
            "A signature was cut short, and is written off: {serial} for {spiffe_id} is revoked",
            event="intent-written-off",
            serial=serial_pairs(serial),
            spiffe_id=str(intent.certificate.spiffe_id),
        )
        self.listener.revoked([revocation_of(revoked)])
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
