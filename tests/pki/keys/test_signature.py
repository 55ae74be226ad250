"""Signatures: named as others name them, and never handed on unverified."""

import asyncio

import pytest
from cryptography.exceptions import InvalidSignature

from pki.issuing.unsigned import algorithm_of
from pki.keys import KeyAlgorithm, MemoryKey, SigningFailed, signature_over, verify
from tests.authorities import key, mesh


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_algorithms_are_named_as_cryptography_names_them(algorithm: KeyAlgorithm) -> None:
    leaf = mesh(issuing_key=key("signature", algorithm)).leaf()
    assert algorithm.identifier == algorithm_of(leaf)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_signature_holds(algorithm: KeyAlgorithm) -> None:
    signer = key("signature", algorithm)
    signature = asyncio.run(signature_over(b"data", signer, signer.public_key))
    verify(signer.public_key, signature, b"data", algorithm.hash)
    with pytest.raises(InvalidSignature):
        verify(signer.public_key, signature, b"other", algorithm.hash)


@pytest.mark.parametrize("answer", [b"", b"odd"])
def test_what_is_no_signature_is_not_handed_on(answer: bytes) -> None:
    class Odd(MemoryKey):
        async def sign(self, data: bytes) -> bytes:
            return answer

    signer = Odd(key().private_key, key().algorithm)
    with pytest.raises(SigningFailed, match="nothing was issued"):
        asyncio.run(signature_over(b"data", signer, signer.public_key))
    with pytest.raises(SigningFailed):
        asyncio.run(signature_over(b"data", key(), key(9).public_key))
