"""The audit log in the API's answers, and the record as it stands, to be held against it.

Like :mod:`twisted_mesh.api.messages`, from which these stand apart only for their number.
"""

from msgspec import UNSET, Struct, UnsetType


class LogHead(Struct, frozen=True):
    """The log's newest checkpoint, and the key that it is signed with."""

    verifier: str
    checkpoint: str | None
    """None of an empty log."""
    keep_audit: str | UnsetType = UNSET
    """A duration: how long the text of an entry stays."""


class Checkpoints(Struct, frozen=True):
    """Some checkpoints (signed notes), ascending by size."""

    checkpoints: list[str]
    next: int | None


class LogEntry(Struct, frozen=True):
    """One entry of the log. Of one that is pruned only the leaf's hash is left."""

    position: int
    leaf: str
    entry: str | None


class LogEntries(Struct, frozen=True):
    """Some entries of the log in their order."""

    entries: list[LogEntry]
    size: int
    next: int | None


class Proof(Struct, frozen=True):
    """A path of hashes in hex; of an inclusion, with the leaf's hash."""

    proof: list[str]
    leaf: str | UnsetType | None = UNSET
    size: int | UnsetType = UNSET
    """Of the tree that it leads to."""


class RecordRow(Struct, frozen=True):
    """A certificate as it stands in its table. What cannot be read there is None."""

    serial: str
    """Or what stands in its place."""
    oddities: list[str]
    """What about it is not as this CA writes it."""
    is_readable: bool = True
    spiffe_id: str = ""
    issued_at: str = ""
    expires_at: str = ""
    requester: str = ""
    revoked_at: str | None = None
    reason: str | None = None
    issuer: str | None = None
    entry: str | None = None
    claim: str | UnsetType = UNSET
    """What bought it, or what it is a renewal of."""
    tbs: str | None = None
    """SHA-256 in hex of what is signed in the certificate that is kept."""
    position: int | None = None
    """Its place among what endpoints are told."""
    is_without_body: bool = False
    """Whether the certificate itself is neither kept nor still to be signed."""


class RecordOddity(Struct, frozen=True):
    """Something else in the record that is not as this CA writes it."""

    table: str
    name: str
    detail: str


class RecordFederation(Struct, frozen=True):
    """A trust domain that is federated with, as it stands in its table."""

    trust_domain: str
    created_at: str
    facts: dict[str, str]
    """How its bundle is had, as the audit log tells that."""
    bundle: str | None = None
    """SHA-256 in hex of its last good bundle."""


class RecordRows(Struct, frozen=True):
    """Some certificates, the oldest first; with the first of them, what is odd about the record as a whole."""

    certificates: list[RecordRow]
    next: int | None
    oddities: list[RecordOddity] = []
    acts: int = 0
    """How many the record has, be they signed yet or not."""
    lost_checkpoints: list[int] = []
    """Sizes of those that were signed, and are not in the record any more."""
    federations: list[RecordFederation] | UnsetType = UNSET
    """All that there are, with the first certificates; left out where they cannot be read."""
