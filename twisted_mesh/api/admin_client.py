"""What an administrator asks of a CA: its record, revocations, entries and tokens, its log, its health."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from attrs import frozen
from cryptography import x509

from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from twisted_mesh.api.agent_messages import (
    AgentEnded,
    AgentRow,
    AgentRows,
    ClaimRow,
    ClaimRows,
    EndAgent,
    EvictClaim,
    NewAgents,
    NewAgentToken,
    NewAlias,
)
from twisted_mesh.api.blocked_key_messages import (
    BlockedKeyRow,
    BlockedKeyRows,
    KeyUnblocked,
    NewBlockedKey,
)
from twisted_mesh.api.ca_messages import (
    BackupRequest,
    BackupSignature,
    Detached,
    DetachRequest,
    IssuingRevoked,
    RevokeIssuing,
)
from twisted_mesh.api.certification_messages import (
    CertificationRequested,
    Installation,
    InstallationAnswer,
    IssuingRequest,
)
from twisted_mesh.api.federation_messages import (
    FederationEnded,
    FederationRow,
    FederationRows,
    NewFederation,
    RefreshFederation,
)
from twisted_mesh.api.jwt_messages import JwtKeyRows, RotateJwtKey
from twisted_mesh.api.key_messages import IssuingRotated, KeyRows, ProveKeys, RotateIssuing
from twisted_mesh.api.log_messages import Checkpoints, LogEntries, LogHead, Proof, RecordRows
from twisted_mesh.api.messages import (
    LARGEST_PAGE,
    CertificateDetails,
    CertificatePage,
    Deleted,
    Health,
    KnownConnections,
    MadeToken,
    NewRegistration,
    NewToken,
    Registration,
    Registrations,
    RevocationRow,
    Revoked,
    RevokedMany,
    RevokedToken,
    RevokeRequest,
    TokenRow,
    TokenRows,
    TrustAnswer,
)
from twisted_mesh.api.policy_messages import (
    DecisionRow,
    Decisions,
    PolicyStatus,
    ReloadPolicy,
    WithdrawPolicy,
)
from twisted_mesh.api.root_messages import (
    DistrustRequest,
    RootDistrusted,
    RootStatus,
    RootStepDone,
    RootStepRequest,
)
from twisted_mesh.http.address import CaAddress

T = TypeVar("T")


class Asks(Protocol):
    """Asks one CA, on a reactor or without one. What goes wrong is a :class:`pki.errors.PkiError`."""

    @property
    def address(self) -> CaAddress:
        """Where it is."""

    @property
    def date(self) -> datetime | None:
        """Its clock, as it was in its last answer."""

    async def pause(self, seconds: float) -> None:
        """Let some time go by."""

    async def roots(self) -> tuple[x509.Certificate, ...]:
        """The roots of its trust domain."""

    async def ask(self, method: str, path: str, body: msgspec.Struct | None, shape: type[T]) -> T:
        """What one route answers to ``body``, as a ``shape``."""


@frozen
class Administration:
    """The routes that are an administrator's. Errors are those of its client."""

    client: Asks

    async def page(
        self, filters: Mapping[str, str], limit: int = LARGEST_PAGE, cursor: str | None = None
    ) -> CertificatePage:
        """Certificates on record that fit ``filters``, the route's parameters, newest first, from ``cursor`` on."""
        asked = {**filters, "limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        return await self._get("/api/v1/certificates", asked, CertificatePage)

    async def pages(
        self, filters: Mapping[str, str], most: int | None
    ) -> AsyncIterator[CertificatePage]:
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

    async def revocations(self) -> AsyncIterator[Sequence[RevocationRow]]:
        """What endpoints are told of, part after part."""
        after: int | None = 0
        while after is not None:
            told = await self._get("/api/v1/trust", {"after": str(after)}, TrustAnswer)
            yield told.revocations
            after = told.generation if told.more else None

    async def certificate(self, serial: int) -> CertificateDetails:
        """One certificate on record. A serial that is not: :class:`CaRefused` with status 404."""
        path = f"/api/v1/certificates/{serial_hex(serial)}"
        return await self._get(path, {}, CertificateDetails)

    async def revoke(self, serial: str, reason: Reason) -> Revoked:
        """Revoke one certificate, for good. Done again, the answer is the same."""
        body = RevokeRequest(serial, reason=str(reason))
        return await self._post("/api/v1/revoke", body, Revoked)

    async def revoke_all(self, serials: Sequence[str], reason: Reason) -> RevokedMany:
        """Revoke many: at most :data:`LARGEST_PAGE` at a time. Those that are not on record are told, not refused."""
        body = RevokeRequest(serials=list(serials), reason=str(reason))
        return await self._post("/api/v1/revoke", body, RevokedMany)

    async def connections(self) -> KnownConnections:
        """Who has told the CA of open connections."""
        return await self._get("/api/v1/connections", {}, KnownConnections)

    async def registrations(self) -> Registrations:
        """All registration entries."""
        return await self._get("/api/v1/entries", {}, Registrations)

    async def registration(self, entry_id: str) -> Registration:
        """One registration entry."""
        return await self._get(_path("entries", entry_id), {}, Registration)

    async def register(self, new: NewRegistration) -> Registration:
        """Make a registration entry. One that breaks a rule: :class:`CaRefused` with every problem."""
        return await self._post("/api/v1/entries", new, Registration)

    async def delete_registration(self, entry_id: str, reason: str) -> Deleted:
        """Delete an entry and its tokens. ``reason`` is for the audit log, and may be empty."""
        return await self._delete(_path("entries", entry_id), reason, Deleted)

    async def tokens(self) -> list[TokenRow]:
        """Every join token that is remembered, the newest first."""
        return (await self._get("/api/v1/tokens", {}, TokenRows)).tokens

    async def create_token(self, new: NewToken) -> MadeToken:
        """Make a join token. Its text is in this answer and in no other."""
        return await self._post("/api/v1/tokens", new, MadeToken)

    async def revoke_token(self, token_id: str, reason: str) -> RevokedToken:
        """Let nobody use a token any more. ``reason`` is for the audit log, and may be empty."""
        return await self._delete(_path("tokens", token_id), reason, RevokedToken)

    async def jwt_keys(self) -> JwtKeyRows:
        """The keys that sign JWT-SVIDs, will, or have."""
        return await self._get("/api/v1/jwt/keys", {}, JwtKeyRows)

    async def rotate_jwt_key(self, *, at_once: bool, reason: str) -> JwtKeyRows:
        """Have the next key sign, once everybody can have heard of it or ``at_once``; the keys after that."""
        body = RotateJwtKey(at_once, reason)
        return await self._post("/api/v1/jwt/rotate", body, JwtKeyRows)

    async def retire_jwt_key(self, kid: str, reason: str) -> JwtKeyRows:
        """Have a key and all tokens of it believed no more; the keys after that."""
        return await self._delete(_path("jwt/keys", kid), reason, JwtKeyRows)

    async def agents(self) -> list[AgentRow]:
        """Every agent that is known, or banned, by name."""
        return (await self._get("/api/v1/agents", {}, AgentRows)).agents

    async def agent(self, name: str) -> AgentRow:
        """One agent. One that nobody knows: :class:`CaRefused` with status 404."""
        return await self._get(_path("agents", name), {}, AgentRow)

    async def create_agent_token(self, new: NewAgentToken) -> MadeToken:
        """Make a join token for an agent. Its text is in this answer and in no other."""
        return await self._post("/api/v1/agents", new, MadeToken)

    async def end_agent(self, name: str, how: EndAgent) -> AgentEnded:
        """Evict, ban or unban an agent."""
        return await self._post(_path("agents", name), how, AgentEnded)

    async def allow_agents(self, new: NewAgents) -> Registration:
        """Let agents in by their platform."""
        return await self._post("/api/v1/entries/agents", new, Registration)

    async def create_alias(self, new: NewAlias) -> Registration:
        """Make a name for many agents."""
        return await self._post("/api/v1/entries/aliases", new, Registration)

    async def claims(self) -> AsyncIterator[Sequence[ClaimRow]]:
        """All claims that were used, by their text, a page at a time."""
        after = ""
        while True:
            page = await self._get("/api/v1/claims", {"after": after}, ClaimRows)
            yield page.claims
            if page.next is None:
                return
            after = page.next

    async def evict_claim(self, how: EvictClaim) -> AgentEnded:
        """Let a claim be used again, and revoke what it has bought."""
        return await self._post("/api/v1/claims", how, AgentEnded)

    async def health(self) -> Health:
        """What the CA says of itself."""
        return await self._get("/api/v1/health", {}, Health)

    async def detach_root(self, sha256: str) -> Detached:
        """Have the root's key deleted, of which a copy with that SHA-256 is held elsewhere."""
        return await self._post("/api/v1/ca/detach-root", DetachRequest(sha256), Detached)

    async def root(self) -> RootStatus:
        """How the rotation of the root stands."""
        return await self._get("/api/v1/ca/root", {}, RootStatus)

    async def step_root(self, step: str, how: RootStepRequest) -> RootStepDone:
        """``prepare``, ``activate``, ``retire`` or ``revert``."""
        return await self._post(f"/api/v1/ca/root/{step}", how, RootStepDone)

    async def distrust_root(
        self, fingerprint: str, reason: Reason, *, dry_run: bool = False
    ) -> RootDistrusted:
        """Have nobody believe a root any more, for good. Done again, the answer is the same."""
        body = DistrustRequest(fingerprint, str(reason), dry_run)
        return await self._post("/api/v1/ca/root/distrust", body, RootDistrusted)

    async def revoke_issuing(self, issuer: str, reason: Reason, *, force: bool) -> IssuingRevoked:
        """Revoke an issuing CA by its key id, for good. Done again, the answer is the same."""
        body = RevokeIssuing(issuer, str(reason), force)
        return await self._post("/api/v1/ca/revoke-issuing", body, IssuingRevoked)

    async def rotate_issuing(self) -> IssuingRotated:
        """Have the next issuing CA issue at once, with a key where the CA's options say."""
        return await self._post("/api/v1/ca/rotate-issuing", RotateIssuing(), IssuingRotated)

    async def keys(self, nonce: str) -> KeyRows:
        """Where each key of the CA's is, and what it has signed of ``nonce``, 32 to 64 hex digits."""
        return await self._post("/api/v1/ca/keys", ProveKeys(nonce), KeyRows)

    async def request_certification(self, *, new_key: bool) -> IssuingRequest:
        """The CSR of the issuing CA that waits for a root elsewhere."""
        asked = CertificationRequested(new_key)
        return await self._post("/api/v1/ca/root/csr", asked, IssuingRequest)

    async def install(self, installation: Installation) -> InstallationAnswer:
        """Install what was certified. What does not fit: :class:`CaRefused` with every problem."""
        return await self._post("/api/v1/ca/root/install", installation, InstallationAnswer)

    async def sign_backup(self, sha256: str) -> BackupSignature:
        """Have the CA sign a backup of itself, by the digest of the archive's manifest."""
        return await self._post("/api/v1/ca/sign-backup", BackupRequest(sha256), BackupSignature)

    async def head(self) -> LogHead:
        """The audit log's newest checkpoint, and its key."""
        return await self._get("/api/v1/audit/checkpoint", {}, LogHead)

    async def checkpoints(self, start: int, limit: int = LARGEST_PAGE) -> Checkpoints:
        """Checkpoints of trees of ``start`` entries and more."""
        asked = {"start": str(start), "limit": str(limit)}
        return await self._get("/api/v1/audit/checkpoints", asked, Checkpoints)

    async def entries(self, start: int, limit: int = LARGEST_PAGE) -> LogEntries:
        """Entries of the audit log from the position ``start`` on."""
        asked = {"start": str(start), "limit": str(limit)}
        return await self._get("/api/v1/audit/entries", asked, LogEntries)

    async def record(self) -> AsyncIterator[RecordRows]:
        """Every certificate as it stands in its table, page after page."""
        start: int | None = 0
        while start is not None:
            asked = {"start": str(start), "limit": str(LARGEST_PAGE)}
            page = await self._get("/api/v1/audit/record", asked, RecordRows)
            yield page
            start = page.next

    async def inclusion(self, position: int, size: int) -> Proof:
        """The proof that the entry at ``position`` is in the tree of ``size`` entries."""
        asked = {"position": str(position), "size": str(size)}
        return await self._get("/api/v1/audit/proof", asked, Proof)

    async def consistency(self, older: int, newer: int) -> Proof:
        """The proof that the tree of ``newer`` entries begins with that of ``older``."""
        asked = {"from": str(older), "to": str(newer)}
        return await self._get("/api/v1/audit/proof", asked, Proof)

    async def federations(self) -> FederationRows:
        """Every trust domain that is federated with, by name."""
        return await self._get("/api/v1/federation", {}, FederationRows)

    async def federation(self, trust_domain: str) -> FederationRow:
        """One of them. One that nobody federates with: :class:`CaRefused` with status 404."""
        return await self._get(_path("federation", trust_domain), {}, FederationRow)

    async def federate(self, new: NewFederation) -> FederationRow:
        """Federate with another trust domain."""
        return await self._post("/api/v1/federation", new, FederationRow)

    async def refresh_federation(self, trust_domain: str, how: RefreshFederation) -> FederationRow:
        """Have its bundle asked for now."""
        return await self._post(_path("federation", trust_domain), how, FederationRow)

    async def end_federation(self, trust_domain: str, reason: str) -> FederationEnded:
        """Federate with it no more. ``reason`` is for the audit log, and may be empty."""
        return await self._delete(_path("federation", trust_domain), reason, FederationEnded)

    async def blocked_keys(self) -> BlockedKeyRows:
        """Every key that nothing is certified for, the oldest first."""
        return await self._get("/api/v1/keys/blocked", {}, BlockedKeyRows)

    async def block_key(self, new: NewBlockedKey) -> BlockedKeyRow:
        """Have nothing certified for a key any more. Done again, the answer is the same."""
        return await self._post("/api/v1/keys/blocked", new, BlockedKeyRow)

    async def unblock_key(self, key: str, reason: str) -> KeyUnblocked:
        """Let it go. ``reason`` is for the audit log, and may be empty."""
        return await self._delete(_path("keys/blocked", key), reason, KeyUnblocked)

    async def policy(self) -> PolicyStatus:
        """What is in force of ``--policy``."""
        return await self._get("/api/v1/policy", {}, PolicyStatus)

    async def reload_policy(self, reason: str) -> PolicyStatus:
        """Have it read again. One that cannot be used is refused, and the old one stays."""
        return await self._post("/api/v1/policy/reload", ReloadPolicy(reason), PolicyStatus)

    async def withdraw_policy(self, reason: str) -> PolicyStatus:
        """Have it asked no more, until it is read again or the CA is started again."""
        return await self._post("/api/v1/policy/withdraw", WithdrawPolicy(reason), PolicyStatus)

    async def decisions(self, last: int) -> Sequence[DecisionRow]:
        """What it has decided last, the oldest first; at most ``MOST_DECISIONS``."""
        asked = {"last": str(last)}
        return (await self._get("/api/v1/policy/decisions", asked, Decisions)).decisions

    async def _get(self, path: str, asked: Mapping[str, str], shape: type[T]) -> T:
        query = f"?{urlencode(asked)}" if asked else ""
        return await self.client.ask("GET", path + query, None, shape)

    async def _post(self, path: str, body: msgspec.Struct, shape: type[T]) -> T:
        return await self.client.ask("POST", path, body, shape)

    async def _delete(self, path: str, reason: str, shape: type[T]) -> T:
        query = f"?{urlencode({'reason': reason})}" if reason else ""
        return await self.client.ask("DELETE", path + query, None, shape)


def _path(of: str, name: str) -> str:
    return f"/api/v1/{of}/{quote(name, safe='')}"
