"""Ed25519 (RFC 8032): in certificates by RFC 8410, in JWKs by RFC 8037 section 2."""

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import ClassVar

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from pki.keys.cryptoki import (
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    Attributes,
    KeyType,
    Mechanism,
    TokenTerms,
    Way,
    no_signature,
    no_such_key,
    point_of,
)
from pki.keys.kind import KeyKind, base64url

_PRIME = 2**255 - 19
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
#: y of a point of order 8; its negative is that of the other ones (RFC 8032 section 5.1: cofactor 8).
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
#: y of all eight points: orders 1, 2, 4 and 8.
_SMALL_ORDER = frozenset({1, _PRIME - 1, 0, _ORDER_8, _PRIME - _ORDER_8})
#: Its name as tokens are told it; the standard has one, and tokens older than that answer with its object identifier.
_NAME = b"\x13\x0cedwards25519"
_NAMES = (_NAME, bytes.fromhex("06032b6570"))


@frozen(eq=False, repr=False)
class Ed25519(KeyKind[Ed25519PrivateKey, Ed25519PublicKey]):
    """It has one size, and signs the data itself."""

    private_class = Ed25519PrivateKey
    public_class = Ed25519PublicKey
    verifiable: ClassVar[Mapping[ObjectIdentifier, None]] = {SignatureAlgorithmOID.ED25519: None}
    label = "Ed25519"
    hash = None
    identifier = bytes.fromhex("300506032b6570")

    def generate(self) -> Ed25519PrivateKey:
        """A key, made at once."""
        return Ed25519PrivateKey.generate()

    def made(self, key: Ed25519PublicKey) -> bool:
        """Always: there is one size."""
        return True

    @property
    def on_token(self) -> "Ed25519Terms":
        """What PKCS #11 version 3.0 calls it."""
        return Ed25519Terms()

    def sign(self, key: Ed25519PrivateKey, data: bytes) -> bytes:
        """64 bytes (RFC 8032 section 5.1.6)."""
        return key.sign(data)

    def verify(
        self, key: Ed25519PublicKey, signature: bytes, data: bytes, digest: HashAlgorithm | None
    ) -> None:
        """Over the data itself: no signature with a hash holds."""
        if digest is not None:
            raise InvalidSignature
        key.verify(signature, data)

    def number(self, key: Ed25519PublicKey) -> bytes:
        """Its 32 bytes as they stand, as badkeys takes them for a number."""
        return key.public_bytes_raw().lstrip(b"\0")

    def glaring(self, key: Ed25519PublicKey) -> list[str]:
        """A point of small order, under which one signature holds for many messages; and one that is written oddly."""
        y = _y(key.public_bytes_raw())
        if y % _PRIME in _SMALL_ORDER:
            return ["this Ed25519 key is a point of small order: anybody can sign for it"]
        if y >= _PRIME:
            return [
                "this Ed25519 key is not written as RFC 8032 section 5.1.2 has it: its number is too large"
            ]
        return []

    def weaknesses(self, key: Ed25519PublicKey) -> list[str]:
        """Also what is no point of the curve, and a private half of one byte, repeated."""
        found = self.glaring(key)
        raw = key.public_bytes_raw()
        if not found and not _is_on_curve(raw):
            found = ["this Ed25519 key is no point on its curve"]
        elif raw in _of_one_byte():
            found = ["the private half of this key is one of the first that anybody would try"]
        return found

    def verify_cost(self, key: Ed25519PublicKey) -> int:
        """The same for all."""
        return 120

    def jwk(self, key: Ed25519PublicKey) -> dict[str, str]:
        """``kty``, ``crv`` and the key's 32 bytes."""
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_bytes_raw())}


def _y(raw: bytes) -> int:
    """Without the sign of x (RFC 8032 section 5.1.3)."""
    return int.from_bytes(raw, "little") & (2**255 - 1)


@lru_cache(maxsize=256)
def _is_on_curve(raw: bytes) -> bool:
    """Whether there is an x: (y² - 1) / (dy² + 1) is a square. Remembered: it takes a tenth of a millisecond."""
    square = _y(raw) ** 2
    return pow((square - 1) * (_D * square + 1), (_PRIME - 1) // 2, _PRIME) in (0, 1)


@cache
def _of_one_byte() -> frozenset[bytes]:
    """The keys whose private half is one byte, 32 times."""
    return frozenset(
        Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32).public_key().public_bytes_raw()
        for byte in range(256)
    )


@frozen(eq=False, repr=False)
class Ed25519Terms(TokenTerms[Ed25519PublicKey]):
    """Such keys as tokens have them: a signature is what certificates carry."""

    key_type = KeyType.EC_EDWARDS
    generation = Mechanism.EC_EDWARDS_KEY_PAIR_GEN
    described_by = (CKA_EC_PARAMS, CKA_EC_POINT)

    @property
    def template(self) -> dict[int, bytes]:
        """The curve's name."""
        return {CKA_EC_PARAMS: _NAME}

    def ways(self, data: bytes) -> tuple[Way, ...]:
        """Over the data itself."""
        return (Way(Mechanism.EDDSA, data),)

    def signature(self, answer: bytes) -> bytes:
        """As it is."""
        if len(answer) != 64:
            raise no_signature()
        return answer

    def public_key(self, attributes: Attributes) -> Ed25519PublicKey:
        """Its 32 bytes."""
        if attributes.get(CKA_EC_PARAMS) not in _NAMES:
            raise no_such_key()
        try:
            return Ed25519PublicKey.from_public_bytes(point_of(attributes, 32))
        except ValueError:
            raise no_such_key() from None
