"""Tokens of Azure's managed identities as evidence: which identity of which tenant, and whose machine's that is.

Of an identity that is assigned to one machine by the system the token names that machine. One that people have
assigned may be on many: such a token proves the identity, and not where it was fetched.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, Self

from attrs import define, frozen
from zope.interface import implementer

from pki.errors import Malformed, discreet
from pki.policy.selector import Selector, SelectorKind
from twisted_mesh.attest.attestors_file import settings_of
from twisted_mesh.attest.claim_pattern import ClaimPattern
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.evidence import Attestation, Evidence, seen
from twisted_mesh.attest.interface import IAttestor, Means, Table
from twisted_mesh.attest.jwt_evidence import EvidenceToken
from twisted_mesh.attest.kinds import AZURE
from twisted_mesh.attest.token_issuer import IssuerSettings, TokenIssuer, TokenMembers, chosen

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
#: An Azure resource, whose names have no colon, slash or line break in them: they stand in selectors.
_RESOURCE = re.compile(
    r"/subscriptions/([0-9a-f-]{36})/resourcegroups/([\w.()-]{1,90})"
    r"/providers/([\w.]{1,100}/\w{1,100})/([\w.()-]{1,128})",
    re.ASCII | re.IGNORECASE,
)
_MACHINE = "microsoft.compute/virtualmachines"
_ASSIGNED = "microsoft.managedidentity/userassignedidentities"


class AzureMembers(TokenMembers, forbid_unknown_fields=True, kw_only=True):
    """The table ``[azure]``."""

    tenants: tuple[str, ...]
    subscriptions: tuple[str, ...] = ()
    identities: tuple[str, ...] = ("**",)
    authority: str = "https://login.microsoftonline.com"
    token_service: str = "https://sts.windows.net"  # noqa: S105 a URL
    algorithms: tuple[str, ...] = ("RS256",)
    max_lifetime: str = "26h"


@frozen
class AzureSettings:
    """The table ``[azure]``, read."""

    issuers: Mapping[str, tuple[str, IssuerSettings]]
    """By ``iss``: the tenant, and how its tokens are judged. Each tenant has two, as tokens have two versions."""
    subscriptions: frozenset[str]
    """Whose resources are taken; all of the tenants' where there are none."""
    identities: tuple[ClaimPattern, ...]
    """Resource IDs, in lower case."""
    once: bool


@frozen
class ManagedIdentity:
    """What a token says of the identity that it is of."""

    tenant: str
    principal: str
    resource: str
    """Its resource ID, in lower case."""
    subscription: str
    group: str
    kind: str
    """Of the resource, in lower case."""
    name: str

    @classmethod
    def of(cls, claims: Mapping[str, object], tenant: str) -> Self:
        """Raises :class:`BadEvidence` for the token of anybody else: a user's, an application's."""
        principal, said = claims.get("oid"), claims.get("xms_mirid")
        if claims.get("tid") != tenant or "scp" in claims:
            raise BadEvidence(
                "the token is of another tenant than its issuer's, or of a user: fetch that of a managed identity"
            )
        found = _RESOURCE.fullmatch(said) if isinstance(said, str) else None
        if found is None or not isinstance(principal, str) or not _UUID.fullmatch(principal):
            raise BadEvidence(
                "the token is not of a managed identity of a resource (xms_mirid, oid): an application's or a user's "
                "says nothing of a machine"
            )
        subscription, group, kind, name = found.groups()
        return cls(
            tenant, principal, found[0].lower(), subscription.lower(), group, kind.lower(), name
        )

    @property
    def selectors(self) -> frozenset[Selector]:
        """As SPIRE's attestor ``azure_msi`` spells them; ``tenant-id``, ``principal-id`` and ``identity`` are ours."""
        found = (
            seen("azure_msi:tenant-id", self.tenant)
            | seen("azure_msi:principal-id", self.principal)
            | seen("azure_msi:subscription-id", self.subscription)
        )
        if self.kind == _MACHINE:
            return found | seen("azure_msi:vm-name", f"{self.group}:{self.name}")
        if self.kind == _ASSIGNED:
            return found | seen("azure_msi:identity", f"{self.group}:{self.name}")
        return found


