"""Keys: the four algorithms of the mesh, how they are made, kept and told from weak ones."""

import hashlib
import math
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, Self

from attrs import field, frozen
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.der import inside
from pki.errors import HOSTILE_INPUT, Malformed, Problem
from pki.pkcs8 import encrypted_pem

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_CURVES: dict[str, ec.EllipticCurve] = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
_CURVE_NAMES = {curve.name: name for name, curve in _CURVES.items()}
_SHA256, _SHA384 = hashes.SHA256(), hashes.SHA384()
_RSA_BITS = {"rsa-2048": 2048, "rsa-4096": 4096}

#: The product of the primes below 752, as Boulder's goodkey checks them: one gcd finds any factor.
_SMALL_PRIMES = math.prod(
    n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))
)
_FERMAT_ROUNDS = 100
_MAX_RSA_BITS = 8192


class KeyAlgorithm(StrEnum):
    """What a key is; the value is its name in options and files."""

    RSA_2048 = "rsa-2048"
    RSA_4096 = "rsa-4096"
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"

    @property
    def label(self) -> str:
        """For people: ``ECDSA P-256``, ``RSA-4096``."""
        kind, _, size = self.value.partition("-")
        return f"ECDSA P-{size[1:]}" if kind == "ec" else f"RSA-{size}"

    @property
    def hash(self) -> hashes.SHA256 | hashes.SHA384:
        """What signatures of this key are made over: SHA-384 for P-384, else SHA-256."""
        return _SHA384 if self is KeyAlgorithm.EC_P384 else _SHA256

    @classmethod
    def of(cls, key: PublicKeyTypes) -> Self | None:
        """The algorithm of a public key; None where it is none of ours."""
        if isinstance(key, ec.EllipticCurvePublicKey):
            name = _CURVE_NAMES.get(key.curve.name)
        elif isinstance(key, rsa.RSAPublicKey):
            name = next((n for n, bits in _RSA_BITS.items() if bits == key.key_size), None)
        else:
            name = None
        return cls(name) if name else None


class UnusableKey(Malformed):
    """A private key that cannot be read."""

    code = "unusable-key"


class SigningKey(Protocol):
    """A key that signs: in memory, or on a token or behind a network, hence awaited."""

    @property
    def algorithm(self) -> KeyAlgorithm: ...

    @property
    def public_key(self) -> PublicKey: ...

    async def sign(self, data: bytes) -> bytes:
        """The signature over ``data``: DER for ECDSA, PKCS #1 v1.5 for RSA, ``algorithm.hash``."""
        ...


@frozen(eq=False)
class MemoryKey:
    """A :class:`SigningKey` in this process's memory. Its ``repr`` shows no secret."""

    private_key: PrivateKey = field(repr=False)
    algorithm: KeyAlgorithm

    @classmethod
    def generate(cls, algorithm: KeyAlgorithm) -> Self:
        if algorithm in _RSA_BITS:
            return cls(rsa.generate_private_key(65537, _RSA_BITS[algorithm]), algorithm)
        return cls(ec.generate_private_key(_CURVES[algorithm]), algorithm)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> Self:
        """A PKCS #8 or traditional PEM key. Raises :class:`UnusableKey`, never with key material in it."""
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except HOSTILE_INPUT as error:
            if isinstance(error, TypeError):
                raise UnusableKey(
                    "the private key's passphrase is missing, or given for a key that has none"
                ) from None
            raise UnusableKey(
                "this is no private key in PEM (damaged, cut short, or a wrong passphrase): restore it from a backup"
            ) from None
        algorithm = KeyAlgorithm.of(key.public_key()) if hasattr(key, "public_key") else None
        if algorithm is None or not isinstance(key, PrivateKey):
            raise UnusableKey(f"the private key is none of {', '.join(KeyAlgorithm)}")
        return cls(key, algorithm)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS #8, encrypted if there is a passphrase."""
        encoding = serialization.Encoding.DER if passphrase else serialization.Encoding.PEM
        plain = self.private_key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return encrypted_pem(plain, passphrase) if passphrase else plain

    @property
    def public_key(self) -> PublicKey:
        return self.private_key.public_key()

    async def sign(self, data: bytes) -> bytes:
        key, digest = self.private_key, self.algorithm.hash
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(data, ecdsa(digest.name))
        return key.sign(data, padding.PKCS1v15(), digest)


