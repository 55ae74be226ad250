"""An issuer of tokens as the CA's configuration has it, and whether a token is good evidence of it."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec
from attrs import define, evolve, frozen
from cryptography import x509

from pki.errors import Malformed, PkiError, discreet
from pki.jwt_svid.algorithms import ALGORITHMS
from pki.svid.x509svid import load_certificates
from pki.validity import parse_duration
from twisted_mesh.attest.attestors_file import absolute
from twisted_mesh.attest.challenges import Challenges
from twisted_mesh.attest.errors import BadEvidence
from twisted_mesh.attest.interface import Means
from twisted_mesh.attest.jwks import LARGEST_JWKS, Jwks, JwksAddress, KeySet
from twisted_mesh.attest.jwt_evidence import (
    USUAL_ALGORITHMS,
    EvidenceToken,
    KeySource,
    TokenRules,
)
from twisted_mesh.http.https_client import HttpsClient, WebUrl
from twisted_mesh.runtime.clock import Now
from twisted_mesh.state.directory import read_trusted

T = TypeVar("T")
_LONGEST_SKEW = 300
_LARGEST_ROOTS = 1024 * 1024


class TokenMembers(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a table of any issuer may say; see docs/ATTESTATION.md."""

    audience: str | tuple[str, ...] = ()
    other_audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = USUAL_ALGORITHMS
    clock_skew: str = "60s"
    max_lifetime: str = "24h"
    jwks_url: str | None = None
    jwks_file: str | None = None
    ca_file: str | None = None
    nonce: bool = False
    once: bool = False


@frozen
class IssuerSettings:
    """One issuer: what its tokens must be, and where its keys are."""

    rules: TokenRules
    """Without an audience where the table has none: then tokens are for the CA's trust domain."""
    keys: KeySet | JwksAddress
    roots: Sequence[x509.Certificate] | None
    """Whom the servers of its keys are believed by; None for the CAs that this machine believes."""
    once: bool
    """Whether one token buys certificates for one key."""

    @classmethod
    def read(
        cls, members: TokenMembers, issuer: str, where: str, *, jwks_url: str | None = None
    ) -> "IssuerSettings":
        """What the table ``where`` says of ``issuer``, whose keys are at ``jwks_url`` where the table does not say.

        Raises :class:`PkiError`.
        """
        audiences = (members.audience,) if isinstance(members.audience, str) else members.audience
        for audience in (*audiences, *members.other_audiences):
            if not audience or not audience.isprintable():
                raise Malformed(f"{where}: an audience is a text in one line")
        if set(audiences) & set(members.other_audiences):
            raise Malformed(
                f"{where}: audience names whom tokens must be for, and none of other_audiences again"
            )
        if unknown := [name for name in members.algorithms if name not in ALGORITHMS]:
            raise Malformed(
                f"{where}: algorithms {discreet(', '.join(unknown), 60)}: there are {', '.join(ALGORITHMS)}"
            )
        if not members.algorithms:
            raise Malformed(f"{where}: algorithms has none: no token would ever be taken")
        skew = parse_duration(members.clock_skew)
        if skew.total_seconds() > _LONGEST_SKEW:
            raise Malformed(f"{where}: clock_skew is at most {_LONGEST_SKEW}s")
        longest = parse_duration(members.max_lifetime)
        if not longest:
            raise Malformed(f"{where}: max_lifetime is at least 1s")
        rules = TokenRules(
            issuer,
            frozenset(audiences),
            frozenset(members.other_audiences),
            members.algorithms,
            skew,
            longest,
            members.nonce,
        )
        keys = _keys(members, issuer, where, jwks_url)
        roots = None if members.ca_file is None else _roots(members.ca_file, where)
        return cls(rules, keys, roots, members.once)

    def key_source(self, means: Means) -> KeySource:
        """Its keys, for a CA that has these means."""
        if isinstance(self.keys, KeySet):
            return self.keys
        client = HttpsClient(
            means.reactor, self.roots, who="token issuer", requires_pq=means.requires_pq
        )
        return Jwks(self.keys, client, means.reactor)


def chosen(token: EvidenceToken, issuers: Mapping[str, T], setting: str) -> T:
    """What there is for the issuer that the token says. Raises :class:`BadEvidence` where it is none of ``issuers``."""
    if token.issuer not in issuers:
        raise BadEvidence(
            f"the token is of {discreet(token.issuer, 200)}, and this CA takes none of that issuer's ({setting} in its "
            "attestors file)"
        )
    return issuers[token.issuer]


def _keys(
    members: TokenMembers, issuer: str, where: str, jwks_url: str | None
) -> KeySet | JwksAddress:
    if members.jwks_file is not None:
        if members.jwks_url is not None:
            raise Malformed(f"{where}: jwks_file or jwks_url, not both")
        path = absolute(members.jwks_file, f"{where} jwks_file")
        try:
            return KeySet.parse(read_trusted(path, f"{where} jwks_file", LARGEST_JWKS))
        except PkiError as error:
            raise Malformed(f"{where} jwks_file: {error}") from None
    url = members.jwks_url or jwks_url
    if url is not None:
        return JwksAddress(issuer, WebUrl.parse(url, f"{where} jwks_url"))
    address = JwksAddress(issuer)
    try:
        address.discovery()
    except Malformed as error:
        raise Malformed(f"{where}: {error}, or say jwks_url or jwks_file") from None
    return address


def _roots(text: str, where: str) -> Sequence[x509.Certificate]:
    data = read_trusted(absolute(text, f"{where} ca_file"), f"{where} ca_file", _LARGEST_ROOTS)
    return load_certificates(data, f"{where} ca_file")


@define(eq=False, repr=False)
class TokenIssuer:
    """Whether tokens of one issuer are good evidence."""

    rules: TokenRules
    keys: KeySource
    challenges: Challenges
    now: Now

    @classmethod
    def of(cls, settings: IssuerSettings, means: Means) -> "TokenIssuer":
        """For a CA that has these means."""
        rules = settings.rules
        if not rules.audiences:
            rules = evolve(rules, audiences=frozenset({str(means.trust_domain.id)}))
        return cls(rules, settings.key_source(means), means.challenges, means.now)

    async def prove(self, token: EvidenceToken, kind: str) -> None:
        """Its claims count once this returns, and a challenge that it carries is spent.

        ``kind`` of evidence is what the challenge was made for. Raises as
        :meth:`~twisted_mesh.attest.jwt_evidence.TokenRules.prove`, and what a challenge that was answered raises.
        """
        challenge = self.rules.judge(token, self.now())
        if challenge is not None:
            # A challenge that is none of ours is not worth a signature.
            self.challenges.check(kind, challenge)
        await self.rules.prove(token, self.keys, self.now())
        if challenge is not None:
            self.challenges.spend(kind, challenge)
