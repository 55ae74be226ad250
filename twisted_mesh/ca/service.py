"""The certificate authority: decides by :mod:`pki`, records before and after it signs, and tells who must know."""

import hashlib
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any

from attrs import define, evolve, field
from cryptography import x509
from twisted.internet.defer import Deferred

from pki.audit.log import Act, Entry
from pki.crl.schedule import RESPONDER_LIFE
from pki.errors import PkiError, Problem, Refused
from pki.issuing.authority import Authority
from pki.issuing.csr import IssuanceRequest
from pki.issuing.profile import OCSP_RESPONDER
from pki.issuing.publication import Publication
from pki.keys import MemoryKey, key_id
from pki.policy import policy
from pki.policy.policy import Action, Forbidden, Grant, Lifetimes, Principal, administrator
from pki.serial import serial_hex, serial_pairs
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.revocation_set import Reason, Revocation
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.ca.connection_reports import ConnectionReports
from twisted_mesh.ca.entries import RegistrationEntries
from twisted_mesh.ca.health import Health
from twisted_mesh.ca.issuance import Issuance, Issued, Purchase, revocation_of
from twisted_mesh.ca.issuance_log import IssuanceLog
from twisted_mesh.ca.join_tokens import JoinTokens
from twisted_mesh.ca.notifier import Notifier
from twisted_mesh.ca.revocation.crl_publisher import CrlPublisher
from twisted_mesh.ca.revocation.ocsp_responder import OcspResponder
from twisted_mesh.limits.fair_queue import FairQueue
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import (
    Revoke,
    RevokeAll,
)
from twisted_mesh.stores.records import (
    Conflict,
    Feed,
    IssuedCertificate,
    IssuedToken,
    Page,
    Query,
    Status,
    StoreError,
    TokenSpent,
    Unknown,
)

_log = logger("ca")
#: A join token takes the place of an Idempotency-Key: its bearer repeats a request with it.
_JOINING = "join token"
#: So many names of those that were revoked together stand in the log; the audit log has all.
_NAMES_TOLD = 3
#: What the CA's own certificate lives at most.
OWN_LIFETIME = timedelta(hours=24)


