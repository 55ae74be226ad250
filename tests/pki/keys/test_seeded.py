"""Post-quantum keys as OpenSSL writes them: a seed, what was expanded from it, or both."""

from hashlib import shake_256

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given

from pki.der import OCTET_STRING, SEQUENCE, element, elements
from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey, UnusableKey, key_bits, spki_der
from tests.authorities import key, pem
from tests.pki.strategies import mutated

SIZES = {
    KeyAlgorithm.ML_DSA_44: 2560,
    KeyAlgorithm.ML_DSA_65: 4032,
    KeyAlgorithm.ML_DSA_87: 4896,
}


def expanded(made: MemoryKey) -> bytes:
    """As far as it can be told from outside: rho, 32 secret bytes, the hash of the public key, and the rest."""
    public = key_bits(spki_der(made.public_key))
    head = public[:32] + b"K" * 32 + shake_256(public).digest(64)
    return head + b"s" * (SIZES[made.algorithm] - len(head))


def written(made: MemoryKey, *, seed: bool = True, beside: bytes | None = None) -> bytes:
    """A PrivateKeyInfo by RFC 9881 section 6, in DER."""
    plain = made.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (info,) = elements(plain)
    version, algorithm, private = elements(info.content)
    (own,) = elements(private.content)
    other = element(OCTET_STRING, expanded(made) if beside is None else beside)
    held = element(SEQUENCE, element(OCTET_STRING, own.content) + other) if seed else other
    return element(SEQUENCE, version.whole + algorithm.whole + element(OCTET_STRING, held))


@pytest.mark.parametrize("algorithm", SIZES)
def test_of_both_the_seed_is_read(algorithm: KeyAlgorithm) -> None:
    made = key("seeded", algorithm)
    for data in (written(made), pem(written(made), "PRIVATE KEY")):
        read = MemoryKey.from_pem(data)
        assert read.algorithm is algorithm
        assert read.to_pem() == made.to_pem()
        assert MemoryKey.from_known_pem(data).to_pem() == made.to_pem()


@pytest.mark.parametrize("algorithm", SIZES)
def test_what_stands_beside_a_seed_must_be_made_of_it(algorithm: KeyAlgorithm) -> None:
    made, other = key("seeded", algorithm), key("another", algorithm)
    for beside in (expanded(other), b"x" * SIZES[algorithm], b""):
        with pytest.raises(UnusableKey, match="do not belong together"):
            MemoryKey.from_pem(written(made, beside=beside))


def test_without_a_seed_it_is_told_why_it_cannot_be_read() -> None:
    made = key("seeded", KeyAlgorithm.ML_DSA_65)
    with pytest.raises(UnusableKey, match="is expanded and has no seed"):
        MemoryKey.from_pem(written(made, seed=False))


@given(mutated(written(key("seeded", KeyAlgorithm.ML_DSA_44))))
def test_a_damaged_one_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        read = MemoryKey.from_pem(data)
    except PkiError as error:
        assert error.code == "unusable-key"
    else:
        assert read.algorithm in KeyAlgorithm
