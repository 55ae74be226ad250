"""Whether a token is a JWT-SVID that is good now, here: JWT-SVID sections 2 to 4, to the letter.

Stricter than the letter in one thing, as every validator of the field is: the token names its key. What its header
says besides is refused (section 2), so no token tells us where its key is to be had.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from attrs import frozen

from pki.codes import Code
from pki.errors import Problem, Refused, discreet
from pki.jwt_svid.algorithms import ALGORITHMS
from pki.jwt_svid.compact import BadJwt, CompactToken, audiences_of, numeric_date
from pki.jwt_svid.jwks import JwtAuthority, read_jwks
from pki.jwt_svid.signature import is_signed_by
from pki.spiffe import NotASpiffeId, SpiffeId, TrustDomain
from pki.validity import rfc3339

_HEADERS = frozenset({"alg", "kid", "typ"})
_TYPES = ("JWT", "JOSE")
#: By how much the clock of who issued a token may be ahead of ours. What has expired has expired.
LEEWAY = timedelta(minutes=1)


class JwtSvidRefused(Refused):
    """The token is no JWT-SVID that counts here and now; ``problems`` says why."""

    code = Code.REFUSED


@frozen
class ValidJwtSvid:
    """What a token has proven."""

    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    expires_at: datetime
    claims: Mapping[str, object]
    """All that it says, as decoded JSON."""


def validate(
    token: str,
    audience: str,
    jwks_by_trust_domain: Mapping[TrustDomain, bytes],
    now: datetime,
) -> ValidJwtSvid:
    """What ``token`` proves to ``audience``, which the caller goes by.

    ``jwks_by_trust_domain`` are the JWT bundles of the trust domains that are believed, as JWKS documents; keys of
    another use in them count for nothing. Raises :class:`pki.jwt_svid.compact.BadJwt` for what is no JWT-SVID at
    all, and :class:`JwtSvidRefused` for one that is not good here and now.
    """
    parsed = CompactToken.parse(token)
    alg, kid = _header(parsed.header)
    spiffe_id = _subject(parsed.claims)
    audiences, expires_at, not_before = _limits(parsed.claims)
    authority = _authority(spiffe_id, kid, jwks_by_trust_domain)
    _demand_signature(token, alg, authority)
    if problems := [
        *_wrong_audience(audience, audiences),
        *_wrong_time(expires_at, not_before, now),
    ]:
        raise JwtSvidRefused(problems)
    return ValidJwtSvid(spiffe_id, audiences, expires_at, parsed.claims)


def _header(header: Mapping[str, object]) -> tuple[str, str]:
    """``alg`` and ``kid``."""
    alg, kid = header.get("alg"), header.get("kid")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        said = f"{discreet(alg, 20)!r}" if isinstance(alg, str) else "none of them"
        raise BadJwt(
            f"the token's alg is {said}: a JWT-SVID is signed by one of {', '.join(ALGORITHMS)} (JWT-SVID section 2.1)"
        )
    if foreign := sorted(header.keys() - _HEADERS):
        raise BadJwt(
            f"the token's header has {discreet(', '.join(foreign), 80)}: a JWT-SVID has alg, kid and typ there and "
            "nothing else (JWT-SVID section 2)"
        )
    if "typ" in header and header["typ"] not in _TYPES:
        raise BadJwt("the token's typ is neither JWT nor JOSE (JWT-SVID section 2.3)")
    if not isinstance(kid, str) or not kid:
        raise BadJwt("the token does not name the key that has signed it: its header has no kid")
    return alg, kid


def _subject(claims: Mapping[str, object]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise BadJwt("the token has no sub: it is for no workload (JWT-SVID section 3.1)")
    try:
        spiffe_id = SpiffeId.parse(subject)
    except NotASpiffeId as error:
        raise BadJwt(f"the token's sub {error}") from None
    if not spiffe_id.path:
        raise BadJwt(
            f"the token's sub is {spiffe_id}, a trust domain: it has to be a workload's (JWT-SVID section 3.1)"
        )
    return spiffe_id


def _limits(claims: Mapping[str, object]) -> tuple[tuple[str, ...], datetime, datetime | None]:
    """Whom it is for, and from when to when it counts."""
    audience = audiences_of(claims)
    if not audience:
        raise BadJwt("the token has no aud: it is for nobody (JWT-SVID section 3.2)")
    expires_at = numeric_date(claims, "exp")
    if expires_at is None:
        raise BadJwt("the token has no exp: it would never end (JWT-SVID section 3.3)")
    numeric_date(claims, "iat")
    return audience, expires_at, numeric_date(claims, "nbf")


def _authority(
    spiffe_id: SpiffeId, kid: str, jwks_by_trust_domain: Mapping[TrustDomain, bytes]
) -> JwtAuthority:
    """The key of that name in the bundle of the subject's own trust domain, and in no other."""
    trust_domain = spiffe_id.trust_domain
    document = jwks_by_trust_domain.get(trust_domain)
    if document is None:
        raise JwtSvidRefused(
            [
                Problem(
                    Code.UNKNOWN_TRUST_DOMAIN,
                    f"the token is of trust domain {trust_domain}, which is not believed here",
                )
            ]
        )
    for authority in read_jwks(document):
        if authority.kid == kid:
            return authority
    raise JwtSvidRefused(
        [
            Problem(
                Code.JWT_UNKNOWN_KEY,
                f"the token says that the key {discreet(kid, 80)} has signed it, and the JWT bundle of {trust_domain} "
                "has no such key",
                "where it is a new one, fetch the bundle anew; where it was retired, request a new token",
            )
        ]
    )


def _demand_signature(token: str, alg: str, authority: JwtAuthority) -> None:
    if not authority.allows(alg):
        raise JwtSvidRefused(
            [
                Problem(
                    Code.JWT_BAD_SIGNATURE,
                    f"the token's alg is {alg}, and the key {discreet(authority.kid, 80)} is of another kind",
                )
            ]
        )
    if not is_signed_by(token, alg, authority):
        raise JwtSvidRefused(
            [
                Problem(
                    Code.JWT_BAD_SIGNATURE,
                    f"the token's signature is not that of the key {discreet(authority.kid, 80)}",
                    "request a new token",
                )
            ]
        )


def _wrong_audience(audience: str, audiences: tuple[str, ...]) -> list[Problem]:
    if audience and audience in audiences:
        return []
    return [
        Problem(
            Code.JWT_WRONG_AUDIENCE,
            f"the token is for {discreet(', '.join(audiences), 99)}, and not for {discreet(audience, 99) or 'nobody'}",
            "request a token for this audience",
            "JWT-SVID section 3.2",
            "aud",
        )
    ]


def _wrong_time(expires_at: datetime, not_before: datetime | None, now: datetime) -> list[Problem]:
    problems = []
    if now >= expires_at:
        problems.append(
            Problem(
                Code.JWT_EXPIRED,
                f"the token was good until {rfc3339(expires_at)}, and here it is {rfc3339(now)}",
                "request a new token, and compare the two machines' clocks",
                "JWT-SVID section 3.3",
                "exp",
            )
        )
    if not_before is not None and now + LEEWAY < not_before:
        problems.append(
            Problem(
                Code.JWT_NOT_YET_VALID,
                f"the token is good from {rfc3339(not_before)}, and here it is {rfc3339(now)}",
                "compare the two machines' clocks",
                "RFC 7519 section 4.1.5",
                "nbf",
            )
        )
    return problems
