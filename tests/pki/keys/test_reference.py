"""Key references: read as they were written, and nothing that would have a program load or tell something."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, KeyReference, UnusableKey, is_reference, key_id
from pki.keys.pkcs8 import is_encrypted
from tests.authorities import key
from tests.pki.strategies import mutated

URI = "pkcs11:token=mesh;object=issuing-2;id=%3a%9f"
REFERENCE = KeyReference(URI, key().public_key)
TEXT = str(REFERENCE).encode()


@pytest.mark.parametrize("uri", [URI, "signer:issuing-2", "pkcs11:token=a%20b;serial=0"])
@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_reference_reads_back(uri: str, algorithm: KeyAlgorithm) -> None:
    public = key("reference", algorithm).public_key
    read = KeyReference.parse(str(KeyReference(uri, public)).encode())
    assert (read.uri, read.algorithm, read.key_id) == (uri, algorithm, key_id(public))
    assert read.scheme == uri.partition(":")[0]


@pytest.mark.parametrize(
    "uri",
    [
        f"{URI}?module-path=/tmp/evil.so",
        f"{URI}?pin-source=file:/etc/pin",
        "file:/etc/passwd",
        "pkcs11:",
        "signer:a b",
        "signer:a\nsigner:b",
        "pkcs11:token=é",
        "signer:" + "a" * 2000,
    ],
)
def test_a_uri_that_says_more_than_where_a_key_is_is_refused(uri: str) -> None:
    with pytest.raises(UnusableKey, match="it says where a key is"):
        KeyReference(uri, key().public_key)
    with pytest.raises(UnusableKey):
        KeyReference.parse(TEXT.replace(URI.encode(), uri.encode()))


def test_a_reference_is_told_from_a_key() -> None:
    assert is_reference(TEXT)
    assert is_reference(b"\n" + TEXT)
    assert not is_encrypted(TEXT)
    for other in (key().to_pem(), key().to_pem(b"secret"), b"", b"-----BEGIN", b"http:"):
        assert not is_reference(other)


def test_a_private_key_is_never_part_of_a_reference() -> None:
    with pytest.raises(UnusableKey, match="one public key") as caught:
        KeyReference.parse(URI.encode() + b"\n" + key().to_pem())
    assert "PRIVATE" not in str(caught.value)


def test_two_public_keys_are_none() -> None:
    other = str(KeyReference(URI, key("other").public_key)).partition("\n")[2].encode()
    with pytest.raises(UnusableKey, match="one public key"):
        KeyReference.parse(TEXT + other)


@given(mutated(TEXT) | st.binary(max_size=300) | st.binary().map(lambda b: b"signer:" + b))
def test_whatever_a_file_holds_it_is_read_or_refused(data: bytes) -> None:
    is_reference(data)
    try:
        read = KeyReference.parse(data)
    except PkiError:
        return
    assert str(KeyReference.parse(str(read).encode())) == str(read)
