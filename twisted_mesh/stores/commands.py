"""What a store is told.

Each command is applied whole, with its preconditions and its row of the audit log, or not at all.
"""

from datetime import datetime
from typing import Generic, TypeVar

from attrs import frozen

from pki.audit.log import Entry
from pki.policy.entry import RegistrationEntry
from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.revocation_set import Reason
from twisted_mesh.stores.records import (
    BlockedKey,
    IssuedCertificate,
    IssuedToken,
    LogHead,
    StoredEntry,
    StoredFederation,
)

R = TypeVar("R")


@frozen
class Claim:
    """What a platform vouches for once. It is used with the intent that it buys, by the key of that."""

    text: str
    replaces: int | None = None
    """The serial that has it, where its bearer has proven to be the same as then; None where nobody may have it."""
    until: datetime | None = None
    """From when on nobody can show it any more; None where that never ends."""


@frozen
class Admission:
    """An agent that its platform has proven: its own entry comes with its certificate, in place of that before."""

    entry: StoredEntry
    act: Entry
    replaces: StoredEntry | None = None
    """The entry that it has by now, of the same id; None where it must have none."""
    removal: Entry | None = None
    """The act that takes that one away."""


class Returning(Generic[R]):
    """A command, by what it comes to where it does not raise. There are those of :data:`Command`, and no others."""

    __slots__ = ()


@frozen
class RecordIntent(Returning[int]):
    """Before a signature: that it is about to be made. Result: the intent's number.

    A token is spent by it and by nothing else. Raises :class:`Conflict` for a serial or a
    ``request_key`` that is known, :class:`Revoked`, :class:`EntryGone`, :class:`TokenSpent` and
    :class:`TokenDead`.
    """

    certificate: IssuedCertificate
    digest: bytes
    """SHA-256 of what is to be signed, without the SCTs that may come into it."""
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
    claim: Claim | None = None
    """What is used up besides. Raises :class:`AlreadyAttested`, and :class:`Conflict` where it is just being used."""
    admits: Admission | None = None
    """An agent's own entry, to be recorded too. Raises :class:`Conflict` where it is another by now."""
    rests_on: tuple[str, ...] = ()
    """Other entries that must be in the store: what lets an agent in, the alias that it is served by."""

    @property
    def is_simple(self) -> bool:
        """Whether it uses nothing up, so that its order among others makes no difference."""
        return self.token is None and self.claim is None and self.admits is None


@frozen
class RecordCertificate(Returning[None]):
    """After the signature: the certificate for an intent. Result: None. Raises :class:`Unknown`."""

    intent: int
    der: bytes


@frozen
class RecordIssue(Returning[None]):
    """After a signature that nobody has seen yet: all that an intent records, and the certificate, in one step.

    Result: None. Raises what :class:`RecordIntent` raises, and nothing is spent or recorded then: the certificate
    is to be thrown away. So it is where the outcome is not known.
    """

    intent: RecordIntent
    """What it would have been recorded as before the signature."""
    der: bytes


@frozen
class WriteOff(Returning[IssuedCertificate]):
    """Give up an intent: its serial is revoked, whatever was signed. Result: the certificate.

    Nobody has got anything for it, so a token that was spent on it is not spent any more, nor a claim used. Raises
    :class:`Unknown` where the intent is not open any more.
    """

    intent: int
    at: datetime
    entry: Entry


@frozen
class Revoke(Returning[IssuedCertificate]):
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
class RevokeAll(Returning[tuple[IssuedCertificate, ...]]):
    """Revoke many certificates in one step, each as by :class:`Revoke`.

    Result: a tuple of the :class:`IssuedCertificate` that there are, in the order of ``acts``; serials
    that are unknown are passed over, and so are the entries of what was revoked before.
    """

    acts: tuple[tuple[int, Entry], ...]
    """Serials, each with what the audit log is to say of it."""
    at: datetime
    reason: Reason


@frozen
class CreateEntry(Returning[None]):
    """Make a registration entry. Result: None. Raises :class:`Conflict` where the id is taken."""

    entry: RegistrationEntry
    at: datetime
    act: Entry


@frozen
class DeleteEntry(Returning[None]):
    """Delete a registration entry, its tokens with it. Result: None. Raises :class:`Unknown`.

    One that cannot be read is deleted like any other.
    """

    id: str
    at: datetime
    act: Entry


@frozen
class SettleDefaultEntry(Returning[bool]):
    """Make the default entry, or decline it (None), once in the life of a store.

    Result: whether this was the first time. Repeated, with the same or with the other, it changes
    nothing and writes no act.
    """

    entry: RegistrationEntry | None
    at: datetime
    act: Entry


