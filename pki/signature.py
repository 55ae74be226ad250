"""Signatures: made by an awaited signer over bytes, and verified before anybody gets to see them."""

from cryptography.exceptions import InvalidSignature

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, PublicKey, SigningKey, verify

_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
_IDENTIFIERS = {
    KeyAlgorithm.RSA_2048: _RSA_SHA256,
    KeyAlgorithm.RSA_4096: _RSA_SHA256,
    KeyAlgorithm.EC_P256: bytes.fromhex("300a06082a8648ce3d040302"),
    KeyAlgorithm.EC_P384: bytes.fromhex("300a06082a8648ce3d040303"),
}


class SigningFailed(PkiError):
    """The signer answered with something that is not a signature of its key."""

    code = "signing-failed"


def algorithm_identifier(algorithm: KeyAlgorithm) -> bytes:
    """The AlgorithmIdentifier of what such a key signs (RFC 4055 section 5, RFC 5758 section 3.2), in DER."""
    return _IDENTIFIERS[algorithm]


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
