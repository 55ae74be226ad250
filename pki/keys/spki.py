"""SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7): what a key is told by and named by."""

import base64
import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from pki.der import inside

#: What a SubjectPublicKeyInfo of P-256 begins with whose point is written out, in the one way that DER has for it.
_P256_UNCOMPRESSED = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
_P256_SIZE = len(_P256_UNCOMPRESSED) + 64


def spki_der(key: PublicKeyTypes, read_from: bytes = b"") -> bytes:
    """The SubjectPublicKeyInfo. ``read_from`` is what the key was read from, which may be in another encoding."""
    if len(read_from) == _P256_SIZE and read_from.startswith(_P256_UNCOMPRESSED):
        return read_from  # it would only be written so again
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


def spki_pin(key: PublicKeyTypes) -> str:
    """The same digest as people pin it: ``sha256/BASE64`` (RFC 7469 section 2.4)."""
    return "sha256/" + base64.b64encode(hashlib.sha256(spki_der(key)).digest()).decode("ascii")
