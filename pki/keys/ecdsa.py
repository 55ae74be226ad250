"""ECDSA on NIST's curves: signatures by RFC 5758 section 3.2, JWKs by RFC 7518 section 6.2."""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from pki.keys.kind import Hash, KeyKind, base64url

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

    def jwk(self, key: ec.EllipticCurvePublicKey) -> dict[str, str]:
        """``kty``, ``crv`` and the point, whose coordinates have the curve's full length."""
        point, size = key.public_numbers(), (key.key_size + 7) // 8
        x, y = (base64url(number.to_bytes(size, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": self.crv, "x": x, "y": y}


@lru_cache(maxsize=16)
def _ecdsa(digest: str) -> ec.ECDSA:
    """Over ``sha256``, ``sha384`` or ``sha512``. Making one takes a tenth as long as signing."""
    return ec.ECDSA(_HASHES[digest])


P256 = Ecdsa(
    curve=ec.SECP256R1(),
    crv="P-256",
    hash=_HASHES["sha256"],
    identifier=bytes.fromhex("300a06082a8648ce3d040302"),
    microseconds=85,
)
P384 = Ecdsa(
    curve=ec.SECP384R1(),
    crv="P-384",
    hash=_HASHES["sha384"],
    identifier=bytes.fromhex("300a06082a8648ce3d040303"),
    microseconds=400,
)
