"""Private keys at rest: PKCS #8 (RFC 5958), encrypted by PBES2 (RFC 8018) with scrypt (RFC 7914) and AES-256.

cryptography reads this, and writes only PBKDF2 with 2,048 rounds, of which a machine tries millions
of passphrases an hour. OpenSSL reads it too: ``openssl pkcs8 -in root.key``.
"""

import binascii
import re
import secrets

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

from pki.codes import Code
from pki.der import INTEGER, OCTET_STRING, SEQUENCE, element, elements, integer, pem
from pki.errors import HOSTILE_INPUT, Malformed

#: 16 MiB and five passes, about 0.15 s: as much memory as OpenSSL grants a file by default.
_COST, _BLOCK_SIZE, _PASSES = 2**14, 8, 5

#: The most that a file may have us do before its passphrase is known to be right. About a second each: three times
#: what is advised for PBKDF2 today, six times what we write ourselves by scrypt, and 32 MiB of memory.
MOST_ROUNDS = 2_000_000
MOST_SCRYPT_BYTES = 32 * 1024 * 1024
_MOST_SCRYPT_WORK = 2**22
_ENCRYPTED = re.compile(
    rb"-----BEGIN ENCRYPTED PRIVATE KEY-----([^-]*)-----END ENCRYPTED PRIVATE KEY-----"
)

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


class UnusableKey(Malformed):
    """A private key that cannot be read."""

    code = Code.UNUSABLE_KEY


class PassphraseMismatch(UnusableKey):
    """It is encrypted and no passphrase was given, or the other way round."""


def read_pem(data: bytes, passphrase: bytes | None = None) -> PrivateKeyTypes:
    """A PKCS #8 or traditional PEM key of any kind. Raises :class:`UnusableKey`, never with key material in it.

    A wrong passphrase may by chance, one time in 256, decrypt to something; that is no key either.
    """
    if passphrase is not None:
        _refuse_costly(data)
    try:
        return serialization.load_pem_private_key(data, passphrase)
    except TypeError:
        raise PassphraseMismatch(
            "the private key's passphrase is missing, or given for a key that has none"
        ) from None
    except HOSTILE_INPUT:
        raise UnusableKey(
            "this is no private key in PEM (damaged, cut short, or a wrong passphrase): restore it from a backup"
        ) from None


def _refuse_costly(data: bytes) -> None:
    """Look at the counts that a file of PKCS #8 names, before anything is derived by them. Raises :class:`UnusableKey`.

    PBKDF2 counts rounds (RFC 8018 section 5.2), as the older schemes do (section 6.1); scrypt has a cost, a
    block size and passes (RFC 7914 section 2). What has no such outline is for the reader to refuse.
    """
    for block in _ENCRYPTED.findall(data):
        try:
            counts = _counts(binascii.a2b_base64(block))
        except (Malformed, ValueError, IndexError):
            continue
        match counts:
            case [rounds] if rounds > MOST_ROUNDS:
                raise _costly(f"{rounds} rounds", f"{MOST_ROUNDS}")
            case [cost, size, passes] if (
                128 * cost * size > MOST_SCRYPT_BYTES or cost * size * passes > _MOST_SCRYPT_WORK
            ):
                raise _costly(
                    f"scrypt with N={cost}, r={size}, p={passes}",
                    f"{MOST_SCRYPT_BYTES >> 20} MiB, and N*r*p of {_MOST_SCRYPT_WORK}",
                )


def _counts(der: bytes) -> list[int]:
    """One for PBKDF2 and the older schemes; cost, block size and passes for scrypt; else none."""
    (info,) = elements(der)
    scheme, *_ = elements(info.content)
    _, parameters = elements(scheme.content)
    derivation, *older = elements(parameters.content)
    if derivation.tag == OCTET_STRING:
        return [int.from_bytes(older[0].content, "big", signed=True)]
    _, parameters = elements(derivation.content)
    _, *rest = elements(parameters.content)
    numbers = [
        int.from_bytes(one.content, "big", signed=True) for one in rest if one.tag == INTEGER
    ]
    is_scrypt = derivation.content.startswith(_SCRYPT)
    return numbers[:3] if is_scrypt else numbers[:1]  # PBKDF2 may name a length of the key besides


def _costly(found: str, most: str) -> UnusableKey:
    return UnusableKey(
        f"the private key's passphrase is stretched by {found[:80]}, and the most here is {most}: the file is damaged, "
        "or write it anew with less (openssl pkcs8 -topk8)"
    )


def write_pem(key: PrivateKeyTypes, passphrase: bytes | None = None) -> bytes:
    """PKCS #8 in PEM, encrypted if there is a passphrase."""
    plain = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return encrypted_pem(plain, passphrase) if passphrase else pem("PRIVATE KEY", plain)


def encrypted_pem(private_key_info: bytes, passphrase: bytes) -> bytes:
    """An EncryptedPrivateKeyInfo in PEM (RFC 7468 section 11) around a PrivateKeyInfo in DER."""
    salt, vector = secrets.token_bytes(16), secrets.token_bytes(16)
    key = Scrypt(salt, 32, _COST, _BLOCK_SIZE, _PASSES).derive(passphrase)
    padder = PKCS7(algorithms.AES.block_size).padder()
    padded = padder.update(private_key_info) + padder.finalize()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    content = encryptor.update(padded) + encryptor.finalize()
    costs = b"".join(map(integer, (_COST, _BLOCK_SIZE, _PASSES)))
    derivation = _sequence(_SCRYPT, _sequence(element(OCTET_STRING, salt), costs))
    scheme = _sequence(_AES_256_CBC, element(OCTET_STRING, vector))
    encryption = _sequence(_PBES2, _sequence(derivation, scheme))
    return pem("ENCRYPTED PRIVATE KEY", _sequence(encryption, element(OCTET_STRING, content)))


def _sequence(*elements: bytes) -> bytes:
    return element(SEQUENCE, b"".join(elements))
