"""RSA: signatures by PKCS #1 version 1.5 (RFC 8017 section 8.2), JWKs by RFC 7518 section 6.3, and weak moduli."""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

from attrs import frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID

from pki.keys.kind import Hash, KeyKind, base64url

#: The product of the primes below 752, as Boulder's goodkey checks them: one gcd finds any factor.
_SMALL_PRIMES = math.prod(
    n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))
)
_FERMAT_ROUNDS = 100
#: What squares are modulo 16, and modulo a product of small primes: of a hundred numbers two may be squares by both.
_MODULUS = 9 * 5 * 7 * 11
_SQUARES_OF_16 = frozenset({0, 1, 4, 9})
_SQUARES = frozenset(n * n % _MODULUS for n in range(_MODULUS))
_MAX_BITS = 8192
#: As Boulder has it, and *ring* nearly so; Go stops at 31 bits. BR section 6.1.6 would have up to 256, which nobody
#: uses and which makes a signature ten times as dear to verify.
_MAX_EXPONENT_BITS = 32
_SHA256 = SHA256()
_PADDING = padding.PKCS1v15()
_PSS = padding.PSS(padding.MGF1(_SHA256), padding.PSS.DIGEST_LENGTH)


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

    def verify_cost(self, key: rsa.RSAPublicKey) -> int:
        """As many multiplications of the modulus' size as the exponent has bits, and ones among them."""
        e = key.public_numbers().e
        return 20 + (e.bit_length() + e.bit_count()) * key.key_size**2 // 2**22

    def glaring(self, key: rsa.RSAPublicKey) -> list[str]:
        """Modulus and exponent by CA/Browser Forum BR section 6.1.6, and an exponent of 32 bits at most."""
        return _glaring(key.public_numbers())

    def weaknesses(self, key: rsa.RSAPublicKey) -> tuple[str, ...]:
        """Also factors, as Boulder looks for them."""
        return _weaknesses(key.public_numbers())


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
    return found


@lru_cache(maxsize=256)
def _weaknesses(numbers: rsa.RSAPublicNumbers) -> tuple[str, ...]:
    """Remembered: Fermat's test takes a millisecond, and every verdict asks about the same root."""
    n = numbers.n
    found = _glaring(numbers)
    if math.gcd(n, _SMALL_PRIMES) != 1:
        found.append("the RSA modulus has a small prime factor")
    # The root of a modulus that fills a CSR takes a third of a second, and the size has refused it.
    elif n.bit_length() <= _MAX_BITS and _close_primes(n):
        found.append("the RSA modulus is a product of two close primes and is factored easily")
    return tuple(found)


def _close_primes(n: int) -> bool:
    """Fermat's factorization: finds n = p * q at once when p and q are close."""
    a = math.isqrt(n)
    if a * a < n:
        a += 1
    square = a * a - n
    for _ in range(_FERMAT_ROUNDS):
        # A root takes a hundred times as long as these.
        may_be = square & 15 in _SQUARES_OF_16 and square % _MODULUS in _SQUARES
        if may_be and math.isqrt(square) ** 2 == square:
            return True
        square += 2 * a + 1
        a += 1
    return False


def _number(number: int) -> str:
    """As a JWK writes it (RFC 7518 section 2, Base64urlUInt)."""
    return base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
