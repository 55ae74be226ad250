"""Signatures: named as others name them, and never handed on unverified."""

import asyncio

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.hashes import SHA224

from pki.issuing.profile import ROOT
from pki.issuing.unsigned import algorithm_of
from pki.keys import (
    KeyAlgorithm,
    MemoryKey,
    SigningFailed,
    is_broken,
    is_strong,
    signature_over,
    verify,
)
from pki.keys.signature import Signed
from tests.authorities import forge, key, mesh, rsa_key, signed_anew


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


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_what_the_mesh_signs_is_strong(algorithm: KeyAlgorithm) -> None:
    leaf = mesh(issuing_key=key("signature", algorithm)).leaf()
    assert (is_strong(leaf), is_broken(leaf)) == (True, False)


def test_other_signatures_are_told_apart() -> None:
    def told(signed: Signed) -> tuple[bool, bool]:
        return is_strong(signed), is_broken(signed)

    body = forge(None, ROOT, subject_key=rsa_key()).tbs_certificate_bytes
    for name in ("sha1", "md5"):
        old = x509.load_der_x509_certificate(signed_anew(body, rsa_key(), name))
        assert told(old) == (False, True)
    assert told(forge(None, ROOT, digest=SHA224())) == (False, False)
    assert told(forge(None, ROOT, subject_key=Ed448PrivateKey.generate())) == (False, False)
