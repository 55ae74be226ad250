"""The certificate authority: decides by :mod:`pki`, records before and after it signs, and tells who must know."""

import errno
import ipaddress
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, evolve, field
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki import policy
from pki.authority import Draft
from pki.bundle import BundleSet, TrustBundle
from pki.csr import IssuanceRequest
from pki.errors import PkiError, Problem, Refused
from pki.keys import MemoryKey
from pki.policy import Action, Lifetimes, Principal
from pki.revocation import Reason, Revocation
from pki.serial import serial_hex, serial_pairs
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid import subject_of, validity_of
from pki.validity import rfc3339
from twisted_mesh.ca.authorities import Authorities
from twisted_mesh.clock import Now
from twisted_mesh.events import logger
from twisted_mesh.state import StateError
from twisted_mesh.stores.records import (
    Feed,
    IssuedCertificate,
    Page,
    Query,
    RecordCertificate,
    RecordIntent,
    Revoke,
    Unknown,
)

_log = logger("ca")
#: What the CA's own certificate lives at most.
OWN_LIFETIME = timedelta(hours=24)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o640)


@define(eq=False)
class IssuanceLog:
    """``--issuance-log``: one JSON line a certificate."""

    path: Path

    def open(self) -> None:
        """See at the start that it can be written. Raises :class:`StateError`."""
        self._append(b"")

    def record(self, certificate: IssuedCertificate) -> None:
        line = {
            "time": rfc3339(certificate.issued_at),
            "serial": serial_hex(certificate.serial),
            "spiffe_id": str(certificate.spiffe_id),
            "subject": certificate.subject,
            "expires_at": rfc3339(certificate.expires_at),
            "requester": certificate.requester,
        }
        self._append(msgspec.json.encode(line) + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            with open(self.path, "ab", buffering=0, opener=_private) as file:
                written = file.write(line)
                if written != len(line):  # half a line would spoil the next one too
                    file.truncate(file.tell() - written)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StateError(
                f"the issuance log {self.path} cannot be written ({error.strerror})"
            ) from None


@define(eq=False)
class CertificateAuthority:
    """What the API does, without HTTP. Every method that a caller reaches asks ``policy.permit`` first."""

    trust_domain: TrustDomain
    authorities: Authorities
    store: Any
    """An :class:`IStore`."""
    lifetimes: Lifetimes
    now: Now
    issuance_log: IssuanceLog | None = None
    on_revocation: list[Callable[[Sequence[Revocation]], None]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        issuing = self.authorities.issuing
        issuing.workload = evolve(issuing.workload, lifetime=self.lifetimes.maximum)

    @property
    def own_id(self) -> SpiffeId:
        return self.trust_domain.member("mesh", "ca")

    def bundle(self) -> TrustBundle:
        return self.authorities.bundle(self.trust_domain)

    def bundles(self) -> BundleSet:
        return BundleSet.of(self.bundle())

    async def sign(
        self, principal: Principal, csr: bytes, requested_id: str, ttl: timedelta | None
    ) -> tuple[x509.Certificate, ...]:
        """The certificate and its intermediates, leaf first. Raises :class:`PkiError` with every reason."""
        request = self._request(csr, requested_id, ttl)
        _log.info(
            "Received CSR:\n  Subject: {subject}\n  Requested SAN: {spiffe_id}\n  From: {requester}",
            event="csr-received",
            subject=request.subject or "(empty)",
            spiffe_id=str(request.spiffe_id),
            requester=str(principal),
        )
        policy.permit(principal, Action.SIGN, request)
        draft = self.authorities.issuing.draft(
            request.public_key,
            request.spiffe_id,
            self.now(),
            self.lifetimes.grant(request.ttl),
            dns_names=request.dns_names,
            ip_addresses=request.ip_addresses,
        )
        return await self._issue(draft, request.spiffe_id, principal.evidence)

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
        return await self._issue(draft, self.own_id, "self")

    async def revoke(self, principal: Principal, serial: int, reason: Reason) -> IssuedCertificate:
        """Revoke for good; repeated, the first answer again. Raises :class:`Unknown` and refusals."""
        known: IssuedCertificate | None = await self.store.find(serial)
        target = policy.Certificate(serial, known.spiffe_id if known else None)
        policy.permit(principal, Action.REVOKE, target)
        if known is None:
            raise Unknown(f"no certificate has the serial {serial_hex(serial)}")
        revoked: IssuedCertificate = await self.store.apply(
            Revoke(serial, self.now(), reason, known.issuer)
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
        self._tell([_revocation(revoked)])
        return revoked

    async def certificates(self, query: Query) -> Page:
        page: Page = await self.store.list(query)
        return page

    async def revocations(self, after: int, store: str = "") -> Feed:
        """What was revoked after a position of this store's feed; all of it for another store's position."""
        feed: Feed = await self.store.feed(after)
        if store and store != feed.store and after:
            feed = await self.store.feed(0)
        return feed

    async def check(self) -> None:
        """Whether it can issue now. Raises :class:`PkiError` with the reason."""
        if not validity_of(self.authorities.issuing.certificate).contains(self.now()):
            raise Refused(
                [Problem("issuer-expired", "the issuing CA is not valid now", "check the clock")]
            )
        await self.store.find(0)

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

    async def _issue(
        self, draft: Draft, spiffe_id: SpiffeId, requester: str
    ) -> tuple[x509.Certificate, ...]:
        """Intent, signature, certificate, in this order: no crash leaves one that nobody can revoke."""
        issuing = self.authorities.issuing
        intent = IssuedCertificate(
            issuer=issuing.key_id,
            serial=draft.serial,
            spiffe_id=spiffe_id,
            subject=subject_of(draft.unsigned),
            issued_at=self.now().replace(microsecond=0),
            expires_at=draft.unsigned.not_valid_after_utc,
            requester=requester,
        )
        await self.store.apply(RecordIntent(intent))
        certificate = await issuing.sign(draft)
        der = certificate.public_bytes(serialization.Encoding.DER)
        await self.store.apply(RecordCertificate(issuing.key_id, draft.serial, der))
        if self.issuance_log is not None:
            self.issuance_log.record(intent)
        _log.info(
            "Certificate issued:\n  Serial: {serial}\n  Subject: {subject}\n  SAN URI: {spiffe_id}\n"
            "  Expires: {expires_at}",
            event="certificate-signed",
            serial=serial_pairs(draft.serial),
            subject=intent.subject,
            spiffe_id=str(spiffe_id),
            expires_at=rfc3339(intent.expires_at),
        )
        return (certificate, *issuing.intermediates)

    def _tell(self, revocations: Sequence[Revocation]) -> None:
        for call in self.on_revocation:
            call(revocations)


def _revocation(certificate: IssuedCertificate) -> Revocation:
    if certificate.revoked_at is None or certificate.reason is None:
        raise AssertionError("the store revoked and did not say when")
    return Revocation(
        certificate.issuer,
        certificate.serial,
        certificate.revoked_at,
        certificate.reason,
        certificate.expires_at,
    )
