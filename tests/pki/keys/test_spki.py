"""Keys are named by their SubjectPublicKeyInfo."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from pki.der import BIT_STRING, SEQUENCE, element, elements
from pki.keys import KeyAlgorithm, MemoryKey, key_id, spki_der
from tests.authorities import key

EC_PEM = key().to_pem()


def test_a_key_id_is_the_hash_of_the_public_key() -> None:
    assert key_id(key().public_key) == key_id(MemoryKey.from_pem(EC_PEM).public_key)
    assert len(key_id(key().public_key)) == 64
    assert key_id(key().public_key) != key_id(key(1).public_key)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_whatever_a_key_was_read_from_it_has_one_encoding(algorithm: KeyAlgorithm) -> None:
    public_key = key("spki", algorithm).public_key
    plain = spki_der(public_key)
    for read_from in (b"", plain, plain + b"\0", plain[:-1], b"\0" * len(plain)):
        assert spki_der(public_key, read_from) == plain


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_a_point_that_was_read_compressed_is_written_out(curve: ec.EllipticCurve) -> None:
    public_key = ec.generate_private_key(curve).public_key()
    (whole,) = elements(spki_der(public_key))
    algorithm, _ = elements(whole.content)
    point = public_key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    read_from = element(SEQUENCE, algorithm.whole + element(BIT_STRING, b"\0" + point))
    assert spki_der(load_der_public_key(read_from), read_from) == spki_der(public_key)
