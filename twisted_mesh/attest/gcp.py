"""Identity tokens of Google's compute metadata (``format=full``) as evidence: which instance, of which project."""

from collections.abc import Mapping
from typing import ClassVar, Self

from attrs import define, frozen
from zope.interface import implementer

from pki.errors import Malformed, discreet
from pki.policy.selector import Selector, SelectorKind
from twisted_mesh.attest.attestors_file import settings_of
from twisted_mesh.attest.claim_pattern import ClaimPath, ClaimPattern
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.evidence import Attestation, Evidence, seen
from twisted_mesh.attest.interface import IAttestor, Means, Table
from twisted_mesh.attest.jwt_evidence import EvidenceToken
from twisted_mesh.attest.kinds import GCP_IIT
from twisted_mesh.attest.token_issuer import IssuerSettings, TokenIssuer, TokenMembers

ISSUER = "https://accounts.google.com"
JWKS_URL = "https://www.googleapis.com/oauth2/v3/certs"
_INSTANCE = ("project_id", "zone", "instance_id", "instance_name")
_PATHS = {name: ClaimPath(name, ("google", "compute_engine", name)) for name in _INSTANCE}


class GcpMembers(TokenMembers, forbid_unknown_fields=True, kw_only=True):
    """The table ``[gcp]``."""

    projects: tuple[str, ...]
    service_accounts: tuple[str, ...] = ("**",)
    nonce: bool = True
    algorithms: tuple[str, ...] = ("RS256",)
    max_lifetime: str = "2h"


@frozen
class GcpSettings:
    """The table ``[gcp]``, read."""

    issuer: IssuerSettings
    projects: frozenset[str]
    service_accounts: tuple[ClaimPattern, ...]


@frozen
class Instance:
    """What a token says of the instance that it was fetched on."""

    project: str
    zone: str
    id: str
    name: str
    service_account: str

    @classmethod
    def of(cls, claims: Mapping[str, object]) -> Self:
        """Raises :class:`BadEvidence` where no instance fetched it."""
        values = [path.values(claims) for path in _PATHS.values()]
        if any(len(found) != 1 or not found[0] for found in values):
            raise BadEvidence(
                "the token says nothing of an instance: fetch it on a machine of Compute Engine, with format=full"
            )
        project, zone, number, name = (found[0] for found in values)
        email = claims.get("email")
        if not isinstance(email, str) or claims.get("email_verified") is not True:
            raise BadEvidence(
                "the token does not say which service account the instance runs as (email, email_verified)"
            )
        return cls(project, zone, number, name, email)

    @property
    def selectors(self) -> frozenset[Selector]:
        """As SPIRE's attestor ``gcp_iit`` has them without asking Google's API."""
        return (
            seen("gcp_iit:project-id", self.project)
            | seen("gcp_iit:zone", self.zone)
            | seen("gcp_iit:instance-name", self.name)
            | seen("gcp_iit:sa", self.service_account)
        )


@implementer(IAttestor)
@define(eq=False, repr=False)
class GcpAttestor:
    """``gcp_iit:…`` of whoever shows an identity token of an instance."""

    settings: GcpSettings
    issuer: TokenIssuer

    name: ClassVar[str] = "gcp"
    table: ClassVar[str] = "gcp"
    kinds: ClassVar[tuple[SelectorKind, ...]] = GCP_IIT

    @classmethod
    def read(cls, table: Table, where: str) -> GcpSettings:
        """Of the table ``[gcp]``. Raises :class:`pki.errors.PkiError`."""
        members = settings_of(table, GcpMembers, where)
        if not members.projects or not all(members.projects):
            raise Malformed(
                f"{where}: projects names those whose instances are taken: anybody can have a project"
            )
        accounts = (
            ClaimPattern.parse(text, f"{where} service_accounts")
            for text in members.service_accounts
        )
        issuer = IssuerSettings.read(members, ISSUER, where, jwks_url=JWKS_URL)
        return GcpSettings(issuer, frozenset(members.projects), tuple(accounts))

    @classmethod
    def of(cls, settings: GcpSettings, means: Means) -> Self:
        """For a CA that has these means."""
        return cls(settings, TokenIssuer.of(settings.issuer, means))

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        """A fresh one, which the token's audience may carry."""
        return self.issuer.challenges.make(kind).encode("ascii") if kind == self.name else None

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """Which instance's token it is."""
        shown = evidence.attestation
        if shown is None or shown.kind != self.name:
            return None
        token = EvidenceToken.read(shown.data)
        await self.issuer.prove(token, self.name)
        instance = Instance.of(token.claims)
        if instance.project not in self.settings.projects:
            raise BadEvidence(
                f"the instance is of the project {discreet(instance.project, 80)}, which is none that this CA takes "
                "(projects in its attestors file)"
            )
        if not any(
            allowed.matches(instance.service_account) for allowed in self.settings.service_accounts
        ):
            raise BadEvidence(
                f"the instance runs as {discreet(instance.service_account, 120)}, which is none of the service "
                "accounts that this CA takes (service_accounts in its attestors file)"
            )
        proof = ascii(f"gcp_iit:{instance.project}:{instance.zone}:{instance.id}")[1:-1]
        return Attestation(
            proof, instance.selectors, claim=proof if self.settings.issuer.once else None
        )
