"""Keys in memory: made, kept, and read back; other kinds of keys and damaged ones are refused."""

import asyncio
import traceback

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey, UnusableKey, spki_der, verify
from tests.authorities import key, pem, rsa_key
from tests.pki.strategies import mutated

ALGORITHMS = list(KeyAlgorithm)
EC_PEM = key().to_pem()


def pkcs8(private_key: PrivateKeyTypes) -> bytes:
    return private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_reads_back_from_its_pem(algorithm: KeyAlgorithm) -> None:
    made = key("pem", algorithm)
    read = MemoryKey.from_pem(made.to_pem())
    assert read.algorithm is algorithm is KeyAlgorithm.of(read.public_key)
    assert spki_der(read.public_key) == spki_der(made.public_key)


@pytest.mark.parametrize(
    "algorithm",
    [
        KeyAlgorithm.RSA_2048,
        KeyAlgorithm.EC_P384,
        KeyAlgorithm.ED25519,
        KeyAlgorithm.ML_DSA_65,
    ],
)
def test_an_encrypted_key_reads_back_with_its_passphrase_only(algorithm: KeyAlgorithm) -> None:
    made = key("pem", algorithm)
    sealed = made.to_pem(b"correct horse")
    assert b"ENCRYPTED" in sealed
    assert spki_der(MemoryKey.from_pem(sealed, b"correct horse").public_key) == spki_der(
        made.public_key
    )
    with pytest.raises(UnusableKey, match="wrong passphrase"):
        MemoryKey.from_pem(sealed, b"battery staple")
    with pytest.raises(UnusableKey, match="passphrase is missing"):
        MemoryKey.from_pem(sealed)
    with pytest.raises(UnusableKey, match="given for a key that has none"):
        MemoryKey.from_pem(made.to_pem(), b"correct horse")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_key_signs_only_that_key_verifies(algorithm: KeyAlgorithm) -> None:
    signer = key("pem", algorithm)
    signature = asyncio.run(signer.sign(b"data"))
    verify(signer.public_key, signature, b"data", algorithm.hash)
    for wrong_key, wrong_data in ((signer, b"Data"), (key("other", algorithm), b"data")):
        with pytest.raises(InvalidSignature):
            verify(wrong_key.public_key, signature, wrong_data, algorithm.hash)


def test_no_secret_shows_in_a_key_or_in_an_error_about_one() -> None:
    assert "private" not in repr(key()).lower()
    secret = EC_PEM.splitlines()[1].decode()
    damaged = EC_PEM.replace(EC_PEM.splitlines()[2], b"AAAA")
    with pytest.raises(UnusableKey) as refusal:
        MemoryKey.from_pem(damaged)
    shown = "".join(traceback.format_exception(refusal.value))
    assert secret not in shown


@pytest.mark.parametrize(
    "private_key",
    [
        ed448.Ed448PrivateKey.generate(),
        x25519.X25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
    ],
    ids=lambda private_key: f"{type(private_key).__name__}-{getattr(private_key, 'key_size', '')}",
)
def test_a_private_key_of_another_kind_is_refused(private_key: PrivateKeyTypes) -> None:
    with pytest.raises(UnusableKey, match="none of rsa-2048, rsa-4096, ec-p256, ec-p384, ed25519"):
        MemoryKey.from_pem(pkcs8(private_key))


@pytest.mark.parametrize("bits", [1024, 3072])
def test_an_rsa_key_of_another_size_is_refused(bits: int) -> None:
    test_a_private_key_of_another_kind_is_refused(rsa_key(bits))


@given(st.binary() | st.binary().map(lambda der: pem(der, "PRIVATE KEY")))
def test_arbitrary_bytes_are_no_key(data: bytes) -> None:
    with pytest.raises(UnusableKey):
        MemoryKey.from_pem(data)


def key_der(algorithm: KeyAlgorithm, form: serialization.PrivateFormat) -> bytes:
    return key("pem", algorithm).private_key.private_bytes(
        serialization.Encoding.DER, form, serialization.NoEncryption()
    )


@given(
    mutated(key_der(KeyAlgorithm.EC_P256, serialization.PrivateFormat.PKCS8)).map(
        lambda der: pem(der, "PRIVATE KEY")
    )
    | mutated(key_der(KeyAlgorithm.EC_P384, serialization.PrivateFormat.TraditionalOpenSSL)).map(
        lambda der: pem(der, "EC PRIVATE KEY")
    )
    | mutated(key_der(KeyAlgorithm.RSA_2048, serialization.PrivateFormat.TraditionalOpenSSL)).map(
        lambda der: pem(der, "RSA PRIVATE KEY")
    )
    | mutated(EC_PEM)
)
def test_a_damaged_key_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        read = MemoryKey.from_pem(data)
    except PkiError as error:
        assert error.code == "unusable-key"
    else:
        assert read.algorithm in KeyAlgorithm


def test_a_key_file_that_anybody_may_have_is_refused_without_a_word_of_what_is_in_it() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    known = MemoryKey(Ed25519PrivateKey.from_private_bytes(seed), KeyAlgorithm.ED25519)
    with pytest.raises(UnusableKey) as error:
        MemoryKey.from_pem(known.to_pem())
    assert str(error.value) == (
        "nobody may rely on this key: this is the example key of RFC 8032 section 7.1: its private half is printed "
        "there; make a new one"
    )
