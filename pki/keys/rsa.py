"""RSA: signatures by PKCS #1 version 1.5 (RFC 8017 section 8.2), JWKs by RFC 7518 section 6.3, and weak moduli."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from pki.keys import modulus
from pki.keys.cryptoki import (
    CKA_MODULUS,
    CKA_MODULUS_BITS,
    CKA_PUBLIC_EXPONENT,
    Attributes,
    KeyType,
    Mechanism,
    TokenTerms,
    Way,
    no_signature,
    no_such_key,
    whole_number,
)
from pki.keys.kind import Hash, KeyKind, base64url

_MAX_BITS = 8192
#: As Boulder has it, and *ring* nearly so; Go stops at 31 bits. BR section 6.1.6 would have up to 256, which nobody
#: uses and which makes a signature ten times as dear to verify.
_MAX_EXPONENT_BITS = 32
_SHA256 = SHA256()
_PADDING = padding.PKCS1v15()
_PSS = padding.PSS(padding.MGF1(_SHA256), padding.PSS.DIGEST_LENGTH)

#: What stands before a SHA-256 in what RSA signs.
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


@frozen(eq=False, repr=False)
class Rsa(KeyKind[rsa.RSAPrivateKey, rsa.RSAPublicKey]):
    """Keys of one size are made; keys of other people may have any that is not weak."""

    private_class = rsa.RSAPrivateKey
    public_class = rsa.RSAPublicKey
    verifiable: ClassVar[Mapping[ObjectIdentifier, Hash | None]] = {
        SignatureAlgorithmOID.RSA_WITH_SHA256: _SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384: SHA384(),
        SignatureAlgorithmOID.RSA_WITH_SHA512: SHA512(),
    }
    is_slow = True
    hash = _SHA256
    identifier = bytes.fromhex("300d06092a864886f70d01010b0500")  # RFC 4055 section 5

    bits: int

    @property
    def label(self) -> str:
        """``RSA-4096``."""
        return f"RSA-{self.bits}"

    def generate(self) -> rsa.RSAPrivateKey:
        """A key of this size; a large one may take a second."""
        return rsa.generate_private_key(65537, self.bits)

    def made(self, key: rsa.RSAPublicKey) -> bool:
        """Whether it has this size."""
        return key.key_size == self.bits

    def accepts(self, key: rsa.RSAPublicKey) -> bool:
        """Always: of which sizes keys are weak, :meth:`weaknesses` tells."""
        return True

    @property
    def on_token(self) -> "RsaTerms":
        """What PKCS #11 calls it."""
        return RsaTerms(self.bits)

    def sign(self, key: rsa.RSAPrivateKey, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over SHA-256."""
        return key.sign(data, _PADDING, _SHA256)

    def verify(
        self, key: rsa.RSAPublicKey, signature: bytes, data: bytes, digest: HashAlgorithm | None
    ) -> None:
        """RSASSA-PKCS1-v1_5; PSS is not known here."""
        if digest is None:
            raise InvalidSignature
        key.verify(signature, data, _PADDING, digest)

    def verify_possession(self, key: rsa.RSAPublicKey, signature: bytes, data: bytes) -> None:
        """By PKCS #1 v1.5 or by PSS, over SHA-256."""
        try:
            key.verify(signature, data, _PADDING, _SHA256)
        except InvalidSignature:
            key.verify(signature, data, _PSS, _SHA256)

    def jwk(self, key: rsa.RSAPublicKey) -> dict[str, str]:
        """``kty``, modulus and exponent."""
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}

    def number(self, key: rsa.RSAPublicKey) -> bytes:
        """The modulus: who has factored it has the private half for every exponent."""
        return _bytes(key.public_numbers().n)

    def verify_cost(self, key: rsa.RSAPublicKey) -> int:
        """As many multiplications of the modulus' size as the exponent has bits, and ones among them."""
        e = key.public_numbers().e
        return 20 + (e.bit_length() + e.bit_count()) * key.key_size**2 // 2**22

    def glaring(self, key: rsa.RSAPublicKey) -> list[str]:
        """Modulus and exponent by CA/Browser Forum BR section 6.1.6, an exponent of 32 bits at most, and no ROCA."""
        return _glaring(key.public_numbers())

    def weaknesses(self, key: rsa.RSAPublicKey) -> tuple[str, ...]:
        """Also what its modulus shows, as Boulder looks for it."""
        return _weaknesses(key.public_numbers())


@frozen(eq=False, repr=False)
class RsaTerms(TokenTerms[rsa.RSAPublicKey]):
    """Keys of one size as tokens have them."""

    key_type = KeyType.RSA
    generation = Mechanism.RSA_PKCS_KEY_PAIR_GEN
    described_by = (CKA_MODULUS, CKA_PUBLIC_EXPONENT)

    bits: int

    @property
    def template(self) -> dict[int, bytes | int]:
        """Size and exponent."""
        return {CKA_MODULUS_BITS: self.bits, CKA_PUBLIC_EXPONENT: b"\1\0\1"}

    def ways(self, data: bytes) -> tuple[Way, ...]:
        """With the token's own hash, or over a DigestInfo (RFC 8017 section 9.2) where it has none."""
        return (
            Way(Mechanism.SHA256_RSA_PKCS, data),
            Way(Mechanism.RSA_PKCS, _DIGEST_INFO + hashlib.sha256(data).digest()),
        )

    def signature(self, answer: bytes) -> bytes:
        """As it is."""
        if len(answer) != self.bits // 8:
            raise no_signature()
        return answer

    def public_key(self, attributes: Attributes) -> rsa.RSAPublicKey:
        """Modulus and exponent, if that is the size."""
        modulus = whole_number(attributes, CKA_MODULUS)
        exponent = whole_number(attributes, CKA_PUBLIC_EXPONENT)
        if modulus.bit_length() != self.bits:
            raise no_such_key()
        try:
            return rsa.RSAPublicNumbers(exponent, modulus).public_key()
        except ValueError:
            raise no_such_key() from None


def _glaring(numbers: rsa.RSAPublicNumbers) -> list[str]:
    n, e = numbers.n, numbers.e
    found = []
    if not 2048 <= n.bit_length() <= _MAX_BITS or n.bit_length() % 8:
        found.append(
            f"an RSA modulus has 2048 to 8192 bits in whole bytes, this one {n.bit_length()}"
        )
    if e % 2 == 0 or e < 65537 or e.bit_length() > _MAX_EXPONENT_BITS:
        found.append(
            f"an RSA exponent is odd and at least 65537, this one is {e if e < 2**32 else 'huge: more than 32 bits'}"
        )
    if not found and modulus.is_infineons(n):
        found.append(modulus.INFINEONS)
    return found


@lru_cache(maxsize=256)
def _weaknesses(numbers: rsa.RSAPublicNumbers) -> tuple[str, ...]:
    """Remembered: they take a tenth of a millisecond or two, and every verdict asks about the same root."""
    found = _glaring(numbers)
    # The root of a modulus that fills a CSR takes a third of a second, and the size has refused it.
    if numbers.n.bit_length() <= _MAX_BITS and modulus.INFINEONS not in found:
        found += modulus.faults(numbers.n)
    return tuple(found)


def _number(number: int) -> str:
    """As a JWK writes it (RFC 7518 section 2, Base64urlUInt)."""
    return base64url(_bytes(number))


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