@lru_cache(maxsize=16)
def ecdsa(digest: str) -> ec.ECDSA:
    """ECDSA over ``sha256``, ``sha384`` or ``sha512``. Making one takes a tenth as long as signing."""
    return ec.ECDSA({"sha256": _SHA256, "sha384": _SHA384, "sha512": hashes.SHA512()}[digest])


def verify(key: PublicKey, signature: bytes, data: bytes, digest: hashes.HashAlgorithm) -> None:
    """Raises ``cryptography.exceptions.InvalidSignature`` unless ``key`` signed ``data``."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, data, ecdsa(digest.name))
    else:
        key.verify(signature, data, padding.PKCS1v15(), digest)


def spki_der(key: PublicKeyTypes) -> bytes:
    """The SubjectPublicKeyInfo."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_bits(spki: bytes) -> bytes:
    """The bits of the key in a SubjectPublicKeyInfo."""
    start, _ = inside(spki, 0)
    start, end = inside(spki, inside(spki, start)[1])
    return spki[start + 1 : end]  # after the number of unused bits, which is 0


def key_identifier(spki: bytes) -> bytes:
    """The SHA-1 of the key's bits: what certificates name it by (RFC 5280 section 4.2.1.2 (1))."""
    return hashlib.sha1(key_bits(spki), usedforsecurity=False).digest()


def key_id(key: PublicKeyTypes) -> str:
    """The SHA-256 of the SubjectPublicKeyInfo in hex: how an issuer is named in the store and in trust."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki_der(key))
    return digest.finalize().hex()


def weaknesses(key: PublicKeyTypes) -> list[Problem]:
    """Every reason why no certificate may carry this key; empty when there is none.

    Modulus and exponent by CA/Browser Forum BR section 6.1.6; small factors and close primes as
    Boulder checks them. That a point is on its curve, cryptography has checked when it parsed it.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in _CURVE_NAMES:
            return []
    elif isinstance(key, rsa.RSAPublicKey):
        return list(_rsa_weaknesses(key.public_numbers()))
    kind = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
    return [_weak(f"keys of kind {kind.removesuffix('PublicKey')} are not used in the mesh")]


@lru_cache(maxsize=256)
def _rsa_weaknesses(numbers: rsa.RSAPublicNumbers) -> tuple[Problem, ...]:
    """Remembered: Fermat's test takes a millisecond, and every verdict asks about the same root."""
    n, e = numbers.n, numbers.e
    found = []
    if not 2048 <= n.bit_length() <= _MAX_RSA_BITS or n.bit_length() % 8:
        found.append(
            _weak(f"an RSA modulus has 2048 to 8192 bits in whole bytes, this one {n.bit_length()}")
        )
    if e % 2 == 0 or e < 65537 or e.bit_length() > 256:
        found.append(
            _weak(
                f"an RSA exponent is odd and at least 65537, this one is {e if e < 10**6 else 'huge'}"
            )
        )
    if math.gcd(n, _SMALL_PRIMES) != 1:
        found.append(_weak("the RSA modulus has a small prime factor"))
    # The root of a modulus that fills a CSR takes a third of a second, and the size has refused it.
    elif n.bit_length() <= _MAX_RSA_BITS and _close_primes(n):
        found.append(
            _weak("the RSA modulus is a product of two close primes and is factored easily")
        )
    return tuple(found)


def _close_primes(n: int) -> bool:
    """Fermat's factorization: finds n = p * q at once when p and q are close."""
    a = math.isqrt(n)
    if a * a < n:
        a += 1
    for _ in range(_FERMAT_ROUNDS):
        square = a * a - n
        if math.isqrt(square) ** 2 == square:
            return True
        a += 1
    return False


def _weak(detail: str) -> Problem:
    return Problem(
        code="weak-key",
        detail=detail,
        remedy=f"make a new key: one of {', '.join(KeyAlgorithm)}",
        rule="CA/Browser Forum BR section 6.1.6",
        subject="public key",
    )
