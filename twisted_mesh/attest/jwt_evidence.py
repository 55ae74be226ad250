"""Tokens of other issuers as evidence: JWTs (RFC 7519) read strictly, and what they must be to prove anything.

All that the token says of itself is judged first, which costs next to nothing, and its signature last. Nothing that
a token names is ever fetched: its issuer and that issuer's keys are what the CA's configuration says they are.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Protocol, Self

from attrs import field, frozen

from pki.errors import Malformed, discreet
from pki.jwt_svid.algorithms import ALGORITHMS
from pki.jwt_svid.compact import BadJwt, CompactToken, audiences_of, numeric_date
from pki.jwt_svid.jwks import JwtAuthority
from pki.jwt_svid.signature import is_signed_by
from pki.validity import format_duration, rfc3339
from twisted_mesh.attest.errors import BadEvidence, EvidenceExpired
from twisted_mesh.attest.evidence import read_data

#: What the header may have. ``x5t`` are thumbprints, which are passed over; ``jku``, ``jwk``, ``x5u`` and ``x5c`` would
#: bring a key along, ``crit``, ``b64`` and ``zip`` change what is read, ``cty`` has another token within, ``nonce`` is
#: of tokens that only their audience can verify.
_HEADERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
#: In lower case, without ``application/`` (RFC 7515 section 4.1.9): what is meant for something else is no evidence.
_TYPES = frozenset({"jwt", "jose", "at+jwt"})
_LONGEST_KID = 256
#: What is added to the audience where the token is to carry the CA's challenge.
NONCE = "?nonce="
#: As OpenID Connect has it (Core section 2), and what most issuers go on to.
USUAL_ALGORITHMS = ("RS256", "ES256")
_FETCH_ANEW = "fetch a new one, and compare the clocks of the two machines"


class KeySource(Protocol):
    """The keys of one issuer."""

    async def find(self, kid: str) -> JwtAuthority:
        """The key of that name.

        Raises :class:`BadEvidence` where the issuer has none, and
        :class:`~twisted_mesh.attest.errors.AttestorUnavailable` where nobody can say.
        """


@frozen
class EvidenceToken:
    """A token taken apart; nothing in it is proven yet. Its ``repr`` shows nothing of it."""

    text: str = field(repr=False)
    alg: str = field(repr=False)
    kid: str = field(repr=False)
    issuer: str = field(repr=False)
    """``iss``: whom the token says to be of, to choose among those that are configured."""
    claims: Mapping[str, object] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`BadEvidence` for what is no signed token that anybody here could verify."""
        if text.count(".") == 4:
            raise BadEvidence(
                "the token is encrypted (JWE), and only whom it is for could read it: have a signed one issued"
            )
        try:
            parsed = CompactToken.parse(text, "signed token")
        except BadJwt as error:
            raise BadEvidence(str(error)) from None
        alg, kid = _read_header(parsed.header)
        issuer = parsed.claims.get("iss")
        if not isinstance(issuer, str) or not issuer:
            raise BadEvidence(
                "the token does not say who has issued it: it has no iss (RFC 7519 section 4.1.1)"
            )
        return cls(text, alg, kid, issuer, parsed.claims)

    @classmethod
    def read(cls, data: bytes) -> Self:
        """From the ``data`` of an attestation, which is a JSON string. Raises :class:`BadEvidence`."""
        try:
            text = read_data(data, str)
        except Malformed:
            raise BadEvidence("evidence of this kind is a JSON string, the token itself") from None
        return cls.parse(text)


