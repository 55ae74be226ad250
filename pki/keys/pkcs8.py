"""Private keys at rest: PKCS #8 (RFC 5958), encrypted by PBES2 (RFC 8018) with scrypt (RFC 7914) and AES-256.

cryptography reads this, and writes only PBKDF2 with 2,048 rounds, of which a machine tries millions
of passphrases an hour. OpenSSL reads it too: ``openssl pkcs8 -in root.key``.
"""

import re
import secrets

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.padding import PKCS7

from pki.codes import Code
from pki.der import (
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    der_labels,
    element,
    elements,
    integer,
    pem,
)
from pki.errors import HOSTILE_INPUT, Malformed
from pki.keys.seeded import SeededKey
from pki.pem import ENCRYPTED_KEY, PRIVATE_KEY, Section, listed, resemblance, sections

#: 16 MiB and five passes, about 0.15 s: as much memory as OpenSSL grants a file by default.
_COST, _BLOCK_SIZE, _PASSES = 2**14, 8, 5

#: The most that a file may have us do before its passphrase is known to be right. About a second each: three times
#: what is advised for PBKDF2 today, six times what we write ourselves by scrypt, and 32 MiB of memory.
MOST_ROUNDS = 2_000_000
MOST_SCRYPT_BYTES = 32 * 1024 * 1024
_MOST_SCRYPT_WORK = 2**22
_SAYS_ENCRYPTED = re.compile(
    rb"-----BEGIN *ENCRYPTED *PRIVATE *KEY *-----|Proc-Type: *4, *ENCRYPTED"
)
_OPENSSH = "OPENSSH PRIVATE KEY"

_PBES2 = bytes.fromhex("06092a864886f70d01050d")
_SCRYPT = bytes.fromhex("06092b06010401da47040b")
_AES_256_CBC = bytes.fromhex("060960864801650304012a")


class UnusableKey(Malformed):
    """A private key that cannot be read."""

    code = Code.UNUSABLE_KEY


class PassphraseMismatch(UnusableKey):
    """It is encrypted and no passphrase was given, or the other way round."""


class Undecryptable(UnusableKey):
    """It is whole as far as can be seen, and the passphrase does not open it."""


def read_pem(
    data: bytes, passphrase: bytes | None = None, *, is_known: bool = False
) -> PrivateKeyTypes:
    """The first private key in a file: PKCS #8 or traditional, of any kind, in PEM or DER.

    Raises :class:`UnusableKey`, never with key material in it. A wrong passphrase may by chance, one time in 256,
    decrypt to something; that is no key either.

    ``is_known``: the caller compares its public half with what was once made of a key that was looked at in full. The
    factors of an RSA modulus are then not proven prime once more, which takes 0.3 s of 4096 bits: there are no others.
    """
    section = _key_section(data)
    der = b"" if section is None else _der(section)
    encrypted = _is_encrypted(section, der or data)
    if encrypted and passphrase is None:
        raise PassphraseMismatch(
            "the private key is encrypted and its passphrase is missing: give it, or decrypt the key with "
            "openssl pkey -in FILE -out NEW"
        )
    if not encrypted and passphrase is not None:
        raise PassphraseMismatch("the private key's passphrase is given for a key that has none")
    if encrypted:
        _refuse_costly(der or data)
    try:
        if is_known:
            known = _decoded(section, data, passphrase, skips_primes=True)
            if not isinstance(known, rsa.RSAPrivateKey) or _adds_up(known.private_numbers()):
                return known
        return _decoded(section, data, passphrase, skips_primes=False)
    except HOSTILE_INPUT:
        if encrypted:
            raise Undecryptable(
                "the private key cannot be decrypted: this is a wrong passphrase, or the file is damaged"
            ) from None
        seeded = SeededKey.read(der or data)
        if seeded is not None:
            return _of_seed(seeded)
        raise UnusableKey(
            "this is no private key that can be decoded: it is damaged or cut short; restore it from a backup"
        ) from None


