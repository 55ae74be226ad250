"""What an administrator asks of a CA: its record, revocations, entries and tokens, its log, its health."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec
from attrs import frozen

from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from twisted_mesh.api.client import CaClient

#: The most that the CA gives in one page.
LARGEST_PAGE = 1000
Standing = Literal["ok", "warn", "fail"]


class Row(msgspec.Struct, frozen=True, omit_defaults=False):
    """One certificate in the CA's record, as its API tells it."""

    serial: str
    subject: str
    spiffe_id: str
    issued_at: str
    expires_at: str
    status: str
    revoked_at: str | None = None
    reason: str | None = None
    issuer: str | None = None
    """:func:`pki.keys.key_id` of the CA that signed it."""
    key: str | None = None
    """:func:`pki.keys.key_id` of its own key."""
    requester: str | None = None
    entry: str | None = None
    """The registration entry that bought it."""
    connections: int | msgspec.UnsetType = msgspec.UNSET
    """How many open connections are known to rest on it; unset of a CA that does not know of any."""


class FullRow(Row, frozen=True):
    """The same with the certificate itself."""

    certificate: str | None = None
    """PEM; None while it is pending, or once it is pruned."""


class Page(msgspec.Struct, frozen=True):
    """Some rows, newest first, and the cursor of the next page."""

    certificates: list[Row]
    next: str | None


class Revoked(msgspec.Struct, frozen=True):
    """What the CA answers to a revocation, the same each time."""

    serial: str
    revoked_at: str
    reason: str


class RevokedAll(msgspec.Struct, frozen=True):
    """What the CA answers to the revocation of many."""

    revoked: list[Revoked]
    unknown: list[str]
    """Serials that are not on record."""


class KnownConnections(msgspec.Struct, frozen=True):
    """Who has told the CA of open connections."""

    endpoints: int
    within: str
    """How long a report counts."""
    own: int
    """The CA's own."""


class NewRegistration(msgspec.Struct, frozen=True, omit_defaults=True):
    """A registration entry as it is asked for."""

    selectors: list[str]
    spiffe_id: str
    dns_names: list[str] = []
    ip_addresses: list[str] = []
    ttl: str | None = None
    max_ttl: str | None = None
    keys: list[str] = []
    comment: str = ""
    reason: str = ""


class Registration(msgspec.Struct, frozen=True):
    """A registration entry as the API tells it."""

    id: str
    selectors: list[str]
    spiffe_id: str
    dns_names: list[str]
    ip_addresses: list[str]
    ttl: str | None
    max_ttl: str | None
    keys: list[str]
    comment: str
    source: str
    """``store``, ``file`` or ``default``."""
    honoured: bool
    created_at: str | None


class Registrations(msgspec.Struct, frozen=True):
    """All that there are."""

    entries: list[Registration]
    max_ttl: str | None = None
    """The most that the CA gives, whatever an entry says."""


class Deleted(msgspec.Struct, frozen=True):
    """An entry that was there."""

    id: str
    deleted_at: str


class NewToken(msgspec.Struct, frozen=True, omit_defaults=True):
    """A join token as it is asked for: for ``entry``, or with an entry of its own."""

    entry: str | None = None
    spiffe_id: str | None = None
    dns_names: list[str] = []
    ip_addresses: list[str] = []
    max_ttl: str | None = None
    """The most that its certificate may live."""
    ttl: str | None = None
    """How long it may be used itself."""
    key: str | None = None
    """:func:`pki.keys.key_id` of the only key that it certifies."""
    reason: str = ""


class MadeToken(msgspec.Struct, frozen=True):
    """A join token, this once with its secret, and what else a new machine needs."""

    token: str
    id: str
    entry: str
    spiffe_id: str
    ca_url: str
    fingerprint: str
    expires_at: str


class TokenRow(msgspec.Struct, frozen=True):
    """A join token as it is told ever after."""

    id: str
    entry: str
    spiffe_id: str | None
    """None where the entry is gone."""
    key: str | None
    status: str
    """``live``, ``spent``, ``expired`` or ``revoked``."""
    created_at: str
    expires_at: str
    revoked_at: str | None
    spent_at: str | None
    serial: str | None
    """Of the certificate that it bought."""


class TokenRows(msgspec.Struct, frozen=True):
    """All that are remembered, the newest first."""

    tokens: list[TokenRow]


class RevokedToken(msgspec.Struct, frozen=True):
    """What the CA answers to the revocation of a token, the same each time."""

    id: str
    revoked_at: str


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at, and what to do where it is not well."""

    name: str
    status: Standing
    detail: str
    remedy: str = ""


class Health(msgspec.Struct, frozen=True):
    """What the CA says of itself."""

    status: Standing
    checks: list[Check]


class Detached(msgspec.Struct, frozen=True):
    """What a CA can do without its root's key."""

    prepared: bool
    """Whether the next issuing CA is made already."""
    wanted_at: str
    """When the key is needed again."""
    issues_until: str


class Head(msgspec.Struct, frozen=True):
    """The log's newest checkpoint, and the key that it is signed with."""

    verifier: str
    checkpoint: str | None
    """None of an empty log."""


class Checkpoints(msgspec.Struct, frozen=True):
    """Some checkpoints (signed notes), ascending by size."""

    checkpoints: list[str]
    next: int | None


class LogEntry(msgspec.Struct, frozen=True):
    """One entry of the log. Of one that is pruned only the leaf's hash is left."""

    position: int
    leaf: str
    entry: str | None