@implementer(IAttestor)
@define(eq=False, repr=False)
class AzureAttestor:
    """``azure_msi:…`` of whoever shows a token of a managed identity."""

    settings: AzureSettings
    issuers: Mapping[str, TokenIssuer]

    name: ClassVar[str] = "azure"
    table: ClassVar[str] = "azure"
    kinds: ClassVar[tuple[SelectorKind, ...]] = AZURE

    @classmethod
    def read(cls, table: Table, where: str) -> AzureSettings:
        """Of the table ``[azure]``. Raises :class:`pki.errors.PkiError`."""
        members = settings_of(table, AzureMembers, where)
        if members.nonce:
            raise Malformed(
                f"{where}: nonce: Azure issues tokens for registered applications only, and no challenge can be one; "
                "once = true has each identity's first use win"
            )
        for text in (*members.tenants, *members.subscriptions):
            if not _UUID.fullmatch(text):
                raise Malformed(
                    f"{where}: tenants and subscriptions are UUIDs in lower case, and {discreet(text, 60)!r} is none"
                )
        if not members.audience:
            raise Malformed(
                f"{where}: audience is the ID of an application that is registered for this CA alone, like "
                "api://mesh.local"
            )
        if not members.tenants:
            raise Malformed(f"{where}: tenants names those whose identities are taken")
        issuers = {}
        for tenant in members.tenants:
            authority = members.authority.removesuffix("/")
            service = members.token_service.removesuffix("/")
            for issuer, keys in (
                (f"{service}/{tenant}/", f"{authority}/{tenant}/discovery/keys"),
                (f"{authority}/{tenant}/v2.0", f"{authority}/{tenant}/discovery/v2.0/keys"),
            ):
                settings = IssuerSettings.read(members, issuer, where, jwks_url=keys)
                issuers[issuer] = (tenant, settings)
        identities = tuple(
            ClaimPattern.parse(text.lower(), f"{where} identities") for text in members.identities
        )
        return AzureSettings(issuers, frozenset(members.subscriptions), identities, members.once)

    @classmethod
    def of(cls, settings: AzureSettings, means: Means) -> Self:
        """For a CA that has these means."""
        issuers = {
            name: TokenIssuer.of(issuer, means) for name, (_, issuer) in settings.issuers.items()
        }
        return cls(settings, issuers)

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        """None: no token of Azure's can carry one."""
        return None

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """Which identity's token it is."""
        shown = evidence.attestation
        if shown is None or shown.kind != self.name:
            return None
        token = EvidenceToken.read(shown.data)
        issuer = chosen(token, self.issuers, "tenants")
        await issuer.prove(token, self.name)
        tenant, _ = self.settings.issuers[token.issuer]
        identity = ManagedIdentity.of(token.claims, tenant)
        self._demand_allowed(identity)
        proof = f"azure_msi:{identity.tenant}:{identity.principal}"
        return Attestation(proof, identity.selectors, claim=proof if self.settings.once else None)

    def _demand_allowed(self, identity: ManagedIdentity) -> None:
        """Raises :class:`BadEvidence`."""
        wanted = self.settings.subscriptions
        if wanted and identity.subscription not in wanted:
            raise BadEvidence(
                f"the identity is of the subscription {identity.subscription}, which is none that this CA takes "
                "(subscriptions in its attestors file)"
            )
        if not any(allowed.matches(identity.resource) for allowed in self.settings.identities):
            raise BadEvidence(
                f"the identity {discreet(identity.resource, 200)} is none that this CA takes (identities in its "
                "attestors file)"
            )
