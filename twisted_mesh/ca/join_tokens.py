"""The CA's join tokens: made for an entry, shown once, listed and revoked by their id."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import define, frozen

from pki.audit.log import Act
from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.policy.entry import RegistrationEntry
from pki.policy.join_token import MAX_LIFETIME, JoinToken
from pki.policy.principal import Principal
from pki.validity import format_duration, rfc3339
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.entries import RegistrationEntries, facts_of
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.stores.commands import CreateToken, RevokeToken
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import IssuedToken, StoredEntry

_log = logger("ca")


class NotByToken(PkiError):
    """No token can be made for this entry."""

    code = Code.NOT_BY_TOKEN


@frozen
class Made:
    """A new token, and what it is bound to. Nobody can show it again."""

    token: JoinToken
    entry: RegistrationEntry
    expires_at: datetime


@define(eq=False, repr=False)
class JoinTokens:
    """What administrators do with tokens. What a token buys is decided where certificates are signed."""

    store: IStore
    log: AuditLog
    now: Now
    entries: RegistrationEntries

    async def create(
        self,
        principal: Principal,
        entry: RegistrationEntry,
        life: timedelta,
        *,
        key: str | None,
        reason: str,
    ) -> Made:
        """A token for ``entry``, which is made along with it where there is none yet.

        ``key``: :func:`pki.keys.key_id` of the only key that it may certify. Raises :class:`Malformed`,
        :class:`NotByToken`, :class:`StoreError`.
        """
        if not timedelta(seconds=1) <= life <= MAX_LIFETIME:
            raise Malformed(f"a token lives from 1s to {format_duration(MAX_LIFETIME)}")
        if not any(selector.kind == "token" for selector in entry.selectors):
            raise NotByToken(
                f"the entry {entry.id} has no token selector: make one that has (mesh-ctl token create --spiffe-id …)"
            )
        if entry.parent is not None or entry.is_ban:
            raise NotByToken(f"the entry {entry.id} buys nothing for who comes to the CA itself")
        is_new = not self.entries.is_known(entry.id)
        if self.entries.is_filed(entry.id):
            raise NotByToken(
                f"the entry {entry.id} is in the file of --entries: tokens are for entries in the record "
                "(mesh-ctl entry create)"
            )
        token, now = JoinToken.generate(), self.now()
        made = Made(token, entry, now + life)
        facts = {
            "did": "create-token",
            "entry": entry.id,
            "expires_at": rfc3339(made.expires_at),
            **(facts_of(entry) if is_new else {"spiffe_id": str(entry.spiffe_id)}),
        }
        facts |= {name: value for name, value in (("key", key), ("reason", reason)) if value}
        act = self.log.entry(Act.ADMINISTER, principal, f"token {token.id}", facts)
        issued = IssuedToken(token.digest, entry.id, made.expires_at, now, key)
        stored = StoredEntry(entry, now)
        await self.store.apply(CreateToken(issued, act, stored if is_new else None))
        if is_new:
            self.entries.took(stored)
        _log.info(
            "Join token made: {token}\n  For: {spiffe_id}\n  Until: {expires_at}\n  By: {requester}",
            event="token-created",
            token=token.id,
            spiffe_id=str(entry.spiffe_id),
            expires_at=rfc3339(made.expires_at),
            requester=str(principal),
        )
        return made

    async def all(self) -> Sequence[IssuedToken]:
        """The newest first."""
        return await self.store.tokens()

    async def revoke(self, principal: Principal, id: str, reason: str) -> IssuedToken:
        """From now on it buys nothing; repeated, the first answer again. Raises :class:`Unknown`."""
        facts = {"did": "revoke-token"} | ({"reason": reason} if reason else {})
        act = self.log.entry(Act.ADMINISTER, principal, f"token {id}", facts)
        revoked = await self.store.apply(RevokeToken(id, self.now(), act))
        _log.info(
            "Join token revoked: {token}\n  By: {requester}",
            event="token-revoked",
            token=revoked.id,
            requester=str(principal),
        )
        return revoked
