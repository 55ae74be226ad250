"""What signs JWT-SVIDs: the algorithms of the specification, and the keys that go with each (JWT-SVID section 2.1)."""

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pki.keys import KeyAlgorithm

_CURVES = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
#: Every ``alg`` that a JWT-SVID may have; a token with another, ``none`` among them, is refused.
ALGORITHMS = (*_RSA[:3], *_CURVES, *_RSA[3:])
#: What tokens of ours are signed by.
_OURS = {
    KeyAlgorithm.EC_P256: "ES256",
    KeyAlgorithm.EC_P384: "ES384",
    KeyAlgorithm.RSA_2048: "RS256",
    KeyAlgorithm.RSA_4096: "RS256",
}
#: The kinds of keys that sign JWT-SVIDs.
SIGNING_ALGORITHMS = tuple(_OURS)

#: The classes of keys that verify them.
JwtPublicKey = RSAPublicKey | EllipticCurvePublicKey


def fits(alg: str, key: JwtPublicKey) -> bool:
    """Whether ``alg`` is of the specification, and of such a key."""
    if isinstance(key, RSAPublicKey):
        return alg in _RSA
    return _CURVES.get(alg) == key.curve.name


def alg_of(algorithm: KeyAlgorithm) -> str | None:
    """What a key of ours signs by; None for one that signs no JWT-SVID."""
    return _OURS.get(algorithm)
