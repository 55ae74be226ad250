"""Tokens of any issuer of OpenID Connect as evidence: of CI systems, identity providers, other clouds."""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec
from attrs import define, evolve, frozen
from zope.interface import implementer

from pki.errors import Malformed, PkiError, discreet, printable
from pki.policy.selector import Selector, SelectorKind, is_label
from twisted_mesh.attest.attestors_file import settings_of
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.claim_pattern import ClaimPath, ClaimRule, claim_rules
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.evidence import Attestation, Evidence, seen
from twisted_mesh.attest.interface import IAttestor, Means, Table
from twisted_mesh.attest.jwt_evidence import EvidenceToken
from twisted_mesh.attest.kinds import OIDC
from twisted_mesh.attest.token_issuer import IssuerSettings, TokenIssuer, TokenMembers, chosen

_KIND = OIDC[0].name
_LONGEST_SUBJECT = 200


class OidcMembers(TokenMembers, forbid_unknown_fields=True, kw_only=True):
    """A table ``[oidc.NAME]``."""

    issuer: str
    claims: dict[str, str | list[str]] = msgspec.field(default_factory=dict)
    selectors: dict[str, str] | list[str] = msgspec.field(default_factory=list)


@frozen
class OidcSettings:
    """One table ``[oidc.NAME]``."""

    name: str
    issuer: IssuerSettings
    claims: tuple[ClaimRule, ...]
    """All of which must hold."""
    told: tuple[tuple[ClaimPath, str], ...]
    """Which claims become selectors, and what they are called there."""

    @classmethod
    def read(cls, name: str, table: Mapping[str, Any], where: str) -> "OidcSettings":
        """Raises :class:`PkiError`."""
        if not is_label(name):
            raise Malformed(
                f"{where}: the name stands in selectors: write it in lower-case letters, digits, dots and dashes"
            )
        members = settings_of(table, OidcMembers, where)
        if not members.claims:
            raise Malformed(
                f"{where}: claims must say whose tokens are taken: of many issuers anybody can have one, so name what "
                'yours say, like claims = {repository = "ORGANISATION/*"}'
            )
        issuer = IssuerSettings.read(members, members.issuer, where)
        claims = claim_rules(members.claims, f"{where} claims")
        return cls(name, issuer, claims, _told(name, members.selectors, where))

    def selectors(self, claims: Mapping[str, object]) -> frozenset[Selector]:
        """What a token's claims make of its bearer."""
        return frozenset().union(
            *(
                seen(f"{_KIND}:{self.name}:{called}", *path.values(claims))
                for path, called in self.told
            )
        )

    def demand(self, claims: Mapping[str, object]) -> None:
        """Raises :class:`BadEvidence` for what these claims are not."""
        for rule in self.claims:
            if not rule.allows(claims):
                said = ", ".join(rule.path.values(claims)) or "not there, or no text"
                raise BadEvidence(
                    f"the token's {rule.path} is {discreet(said, 120)}, which is none that this CA takes of "
                    f"{self.name} (claims in its attestors file)"
                )


def _told(
    name: str, said: dict[str, str] | list[str], where: str
) -> tuple[tuple[ClaimPath, str], ...]:
    named = said if isinstance(said, dict) else {claim: claim for claim in said}
    told = []
    for claim, called in named.items():
        if ":" in called or not OIDC[0].is_value(f"{name}:{called}:x"):
            raise Malformed(
                f"{where} selectors: {discreet(called, 60)!r} cannot stand in a selector: name the claim otherwise, "
                'like selectors = {"/realm_access/roles" = "role"}'
            )
        told.append((ClaimPath.parse(claim, f"{where} selectors"), called))
    return tuple(told)


@implementer(IAttestor)
@define(eq=False, repr=False)
class OidcAttestor:
    """``oidc:NAME:CLAIM:VALUE`` of whoever shows a token of a configured issuer."""

    issuers: Mapping[str, tuple[OidcSettings, TokenIssuer]]
    """By ``iss``, as the tokens have it."""
    challenges: Challenges

    name: ClassVar[str] = "oidc"
    table: ClassVar[str] = "oidc"
    kinds: ClassVar[tuple[SelectorKind, ...]] = OIDC

    @classmethod
    def read(cls, table: Table, where: str) -> tuple[OidcSettings, ...]:
        """Of the tables ``[oidc.NAME]``. Raises :class:`Malformed` with all that is wrong."""
        if not isinstance(table, Mapping) or not all(
            isinstance(inner, Mapping) for inner in table.values()
        ):
            raise Malformed(f"{where}: each issuer has a table with a name of its own: [oidc.NAME]")
        found, wrong = [], []
        for name, inner in table.items():
            try:
                found.append(OidcSettings.read(name, inner, f"[oidc.{discreet(name, 40)}]"))
            except PkiError as error:
                wrong.append(str(error))
        issuers = [settings.issuer.rules.issuer for settings in found]
        if len(set(issuers)) < len(issuers):
            wrong.append(f"{where}: two tables are of one issuer: say all of it in one")
        if wrong:
            raise Malformed("; ".join(wrong))
        return tuple(found)

    @classmethod
    def of(cls, settings: tuple[OidcSettings, ...], means: Means) -> Self:
        """For a CA that has these means."""
        issuers = {
            one.issuer.rules.issuer: (one, TokenIssuer.of(one.issuer, means)) for one in settings
        }
        return cls(issuers, means.challenges)

    async def challenge(self, kind: str, data: bytes) -> bytes | None:
        """A fresh one, which the token's audience may carry: see :data:`twisted_mesh.attest.jwt_evidence.NONCE`."""
        return self.challenges.make(kind).encode("ascii") if kind == self.name else None

    async def attest(self, evidence: Evidence) -> Attestation | None:
        """What the token's issuer says of its bearer."""
        shown = evidence.attestation
        if shown is None or shown.kind != self.name:
            return None
        token = EvidenceToken.read(shown.data)
        settings, issuer = chosen(token, self.issuers, "[oidc.NAME]")
        await issuer.prove(token, self.name)
        settings.demand(token.claims)
        proof = f"oidc:{settings.name}:{shown_subject(token.claims)}"
        attested = Attestation(proof, settings.selectors(token.claims))
        if not settings.issuer.once:
            return attested
        claim = f"oidc:{settings.name}:{token_digest(token)}"
        return evolve(attested, claim=claim, claim_until=issuer.rules.ends(token))


def shown_subject(claims: Mapping[str, object]) -> str:
    """Whom the token is about, for the log: one line of ASCII."""
    subject = claims.get("sub")
    text = printable(subject if isinstance(subject, str) else "", _LONGEST_SUBJECT)
    return text.encode("ascii", "backslashreplace").decode() or "(no sub)"


def token_digest(token: EvidenceToken) -> str:
    """What one token is called where it counts once: of all that is signed, so that no other spelling is another."""
    signed, _, _ = token.text.rpartition(".")
    return hashlib.sha256(signed.encode()).hexdigest()