class Entries(msgspec.Struct, frozen=True):
    """Some entries of the log in their order."""

    entries: list[LogEntry]
    size: int
    next: int | None


class Proof(msgspec.Struct, frozen=True):
    """A path of hashes in hex; of an inclusion, with the leaf's hash."""

    proof: list[str]
    leaf: str | None = None


@frozen
class Administration:
    """The routes that are an administrator's. Errors are those of :class:`CaClient`."""

    client: CaClient

    async def page(
        self, filters: Mapping[str, str], limit: int = LARGEST_PAGE, cursor: str | None = None
    ) -> Page:
        asked = {**filters, "limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        page: Page = await self._get("/api/v1/certificates", asked, Page)
        return page

    async def pages(self, filters: Mapping[str, str], most: int | None) -> AsyncIterator[Page]:
        """Page after page, ``most`` rows in all; all there are where it is None."""
        cursor: str | None = None
        left = most
        while left is None or left > 0:
            limit = LARGEST_PAGE if left is None else min(left, LARGEST_PAGE)
            page = await self.page(filters, limit, cursor)
            yield page
            cursor = page.next
            if cursor is None:
                return
            if left is not None:
                left -= len(page.certificates)

    async def certificate(self, serial: int) -> FullRow:
        path = f"/api/v1/certificates/{serial_hex(serial)}"
        row: FullRow = await self._get(path, {}, FullRow)
        return row

    async def revoke(self, serial: str, reason: Reason) -> Revoked:
        body = {"serial": serial, "reason": str(reason)}
        revoked: Revoked = await self.client.ask("POST", "/api/v1/revoke", body, Revoked)
        return revoked

    async def revoke_all(self, serials: Sequence[str], reason: Reason) -> RevokedAll:
        """At most :data:`LARGEST_PAGE` at a time."""
        body = {"serials": list(serials), "reason": str(reason)}
        revoked: RevokedAll = await self.client.ask("POST", "/api/v1/revoke", body, RevokedAll)
        return revoked

    async def connections(self) -> KnownConnections:
        known: KnownConnections = await self._get("/api/v1/connections", {}, KnownConnections)
        return known

    async def registrations(self) -> Registrations:
        found: Registrations = await self._get("/api/v1/entries", {}, Registrations)
        return found

    async def registration(self, entry_id: str) -> Registration:
        found: Registration = await self._get(_path("entries", entry_id), {}, Registration)
        return found

    async def register(self, new: NewRegistration) -> Registration:
        made: Registration = await self._post("/api/v1/entries", new, Registration)
        return made

    async def delete_registration(self, entry_id: str, reason: str) -> Deleted:
        deleted: Deleted = await self._delete(_path("entries", entry_id), reason, Deleted)
        return deleted

    async def tokens(self) -> list[TokenRow]:
        found: TokenRows = await self._get("/api/v1/tokens", {}, TokenRows)
        return found.tokens

    async def create_token(self, new: NewToken) -> MadeToken:
        made: MadeToken = await self._post("/api/v1/tokens", new, MadeToken)
        return made

    async def revoke_token(self, token_id: str, reason: str) -> RevokedToken:
        revoked: RevokedToken = await self._delete(_path("tokens", token_id), reason, RevokedToken)
        return revoked

    async def health(self) -> Health:
        health: Health = await self._get("/api/v1/health", {}, Health)
        return health

    async def detach_root(self, sha256: str) -> Detached:
        """Have the root's key deleted, of which a copy with that SHA-256 is held elsewhere."""
        body = {"sha256": sha256}
        told: Detached = await self.client.ask("POST", "/api/v1/ca/detach-root", body, Detached)
        return told

    async def head(self) -> Head:
        head: Head = await self._get("/api/v1/audit/checkpoint", {}, Head)
        return head

    async def checkpoints(self, start: int, limit: int = LARGEST_PAGE) -> Checkpoints:
        asked = {"start": str(start), "limit": str(limit)}
        found: Checkpoints = await self._get("/api/v1/audit/checkpoints", asked, Checkpoints)
        return found

    async def entries(self, start: int, limit: int = LARGEST_PAGE) -> Entries:
        asked = {"start": str(start), "limit": str(limit)}
        found: Entries = await self._get("/api/v1/audit/entries", asked, Entries)
        return found

    async def inclusion(self, position: int, size: int) -> Proof:
        asked = {"position": str(position), "size": str(size)}
        proof: Proof = await self._get("/api/v1/audit/proof", asked, Proof)
        return proof

    async def consistency(self, older: int, newer: int) -> Proof:
        asked = {"from": str(older), "to": str(newer)}
        proof: Proof = await self._get("/api/v1/audit/proof", asked, Proof)
        return proof

    async def _get(self, path: str, asked: Mapping[str, str], shape: type[Any]) -> Any:
        query = f"?{urlencode(asked)}" if asked else ""
        return await self.client.ask("GET", path + query, None, shape)

    async def _post(self, path: str, body: msgspec.Struct, shape: type[Any]) -> Any:
        return await self.client.ask("POST", path, msgspec.to_builtins(body), shape)

    async def _delete(self, path: str, reason: str, shape: type[Any]) -> Any:
        query = f"?{urlencode({'reason': reason})}" if reason else ""
        return await self.client.ask("DELETE", path + query, None, shape)


def _path(of: str, name: str) -> str:
    return f"/api/v1/{of}/{quote(name, safe='')}"
