"""A CA that these tests of ``mesh-ctl`` administer: entries, tokens and certificates as they say, acts remembered."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from attrs import define, field
from cryptography import x509
from msgspec.structs import replace

from pki.errors import Problem
from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from tests.authorities import MESH
from twisted_mesh.api.agent_messages import AgentEnded, AgentRow, EndAgent, NewAgentToken
from twisted_mesh.api.federation_messages import FederationRows
from twisted_mesh.api.messages import (
    CertificatePage,
    CertificateRow,
    Deleted,
    KnownConnections,
    MadeToken,
    NewRegistration,
    NewToken,
    Registration,
    Registrations,
    Revoked,
    RevokedMany,
    RevokedToken,
    TokenRow,
)
from twisted_mesh.api.policy_messages import PolicyStatus
from twisted_mesh.api.refusal import CaRefused

TIME = "2026-11-23T10:00:00Z"


def registration(entry_id: str, spiffe_id: str, *selectors: str, **more: Any) -> Registration:
    facts: dict[str, Any] = {
        "dns_names": [],
        "ip_addresses": [],
        "ttl": None,
        "max_ttl": None,
        "keys": [],
        "comment": "",
        "source": "store",
        "honoured": True,
        "created_at": TIME,
    }
    facts |= more
    whose = f"spiffe://{MESH}{spiffe_id}"
    return Registration(entry_id, selectors=list(selectors), spiffe_id=whose, **facts)


DEFAULT = registration("default", "/service/**", "unix:uid:1000", source="default")


def token_row(token_id: str, entry: str, status: str = "live", **more: Any) -> TokenRow:
    facts: dict[str, Any] = {
        "spiffe_id": f"spiffe://{MESH}/service/web",
        "key": None,
        "created_at": TIME,
        "expires_at": TIME,
        "revoked_at": TIME if status == "revoked" else None,
        "spent_at": TIME if status == "spent" else None,
        "serial": None,
    }
    return TokenRow(id=token_id, entry=entry, status=status, **{**facts, **more})


def certificate(serial: int, spiffe_id: str, entry: str | None) -> CertificateRow:
    named = f"spiffe://{MESH}{spiffe_id}"
    return CertificateRow(serial_hex(serial), "", named, TIME, TIME, "valid", entry=entry)


@define
class Ca:
    """Stands for :class:`Administration`, and for its client too."""

    entries: list[Registration] = field(factory=list)
    rows: list[TokenRow] = field(factory=list)
    certificates: list[CertificateRow] = field(factory=list)
    max_ttl: str | None = None
    acts: list[Any] = field(factory=list)
    asked: list[Mapping[str, str]] = field(factory=list)
    agents_: list[AgentRow] = field(factory=list)
    token: str = "mj1_secret"
    broken: list[Exception] = field(factory=list)
    """What the next revocations come to."""
    policy_: PolicyStatus = field(factory=lambda: PolicyStatus("none", "", "", None, [], "", None))
    trusted: list[x509.Certificate] = field(factory=list)

    @property
    def client(self) -> "Ca":
        return self

    async def roots(self) -> list[x509.Certificate]:
        return self.trusted

    async def policy(self) -> PolicyStatus:
        return self.policy_

    async def registrations(self) -> Registrations:
        return Registrations(self.entries, self.max_ttl)

    async def registration(self, entry_id: str) -> Registration:
        for row in self.entries:
            if row.id == entry_id:
                return row
        raise CaRefused(404, [Problem("not-found", f"there is no entry {entry_id}")])

    async def register(self, new: NewRegistration) -> Registration:
        self.acts.append(new)
        made = replace(DEFAULT, id="0011223344556677", selectors=new.selectors, source="store")
        told = {"parent": new.parent, "hint": new.hint, "federates_with": new.federates_with}
        return replace(made, **told)

    async def federations(self) -> FederationRows:
        return FederationRows([], {})

    async def delete_registration(self, entry_id: str, reason: str) -> Deleted:
        row = await self.registration(entry_id)
        if row.source == "file":
            raise CaRefused(409, [Problem("entry-in-file", "it is in the file")])
        self.acts.append(("delete", entry_id, reason))
        return Deleted(entry_id, TIME)

    async def tokens(self) -> list[TokenRow]:
        return self.rows

    async def create_token(self, new: NewToken) -> MadeToken:
        self.acts.append(new)
        bought = new.spiffe_id or f"spiffe://{MESH}/service/{{token}}"
        url, fingerprint = "https://ca.example:8443", "sha256:" + "ab" * 32
        return MadeToken(self.token, "0123456789ab", "e1", bought, url, fingerprint, TIME)

    async def revoke_token(self, token_id: str, reason: str) -> RevokedToken:
        if not any(row.id == token_id for row in self.rows):
            raise CaRefused(404, [Problem("not-found", f"there is no token {token_id}")])
        self.acts.append(("revoke", token_id, reason))
        return RevokedToken(token_id, TIME)

    async def agents(self) -> list[AgentRow]:
        return self.agents_

    async def agent(self, name: str) -> AgentRow:
        for row in self.agents_:
            if row.name == name:
                return row
        raise CaRefused(404, [Problem("not-found", f"there is no agent {name}")])

    async def create_agent_token(self, new: NewAgentToken) -> MadeToken:
        self.acts.append(new)
        whose = f"spiffe://{MESH}/mesh/agent/{new.name}"
        url, fingerprint = "https://ca.example:8443", "sha256:" + "ab" * 32
        return MadeToken(self.token, "0123456789ab", "e1", whose, url, fingerprint, TIME)

    async def end_agent(self, name: str, how: EndAgent) -> AgentEnded:
        self.acts.append((name, how))
        return AgentEnded(name, how.action, [row.serial for row in self.certificates])

    async def certificate(self, serial: int) -> CertificateRow:
        for row in self.certificates:
            if row.serial == serial_hex(serial):
                return row
        raise CaRefused(404, [Problem("not-found", f"no certificate has the serial {serial:x}")])

    async def page(
        self, filters: Mapping[str, str], limit: int = 1000, cursor: str | None = None
    ) -> CertificatePage:
        self.asked.append(filters)
        return CertificatePage(
            [row for row in self.certificates if row.serial == filters["serial"]], None
        )

    async def connections(self) -> KnownConnections:
        return KnownConnections(2, "30s", 1)

    async def revoke_all(self, serials: Sequence[str], reason: Reason) -> RevokedMany:
        self.acts.append((*serials, str(reason)))
        if self.broken:
            raise self.broken.pop(0)
        known = {row.serial for row in self.certificates}
        self.certificates = [row for row in self.certificates if row.serial not in serials]
        revoked = [Revoked(serial, TIME, str(reason)) for serial in serials if serial in known]
        return RevokedMany(revoked, [serial for serial in serials if serial not in known])

    async def pages(
        self, filters: Mapping[str, str], most: int | None
    ) -> AsyncIterator[CertificatePage]:
        self.asked.append(filters)
        yield CertificatePage(self.certificates, None)
