"""What a JWT-SVID of ours says, and the signature over it (JWT-SVID sections 2 and 3)."""

from collections.abc import Sequence
from datetime import datetime

from attrs import frozen
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.jwt_svid.algorithms import alg_of
from pki.jwt_svid.compact import serialized, signing_input
from pki.keys import SigningKey, key_id, signature_over
from pki.spiffe import SpiffeId

#: An audience is a name that two sides have agreed upon; a token has few of them.
LONGEST_AUDIENCE = 512
MOST_AUDIENCES = 10


class BadAudience(Malformed):
    """There is no audience, or it is none that a token can be for."""

    code = Code.BAD_AUDIENCE


class NoJwtKey(PkiError):
    """A key of that kind signs no JWT-SVID."""

    code = Code.WEAK_KEY


@frozen
class JwtClaims:
    """The claims of a token. Times are in whole seconds: a fraction is cut off."""

    spiffe_id: SpiffeId
    audience: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    token_id: str
    """``jti``: what the audit log calls this token."""
    issuer: str | None = None
    """``iss``: the URL by which OpenID Connect finds the keys; None for none."""

    def to_object(self) -> dict[str, object]:
        """The members of the payload. An audience that is alone stands alone (RFC 7519 section 4.1.3)."""
        audience = self.audience[0] if len(self.audience) == 1 else list(self.audience)
        return {
            **({} if self.issuer is None else {"iss": self.issuer}),
            "sub": str(self.spiffe_id),
            "aud": audience,
            "iat": int(self.issued_at.timestamp()),
            "exp": int(self.expires_at.timestamp()),
            "jti": self.token_id,
        }


def demand_audience(audience: Sequence[str]) -> tuple[str, ...]:
    """``audience``, each once, if a token can be for it. Raises :class:`BadAudience`."""
    if not audience:
        raise BadAudience(
            "a JWT-SVID has an audience: name whom the token is for (JWT-SVID section 3.2)"
        )
    wanted = tuple(dict.fromkeys(audience))
    if len(wanted) > MOST_AUDIENCES:
        raise BadAudience(
            f"a token is for at most {MOST_AUDIENCES} audiences, and {len(wanted)} were named: whoever gets it could "
            "show it to all others"
        )
    for name in wanted:
        if not name or name != name.strip() or not name.isprintable():
            raise BadAudience(
                "an audience is not empty, has no blanks at its ends and no control characters"
            )
        if len(name) > LONGEST_AUDIENCE:
            raise BadAudience(f"an audience has at most {LONGEST_AUDIENCE} characters")
    return wanted


async def sign_token(claims: JwtClaims, key: SigningKey) -> str:
    """The token, whose header has ``alg``, ``kid`` and ``typ`` and nothing else.

    Raises :class:`NoJwtKey` and :class:`pki.keys.SigningFailed`.
    """
    alg = alg_of(key.algorithm)
    if alg is None:
        raise NoJwtKey(
            f"a key of kind {key.algorithm.label} signs no JWT-SVID: take ec-p256 or rsa-2048"
        )
    header = {"alg": alg, "kid": key_id(key.public_key), "typ": "JWT"}
    signed = signing_input(header, claims.to_object())
    signature = await signature_over(signed, key, key.public_key)
    if alg.startswith("ES"):
        signature = _fixed_size(signature, (key.public_key.key_size + 7) // 8)  # type: ignore[union-attr]
    return serialized(signed, signature)


def _fixed_size(der: bytes, size: int) -> bytes:
    """An ECDSA signature as JWS has it: both numbers at the curve's full length (RFC 7518 section 3.4)."""
    return b"".join(number.to_bytes(size, "big") for number in decode_dss_signature(der))
