"""What a store keeps and what it is told: records, frozen commands and queries."""

from datetime import datetime
from enum import StrEnum

from attrs import field, frozen

from pki.audit import Entry
from pki.errors import PkiError
from pki.join_token import token_id
from pki.registration import RegistrationEntry
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

    def status(self, now: datetime) -> Status:
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
    """SHA-256 of what was to be signed."""


@frozen
class StoredEntry:
    """A registration entry of the store. It is made and deleted, and never changed."""

    entry: RegistrationEntry
    created_at: datetime


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
    """Its SHA-256: :attr:`pki.join_token.JoinToken.digest`."""
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
        if self.revoked_at is not None:
            return TokenStatus.REVOKED
        if self.spent_at is not None:
            return TokenStatus.SPENT
        return TokenStatus.EXPIRED if now > self.expires_at else TokenStatus.LIVE


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


# Commands. Each is applied whole, with its preconditions and its row of the audit log, or not at all.


@frozen
class RecordIntent:
    """Before a signature: that it is about to be made. Result: the intent's number.

    A token is spent by it and by nothing else. Raises :class:`Conflict` for a serial or a
    ``request_key`` that is known, :class:`Revoked`, :class:`EntryGone`, :class:`TokenSpent` and
    :class:`TokenDead`.
    """

    certificate: IssuedCertificate
    digest: bytes
    """SHA-256 of what is to be signed."""
    entry: Entry
    renews: int | None = None
    """The serial that the caller proved itself by: it must not be revoked."""
    request_key: str | None = None
    """What a repeated request is known by."""
    requires: str | None = None
    """A registration entry that must be in the store."""
    token: bytes | None = None
    """The digest of a join token that must be live, and bound to ``requires`` if that is given."""
    at: datetime | None = None
    """When the token is spent; None for the time of ``entry``."""


@frozen
class RecordCertificate:
    """After the signature: the certificate for an intent. Result: None. Raises :class:`Unknown`."""

    intent: int
    der: bytes


@frozen
class WriteOff:
    """Give up an intent: its serial is revoked, whatever was signed. Result: the certificate.

    Nobody has got anything for it, so a token that was spent on it is not spent any more. Raises
    :class:`Unknown` where the intent is not open any more.
    """

    intent: int
    at: datetime
    entry: Entry


@frozen
class Revoke:
    """Revoke a certificate, once and for all. Result: its :class:`IssuedCertificate`.

    Repeated, it changes nothing, writes no entry and answers with the first revocation. Raises
    :class:`Unknown`.
    """

    serial: int
    at: datetime
    reason: Reason
    entry: Entry
    issuer: str | None = None
    """None: whichever of our issuers gave out the serial."""


@frozen
class RevokeAll:
    """Revoke many certificates in one step, each as by :class:`Revoke`.

    Result: a tuple of the :class:`IssuedCertificate` that there are, in the order of ``acts``; serials
    that are unknown are passed over, and so are the entries of what was revoked before.
    """

    acts: tuple[tuple[int, Entry], ...]
    """Serials, each with what the audit log is to say of it."""
    at: datetime
    reason: Reason


@frozen
class CreateEntry:
    """Make a registration entry. Result: None. Raises :class:`Conflict` where the id is taken."""

    entry: RegistrationEntry
    at: datetime
    act: Entry


@frozen
class DeleteEntry:
    """Delete a registration entry, its tokens with it. Result: None. Raises :class:`Unknown`.

    One that cannot be read is deleted like any other.
    """

    id: str
    at: datetime
    act: Entry


@frozen
class SettleDefaultEntry:
    """Make the default entry, or decline it (None), once in the life of a store.

    Result: whether this was the first time. Repeated, with the same or with the other, it changes
    nothing and writes no act.
    """

    entry: RegistrationEntry | None
    at: datetime
    act: Entry


@frozen
class CreateToken:
    """Keep a new join token, and the entry that is made for it. Result: None.

    Raises :class:`Unknown` where its entry is not there, and :class:`Conflict`.
    """

    token: IssuedToken
    act: Entry
    new_entry: StoredEntry | None = None


@frozen
class RevokeToken:
    """Revoke a join token, by its id, once and for all. Result: its :class:`IssuedToken`.

    What it has bought stays good. Repeated, it changes nothing, writes no act and answers with the
    first revocation. Raises :class:`Unknown`.
    """

    id: str
    at: datetime
    act: Entry


@frozen
class TakeCrlNumber:
    """Give out the number of an issuer's next CRL. Result: that number.

    It is higher than each before it, and ``least`` at least.
    """

    issuer: str
    least: int = 1
    served: datetime | None = None
    """The ``this_update`` of the issuer's latest CRL that has been served; None changes nothing."""


@frozen
class RecordAct:
    """An act that changes no table. Result: None."""

    entry: Entry


@frozen
class ExtendLog:
    """Take the acts that were recorded since into the Merkle tree. Result: the :class:`LogHead`."""


@frozen
class SaveCheckpoint:
    """Keep a signed checkpoint of the log. Result: None."""

    size: int
    at: datetime
    note: str


@frozen
class Prune:
    """Forget certificates and tokens that expired, and the text of acts that happened, before a time.

    Of checkpoints from before ``acts_before``, one an hour stays. At most ``limit`` of each. Result:
    how many rows are gone. A certificate whose intent is open stays; so do the hashes of all acts:
    the log proves itself as before. With the last of a token and all certificates that an entry which
    was made for that token has bought, the entry goes too: nobody can use it any more.
    """

    expired_before: datetime
    acts_before: datetime
    limit: int = 250
    """On a full disk the log of what is written must fit into the reserve."""
    revoked_before: datetime | None = None
    """Of what is revoked, only what expired before this too: CRLs still list the rest."""


@frozen
class Probe:
    """Write something, durably, and read it back. Result: None."""

    at: datetime


Command = (
    RecordIntent
    | RecordCertificate
    | WriteOff
    | Revoke
    | RevokeAll
    | CreateEntry
    | DeleteEntry
    | SettleDefaultEntry
    | CreateToken
    | RevokeToken
    | TakeCrlNumber
    | RecordAct
    | ExtendLog
    | SaveCheckpoint
    | Prune
    | Probe
)

#: What a command comes to where it does not raise.
Outcome = IssuedCertificate | tuple[IssuedCertificate, ...] | IssuedToken | LogHead | int | None


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


class StoreError(PkiError):
    """The store did not do what it was told; nothing of the command has been kept."""

    code = "store-unavailable"


class Unknown(StoreError):
    """Nothing has this serial, number or id."""

    code = "not-found"


class Conflict(StoreError):
    """A precondition of the command does not hold."""

    code = "conflict"


class Revoked(StoreError):
    """The certificate that the caller proved itself by has been revoked."""

    code = "revoked"


class EntryGone(StoreError):
    """The registration entry that was to buy the certificate is not in the store any more (HTTP 403)."""

    code = "not-authorized"


class TokenSpent(Conflict):
    """The join token has bought a certificate for another request (HTTP 409)."""


class TokenDead(StoreError):
    """No join token has this digest, or it has expired or is revoked (HTTP 401)."""

    code = "no-proof"


class Full(StoreError):
    """The disk is full: what gives out certificates has to wait, revoking does not."""


class BadCursor(StoreError):
    """The cursor is not one that a page ended with."""

    code = "malformed"
