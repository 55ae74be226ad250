"""Keys: made, kept, read back, and told from weak ones."""

import asyncio
import traceback

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.keys import KeyAlgorithm, MemoryKey, UnusableKey, key_id, spki_der, verify, weaknesses
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
    "algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.EC_P384, KeyAlgorithm.ED25519]
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


@pytest.mark.parametrize(
    ("algorithm", "label", "digest"),
    [
        (KeyAlgorithm.RSA_2048, "RSA-2048", "sha256"),
        (KeyAlgorithm.RSA_4096, "RSA-4096", "sha256"),
        (KeyAlgorithm.EC_P256, "ECDSA P-256", "sha256"),
        (KeyAlgorithm.EC_P384, "ECDSA P-384", "sha384"),
        (KeyAlgorithm.ED25519, "Ed25519", None),
    ],
)
def test_algorithms_have_a_name_for_people_and_a_hash(
    algorithm: KeyAlgorithm, label: str, digest: str | None
) -> None:
    assert algorithm.label == label
    assert (algorithm.hash.name if algorithm.hash else None) == digest


def test_a_key_id_is_the_hash_of_the_public_key() -> None:
    assert key_id(key().public_key) == key_id(MemoryKey.from_pem(EC_PEM).public_key)
    assert len(key_id(key().public_key)) == 64
    assert key_id(key().public_key) != key_id(key(1).public_key)


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
        rsa_key(1024),
        rsa_key(3072),
    ],
    ids=lambda private_key: f"{type(private_key).__name__}-{getattr(private_key, 'key_size', '')}",
)
def test_a_private_key_of_another_kind_is_refused(private_key: PrivateKeyTypes) -> None:
    with pytest.raises(UnusableKey, match="none of rsa-2048, rsa-4096, ec-p256, ec-p384, ed25519"):
        MemoryKey.from_pem(pkcs8(private_key))


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


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_keys_of_the_mesh_have_no_weakness(algorithm: KeyAlgorithm) -> None:
    assert weaknesses(key("pem", algorithm).public_key) == []


def without_small_factors(n: int) -> int:
    """The next such number: it need not be prime to look like a product of two primes."""
    n |= 1
    while any(n % d == 0 for d in range(3, 752)):
        n += 2
    return n


def modulus(n: int, e: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, n).public_key()


GOOD_N = rsa_key().public_key().public_numbers().n
PRIME = rsa_key().private_numbers().p
CLOSE = without_small_factors(PRIME + 2)


@pytest.mark.parametrize(
    ("public_key", "found"),
    [
        (rsa_key(1024).public_key(), ["has 2048 to 8192 bits in whole bytes, this one 1024"]),
        (rsa_key(2044).public_key(), ["this one 2044"]),
        (rsa_key(2050).public_key(), ["this one 2050"]),
        (rsa_key(exponent=3).public_key(), ["is odd and at least 65537, this one is 3"]),
        (modulus(GOOD_N, 2**256 + 1), ["this one is huge"]),
        (modulus(GOOD_N, 65539), []),
        (modulus(751 * (2**2038 + 1)), ["has a small prime factor"]),
        (modulus(3 * (2**2046 + 3)), ["has a small prime factor"]),
        (modulus(PRIME * CLOSE), ["product of two close primes"]),
        (modulus(PRIME * PRIME), ["product of two close primes"]),
        (rsa_key(1024, 3).public_key(), ["this one 1024", "this one is 3"]),
        (ec.generate_private_key(ec.SECP521R1()).public_key(), ["kind secp521r1 are not used"]),
        (ec.generate_private_key(ec.SECP256K1()).public_key(), ["kind secp256k1 are not used"]),
        (ed448.Ed448PrivateKey.generate().public_key(), ["kind Ed448 are not used"]),
        (dsa.generate_private_key(1024).public_key(), ["are not used"]),
    ],
)
def test_weak_keys_are_told_by_what_is_weak_in_them(
    public_key: PublicKeyTypes, found: list[str]
) -> None:
    problems = weaknesses(public_key)
    assert [problem.code for problem in problems] == ["weak-key"] * len(found)
    for problem, expected in zip(problems, found, strict=True):
        assert expected in problem.detail
        assert "rsa-2048, rsa-4096, ec-p256, ec-p384, ed25519" in problem.remedy


def test_a_modulus_that_fills_a_csr_is_refused_by_its_size_and_not_factored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pki.keys.rsa._close_primes", lambda n: pytest.fail("factored"))
    (problem,) = weaknesses(modulus(without_small_factors(2**100_000)))
    assert "this one 100001" in problem.detail
