"""JWT authorities: the public keys that verify the JWT-SVIDs of one trust domain, and how a JWKS holds them.

SPIFFE Trust Domain and Bundle, section 4.2: ``use`` is ``jwt-svid`` and ``kid`` is there; members by RFC 7518.
OpenID Connect Discovery has the same keys with ``use`` ``sig``.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

from attrs import field, frozen
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pki.errors import HOSTILE_INPUT
from pki.jwt_svid.algorithms import ALGORITHMS, JwtPublicKey, fits
from pki.jwt_svid.compact import BadJwt, base64url_bytes, strict_object
from pki.keys import jwk_members, key_id, kind_of, spki_der, weaknesses
from pki.keys.kind import base64url

#: The ``use`` of JWT authorities in a SPIFFE bundle.
JWT_SVID = "jwt-svid"
_CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
#: Of one key. An RSA modulus of 8192 bits has 1366 characters.
_LONGEST_MEMBER = 2048
_LONGEST_KID = 1024
_MOST_KEYS = 1000


@frozen
class JwtAuthority:
    """A public key that verifies JWT-SVIDs, by the name that tokens call it."""

    kid: str
    spki: bytes = field(repr=False)
    alg: str | None = None
    """The one algorithm that its JWK allows; None for all that such a key can have."""

    @classmethod
    def of(cls, key: JwtPublicKey) -> "JwtAuthority":
        """A key of ours: it is called by its fingerprint."""
        return cls(key_id(key), spki_der(key))

    @property
    def public_key(self) -> JwtPublicKey:
        """What verifies."""
        key: JwtPublicKey = _loaded(self.spki)
        return key

    def allows(self, alg: str) -> bool:
        """Whether a signature may be by ``alg``."""
        return (self.alg is None or self.alg == alg) and fits(alg, self.public_key)

    def to_jwk(self, use: str = JWT_SVID, *, alg: str | None = None) -> dict[str, str]:
        """Its JWK (RFC 7517 section 4)."""
        said = alg or self.alg
        return {
            "use": use,
            "kid": self.kid,
            **({"alg": said} if said else {}),
            **_members(self.public_key),
        }


def authorities_of(keys: Iterable[object]) -> tuple[JwtAuthority, ...]:
    """Of the decoded ``keys`` of a JWKS those that are for JWT-SVIDs.

    One that is damaged, weak or without a name is passed over, the rest stays; of a name that two different keys have
    neither is believed.
    """
    found = dict.fromkeys(
        authority
        for jwk, _ in zip(keys, range(_MOST_KEYS), strict=False)
        if isinstance(jwk, dict) and jwk.get("use") == JWT_SVID
        if (authority := authority_of(jwk)) is not None
    )
    names = Counter(authority.kid for authority in found)
    return tuple(authority for authority in found if names[authority.kid] == 1)


@lru_cache(maxsize=64)
def read_jwks(document: bytes) -> tuple[JwtAuthority, ...]:
    """As :func:`authorities_of`, of a JWKS document. Raises :class:`BadJwt` where it is none."""
    keys = strict_object(document, "JWT bundle").get("keys")
    if not isinstance(keys, list):
        raise BadJwt("the JWT bundle has no list of keys (RFC 7517 section 5)")
    return authorities_of(keys)


def write_jwks(authorities: Iterable[JwtAuthority]) -> bytes:
    """The JWKS document of these keys and no others: a JWT bundle, as the Workload API hands it out."""
    return json.dumps({"keys": [authority.to_jwk() for authority in authorities]}).encode()


def authority_of(jwk: Mapping[str, object]) -> JwtAuthority | None:
    """The key of a JWK, whatever its ``use``; None for one that is damaged, weak, without a name or of another kind."""
    kid, alg = jwk.get("kid"), jwk.get("alg")
    if not (isinstance(kid, str) and 0 < len(kid) <= _LONGEST_KID and _is_text(kid)):
        return None
    if alg is not None and not (isinstance(alg, str) and alg in ALGORITHMS):
        return None
    try:
        key = _public_key(jwk)
    except HOSTILE_INPUT:
        return None
    # To look for factors of an RSA key takes longer than all the rest.
    if key is None:
        return None
    # A curve of JWTs alone, P-521, no row speaks for.
    if kind_of(key) and weaknesses(key, at_a_glance=isinstance(key, rsa.RSAPublicKey)):
        return None
    return JwtAuthority(kid, spki_der(key), alg) if alg is None or fits(alg, key) else None


def _is_text(text: str) -> bool:
    """Whether it can be written down again: half of a surrogate pair, which JSON can escape, cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _public_key(jwk: Mapping[str, object]) -> JwtPublicKey | None:
    """The key of a JWK. Raises what cryptography raises for one that is none."""
    match jwk:
        case {"kty": "RSA", "n": str(n), "e": str(e)}:
            return rsa.RSAPublicNumbers(_number(e), _number(n)).public_key()
        case {"kty": "EC", "crv": str(crv), "x": str(x), "y": str(y)} if crv in _CURVES:
            return ec.EllipticCurvePublicNumbers(_number(x), _number(y), _CURVES[crv]).public_key()
    return None


def _number(text: str) -> int:
    data = base64url_bytes(text) if len(text) <= _LONGEST_MEMBER else None
    if not data:
        raise ValueError("no number")
    return int.from_bytes(data, "big")


def _members(key: JwtPublicKey) -> dict[str, str]:
    known = jwk_members(key)
    if known is not None:
        return dict(known)
    # Of the curves of the specification one is of no use to the mesh itself: P-521.
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AssertionError("every RSA key has a JWK")
    point, size = key.public_numbers(), (key.key_size + 7) // 8
    crv = next(name for name, curve in _CURVES.items() if curve.name == key.curve.name)
    x, y = (base64url(number.to_bytes(size, "big")) for number in (point.x, point.y))
    return {"kty": "EC", "crv": crv, "x": x, "y": y}


@lru_cache(maxsize=256)
def _loaded(spki: bytes) -> JwtPublicKey:
    key = serialization.load_der_public_key(spki)
    if not isinstance(key, JwtPublicKey):
        raise AssertionError("no key of this kind becomes a JWT authority")
    return key
