"""Rows of a CA's tables as its audit log is held against them, and what the two may say differently."""

from collections.abc import Mapping
from datetime import datetime

from attrs import frozen

from pki.codes import Code
from pki.errors import printable


@frozen
class RecordedCertificate:
    """A row of the certificates' table."""

    serial: int
    spiffe_id: str
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    reason: str | None = None
    entry: str | None = None
    """The registration entry that bought it."""
    tbs: str | None = None
    """SHA-256 in hex of what is signed in the certificate that is kept, without SCTs; None where nobody looks."""
    issuer: str | None = None
    """:func:`pki.keys.key_id` of its CA; None where that is not looked at."""
    requester: str | None = None
    """Who asked for it; None where that is not looked at."""
    position: int | None = None
    """Its place among what endpoints are told; None where it has none, or where that is not looked at."""
    is_without_body: bool = False
    """Whether it was signed by the record, and is not kept."""
    claim: str | None = None
    """By which it was bought, or what it is a renewal of."""


@frozen
class RecordedEntry:
    """A registration entry that is kept in the record."""

    id: str
    facts: Mapping[str, str]
    """All that it says but its id, lists joined by a comma and a space, as the act of its making has them."""
    created_at: datetime | None = None


@frozen
class RecordedToken:
    """A row of the join tokens' table."""

    id: str
    entry: str
    expires_at: datetime
    created_at: datetime
    key: str | None = None
    revoked_at: datetime | None = None
    spent_at: datetime | None = None
    serial: int | None = None
    """What it has bought; None where that is not known."""


@frozen
class RecordedClaim:
    """A row of the claims' table."""

    claim: str
    serial: int
    """What it has bought."""
    at: datetime


@frozen
class RecordedFederation:
    """A row of the federated trust domains' table."""

    trust_domain: str
    facts: Mapping[str, str]
    """How its bundle is had, as the act of its beginning has that: nothing, or an empty text, where there is none."""
    created_at: datetime
    bundle: str | None = None
    """SHA-256 in hex of its last good bundle; None where there is none yet."""


@frozen
class RecordedBlock:
    """A row of the blocked keys' table."""

    key: str
    at: datetime
    serial: int | None = None
    """Of the certificate that was revoked as compromised; None where an administrator has blocked it."""


@frozen
class Difference:
    """One thing that the record and the log say differently."""

    code: Code
    kind: str
    """``certificate``, ``entry``, ``token``, ``claim``, ``federation`` or ``key``."""
    name: str
    """Its serial, its id or its trust domain."""
    detail: str
    """What it is, and what the log says."""
    position: int | None = None
    """The act that says so; None where none does."""


def as_told(value: str | None) -> str:
    """A value as a difference tells it."""
    return "none" if value is None else printable(value, 200)
