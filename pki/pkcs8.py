"""Private keys encrypted at rest: PKCS #8 (RFC 5958) under PBES2 (RFC 8018) with scrypt (RFC 7914) and AES-256.

cryptography reads this, and writes only PBKDF2 with 2,048 rounds, of which a machine tries millions
of passphrases an hour. OpenSSL reads it too: ``openssl pkcs8 -in root.key``.
"""

import base64
import secrets

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

#: 16 MiB and five passes, about 0.15 s: as much memory as OpenSSL grants a file by default.
_COST, _BLOCK_SIZE, _PASSES = 2**14, 8, 5

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


def encrypted_pem(private_key_info: bytes, passphrase: bytes) -> bytes:
    """An EncryptedPrivateKeyInfo in PEM (RFC 7468 section 11) around a PrivateKeyInfo in DER."""
    salt, vector = secrets.token_bytes(16), secrets.token_bytes(16)
    key = Scrypt(salt, 32, _COST, _BLOCK_SIZE, _PASSES).derive(passphrase)
    padder = PKCS7(algorithms.AES.block_size).padder()
    padded = padder.update(private_key_info) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    content = encryptor.update(padded) + encryptor.finalize()
    derivation = _sequence(
        _SCRYPT, _sequence(_octets(salt), *map(_integer, (_COST, _BLOCK_SIZE, _PASSES)))
    )
    scheme = _sequence(_AES_256_CBC, _octets(vector))
    info = _sequence(_sequence(_PBES2, _sequence(derivation, scheme)), _octets(content))
    text = base64.b64encode(info)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    label = b"ENCRYPTED PRIVATE KEY-----"
    return b"\n".join([b"-----BEGIN " + label, *lines, b"-----END " + label, b""])


def _sequence(*elements: bytes) -> bytes:
    return _element(0x30, b"".join(elements))


def _octets(value: bytes) -> bytes:
    return _element(0x04, value)


def _integer(number: int) -> bytes:
    return _element(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _element(tag: int, value: bytes) -> bytes:
    """Tag, length, value in DER (X.690 section 8.1)."""
    size = len(value)
    if size < 128:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value
