"""The interface of a store; every implementation runs its conformance suite."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from twisted_mesh.stores.commands import Returning
from twisted_mesh.stores.records import (
    BlockedKey,
    Examined,
    Feed,
    IssuedCertificate,
    IssuedToken,
    LastCrl,
    LoggedEntry,
    LogHead,
    Oddity,
    OpenIntent,
    Page,
    Query,
    StoredEntry,
    StoredFederation,
    UsedClaim,
)

R = TypeVar("R")


class IStore(Interface):
    """The one door to state: frozen commands, each atomic with its preconditions.

    An implementation never blocks the reactor. What it cannot do now errs with :class:`StoreError`.
    """

    id: str = Attribute("Identifies this store for good, once it has started.")
    is_new: bool = Attribute("Whether ``start`` found nothing and made it.")
    is_shared: bool = Attribute(
        "Whether other CAs write to it too: then a signature has its intent first."
    )
    is_kept: bool = Attribute("Whether what it holds is there again at the next start.")

    def start() -> None:
        """Open what is to be opened. Synchronous. Raises StoreError with one sentence."""

    def stop() -> Deferred[None]:
        """Finish what is under way and close; fires when done. One that is not open is closed already."""

    def apply(command: Returning[R]) -> Deferred[R]:
        """Do one of ``stores.commands.Command``; fires with its result once that is durable."""

    def find(serial: int) -> Deferred[IssuedCertificate | None]:
        """The certificate of that serial."""

    def find_all(serials: Collection[int]) -> Deferred[tuple[IssuedCertificate, ...]]:
        """The certificates of these serials that there are, without their ``der``."""

    def issued_since(at: datetime) -> Deferred[tuple[tuple[str, str | None, int], ...]]:
        """IDs, the entries that bought them, and how many certificates of both there are from that time on."""

    def find_request(request_key: str) -> Deferred[IssuedCertificate | None]:
        """The certificate that a request was answered with."""

    def list(query: Query) -> Deferred[Page]:
        """The page that a query asks for. Errs with BadCursor."""

    def feed(after: int) -> Deferred[Feed]:
        """The revocations after a position; all where ``after`` is 0 or unknown."""

    def last_crl(issuer: str) -> Deferred[LastCrl | None]:
        """Where the issuer's CRLs stand; None where no number was given out."""

    def open_intents(limit: int = 1000) -> Deferred[tuple[OpenIntent, ...]]:
        """The oldest intents that are open."""

    def entries() -> Deferred[tuple[StoredEntry, ...]]:
        """All registration entries, the oldest first. Errs with StoreError where one cannot be read."""

    def tokens() -> Deferred[tuple[IssuedToken, ...]]:
        """All join tokens, the newest first."""

    def federations() -> Deferred[tuple[StoredFederation, ...]]:
        """All trust domains that are federated with, by name. Errs with StoreError where one cannot be read."""

    def blocked_keys() -> Deferred[tuple[BlockedKey, ...]]:
        """Every key that nothing is certified for, the oldest first. Errs with StoreError where one cannot be read."""

    def find_token(digest: bytes) -> Deferred[IssuedToken | None]:
        """The join token with that SHA-256, spent, revoked and expired ones too."""

    def find_claim(claim: str) -> Deferred[UsedClaim | None]:
        """Who has used it; None where nobody has."""

    def claims(after: str = "", limit: int = 1000) -> Deferred[tuple[UsedClaim, ...]]:
        """Claims that were used, by their text, from the first one after that text on."""

    def last_act() -> Deferred[tuple[int, int | None]]:
        """How many acts are recorded, and the last one's time in microseconds."""

    def latest_act() -> Deferred[int | None]:
        """The latest time of any act, in microseconds: the clock may have been put back since. None without one."""

    def ca_acts() -> Deferred[tuple[bytes, ...]]:
        """The entries about the CA's own certificates (``rotate``), the oldest first, of those that are not pruned."""

    def federation_acts() -> Deferred[tuple[bytes, ...]]:
        """The entries about federated trust domains and about restores, the oldest first; it looks through all."""

    def log_head() -> Deferred[LogHead]:
        """What of the audit log is in its Merkle tree."""

    def log_entries(start: int, limit: int) -> Deferred[tuple[Sequence[LoggedEntry], int]]:
        """Rows of the log from a position on, and the tree's size."""

    def checkpoints(start: int, limit: int) -> Deferred[Sequence[tuple[int, str]]]:
        """Pairs of size and note, by size, from a size on."""

    def last_checkpoint() -> Deferred[tuple[int, str] | None]:
        """The newest size and note."""

    def inclusion_proof(position: int, size: int) -> Deferred[tuple[bytes, ...]]:
        """The hashes that prove an entry's place in the tree of that size."""

    def consistency_proof(first: int, second: int) -> Deferred[tuple[bytes, ...]]:
        """The hashes that prove that one tree extends the other."""

    def examine(start: int, limit: int) -> Deferred[Examined]:
        """Certificates as they stand in their table, from a row on."""

    def oddities() -> Deferred[tuple[Oddity, ...]]:
        """What is odd about the record as a whole."""

    def lost_checkpoints(sizes: Sequence[int]) -> Deferred[tuple[int, ...]]:
        """Those of the sizes of which no checkpoint is kept."""
