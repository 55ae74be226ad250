"""What a store keeps and what it is asked: records and queries as frozen values, and why it may refuse."""

from datetime import datetime
from enum import StrEnum
from typing import Self

from attrs import field, frozen

from pki.codes import Code
from pki.errors import PkiError, printable
from pki.policy.entry import RegistrationEntry
from pki.policy.join_token import token_id
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.revocation_set import Reason, Revocation
from pki.validity import rfc3339


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
    key: str
    """:func:`pki.keys.key_id` of its own public key."""
    issued_at: datetime
    expires_at: datetime
    requester: str
    """Who asked, as the attestor saw it."""
    is_pending: bool = True
    """Whether only the intent is recorded."""
    revoked_at: datetime | None = None
    reason: Reason | None = None
    der: bytes | None = None
    """The certificate; None while it is pending, and in lists."""
    entry: str | None = None
    """The registration entry that bought it, which may be gone; None where none limited the caller."""
    claim: str | None = None
    """The claim that has bought it, or what it is a renewal of; None where none has."""

    def status(self, now: datetime) -> Status:
        """How it stands at that time. Revoked outlasts expired: it says more."""
        if self.revoked_at is not None:
            return Status.REVOKED
        if now > self.expires_at:
            return Status.EXPIRED
        return Status.PENDING if self.is_pending else Status.VALID


@frozen
class OpenIntent:
    """A signature that was about to be made, and of which it is not known whether it was."""

    id: int
    certificate: IssuedCertificate
    digest: bytes
    """SHA-256 of what was to be signed, without the SCTs that might have come into it."""


@frozen
class StoredEntry:
    """A registration entry of the store. It is made and deleted, and never changed."""

    entry: RegistrationEntry
    created_at: datetime


@frozen
class StoredFederation:
    """Another trust domain that is federated with, and what was last heard of it."""

    trust_domain: TrustDomain
    relationship: bytes
    """How its bundle is had; the store does not look into it."""
    created_at: datetime
    bundle: bytes | None = None
    """Its last good bundle, as SPIFFE writes it; None before the first."""
    sequence: int = 0
    """Of that bundle."""
    fetched_at: datetime | None = None
    """When its endpoint last stood by that bundle; None for one that came with a file."""


class TokenStatus(StrEnum):
    """What a join token is good for. ``expired`` is a fact of the clock and is never stored."""

    LIVE = "live"
    SPENT = "spent"
    EXPIRED = "expired"
    REVOKED = "revoked"


@frozen
class IssuedToken:
    """What the store keeps of a join token: nothing that it could be made from."""

    digest: bytes = field(repr=False)
    """Its SHA-256: :attr:`pki.policy.join_token.JoinToken.digest`."""
    entry: str
    """The registration entry that it is bound to."""
    expires_at: datetime
    created_at: datetime
    key: str | None = None
    """:func:`pki.keys.key_id` of the one key that it buys a certificate for; None for any."""
    revoked_at: datetime | None = None
    spent_at: datetime | None = None
    serial: int | None = None
    """Of the certificate that it bought."""
    request: str | None = None
    """The ``request_key`` of the intent that it was spent with."""

    @property
    def id(self) -> str:
        """What it is called where it must not be shown."""
        return token_id(self.digest)

    def status(self, now: datetime) -> TokenStatus:
        """What it is good for at that time. Revoked comes before spent, and both before expired."""
        if self.revoked_at is not None:
            return TokenStatus.REVOKED
        if self.spent_at is not None:
            return TokenStatus.SPENT
        return TokenStatus.EXPIRED if now > self.expires_at else TokenStatus.LIVE


@frozen
class UsedClaim:
    """A claim that has bought a certificate, and for which key."""

    claim: str
    key: str
    """:func:`pki.keys.key_id` of the key that used it; with the same it is the same request again."""
    spiffe_id: SpiffeId
    serial: int
    """Of the certificate that it has bought."""
    at: datetime
    until: datetime | None = None
    """From when on nobody can show it any more; None where that never ends."""


@frozen
class LastCrl:
    """Where an issuer's CRLs stand."""

    number: int
    """The highest that was given out."""
    served: datetime | None
    """The ``this_update`` of the latest that is known to have been served."""


@frozen
class LogHead:
    """Where the Merkle tree stands."""

    size: int
    root: bytes


