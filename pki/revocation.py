"""Revocation: what a verifier asks "is it revoked?", and the reasons there are."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Self

from attrs import field, frozen


class Reason(StrEnum):
    """Why a certificate is revoked (RFC 5280 section 5.3.1); those that can be given to a leaf."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


@frozen
class Revocation:
    """One certificate that is no longer believed."""

    issuer: str
    """The issuer's :func:`pki.keys.key_id`: a serial alone names nothing."""
    serial: int
    revoked_at: datetime
    reason: Reason
    expires_at: datetime
    """When the certificate would have ended; after that nobody needs to know."""


@frozen
class RevocationSet:
    """What is revoked, by issuer and serial. Immutable; :meth:`merged` makes a larger one."""

    _by_issuer: Mapping[str, Mapping[int, Revocation]] = field(factory=dict)

    def find(self, issuer: str, serial: int) -> Revocation | None:
        serials = self._by_issuer.get(issuer)
        return serials.get(serial) if serials else None

    def __len__(self) -> int:
        return sum(map(len, self._by_issuer.values()))

    def merged(self, news: Iterable[Revocation], now: datetime) -> Self:
        """With ``news``, without what expired before ``now``. What is revoked never comes back sooner."""
        merged: dict[str, dict[int, Revocation]] = {}
        known = (r for serials in self._by_issuer.values() for r in serials.values())
        for revocation in (*known, *news):
            if revocation.expires_at >= now:
                merged.setdefault(revocation.issuer, {}).setdefault(revocation.serial, revocation)
        return type(self)(merged)
