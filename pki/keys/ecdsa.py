"""ECDSA on NIST's curves: signatures by RFC 5758 section 3.2, JWKs by RFC 7518 section 6.2."""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.hashes import Hash as Digest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
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
from pki.keys.kind import Hash, KeyKind, base64url
from pki.keys.published import small_multiples

#: Their object identifiers in DER, which is how tokens name them.
_CURVES = {
    "secp256r1": bytes.fromhex("06082a8648ce3d030107"),
    "secp384r1": bytes.fromhex("06052b81040022"),
}
_HASHES: dict[str, Hash] = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}


@frozen(eq=False, repr=False, kw_only=True)
class Ecdsa(KeyKind[ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey]):
    """Keys on one curve. That a point is on it, cryptography has checked when it parsed the key."""

    private_class = ec.EllipticCurvePrivateKey
    public_class = ec.EllipticCurvePublicKey
    verifiable: ClassVar[Mapping[ObjectIdentifier, Hash | None]] = {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256: _HASHES["sha256"],
        SignatureAlgorithmOID.ECDSA_WITH_SHA384: _HASHES["sha384"],
        SignatureAlgorithmOID.ECDSA_WITH_SHA512: _HASHES["sha512"],
    }

    curve: ec.EllipticCurve
    crv: str
    """The curve's name in a JWK."""
    hash: Hash
    identifier: bytes = field(repr=False)
    prime: int = field(repr=False)
    generator: tuple[int, int] = field(repr=False)
    """FIPS 186-4 appendix D.1.2: of the field, and the point whose multiples the keys are."""
    microseconds: int
    """What it costs to verify a signature."""

    @property
    def label(self) -> str:
        """``ECDSA P-256``."""
        return f"ECDSA {self.crv}"

    def generate(self) -> ec.EllipticCurvePrivateKey:
        """A key on this curve."""
        return ec.generate_private_key(self.curve)

    def made(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether it is on this curve."""
        return key.curve.name == self.curve.name

    @property
    def on_token(self) -> "EcdsaTerms":
        """It hashes what it has signed here: that some token can do it too is no help."""
        return EcdsaTerms(self.curve, self.hash)

    def sign(self, key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
        """An ECDSA-Sig-Value in DER (RFC 3279 section 2.2.3)."""
        return key.sign(data, _ecdsa(self.hash.name))

    def verify(
        self,
        key: ec.EllipticCurvePublicKey,
        signature: bytes,
        data: bytes,
        digest: HashAlgorithm | None,
    ) -> None:
        """Over SHA-256, SHA-384 or SHA-512, whatever the curve."""
        if digest is None:
            raise InvalidSignature
        key.verify(signature, data, _ecdsa(digest.name))

    def verify_cost(self, key: ec.EllipticCurvePublicKey) -> int:
        """The curve's."""
        return self.microseconds

    def number(self, key: ec.EllipticCurvePublicKey) -> bytes:
        """The x coordinate: whoever knows the private half of one of its two points knows that of the other."""
        return _x(key).lstrip(b"\0")

    def weaknesses(self, key: ec.EllipticCurvePublicKey) -> list[str]:
        """One whose private half is a small number, or one next to the group's order: 1 of a broken generator."""
        if int.from_bytes(_x(key), "big") in small_multiples(self.prime, *self.generator):
            return ["the private half of this key is one of the first that anybody would try"]
        return []

    def jwk(self, key: ec.EllipticCurvePublicKey) -> dict[str, str]:
        """``kty``, ``crv`` and the point, whose coordinates have the curve's full length."""
        point, size = key.public_numbers(), (key.key_size + 7) // 8
        x, y = (base64url(number.to_bytes(size, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": self.crv, "x": x, "y": y}


@frozen(eq=False, repr=False)
class EcdsaTerms(TokenTerms[ec.EllipticCurvePublicKey]):
    """Keys on one curve as tokens have them: a signature is r and s, of the curve's size each."""

    key_type = KeyType.EC
    generation = Mechanism.EC_KEY_PAIR_GEN
    described_by = (CKA_EC_PARAMS, CKA_EC_POINT)

    curve: ec.EllipticCurve
    hash: Hash

    @property
    def template(self) -> dict[int, bytes]:
        """The curve's name."""
        return {CKA_EC_PARAMS: _CURVES[self.curve.name]}

    def ways(self, data: bytes) -> tuple[Way, ...]:
        """CKM_ECDSA over the hash: the one way that all tokens have."""
        digest = Digest(self.hash)
        digest.update(data)
        return (Way(Mechanism.ECDSA, digest.finalize()),)

    def signature(self, answer: bytes) -> bytes:
        """In DER."""
        half = (self.curve.key_size + 7) // 8
        if len(answer) != 2 * half:
            raise no_signature()
        return encode_dss_signature(
            int.from_bytes(answer[:half], "big"), int.from_bytes(answer[half:], "big")
        )

    def public_key(self, attributes: Attributes) -> ec.EllipticCurvePublicKey:
        """The point, if it is on that very curve."""
        if attributes.get(CKA_EC_PARAMS) != _CURVES[self.curve.name]:
            raise no_such_key()
        point = point_of(attributes, 2 * ((self.curve.key_size + 7) // 8) + 1)
        try:
            return ec.EllipticCurvePublicKey.from_encoded_point(self.curve, point)
        except ValueError:
            raise no_such_key() from None


@lru_cache(maxsize=16)
def _ecdsa(digest: str) -> ec.ECDSA:
    """Over ``sha256``, ``sha384`` or ``sha512``. Making one takes a tenth as long as signing."""
    return ec.ECDSA(_HASHES[digest])


#: The key that was asked about last, and its x: to write a point of P-384 takes a sixth of verifying a signature, and
#: whoever looks at a key asks several times.
_LATEST: list[tuple[ec.EllipticCurvePublicKey, bytes]] = []


def _x(key: ec.EllipticCurvePublicKey) -> bytes:
    """As many bytes as the field has."""
    for known, x in _LATEST:
        if known is key:
            return x
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    x = point[1 : 1 + len(point) // 2]
    _LATEST[:] = [(key, x)]
    return x


P256 = Ecdsa(
    curve=ec.SECP256R1(),
    crv="P-256",
    hash=_HASHES["sha256"],
    identifier=bytes.fromhex("300a06082a8648ce3d040302"),
    prime=2**256 - 2**224 + 2**192 + 2**96 - 1,
    generator=(
        0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
        0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    ),
    microseconds=85,
)
P384 = Ecdsa(
    curve=ec.SECP384R1(),
    crv="P-384",
    hash=_HASHES["sha384"],
    identifier=bytes.fromhex("300a06082a8648ce3d040303"),
    prime=2**384 - 2**128 - 2**96 + 2**32 - 1,
    generator=(
        0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
        0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
    ),
    microseconds=400,
)