@frozen
class TokenRules:
    """What a token must be to be taken here."""

    issuer: str
    audiences: frozenset[str]
    """One of them must be there."""
    other_audiences: frozenset[str] = frozenset()
    """What may be there beside it; whoever else a token is for could show it as well."""
    algorithms: tuple[str, ...] = USUAL_ALGORITHMS
    skew: timedelta = timedelta(seconds=60)
    """By how much the issuer's clock may differ from ours."""
    longest: timedelta = timedelta(hours=24)
    """How long a token may be good for."""
    with_nonce: bool = False
    """Whether the audience has to be followed by :data:`NONCE` and a challenge of this CA; it may be in any case."""

    def __attrs_post_init__(self) -> None:
        if unknown := set(self.algorithms) - set(ALGORITHMS) or not self.algorithms:
            raise AssertionError(f"no algorithms that anybody may use: {unknown}")

    async def prove(self, token: EvidenceToken, keys: KeySource, now: datetime) -> str | None:
        """The challenge that the token carries, None where it has none; its claims count once this returns.

        Raises :class:`BadEvidence`, :class:`EvidenceExpired`, and what ``keys`` raise. The challenge is proven to be
        the issuer's word, not yet to be ours.
        """
        challenge = self.judge(token, now)
        authority = await keys.find(token.kid)
        if not authority.allows(token.alg):
            raise BadEvidence(
                f"the token's alg is {token.alg}, and its issuer's key {discreet(token.kid, 80)} is of another kind"
            )
        if not is_signed_by(token.text, token.alg, authority):
            raise BadEvidence(
                f"the token's signature is not that of its issuer's key {discreet(token.kid, 80)}"
            )
        return challenge

    def ends(self, token: EvidenceToken) -> datetime | None:
        """From when on nobody can show it any more, of a token that was taken."""
        expires_at = numeric_date(token.claims, "exp")
        return None if expires_at is None else expires_at + self.skew

    def judge(self, token: EvidenceToken, now: datetime) -> str | None:
        """All but the signature. Returns and raises as :meth:`prove`."""
        if token.issuer != self.issuer:
            raise BadEvidence(
                f"the token is of {discreet(token.issuer, 200)}, and this CA takes those of {self.issuer}"
            )
        if token.alg not in self.algorithms:
            raise BadEvidence(
                f"the token's alg is {token.alg}, and of this issuer {', '.join(self.algorithms)} are taken "
                "(algorithms in the CA's attestors file)"
            )
        try:
            self._demand_time(token.claims, now)
        except BadJwt as error:
            raise BadEvidence(str(error)) from None
        return self._demand_audience(audiences_of(token.claims))

    def _demand_time(self, claims: Mapping[str, object], now: datetime) -> None:
        expires_at, issued_at = numeric_date(claims, "exp"), numeric_date(claims, "iat")
        not_before = numeric_date(claims, "nbf")
        if expires_at is None or issued_at is None:
            missing = (
                "exp: it would never end" if expires_at is None else "iat: nobody knows its age"
            )
            raise BadEvidence(f"the token has no {missing} (RFC 7519 section 4.1)")
        if now >= expires_at + self.skew:
            raise EvidenceExpired(
                f"the token was good until {rfc3339(expires_at)}, and here it is {rfc3339(now)}: {_FETCH_ANEW}"
            )
        begins = max(issued_at, not_before or issued_at)
        if now + self.skew < begins:
            raise EvidenceExpired(
                f"the token is good from {rfc3339(begins)}, and here it is {rfc3339(now)}: {_FETCH_ANEW}"
            )
        if expires_at - min(issued_at, now) > self.longest:
            raise BadEvidence(
                f"the token is good for longer than {format_duration(self.longest)}: have shorter ones issued, or "
                "raise max_lifetime in the CA's attestors file"
            )

    def _demand_audience(self, audiences: tuple[str, ...]) -> str | None:
        if not audiences:
            raise BadEvidence(
                f"the token has no aud: it is for nobody, and must be for {self._wanted}"
            )
        said = set(audiences) - self.other_audiences
        challenges = [self._challenge_in(audience) for audience in sorted(said)]
        if not challenges:
            raise BadEvidence(
                f"the token is for {discreet(', '.join(audiences), 200)}, and must be for {self._wanted}"
            )
        carried = [challenge for challenge in challenges if challenge is not None]
        if len(carried) > 1:
            raise BadEvidence("the token carries several challenges: it has one")
        return carried[0] if carried else None

    def _challenge_in(self, audience: str) -> str | None:
        """Of an audience of ours. Raises :class:`BadEvidence` for another."""
        if audience in self.audiences and not self.with_nonce:
            return None
        name, nonce, challenge = audience.rpartition(NONCE)
        if nonce and name in self.audiences:
            return challenge
        raise BadEvidence(
            f"the token is for {discreet(audience, 200)}, and must be for {self._wanted} alone: whoever else it is for "
            "could show it here (other_audiences in the CA's attestors file has whom you trust so far)"
        )

    @property
    def _wanted(self) -> str:
        nonce = f"{NONCE}CHALLENGE" if self.with_nonce else ""
        return " or ".join(f"{audience}{nonce}" for audience in sorted(self.audiences))


def _read_header(header: Mapping[str, object]) -> tuple[str, str]:
    """``alg`` and ``kid``."""
    alg, kid, said = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        shown = f"{discreet(alg, 20)!r}" if isinstance(alg, str) else "none"
        raise BadEvidence(
            f"the token's alg is {shown}: what anybody could have signed, or whoever has only a public key, proves "
            f"nothing; there are {', '.join(ALGORITHMS)}"
        )
    if foreign := sorted(header.keys() - _HEADERS):
        raise BadEvidence(
            f"the token's header has {discreet(', '.join(foreign), 80)}: keys are those that the CA is configured "
            "with, and nothing else there is understood (RFC 7515 section 4.1)"
        )
    if not isinstance(said, str) or said.lower().removeprefix("application/") not in _TYPES:
        raise BadEvidence(
            f"the token is of another type than {', '.join(sorted(_TYPES))}: it was issued for something else"
        )
    if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_KID:
        raise BadEvidence(
            "the token does not name the key that has signed it: its header has no kid"
        )
    return alg, kid
