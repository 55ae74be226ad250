"""Requests and answers about the CA itself: its root's key, its issuing CAs, its backups.

As :mod:`twisted_mesh.api.messages` has them.
"""

import msgspec
from msgspec import Struct

from twisted_mesh.api.messages import unspecified


class DetachRequest(Struct, frozen=True):
    """``POST /api/v1/ca/detach-root``."""

    sha256: str
    """Of the file of the root's key, in hex: who asks has read it."""


class Detached(Struct, frozen=True):
    """What a CA can do without its root's key."""

    prepared: bool
    """Whether the next issuing CA is made already."""
    wanted_at: str
    """When the key is needed again."""
    issues_until: str


class RevokeIssuing(Struct, frozen=True, omit_defaults=True):
    """``POST /api/v1/ca/revoke-issuing``."""

    issuer: str
    """:func:`pki.keys.key_id` of its key."""
    reason: str = msgspec.field(default_factory=unspecified)
    force: bool = False
    """Whether to revoke also the one that issues, where there can be no successor now."""


class RevokedCa(Struct, frozen=True):
    """One certificate of a CA that is revoked."""

    issuer: str
    """:func:`pki.keys.key_id` of the root that has signed it."""
    serial: str
    subject: str
    revoked_at: str
    reason: str


class IssuingRevoked(Struct, frozen=True):
    """What the CA answers when an issuing CA is revoked."""

    revoked: list[RevokedCa]
    was_revoked: bool
    """Whether it had been before."""
    issuing: str | None
    """The key id of the CA that issues now; null where there is none."""
    waits: str | None
    """What is still to be done, and what for it is needed; null where all is done."""


class BackupRequest(Struct, frozen=True):
    """``POST /api/v1/ca/sign-backup``."""

    sha256: str
    """Of the manifest of the archive, in hex."""


class BackupSignature(Struct, frozen=True):
    """What the CA says of a backup of itself."""

    log_key: str
    """What verifies its audit log (C2SP signed-note); it is signed along."""
    signature: str
    """The issuing CA's, in base64."""