@frozen
class Query:
    """Which certificates to list, newest first. Whatever is None does not matter."""

    now: datetime
    spiffe_id: SpiffeId | None = None
    below: SpiffeId | None = None
    """All IDs below this one, itself not."""
    status: Status | None = None
    issuer: str | None = None
    key: str | None = None
    entry: str | None = None
    """The registration entry that bought it."""
    claim: str | None = None
    """What that claim has bought, and what was renewed of it."""
    agent: SpiffeId | None = None
    """The certificates of that agent, and what was signed on the word of one of these."""
    serial: int | None = None
    expires_before: datetime | None = None
    expires_after: datetime | None = None
    issued_before: datetime | None = None
    issued_after: datetime | None = None
    limit: int = 100
    cursor: str | None = None
    """Where the last page ended: its ``next``."""


@frozen
class Page:
    """Some of the certificates that a :class:`Query` asks for; not always as many as it would take."""

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
    more: bool = False
    """Whether there are others after that position already."""


@frozen
class LoggedEntry:
    """One row of the audit log."""

    position: int
    leaf: bytes
    """Its hash in the tree."""
    entry: bytes | None
    """None once it is pruned."""


@frozen
class ExaminedCertificate:
    """A row of the certificates' table as it stands there."""

    name: str
    """Its serial, or what stands in the place of one."""
    certificate: IssuedCertificate | None
    """None where that cannot be read."""
    tbs: str | None
    """SHA-256 in hex of what was drafted of the certificate that is kept: what is signed in it, without SCTs."""
    position: int | None
    """Its place in the feed."""
    is_without_body: bool
    """Whether it is neither kept nor still to be signed."""
    oddities: tuple[str, ...]
    """What about it this program has not written so."""


@frozen
class Examined:
    """Some rows, the oldest first, and the number of the next one."""

    certificates: tuple[ExaminedCertificate, ...]
    next: int | None


@frozen
class Oddity:
    """Something in a table that this program has not written so."""

    table: str
    name: str
    detail: str


@frozen
class BlockedKey:
    """A key that nothing is certified for."""

    spki: str
    """:func:`pki.keys.key_id` of it."""
    blocked_at: datetime
    number: str | None = None
    """:func:`pki.keys.number_digest` in hex, where the key itself was seen."""
    serial: int | None = None
    """Of the certificate that was revoked as compromised; None where an administrator has blocked it."""
    reason: str = ""
    """The administrator's words."""


class StoreError(PkiError):
    """The store did not do what it was told; nothing of the command has been kept."""

    code = Code.STORE_UNAVAILABLE


class LogCut(StoreError):
    """Acts are missing that are not in the audit log's tree yet."""

    code = Code.LOG_CUT


class Unknown(StoreError):
    """Nothing has this serial, number or id."""

    code = Code.NOT_FOUND


class Conflict(StoreError):
    """A precondition of the command does not hold."""

    code = Code.CONFLICT


class Revoked(StoreError):
    """The certificate that the caller proved itself by has been revoked."""

    code = Code.REVOKED


class KeyBlocked(StoreError):
    """The key that was to be certified is blocked (HTTP 422)."""

    code = Code.BLOCKED_KEY


class EntryGone(StoreError):
    """The registration entry that was to buy the certificate is not in the store any more (HTTP 403)."""

    code = Code.NOT_AUTHORIZED


class TokenSpent(Conflict):
    """The join token has bought a certificate for another request (HTTP 409)."""


class AlreadyAttested(Conflict):
    """What the platform vouches for has bought a certificate for another key (HTTP 409)."""

    code = Code.ALREADY_ATTESTED

    @classmethod
    def by(cls, claim: str, used: UsedClaim | None, how: str = "by another key") -> Self:
        """``used`` is None where that was at this moment."""
        name = printable(claim, 200)
        told = "" if used is None else f" at {rfc3339(used.at)} for {used.spiffe_id}, {how}"
        return cls(
            f"{name} has attested already{told}: the first use wins, since whoever gets hold of such evidence can "
            "show it again. If it is the same machine, set up anew, have an administrator let it come again "
            f"(mesh-ctl agent evict '{name}'), which revokes what was bought by it; if not, somebody has used it"
        )


class TokenDead(StoreError):
    """No join token has this digest, or it has expired or is revoked (HTTP 401)."""

    code = Code.NO_PROOF


class Full(StoreError):
    """The disk is full: what gives out certificates has to wait, revoking does not."""


class BadCursor(StoreError):
    """The cursor is not one that a page ended with."""

    code = Code.MALFORMED
