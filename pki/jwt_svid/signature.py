"""Whether a token is signed by a key: JWS (RFC 7515 section 5.2), by the algorithm that is named and no other."""

from jwt import InvalidTokenError
from jwt.api_jws import PyJWS

from pki.errors import HOSTILE_INPUT
from pki.jwt_svid.algorithms import ALGORITHMS
from pki.jwt_svid.jwks import JwtAuthority

#: What verifying raises for a signature that is none.
_BAD_SIGNATURE: tuple[type[BaseException], ...] = (InvalidTokenError, *HOSTILE_INPUT)
_JWS = PyJWS(algorithms=ALGORITHMS)


def is_signed_by(token: str, alg: str, authority: JwtAuthority) -> bool:
    """Whether the signature of ``token`` is that key's; ``alg`` is one that :meth:`JwtAuthority.allows`."""
    try:
        _JWS.decode(token, authority.public_key, algorithms=[alg])
    except _BAD_SIGNATURE:
        return False
    return True
