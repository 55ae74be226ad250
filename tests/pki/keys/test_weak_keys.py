"""A key for each rule by which keys are refused: made here, or printed where everybody reads it."""

import base64
import itertools
import math
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from pki.keys import KeyAlgorithm, MemoryKey, number_digest, verify_cost, weaknesses
from pki.keys.modulus import faults, is_infineons
from pki.keys.published import small_multiples
from tests.authorities import rsa_key

CURVES = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
ORDERS = {
    "ec-p256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ec-p384": 2**384 - 1388124618062372383947042015309946732620727252194336364173,
}
#: The example keys of the RFCs: private halves, except for RSA's, whose modulus says as much.
EXAMPLES = [
    (
        "RFC 4754 section 8.1",
        "ec-p256",
        "dc51d3866a15bacde33d96f992fca99da7e6ef0934e7097559c27f1614c88a7f",
    ),
    (
        "RFC 4754 section 8.2",
        "ec-p384",
        "0beb646634ba87735d77ae4809a0ebea865535de4c1e1dcb692e84708e81a5af62e528c38b2a81b35309668d"
        "73524d9f",
    ),
    (
        "RFC 5903 section 8.1",
        "ec-p256",
        "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
    ),
    (
        "RFC 5903 section 8.1",
        "ec-p256",
        "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
    ),
    (
        "RFC 5903 section 8.2",
        "ec-p384",
        "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896"
        "783ab194",
    ),
    (
        "RFC 5903 section 8.2",
        "ec-p384",
        "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd5"
        "5a7448fc",
    ),
    (
        "RFC 6979 appendix A.2.5",
        "ec-p256",
        "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
    ),
    (
        "RFC 6979 appendix A.2.6",
        "ec-p384",
        "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea"
        "60d2edf5",
    ),
    (
        "RFC 7515 appendix A.2",
        "rsa-2048",
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt"
        "0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSX"
        "ndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5"
        "IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    ),
    (
        "RFC 7515 appendix A.3",
        "ec-p256",
        "8e9b109e719098bf980487df1f5d77e9cb29606ebed2263b5f57c213df84f4b2",
    ),
    (
        "RFC 7517 appendix A.2",
        "ec-p256",
        "f3bd0c07a81fb932781ed52752f60cc89a6be5e51934fe01938ddb55d8f77801",
    ),
    (
        "RFC 7517 appendix A.2",
        "rsa-2048",
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_B"
        "JECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F"
        "DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4"
        "vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    ),
    (
        "RFC 7518 appendix C",
        "ec-p256",
        "5449836690d75caf29f0dd029ddb31b3ddb8aba9d2d515c5012465e817d4a9dc",
    ),
    (
        "RFC 7518 appendix C",
        "ec-p256",
        "d3f3716913d4310a0026de741b3f18893afc8114f0c84682ba677e313a13988a",
    ),
    (
        "RFC 8032 section 7.1",
        "ed25519",
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    ),
    (
        "RFC 8032 section 7.1",
        "ed25519",
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
    ),
    (
        "RFC 8032 section 7.1",
        "ed25519",
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    ),
    (
        "RFC 8032 section 7.1",
        "ed25519",
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    ),
    (
        "RFC 8032 section 7.1",
        "ed25519",
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
    ),
    (
        "RFC 8410 section 10.3",
        "ed25519",
        "d4ee72dbf913584ad5b6d8f1f769f8ad3afe7c28cbf1d4fbe097a88f44755842",
    ),
    (
        "RFC 9421 appendix B.1.1",
        "rsa-2048",
        "hAKYdtoeoy8zcAcR874L8cnZxKzAGwd7v36APp7Pv6Q2jdsPBRrwWEBnez6d0UDKDwGbc6nxfEXAy5mbhgajzrw3"
        "MOEt8uA5txSKobBpKDeBLOsdJKFqMGmXCQvEG7YemcxDTRPxAleIAgYYRjTSd_QBwVW9OwNFhekro3RtlinV0a75"
        "jfZgkne_YiktSvLG34lw2zqXBDTC5NHROUqGTlML4PlNZS5Ri2U4aCNx2rUPRcKIlE0PuKxI4T-HIaFpv8-rdV6e"
        "UgOrB2xeI1dSFFn_nnv5OoZJEIB-VmuKn3DCUcCZSFlQPSXSfBDiUGhwOw76WuSSsf1D4b_vLoJ10w",
    ),
    (
        "RFC 9421 appendix B.1.3",
        "ec-p256",
        "529b85f3597e90ec5b8dfed3e26352bf4af9b4debb1a29bbae77fa105a5c603b",
    ),
    (
        "RFC 9421 appendix B.1.4",
        "ed25519",
        "9f8362f87a484a954e6e740c5b4c0e84229139a20aa8ab56ff66586f6a7d29c5",
    ),
    (
        "RFC 9500 section 2.3",
        "ec-p256",
        "e6cb5bdd80aa45ae9c95e8c15476679ffec953c16851e711e743939589c64fc1",
    ),
    (
        "RFC 9500 section 2.3",
        "ec-p384",
        "e2563328dfabf68188606b91324281c1d58a4456431b09d510b35fecc9f307ca1822846fa2671371a9a81bac"
        "0e35749d",
    ),
]
#: Two primes as Infineon's library made them for RSA-2048: k * M + 65537**a mod M, where M has the first 126 primes.
INFINEON = [
    (0x1859CD7ED4D57B, 0x1E3944187311D8A3),
    (0x1859AF380208A9, 0x3CF192BD75A89294),
]
P = 2**255 - 19


def of(name: str, private: str) -> PublicKeyTypes:
    if name in CURVES:
        return ec.derive_private_key(int(private, 16), CURVES[name]).public_key()
    if name == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key()
    n = int.from_bytes(base64.urlsafe_b64decode(private + "=="), "big")
    return rsa.RSAPublicNumbers(65537, n).public_key()


def details(key: PublicKeyTypes, *, at_a_glance: bool = False) -> list[str]:
    problems = weaknesses(key, at_a_glance=at_a_glance)
    assert {str(problem.code) for problem in problems} <= {"weak-key"}
    return [problem.detail for problem in problems]


@pytest.mark.parametrize(("where", "name", "private"), EXAMPLES)
def test_an_example_key_is_told_by_where_it_is_printed(where: str, name: str, private: str) -> None:
    (detail,) = details(of(name, private))
    assert detail == f"this is the example key of {where}: its private half is printed there"


def infineon_prime(k: int, a: int) -> int:
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, math.isqrt(n) + 1))]
    product = math.prod(primes)
    assert len(primes) == 126
    prime = k * product + pow(65537, a, product)
    assert pow(2, prime - 1, prime) == 1
    return prime


