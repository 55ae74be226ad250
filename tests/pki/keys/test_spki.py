"""Keys are named by their SubjectPublicKeyInfo."""

from pki.keys import MemoryKey, key_id
from tests.authorities import key

EC_PEM = key().to_pem()


def test_a_key_id_is_the_hash_of_the_public_key() -> None:
    assert key_id(key().public_key) == key_id(MemoryKey.from_pem(EC_PEM).public_key)
    assert len(key_id(key().public_key)) == 64
    assert key_id(key().public_key) != key_id(key(1).public_key)
