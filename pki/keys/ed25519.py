"""Ed25519 (RFC 8032): in certificates by RFC 8410, in JWKs by RFC 8037 section 2."""

from collections.abc import Mapping
from typing import ClassVar

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from pki.keys.kind import KeyKind, base64url


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

    def verify_cost(self, key: Ed25519PublicKey) -> int:
        """The same for all."""
        return 120

    def jwk(self, key: Ed25519PublicKey) -> dict[str, str]:
        """``kty``, ``crv`` and the key's 32 bytes."""
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(key.public_bytes_raw())}
