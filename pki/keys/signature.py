"""Signatures: made by an awaited signer and verified before anybody sees them; which ones are relied on."""

from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.x509 import ObjectIdentifier

from pki.codes import Code
from pki.errors import PkiError
from pki.keys.algorithm import KeyAlgorithm, PublicKey, verify

_STRONG = (SHA256, SHA384, SHA512)
_BROKEN = (MD5, SHA1)
#: The signature algorithms of the table that are over the data itself.
_WITHOUT_HASH = {
    oid
    for algorithm in KeyAlgorithm
    for oid, digest in algorithm.kind.verifiable.items()
    if digest is None
}


class SigningKey(Protocol):
    """A key that signs: in memory, or on a token or behind a network, hence awaited."""

    @property
    def algorithm(self) -> KeyAlgorithm:
        """What it signs by."""
        ...

    @property
    def public_key(self) -> PublicKey:
        """What verifies its signatures."""
        ...

    @property
    def is_in_memory(self) -> bool:
        """Whether it signs in this process, so that nobody sees what it has signed before we let that go."""
        ...

    async def sign(self, data: bytes) -> bytes:
        """The signature over ``data`` as certificates carry it: DER for ECDSA, PKCS #1 v1.5 for RSA."""
        ...


class KeptKey(SigningKey, Protocol):
    """One that has a file: itself, or the word of where it is."""

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """What the file holds: PKCS #8, encrypted where there is a passphrase; or a reference, which is no secret."""
        ...


class Signed(Protocol):
    """A certificate, CSR, CRL or OCSP response of cryptography's."""

    @property
    def signature_algorithm_oid(self) -> ObjectIdentifier:
        """What it is signed by."""
        ...

    @property
    def signature_hash_algorithm(self) -> HashAlgorithm | None:
        """What it is signed over; None where that is the data itself. Raises for what is not known."""
        ...


class SigningFailed(PkiError):
    """The signer answered with something that is not a signature of its key."""

    code = Code.SIGNING_FAILED


async def signature_over(data: bytes, key: SigningKey, public_key: PublicKey) -> bytes:
    """``key``'s signature, which holds for ``public_key``. Raises :class:`SigningFailed`."""
    signature = await key.sign(data)
    try:
        verify(public_key, signature, data, key.algorithm.hash)
    except InvalidSignature:
        raise SigningFailed(
            "the signer's answer is no signature of its key: nothing was issued"
        ) from None
    return signature


def is_strong(signed: Signed) -> bool:
    """Whether it is signed over SHA-256 or better, or by an algorithm of the table that needs no hash.

    Raises what cryptography raises for an algorithm that it does not know.
    """
    digest = signed.signature_hash_algorithm
    if digest is None:
        return signed.signature_algorithm_oid in _WITHOUT_HASH
    return isinstance(digest, _STRONG)


def is_broken(signed: Signed) -> bool:
    """Whether it is signed over SHA-1 or MD5, for which forgeries were made (RFC 9155, RFC 6151).

    Raises as :func:`is_strong`.
    """
    return isinstance(signed.signature_hash_algorithm, _BROKEN)
