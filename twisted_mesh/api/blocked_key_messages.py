"""Blocked keys in the API's answers and requests. Like :mod:`twisted_mesh.api.messages`."""

from msgspec import Struct


class BlockedKeyRow(Struct, frozen=True):
    """A key that nothing is certified for."""

    key: str
    """The SHA-256 of its SubjectPublicKeyInfo in hex, as in :class:`~twisted_mesh.api.messages.CertificateRow`."""
    blocked_at: str
    serial: str | None = None
    """Of the certificate that was revoked as compromised; None where an administrator has blocked it."""
    reason: str = ""
    """The administrator's words."""


class KeyListRow(Struct, frozen=True):
    """A list of ``--blocked-keys``."""

    file: str
    keys: int
    """How many it has."""


class BlockedKeyRows(Struct, frozen=True):
    """Blocked keys, the oldest first, and lists of others."""

    keys: list[BlockedKeyRow]
    lists: list[KeyListRow] = []


class NewBlockedKey(Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be blocked: by its SHA-256, or itself."""

    key: str | None = None
    """64 digits of hex."""
    public_key: str | None = None
    """In PEM: then keys of the same private half are blocked with it."""
    reason: str = ""
    """For the audit log, and for whoever is refused."""


class KeyUnblocked(Struct, frozen=True):
    """A key for which certificates are issued again."""

    key: str