@define(eq=False)
class CertificateAuthority:
    """What the API does, without HTTP. Every method that a caller reaches asks :mod:`pki.policy.policy` first."""

    trust_domain: TrustDomain
    authorities: Authorities
    store: Any
    """An :class:`IStore`."""
    log: AuditLog
    lifetimes: Lifetimes
    now: Now
    issuance_log: IssuanceLog | None = None
    on_revocation: list[Callable[[Sequence[Revocation]], None]] = field(factory=list)
    fair_queue: FairQueue = field(factory=FairQueue, init=False)
    """What is signed for callers, each in turn; what the CA needs for itself does not queue."""
    _requests: dict[str, list[Deferred[None]]] = field(factory=dict, init=False)
    """Idempotent requests under way, and who waits for their outcome."""

    url: str = field(default="", init=False)
    """Where callers of other machines reach its TLS port."""
    entries: RegistrationEntries = field(init=False)
    issuance: Issuance = field(init=False)
    """What is signed and recorded."""
    tokens: JoinTokens = field(init=False)
    health: Health = field(init=False)
    publisher: CrlPublisher = field(init=False)
    responder: OcspResponder = field(init=False)
    publishes_at: str | None = field(default=None, init=False)
    """Where others find CRLs, OCSP answers and issuers in plain HTTP; certificates say so."""
    reports: ConnectionReports = field(init=False)
    """What endpoints say of their connections."""
    detach: Callable[[str, str], Awaitable[Any]] | None = field(default=None, init=False)
    """Takes the root's key away: :meth:`Rotator.detach_root`; None where nothing is kept."""
    notifier: Notifier | None = field(default=None, init=False)
    """Who waits for news; without one nobody waits."""

    def __attrs_post_init__(self) -> None:
        self.entries = RegistrationEntries(self.store, self.log, self.now)
        self.issuance = Issuance(
            lambda: self.authorities,
            self.store,
            self.log,
            self.now,
            self.entries,
            self._tell,
            self.issuance_log,
        )
        self.tokens = JoinTokens(self.store, self.log, self.now, self.entries)
        self.publisher = CrlPublisher(
            lambda: self.authorities, self.store, self.log, self.now, self.lifetimes
        )
        self.responder = OcspResponder(
            lambda: self.authorities,
            self.store,
            self.publisher,
            self.now,
            self.issue_responder,
            self.fair_queue,
        )
        self.reports = ConnectionReports(monotonic)
        self.health = Health(lambda: self.authorities, self.store, self.log, self.now)
        self.health.publishing = self.publisher.waiting
        self.adopt(self.authorities)

    def adopt(self, authorities: Authorities) -> None:
        """From now on ``authorities.issuing`` issues."""
        issuing = authorities.issuing
        issuing.workload = evolve(
            issuing.workload,
            lifetime=self.lifetimes.maximum,
            publication=self._publication(issuing),
        )
        before, self.authorities = self.authorities.bundle(self.trust_domain), authorities
        if self.notifier is not None and self.bundle() != before:
            self.notifier.announce()

    def publish_at(self, base: str) -> None:
        """From now on certificates say that what is published of their issuer is found below ``base``."""
        self.publishes_at = base
        self.adopt(self.authorities)

    def _publication(self, issuing: Authority) -> Publication | None:
        base = self.publishes_at
        if base is None:
            return None
        # Each names its issuer: after a succession there are several.
        return Publication(
            f"{base}/crl/{issuing.key_id}", f"{base}/ocsp", f"{base}/issuer/{issuing.key_id}"
        )

    @property
    def under_way(self) -> int:
        """How many certificates are being issued."""
        return len(self.issuance.under_way)

    @property
    def own_id(self) -> SpiffeId:
        return self.trust_domain.member("mesh", "ca")

    @property
    def responder_id(self) -> SpiffeId:
        """What responders' certificates are on record under; they name nobody themselves."""
        return self.trust_domain.member("mesh", "ocsp-responder")

    def bundle(self) -> TrustBundle:
        return self.authorities.bundle(self.trust_domain)

    def bundles(self) -> BundleSet:
        return BundleSet.of(self.bundle())

    async def sign(
        self,
        principal: Principal,
        csr: bytes,
        requested_id: str,
        ttl: timedelta | None,
        idempotency_key: str | None = None,
        *,
        token: IssuedToken | None = None,
    ) -> Issued:
        """Raises :class:`PkiError` with every reason.

        The same ``idempotency_key`` from the same caller with the same CSR is answered with the same
        certificate, as long as that is good; so is the same ``token``, which buys only one.
        """
        request = self._request(csr, requested_id, ttl)
        _log.info(
            "Received CSR:\n  Subject: {subject}\n  Requested SAN: {spiffe_id}\n  From: {requester}",
            event="csr-received",
            subject=request.subject or "(empty)",
            spiffe_id=str(request.spiffe_id),
            requester=str(principal),
        )
        if token is not None:
            idempotency_key = _JOINING
            _refuse_other_key(token, request)
        elif principal.serial is not None:
            presented: IssuedCertificate | None = await self.store.find(principal.serial)
            principal = evolve(principal, entry=presented.entry if presented else None)
        entries = self.entries.candidates(principal, only=token.entry if token else None)
        granted = policy.grant(principal, request, entries, self.lifetimes)
        if idempotency_key is None:
            return await self._sign(request, Purchase(principal, granted))
        request_key = _request_key(principal, request, idempotency_key)
        while (earlier := self._requests.get(request_key)) is not None:
            await _turn(earlier)
        self._requests[request_key] = []
        try:
            known = await self.store.find_request(request_key)
            if known is not None:
                return self._signed_before(known)
            if token is not None and token.spent_at is not None:
                raise TokenSpent(
                    "this join token has bought a certificate for another CSR: have a new one made "
                    "(mesh-ctl token create)"
                )
            purchase = Purchase(principal, granted, request_key, token)
            return await self._sign(request, purchase)
        finally:
            for waiting in self._requests.pop(request_key):
                waiting.callback(None)

    async def _sign(self, request: IssuanceRequest, purchase: Purchase) -> Issued:
        """When it is the caller's turn. Raises :class:`Busy`."""
        async with self.fair_queue.enter(purchase.principal.proof):
            return await self._sign_now(request, purchase)

    async def _sign_now(self, request: IssuanceRequest, purchase: Purchase) -> Issued:
        draft = self.authorities.issuing.draft(
            request.public_key,
            request.spiffe_id,
            self.now(),
            purchase.grant.lifetime,
            dns_names=request.dns_names,
            ip_addresses=request.ip_addresses,
        )
        return await self.issuance.issue(draft, request.spiffe_id, purchase)

    def _signed_before(self, known: IssuedCertificate) -> Issued:
        """The answer to a request that has been answered."""
        status = known.status(self.now())
        if status is Status.PENDING:
            raise StoreError("this request was interrupted and is being resolved: ask again later")
        issuer = self.authorities.issuer(known.issuer)
        if status is not Status.VALID or known.der is None or issuer is None:
            raise Conflict(
                f"the certificate that this request has bought is {status}: use another Idempotency-Key or join token"
            )
        return Issued(known.der, known.serial, known.expires_at, issuer.intermediates)

    async def issue_own(self, key: MemoryKey) -> tuple[x509.Certificate, ...]:
        """The CA's own TLS certificate: the one name in ``/mesh/**``."""

        addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
        lifetime = min(OWN_LIFETIME, self.lifetimes.maximum)
        draft = self.authorities.issuing.draft(
            key.public_key,
            self.own_id,
            self.now(),
            lifetime,
            dns_names=["localhost"],
            ip_addresses=addresses,
        )
        purchase = Purchase(administrator("self"), Grant(None, lifetime))
        return (await self.issuance.issue(draft, self.own_id, purchase)).chain

    async def issue_responder(self, issuer: Authority, key: MemoryKey) -> x509.Certificate:
        """A certificate for ``key`` to sign ``issuer``'s OCSP answers, recorded like every other."""
        lifetime = min(RESPONDER_LIFE, OCSP_RESPONDER.lifetime)
        draft = issuer.draft_responder(key.public_key, self.now(), lifetime)
        purchase = Purchase(administrator("self"), Grant(None, lifetime))
        issued = await self.issuance.issue(draft, self.responder_id, purchase, issuer)
        return x509.load_der_x509_certificate(issued.der)

    async def revoke(self, principal: Principal, serial: int, reason: Reason) -> IssuedCertificate:
        """Revoke for good; repeated, the first answer again. Answers once a CRL that says so is served.

        Raises :class:`Unknown` and refusals, and :class:`NotPublished` where it is revoked, endpoints
        hear of it, and there can be no CRL now.
        """
        known: IssuedCertificate | None = await self.store.find(serial)
        target = policy.Certificate(serial, known.spiffe_id if known else None)
        policy.permit(principal, Action.REVOKE, target)
        if known is None:
            raise Unknown(f"no certificate has the serial {serial_hex(serial)}")
        revoked: IssuedCertificate = await self.store.apply(
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
        self._tell([revocation_of(revoked)])
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
        revoked: tuple[IssuedCertificate, ...] = await self.store.apply(
            RevokeAll(acts, self.now(), reason)
        )
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
        self._tell([revocation_of(found) for found in revoked])
        for issuer in {found.issuer for found in revoked}:
            await self.publisher.published(issuer)
        return revoked

    def _act_of(self, principal: Principal, known: IssuedCertificate, reason: Reason) -> Entry:
        facts = {"spiffe_id": str(known.spiffe_id), "reason": str(reason)}
        return self.log.entry(Act.REVOKE, principal, serial_hex(known.serial), facts)

    async def detach_root(self, principal: Principal, sha256: str) -> Any:
        """The :class:`Detached` of a CA whose root's key is taken away."""
        policy.permit(principal, Action.DETACH_ROOT)
        if self.detach is None:
            raise Conflict("this CA keeps no keys in files")
        return await self.detach(sha256, principal.evidence)

    async def certificates(self, query: Query) -> Page:
        page: Page = await self.store.list(query)
        return page

    async def revocations(self, after: int, store: str = "") -> Feed:
        """What was revoked after a position of this store's feed; all of it for another store's position."""
        feed: Feed = await self.store.feed(after)
        if store and store != feed.store and after:
            feed = await self.store.feed(0)
        return feed

    async def certificate(self, serial: int) -> IssuedCertificate:
        """Raises :class:`Unknown`."""
        known: IssuedCertificate | None = await self.store.find(serial)
        if known is None:
            raise Unknown(f"no certificate has the serial {serial_hex(serial)}")
        return known

    def _request(self, csr: bytes, requested_id: str, ttl: timedelta | None) -> IssuanceRequest:
        """Every rule that the request breaks, the lifetime's among them."""
        problems: list[Problem] = []
        try:
            self.lifetimes.grant(ttl)
        except PkiError as error:
            problems += error.problems
        try:
            request = IssuanceRequest.parse(
                csr,
                requested_id,
                None if problems else ttl,
                trust_domain=self.trust_domain,
                forbidden_keys=self.authorities.forbidden_keys(),
            )
        except Refused as error:
            raise Refused((*problems, *error.problems)) from None
        if problems:
            raise Refused(problems)
        return request

    async def write_off(self) -> int:
        """Resolve every intent whose signature is not under way any more; how many there were."""
        return await self.issuance.write_off()

    def _tell(self, revocations: Sequence[Revocation]) -> None:
        for call in self.on_revocation:
            call(revocations)
        if self.notifier is not None:
            self.notifier.announce()
        # Last: a CRL takes a moment, and nobody else is to wait for it.
        self.responder.told(revocations)
        self.publisher.told(revocations)


async def _turn(waiting: list[Deferred[None]]) -> None:
    """Until whoever has this list is done."""
    done: Deferred[None] = Deferred()
    waiting.append(done)
    await done


def _refuse_other_key(token: IssuedToken, request: IssuanceRequest) -> None:
    if token.key is not None and token.key != key_id(request.public_key):
        raise Forbidden(
            "token-key-only",
            "this join token is for one key, and the CSR has another: send that CSR",
        )


def _request_key(principal: Principal, request: IssuanceRequest, key: str) -> str:
    """What a repeated request is known by: the caller, what it asks for, and its word that it is the same."""
    parts = (principal.proof, request.digest, str(request.spiffe_id), key)
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
