"""The table of key algorithms, and keys that are too weak."""

import asyncio

import pytest
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.x509 import ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from pki.der import elements, oid_text
from pki.keys import (
    KeyAlgorithm,
    MemoryKey,
    UnknownAlgorithm,
    UnusableKey,
    jwk_members,
    key_bits,
    spki_der,
    verify,
    verify_cost,
    weaknesses,
)
from pki.keys.kind import base64url
from tests.authorities import key, rsa_key

ALGORITHMS = list(KeyAlgorithm)
HASHES = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}


@pytest.mark.parametrize(
    ("algorithm", "label", "digest"),
    [
        (KeyAlgorithm.RSA_2048, "RSA-2048", "sha256"),
        (KeyAlgorithm.RSA_4096, "RSA-4096", "sha256"),
        (KeyAlgorithm.EC_P256, "ECDSA P-256", "sha256"),
        (KeyAlgorithm.EC_P384, "ECDSA P-384", "sha384"),
        (KeyAlgorithm.ED25519, "Ed25519", None),
        (KeyAlgorithm.ML_DSA_44, "ML-DSA-44", None),
        (KeyAlgorithm.ML_DSA_65, "ML-DSA-65", None),
        (KeyAlgorithm.ML_DSA_87, "ML-DSA-87", None),
    ],
)
def test_algorithms_have_a_name_for_people_and_a_hash(
    algorithm: KeyAlgorithm, label: str, digest: str | None
) -> None:
    assert algorithm.label == label
    assert (algorithm.hash.name if algorithm.hash else None) == digest


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
        (modulus(GOOD_N, 2**32 - 1), []),
        (modulus(GOOD_N, 2**32 + 1), ["this one is huge: more than 32 bits"]),
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
        assert "rsa-2048, rsa-4096, ec-p256, ec-p384, ed25519, ml-dsa-44" in problem.remedy


def test_a_modulus_that_fills_a_csr_is_refused_by_its_size_and_not_factored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pki.keys.modulus._close_primes", lambda n: pytest.fail("factored"))
    (problem,) = weaknesses(modulus(without_small_factors(2**100_000)))
    assert "this one 100001" in problem.detail


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_key_signs_by_is_among_what_is_verified(algorithm: KeyAlgorithm) -> None:
    (outer,) = elements(algorithm.identifier)
    oid = ObjectIdentifier(oid_text(next(elements(outer.content)).content))
    verified = algorithm.kind.verifiable[oid]
    assert (verified and verified.name) == (algorithm.hash and algorithm.hash.name)


def test_an_algorithm_is_found_by_its_name_and_by_no_other() -> None:
    assert [KeyAlgorithm(str(algorithm)) for algorithm in KeyAlgorithm] == ALGORITHMS
    with pytest.raises(ValueError, match="rsa-1024"):
        KeyAlgorithm("rsa-1024")
    assert [KeyAlgorithm.parse(algorithm) for algorithm in KeyAlgorithm] == ALGORITHMS


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ml-dsa65", ": did you mean ml-dsa-65?"),
        ("ML_DSA_44", ": did you mean ml-dsa-44?"),
        ("P256", ": did you mean ec-p256?"),
        ("rsa4096", ": did you mean rsa-4096?"),
        ("ed25591", ": did you mean ed25519?"),
        ("ml-dsa", ": did you mean ml-dsa-87 or ml-dsa-65 or ml-dsa-44?"),
        ("rsa-3072", ""),
        ("ec-p521", ""),
        ("dilithium", ""),
        ("", ""),
    ],
)
def test_a_mistyped_name_is_answered_with_the_near_one(text: str, meant: str) -> None:
    with pytest.raises(UnknownAlgorithm) as refusal:
        KeyAlgorithm.parse(text, "--key")
    assert str(refusal.value) == (
        f"--key is one of {', '.join(KeyAlgorithm)}, and {text!r} is none of them{meant}"
    )


def test_where_there_are_fewer_to_choose_from_no_other_is_taken_or_named() -> None:
    few = (KeyAlgorithm.EC_P256, KeyAlgorithm.RSA_2048)
    assert KeyAlgorithm.parse("rsa-2048", among=few) is KeyAlgorithm.RSA_2048
    with pytest.raises(
        UnknownAlgorithm, match=r"ec-p256, rsa-2048, and 'ed25519' is none of them$"
    ):
        KeyAlgorithm.parse("ed25519", among=few)


