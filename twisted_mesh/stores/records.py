"""What a store keeps and what it is told: records, frozen commands and queries."""

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from pki.errors import PkiError
from pki.revocation import Reason, Revocation
from pki.spiffe import SpiffeId


class Status(StrEnum):
    """Where a certificate stands. ``expired`` is a fact of the clock and is never stored."""

    PENDING = "pending"
    """Its intent is recorded, its signature is not: it may or may not exist."""
    VALID = "valid"
    REVOKED = "revoked"
    EXPIRED = "expired"


@frozen
class IssuedCertificate:
    """What the store keeps of a certificate."""

    issuer: str
    """:func:`pki.keys.key_id` of the CA."""
    serial: int
    spiffe_id: SpiffeId
    subject: str
    issued_at: datetime
    expires_at: datetime
    requester: str
    """Who asked, as the attestor saw it."""
    der: bytes | None = None
    """None while only the intent is recorded."""
    revoked_at: datetime | None = None
    reason: Reason | None = None

    def status(self, now: datetime) -> Status:
        if self.revoked_at is not None:
            return Status.REVOKED
        if now > self.expires_at:
            return Status.EXPIRED
        return Status.VALID if self.der is not None else Status.PENDING


@frozen
class RecordIntent:
    """Before a signature: that it is about to be made. Result: None. Raises :class:`Conflict` for a known serial."""

    certificate: IssuedCertificate


@frozen
class RecordCertificate:
    """After the signature: the certificate for an intent. Result: None. Raises :class:`Unknown`."""

    issuer: str
    serial: int
    der: bytes


@frozen
class Revoke:
    """Revoke a certificate, once and for all. Result: its :class:`IssuedCertificate`.

    Repeated, it changes nothing and answers with the first revocation. Raises :class:`Unknown`.
    """

    serial: int
    at: datetime
    reason: Reason
    issuer: str | None = None
    """None: whichever of our issuers gave out the serial."""


Command = RecordIntent | RecordCertificate | Revoke


@frozen
class Query:
    """Which certificates to list, newest first."""

    now: datetime
    spiffe_id: SpiffeId | None = None
    status: Status | None = None
    expires_before: datetime | None = None
    limit: int = 100
    cursor: str | None = None
    """Where the last page ended: its ``next``."""


@frozen
class Page:
    certificates: tuple[IssuedCertificate, ...]
    next: str | None
    """The cursor of the next page; None at the end."""


@frozen
class Feed:
    """The revocations after a position, and where the feed stands now."""

    store: str
    """Identifies this store for good: a position means nothing in another one."""
    position: int
    revocations: tuple[Revocation, ...]


class StoreError(PkiError):
    """The store did not do what it was told; nothing of the command has been kept."""

    code = "store-unavailable"


class Unknown(StoreError):
    """No certificate has this serial."""

    code = "not-found"


class Conflict(StoreError):
    """A precondition of the command does not hold."""

    code = "conflict"


class BadCursor(StoreError):
    """The cursor is not one that a page ended with."""

    code = "malformed"
