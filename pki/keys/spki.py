"""SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7): what a key is told by and named by."""

import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.der import inside


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
    return hashlib.sha256(spki_der(key)).hexdigest()