def test_a_key_of_infineons_chips_is_told_by_its_modulus_alone() -> None:
    n = math.prod(infineon_prime(*made) for made in INFINEON)
    assert n.bit_length() == 2048
    (detail,) = details(rsa.RSAPublicNumbers(65537, n).public_key())
    assert "ROCA, CVE-2017-15361" in detail
    # 2 is no power of 65537 modulo 13, say: what differs by a factor is none of theirs.
    assert not is_infineons(n * (2**61 - 1))
    public = rsa.RSAPublicNumbers(65537, n).public_key()
    assert details(public, at_a_glance=True) == [detail]
    assert verify_cost(public) is None


def test_where_only_the_exponents_disagree_it_is_no_key_of_infineons_chips() -> None:
    """Modulo each prime alone it is a power of 65537: what looks no further calls it vulnerable."""
    odd = [p for p in range(3, 168, 2) if all(p % d for d in range(3, math.isqrt(p) + 1, 2))]
    product = math.prod(odd)
    exponents = dict(zip(odd, itertools.count()))
    lone = (
        sum(pow(65537, exponents[p], p) * (product // p) * pow(product // p, -1, p) for p in odd)
        % product
    )
    assert all(lone % p in {pow(65537, e, p) for e in range(p)} for p in odd)
    n = lone + product * rsa_key().public_key().public_numbers().n
    while not all(n % d for d in range(2, 752)) or not n % 2:
        n += product
    assert not is_infineons(n)


def test_moduli_of_random_primes_have_no_fault() -> None:
    for bits in (2048, 4096):
        n = MemoryKey.generate(KeyAlgorithm(f"rsa-{bits}")).public_key.public_numbers().n  # type: ignore[union-attr]
        assert list(faults(n)) == []
        assert not is_infineons(n)


@pytest.mark.parametrize(("rounds", "found"), [(2, True), (110, True), (111, False)])
def test_two_primes_are_close_that_fermat_finds_in_a_hundred_and_ten_rounds(
    rounds: int, found: bool
) -> None:
    p = rsa_key().private_numbers().p
    q = p + 2 * math.isqrt(
        p * (2 * rounds - 1)
    )  # a - √n is (q - p)² / 8p, and half a round less than told
    q = next(n for n in itertools.count(q | 1, 2) if all(n % d for d in range(3, 752)))
    first = math.isqrt(p * q - 1) + 1
    assert (p + q) // 2 - first + 1 == rounds
    assert any("two close primes" in fault for fault in faults(p * q)) == found


def test_a_modulus_with_a_pattern_is_not_random() -> None:
    n = rsa_key().public_key().public_numbers().n
    raw = bytearray(n.to_bytes(256, "big"))
    raw[100:116] = b"\xa5" * 16
    patterned = int.from_bytes(raw, "big")
    while not all(patterned % d for d in range(2, 752)):
        patterned += 2
    assert list(faults(patterned)) == [
        "the RSA modulus repeats one byte sixteen times: it was not made of random primes"
    ]


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("private", [1, 2, 3, 255, 256, -1, -2, -256])
def test_small_private_keys_of_a_curve_are_known(name: str, private: int) -> None:
    key = ec.derive_private_key(private % ORDERS[name], CURVES[name]).public_key()
    assert details(key) == [
        "the private half of this key is one of the first that anybody would try"
    ]


@pytest.mark.parametrize("name", CURVES)
def test_the_private_key_257_is_not_looked_for(name: str) -> None:
    assert details(ec.derive_private_key(257, CURVES[name]).public_key()) == []


@pytest.mark.parametrize("name", CURVES)
def test_the_multiples_are_those_of_the_curve(name: str) -> None:
    kind = KeyAlgorithm(name).kind
    multiples = small_multiples(kind.prime, *kind.generator)  # type: ignore[attr-defined]
    points = [
        ec.derive_private_key(private, CURVES[name]).public_key().public_numbers()
        for private in (1, 2, 3, 4, 200)
    ]
    assert {point.x for point in points} < multiples
    assert (points[0].x, points[0].y) == kind.generator  # type: ignore[attr-defined]
    assert len(multiples) == 256


def ed25519(y: int, sign: int = 0) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes((y | sign << 255).to_bytes(32, "little"))


ORDER_8 = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [0, 1, P - 1, P, P + 1, ORDER_8, P - ORDER_8])
def test_points_of_small_order_are_seen_at_a_glance(y: int, sign: int) -> None:
    """All of them, also as numbers too large for the field, under which one signature may hold for any message."""
    key = ed25519(y, sign)
    assert details(key, at_a_glance=True) == details(key)
    assert "a point of small order" in details(key)[0]
    assert verify_cost(key) is None


def test_why_a_point_of_small_order_is_no_key() -> None:
    """The same 64 bytes are a signature over whatever is asked about, which nobody has made."""
    key = ed25519(1)
    forged = (1).to_bytes(32, "little") + bytes(32)
    key.verify(forged, b"any message")
    key.verify(forged, b"and any other")


@pytest.mark.parametrize("y", [P + 2, P + 18])
def test_a_number_too_large_for_the_field_is_no_key(y: int) -> None:
    (detail,) = details(ed25519(y), at_a_glance=True)
    assert "its number is too large" in detail


def test_what_is_no_point_is_no_key() -> None:
    assert details(ed25519(2)) == ["this Ed25519 key is no point on its curve"]


@given(st.binary(min_size=32, max_size=32))
def test_an_ed25519_key_is_on_its_curve_whatever_its_private_half(private: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(private).public_key()
    trivial = len(set(private)) == 1
    assert bool(details(key)) == trivial


@pytest.mark.parametrize("byte", [0, 1, 0x41, 0xFF])
def test_an_ed25519_key_of_one_byte_repeated_is_known(byte: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([byte]) * 32).public_key()
    assert details(key) == [
        "the private half of this key is one of the first that anybody would try"
    ]


def test_a_point_that_is_not_on_the_curve_is_no_key_at_all() -> None:
    with pytest.raises(ValueError, match=re.compile("invalid", re.IGNORECASE)):
        ec.EllipticCurvePublicNumbers(5, 5, ec.SECP256R1()).public_key()


def test_keys_that_share_a_private_half_share_a_digest() -> None:
    n = rsa_key().public_key().public_numbers().n
    one, other = (rsa.RSAPublicNumbers(e, n).public_key() for e in (65537, 65539))
    assert number_digest(one) == number_digest(other)
    private = 0xC0FFEE << 100
    above = ec.derive_private_key(private, CURVES["ec-p256"]).public_key()
    below = ec.derive_private_key(ORDERS["ec-p256"] - private, CURVES["ec-p256"]).public_key()
    assert above != below
    assert number_digest(above) == number_digest(below)
    assert number_digest(ec.generate_private_key(ec.SECP521R1()).public_key()) is None