@given(st.text())
def test_whatever_somebody_types_is_an_algorithm_or_refused(text: str) -> None:
    with pytest.raises(UnknownAlgorithm):
        KeyAlgorithm.parse(f"{text}?")


@pytest.mark.parametrize(
    ("algorithm", "oid", "size", "signature"),
    [
        (KeyAlgorithm.ML_DSA_44, "2.16.840.1.101.3.4.3.17", 1312, 2420),
        (KeyAlgorithm.ML_DSA_65, "2.16.840.1.101.3.4.3.18", 1952, 3309),
        (KeyAlgorithm.ML_DSA_87, "2.16.840.1.101.3.4.3.19", 2592, 4627),
    ],
)
def test_ml_dsa_is_as_rfc_9881_and_fips_204_have_it(
    algorithm: KeyAlgorithm, oid: str, size: int, signature: int
) -> None:
    signer = key("pem", algorithm)
    spki = spki_der(signer.public_key)
    assert spki[4 : 4 + len(algorithm.identifier)] == algorithm.identifier  # no parameters
    assert [seen.dotted_string for seen in algorithm.kind.verifiable] == [oid]
    assert len(key_bits(spki)) == size
    one, other = (asyncio.run(signer.sign(b"data")) for _ in range(2))
    assert len(one) == len(other) == signature
    assert one != other  # hedged: fresh randomness in each
    members = jwk_members(signer.public_key)
    assert members == {
        "kty": "AKP",
        "alg": algorithm.label,
        "pub": base64url(key_bits(spki)),
    }


def test_whoever_has_an_older_openssl_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        @staticmethod
        def generate() -> None:
            raise UnsupportedAlgorithm("ML-DSA is not supported by this version of OpenSSL")

    monkeypatch.setattr(type(KeyAlgorithm.ML_DSA_65.kind), "private_class", Old)
    with pytest.raises(UnusableKey, match=r"no ML-DSA-65 key can be made here: .* older than 3\.5"):
        MemoryKey.generate(KeyAlgorithm.ML_DSA_65)


def test_a_parameter_set_takes_no_other_signature_and_no_other_length() -> None:
    """A signature of one parameter set is none of another's, and one cut short is none at all."""
    signer, other = (key("pem", a) for a in (KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65))
    signature = asyncio.run(signer.sign(b"data"))
    for public_key, said in (
        (other.public_key, signature),
        (signer.public_key, signature[:-1]),
        (signer.public_key, signature + b"\0"),
        (signer.public_key, b""),
    ):
        with pytest.raises(InvalidSignature):
            verify(public_key, said, b"data", None)


def test_a_key_that_no_row_speaks_for_verifies_nothing() -> None:
    private_key = ed448.Ed448PrivateKey.generate()
    with pytest.raises(InvalidSignature):
        verify(private_key.public_key(), private_key.sign(b"x"), b"x", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_over_another_hash_than_is_said_does_not_hold(algorithm: KeyAlgorithm) -> None:
    signer = key("pem", algorithm)
    signature = asyncio.run(signer.sign(b"data"))
    others = {None, "sha256", "sha384", "sha512"} - {algorithm.hash and algorithm.hash.name}
    for name in others:
        with pytest.raises(InvalidSignature):
            verify(signer.public_key, signature, b"data", HASHES.get(name or ""))


def test_what_it_costs_to_verify_is_told_of_keys_that_are_worth_it() -> None:
    assert verify_cost(rsa_key(1024).public_key()) is None
    assert verify_cost(modulus(GOOD_N, 2**32 + 1)) is None
    assert verify_cost(ec.generate_private_key(ec.SECP521R1()).public_key()) is None
    costs = {
        algorithm: verify_cost(key("pem", algorithm).public_key) or 0 for algorithm in ALGORITHMS
    }
    assert all(20 < cost < 1_000 for cost in costs.values()), costs
    assert (verify_cost(modulus(GOOD_N, 2**32 - 1)) or 0) > costs[KeyAlgorithm.RSA_2048]


def test_at_a_glance_no_key_is_searched_for_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pki.keys.modulus._close_primes", lambda n: pytest.fail("factored"))
    assert weaknesses(modulus(PRIME * CLOSE), at_a_glance=True) == []
    (problem,) = weaknesses(modulus(GOOD_N, 2**32 + 1), at_a_glance=True)
    assert "huge" in problem.detail
