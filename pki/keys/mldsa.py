"""ML-DSA (FIPS 204): in certificates by RFC 9881, in JWKs by RFC 9964.

Pure ML-DSA with an empty context, over the data itself. Signatures are not deterministic: each has fresh randomness.
"""

from collections.abc import Mapping
from typing import ClassVar, Generic, Protocol, TypeVar

from attrs import frozen
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA44PublicKey,
    MLDSA65PrivateKey,
    MLDSA65PublicKey,
    MLDSA87PrivateKey,
    MLDSA87PublicKey,
)
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from pki.keys.kind import KeyKind, base64url
from pki.keys.pkcs8 import UnusableKey


class _Private(Protocol):
    @classmethod
    def generate(cls) -> "_Private": ...

    def sign(self, data: bytes, /) -> bytes: ...


class _Public(Protocol):
    def verify(self, signature: bytes, data: bytes, /) -> None: ...

    def public_bytes_raw(self) -> bytes: ...


Private = TypeVar("Private", bound=_Private)
Public = TypeVar("Public", bound=_Public)


@frozen(eq=False, repr=False)
class MlDsa(KeyKind[Private, Public], Generic[Private, Public]):
    """The family. A parameter set is a class of its own here, as it is in cryptography."""

    hash = None
    is_post_quantum = True
    private_class: ClassVar[type[_Private]]
    microseconds: ClassVar[int]
    """What it costs to verify a signature."""

    def generate(self) -> Private:
        """A key, made at once. Raises :class:`UnusableKey` where the OpenSSL below knows no ML-DSA."""
        try:
            made: Private = self.private_class.generate()  # type: ignore[assignment]
        except UnsupportedAlgorithm:
            raise UnusableKey(
                f"no {self.label} key can be made here: cryptography was built with an OpenSSL older than 3.5; "
                "install cryptography's own wheel, or take another algorithm"
            ) from None
        return made

    def made(self, key: Public) -> bool:
        """Always: a parameter set has one size."""
        return True

    def sign(self, key: Private, data: bytes) -> bytes:
        """As FIPS 204 section 5.2 has it: 2,420, 3,309 or 4,627 bytes."""
        return key.sign(data)

    def verify(
        self, key: Public, signature: bytes, data: bytes, digest: HashAlgorithm | None
    ) -> None:
        """Over the data itself: HashML-DSA is none of RFC 9881 section 3."""
        if digest is not None:
            raise InvalidSignature
        key.verify(signature, data)

    def verify_cost(self, key: Public) -> int:
        """The parameter set's."""
        return self.microseconds

    def jwk(self, key: Public) -> dict[str, str]:
        """``kty``, ``alg``, without which it would be no AKP key, and the key's bytes (RFC 9964 section 3)."""
        return {"kty": "AKP", "alg": self.label, "pub": base64url(key.public_bytes_raw())}


class MlDsa44(MlDsa[MLDSA44PrivateKey, MLDSA44PublicKey]):
    """As hard to break as AES-128 is: category 2."""

    private_class, public_class = MLDSA44PrivateKey, MLDSA44PublicKey
    verifiable: ClassVar[Mapping[ObjectIdentifier, None]] = {SignatureAlgorithmOID.ML_DSA_44: None}
    label = "ML-DSA-44"
    identifier = bytes.fromhex("300b0609608648016503040311")
    microseconds = 110


class MlDsa65(MlDsa[MLDSA65PrivateKey, MLDSA65PublicKey]):
    """As hard to break as AES-192 is: category 3."""

    private_class, public_class = MLDSA65PrivateKey, MLDSA65PublicKey
    verifiable: ClassVar[Mapping[ObjectIdentifier, None]] = {SignatureAlgorithmOID.ML_DSA_65: None}
    label = "ML-DSA-65"
    identifier = bytes.fromhex("300b0609608648016503040312")
    microseconds = 180


class MlDsa87(MlDsa[MLDSA87PrivateKey, MLDSA87PublicKey]):
    """As hard to break as AES-256 is: category 5."""

    private_class, public_class = MLDSA87PrivateKey, MLDSA87PublicKey
    verifiable: ClassVar[Mapping[ObjectIdentifier, None]] = {SignatureAlgorithmOID.ML_DSA_87: None}
    label = "ML-DSA-87"
    identifier = bytes.fromhex("300b0609608648016503040313")
    microseconds = 290
