"""What tokens call our keys. That real ones understand it, the tests of the PKCS #11 store show."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from pki.keys import KeyAlgorithm, MemoryKey, spki_der, verify
from pki.keys.cryptoki import (
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_MODULUS,
    CKA_PUBLIC_EXPONENT,
    Attributes,
    KeyType,
    Mechanism,
    TokenTerms,
)
from tests.authorities import key

ALGORITHMS = [row for row in KeyAlgorithm if row.kind.on_token is not None]
CURVES = [KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384]


def terms(algorithm: KeyAlgorithm) -> TokenTerms[object]:
    found = algorithm.kind.on_token
    assert found is not None
    return found


def described(memory_key: MemoryKey) -> dict[int, bytes]:
    """The attributes that a token has for such a key, by the standard."""
    public = memory_key.public_key
    template = {
        k: v for k, v in terms(memory_key.algorithm).template.items() if isinstance(v, bytes)
    }
    if terms(memory_key.algorithm).key_type is KeyType.RSA:
        modulus = memory_key.private_key.public_key().public_numbers().n
        return {**template, CKA_MODULUS: modulus.to_bytes(modulus.bit_length() // 8, "big")}
    point = spki_der(public)[-point_size(memory_key.algorithm) :]
    return {**template, CKA_EC_POINT: bytes([4, len(point)]) + point}


def point_size(algorithm: KeyAlgorithm) -> int:
    return {KeyAlgorithm.EC_P256: 65, KeyAlgorithm.EC_P384: 97}.get(algorithm, 32)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_is_what_its_attributes_say(algorithm: KeyAlgorithm) -> None:
    memory_key = key("pem", algorithm)
    found = terms(algorithm).public_key(described(memory_key))
    assert spki_der(found) == spki_der(memory_key.public_key)


@pytest.mark.parametrize("algorithm", [row for row in ALGORITHMS if "rsa" not in row])
@pytest.mark.parametrize("wrapping", [b"", b"\x03"])
def test_a_point_may_be_in_no_string_or_in_another(
    algorithm: KeyAlgorithm, wrapping: bytes
) -> None:
    memory_key = key("pem", algorithm)
    attributes = described(memory_key)
    point = attributes[CKA_EC_POINT][2:]
    attributes[CKA_EC_POINT] = bytes([3, len(point) + 1, 0]) + point if wrapping else point
    found = terms(algorithm).public_key(attributes)
    assert spki_der(found) == spki_der(memory_key.public_key)


def test_a_point_that_looks_like_a_string_is_taken_for_a_point() -> None:
    """One of P-256 whose second byte is 63: as DER it is a whole OCTET STRING, of a point cut short."""
    memory_key = next(
        made
        for made in iter(lambda: MemoryKey.generate(KeyAlgorithm.EC_P256), None)
        if spki_der(made.public_key)[-64] == 63
    )
    attributes = described(memory_key)
    attributes[CKA_EC_POINT] = attributes[CKA_EC_POINT][2:]
    found = terms(KeyAlgorithm.EC_P256).public_key(attributes)
    assert spki_der(found) == spki_der(memory_key.public_key)


@pytest.mark.parametrize("algorithm", CURVES)
def test_two_halves_become_a_signature(algorithm: KeyAlgorithm) -> None:
    memory_key = key("pem", algorithm)
    (way,) = terms(algorithm).ways(b"certificate")
    assert way.mechanism is Mechanism.ECDSA
    private = memory_key.private_key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert algorithm.hash is not None
    half = private.key_size // 8
    r, s = decode_dss_signature(private.sign(way.operand, ec.ECDSA(Prehashed(algorithm.hash))))
    answer = r.to_bytes(half, "big") + s.to_bytes(half, "big")
    signature = terms(algorithm).signature(answer)
    verify(memory_key.public_key, signature, b"certificate", algorithm.hash)


def test_rsa_signs_a_digest_of_ours_where_the_token_has_no_hash() -> None:
    memory_key = key("pem", KeyAlgorithm.RSA_2048)
    best, other = terms(KeyAlgorithm.RSA_2048).ways(b"certificate")
    assert (best.mechanism, best.operand) == (Mechanism.SHA256_RSA_PKCS, b"certificate")
    assert other.mechanism is Mechanism.RSA_PKCS
    # What CKM_RSA_PKCS pads is what the signature recovers to.
    public = memory_key.private_key.public_key()
    signature = KeyAlgorithm.RSA_2048.kind.sign(memory_key.private_key, b"certificate")
    numbers = public.public_numbers()
    recovered = pow(int.from_bytes(signature, "big"), numbers.e, numbers.n).to_bytes(256, "big")
    assert recovered.endswith(b"\xff\0" + other.operand)
    public.verify(signature, b"certificate", padding.PKCS1v15(), SHA256())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("answer", [b"", b"\0" * 63, b"\0" * 1000])
def test_what_has_not_the_length_of_a_signature_is_none(
    algorithm: KeyAlgorithm, answer: bytes
) -> None:
    with pytest.raises(Malformed, match="form of a signature"):
        terms(algorithm).signature(answer)


_attributes = st.dictionaries(
    st.sampled_from([CKA_EC_PARAMS, CKA_EC_POINT, CKA_MODULUS, CKA_PUBLIC_EXPONENT]),
    st.binary(max_size=100),
)


@given(st.sampled_from(ALGORITHMS), _attributes, st.booleans())
def test_whatever_a_token_describes_is_a_key_or_refused_in_words(
    algorithm: KeyAlgorithm, attributes: Attributes, is_named: bool
) -> None:
    named = {k: v for k, v in terms(algorithm).template.items() if isinstance(v, bytes)}
    try:
        found = terms(algorithm).public_key({**attributes, **(named if is_named else {})})
    except Malformed as error:
        assert "public key" in str(error)
    else:
        assert KeyAlgorithm.of(found) is algorithm


@pytest.mark.parametrize(
    ("algorithm", "changed"),
    [
        (KeyAlgorithm.EC_P256, {CKA_EC_PARAMS: bytes.fromhex("06052b81040022")}),
        (KeyAlgorithm.EC_P256, {CKA_EC_POINT: b"\4" + bytes(64)}),
        (KeyAlgorithm.EC_P384, {CKA_EC_POINT: b""}),
        (KeyAlgorithm.ED25519, {CKA_EC_POINT: b"\4\x1f" + bytes(31)}),
        (KeyAlgorithm.RSA_2048, {CKA_MODULUS: b"\xff" * 128}),
        (KeyAlgorithm.RSA_2048, {CKA_PUBLIC_EXPONENT: b""}),
    ],
)
def test_a_key_of_another_kind_is_none(algorithm: KeyAlgorithm, changed: dict[int, bytes]) -> None:
    attributes = described(key("pem", algorithm))
    with pytest.raises(Malformed, match="does not describe its public key"):
        terms(algorithm).public_key({**attributes, **changed})