def _decoded(
    section: Section | None, data: bytes, passphrase: bytes | None, *, skips_primes: bool
) -> PrivateKeyTypes:
    if section is None:
        return serialization.load_der_private_key(
            data, passphrase, unsafe_skip_rsa_key_validation=skips_primes
        )
    return serialization.load_pem_private_key(
        section.pem(), passphrase, unsafe_skip_rsa_key_validation=skips_primes
    )


def _of_seed(seeded: SeededKey) -> PrivateKeyTypes:
    if not seeded.info:
        raise UnusableKey(
            "this private key is expanded and has no seed, and is read from its seed alone here: make a new key, or "
            "write it with its seed"
        )
    try:
        key = serialization.load_der_private_key(seeded.info, None)
        if seeded.belongs_to(key):
            return key
    except HOSTILE_INPUT:
        pass
    raise UnusableKey(
        "the seed of this private key and what was expanded from it do not belong together, or are of no kind that is "
        "known here: the file is damaged; restore it from a backup"
    ) from None


def _adds_up(key: rsa.RSAPrivateNumbers) -> bool:
    """Whether the numbers of a key of two factors belong together (RFC 8017 section 3.2)."""
    p, q, e = key.p, key.q, key.public_numbers.e
    return (
        p > 1
        and q > 1
        and p * q == key.public_numbers.n
        and e * key.d % (p - 1) == 1
        and e * key.d % (q - 1) == 1
        and key.dmp1 == key.d % (p - 1)
        and key.dmq1 == key.d % (q - 1)
        and 0 < key.iqmp < p
        and key.iqmp * q % p == 1
    )


def is_encrypted(data: bytes) -> bool:
    """Whether a key's file says that it is: PKCS #8 (RFC 7468 section 11) or OpenSSL's older way. Never raises."""
    try:
        section = _key_section(data)
    except UnusableKey:
        return _SAYS_ENCRYPTED.search(data) is not None
    return _is_encrypted(section, data)


def _is_encrypted(section: Section | None, der: bytes) -> bool:
    if section is not None:
        return section.label == ENCRYPTED_KEY or any(b"ENCRYPTED" in h for h in section.headers)
    (info,) = elements(der)
    return [part.tag for part in elements(info.content)] == [SEQUENCE, OCTET_STRING]


def _key_section(data: bytes) -> Section | None:
    """The first private key in PEM; None where the file is one in DER. Raises :class:`UnusableKey`."""
    if not data.strip():
        raise UnusableKey(
            "this is no private key in PEM or DER: there is nothing in it; restore it from a backup"
        )
    labels = der_labels(data)
    if labels == (PRIVATE_KEY,):
        return None
    try:
        found = sections(data)
    except Malformed as error:
        raise UnusableKey(f"this is no private key in PEM: {error}") from None
    for section in found:
        if section.label == _OPENSSH:
            raise UnusableKey(
                "this is a private key in OpenSSH's format: write it as PKCS #8 (ssh-keygen -p -m PKCS8 -f COPY)"
            )
        if section.label.endswith(PRIVATE_KEY):
            return section
    held = labels or tuple(section.label for section in found)
    if held:
        raise UnusableKey(f"this is no private key but {listed(held)}: name the file with the key")
    seen = resemblance(data)
    raise UnusableKey(
        f"this is no private key in PEM or DER{f' ({seen})' if seen else ''}: restore it from a backup"
    )


def _der(section: Section) -> bytes:
    try:
        return section.der()
    except Malformed as error:
        raise UnusableKey(f"this is no private key in PEM: {error}") from None


def _refuse_costly(der: bytes) -> None:
    """Look at the counts that a key of PKCS #8 names, before anything is derived by them. Raises :class:`UnusableKey`.

    PBKDF2 counts rounds (RFC 8018 section 5.2), as the older schemes do (section 6.1); scrypt has a cost, a
    block size and passes (RFC 7914 section 2). What has no such outline is for the reader to refuse.
    """
    try:
        counts = _counts(der)
    except (Malformed, ValueError, IndexError):
        return
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
