"""Authentication: who calls by the socket, by TLS, by the plaintext port, made of what the attestors saw."""

import os
from collections.abc import Sequence
from typing import Any

from attrs import define, evolve, field

from pki.policy.policy import Kind, NoProof, Principal, administrator, anonymous, workload
from pki.spiffe import SpiffePattern
from twisted_mesh.attest.credentials import Credentials
from twisted_mesh.attest.evidence import Attestation, Evidence
from twisted_mesh.attest.svid import SvidAttestor
from twisted_mesh.ca.entries import RegistrationEntries

#: The user who may do anything on a machine anyway.
_ROOT = 0


@define(eq=False)
class SocketAuthenticator:
    """The unix socket: processes of this machine, by what the kernel knows of them."""

    entries: RegistrationEntries
    attestor: Any
    """A :class:`ProcessAttestor`."""

    async def principal(self, transport: Any) -> Principal:
        """Raises :class:`NoProof`."""
        seen: Attestation | None = await self.attestor.attest(Evidence(transport))
        if seen is None:
            return anonymous("unix:unknown")
        if seen.uid in (_ROOT, os.geteuid()):
            issues = self.entries.is_effortless
            return administrator(seen.proof, seen.selectors, issues=issues)
        kind = Kind.WORKLOAD if self.entries.lets_in(seen.selectors) else Kind.ANONYMOUS
        return Principal(kind, seen.proof, selectors=seen.selectors)


@define(eq=False)
class TlsAuthenticator:
    """The TLS port: whoever proved an SVID in the handshake, and whoever comes without one."""

    admins: Sequence[SpiffePattern] = ()
    """Who is an administrator besides."""
    attestor: Any = field(factory=SvidAttestor)

    async def principal(self, transport: Any) -> Principal:
        try:
            seen: Attestation | None = await self.attestor.attest(Evidence(transport))
        except NoProof:
            # What needs no proof is given to whoever had one, too.
            return anonymous("tls:no-longer-valid")
        if seen is None or seen.spiffe_id is None or seen.serial is None:
            return anonymous("tls:no-certificate")
        found = workload(seen.spiffe_id, seen.serial)
        if any(pattern.matches(seen.spiffe_id) for pattern in self.admins):
            return evolve(found, kind=Kind.ADMINISTRATOR)
        return found


@define(eq=False)
class PlaintextAuthenticator:
    """The loopback port of ``--insecure-http``: whoever reaches it, on the user's own word."""

    async def principal(self, transport: Any) -> Principal:
        return administrator("insecure-http")


def of_process(transport: Any) -> tuple[str, bool]:
    """Whose a connection on the socket is before it has said a word, and whether that is an administrator's."""
    try:
        uid = Credentials.of_peer(transport.socket).uid
    except NoProof:
        return "unix:unknown", False
    return f"unix:uid:{uid}", uid in (_ROOT, os.geteuid())


def with_token(principal: Principal, seen: Attestation) -> Principal:
    """``principal`` with what its join token attests; only the token's entry counts then."""
    return evolve(
        principal,
        kind=Kind.WORKLOAD,
        proof=seen.proof,
        spiffe_id=None,
        serial=None,
        selectors=principal.selectors | seen.selectors,
        entry=seen.entry,
        issues=False,
    )