@frozen
class EndAgent(Returning[tuple[IssuedCertificate, ...]]):
    """End an agent, and all that it has obtained, in one step.

    Its entries are deleted with their tokens; what is good or still to be signed of its own certificates, and of
    those that were signed on the word of one of these, is revoked, as by :class:`Revoke`. Result: these. From then
    on nothing can be recorded for whoever proves itself by one of them.
    """

    agent: SpiffeId
    at: datetime
    reason: Reason
    deletions: tuple[tuple[str, Entry], ...]
    """Its entries, each with its act; those that are gone already are passed over."""
    revocation: Entry
    """What the acts of revocation are like; each has the serial and the ID of its own certificate."""
    ban: tuple[StoredEntry, Entry] | None = None
    """What says that it may not come again, and the act; None where it may."""
    release: Entry | None = None
    """What the acts are like by which its claims may be used again; None where they may not."""


@frozen
class ReleaseClaim(Returning[tuple[IssuedCertificate, ...]]):
    """Let a claim be used again, and revoke what it has bought, and what was renewed of that, in one step.

    Result: what was revoked. Raises :class:`Unknown` for a claim that nobody has used.
    """

    claim: str
    at: datetime
    reason: Reason
    act: Entry
    revocation: Entry
    """What the acts of revocation are like; each has the serial and the ID of its own certificate."""


@frozen
class CreateToken(Returning[None]):
    """Keep a new join token, and the entry that is made for it. Result: None.

    Raises :class:`Unknown` where its entry is not there, and :class:`Conflict`.
    """

    token: IssuedToken
    act: Entry
    new_entry: StoredEntry | None = None


@frozen
class RevokeToken(Returning[IssuedToken]):
    """Revoke a join token, by its id, once and for all. Result: its :class:`IssuedToken`.

    What it has bought stays good. Repeated, it changes nothing, writes no act and answers with the
    first revocation. Raises :class:`Unknown`.
    """

    id: str
    at: datetime
    act: Entry


@frozen
class Federate(Returning[None]):
    """Begin to federate with another trust domain. Result: None. Raises :class:`Conflict` where that has begun."""

    federation: StoredFederation
    act: Entry


@frozen
class KeepBundle(Returning[None]):
    """Keep what was last heard of a federated trust domain. Result: None.

    Raises :class:`Unknown` where it is not federated with any more, and :class:`Conflict` for a sequence that is
    lower than that of the bundle which is kept.
    """

    trust_domain: TrustDomain
    bundle: bytes
    sequence: int
    fetched_at: datetime
    act: Entry | None = None
    """None where the bundle is the same as before."""
    accepts_older: bool = False
    """Whether somebody has said that a lower sequence is right."""


@frozen
class EndFederation(Returning[None]):
    """Federate with that trust domain no more. Result: None. Raises :class:`Unknown`."""

    trust_domain: TrustDomain
    act: Entry


@frozen
class BlockKey(Returning[BlockedKey]):
    """Certify a key no more. Result: the :class:`BlockedKey` that stands: repeated, it writes no act."""

    key: BlockedKey
    act: Entry


@frozen
class UnblockKey(Returning[None]):
    """Let a key go. Result: None. Raises :class:`Unknown`, :class:`Conflict` where it was compromised, for good."""

    spki: str
    act: Entry


@frozen
class TakeCrlNumber(Returning[int]):
    """Give out the number of an issuer's next CRL. Result: that number.

    It is higher than each before it, and ``least`` at least.
    """

    issuer: str
    least: int = 1
    served: datetime | None = None
    """The ``this_update`` of the issuer's latest CRL that has been served; None changes nothing."""


@frozen
class RecordAct(Returning[None]):
    """An act that changes no table. Result: None."""

    entry: Entry


@frozen
class ExtendLog(Returning[LogHead]):
    """Take the acts that were recorded since into the Merkle tree. Result: the :class:`LogHead`."""


@frozen
class SaveCheckpoint(Returning[None]):
    """Keep a signed checkpoint of the log. Result: None."""

    size: int
    at: datetime
    note: str


@frozen
class Prune(Returning[int]):
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
class Probe(Returning[None]):
    """Write something, durably, and read it back. Result: None."""

    at: datetime


Command = (
    RecordIntent
    | RecordCertificate
    | RecordIssue
    | WriteOff
    | Revoke
    | RevokeAll
    | CreateEntry
    | DeleteEntry
    | SettleDefaultEntry
    | EndAgent
    | ReleaseClaim
    | CreateToken
    | RevokeToken
    | Federate
    | KeepBundle
    | EndFederation
    | BlockKey
    | UnblockKey
    | TakeCrlNumber
    | RecordAct
    | ExtendLog
    | SaveCheckpoint
    | Prune
    | Probe
)

#: What a command comes to where it does not raise.
Outcome = (
    IssuedCertificate
    | tuple[IssuedCertificate, ...]
    | IssuedToken
    | BlockedKey
    | LogHead
    | int
    | None
)
