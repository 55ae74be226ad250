"""Lists of keys that nobody may have: three kinds of hashes, and whatever is wrong with a file is told."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from pki.keys import MemoryKey, number_digest, spki_der, spki_pin
from pki.keys.algorithm import KeyAlgorithm
from pki.keys.key_list import BadKeyList, KeyList, KeyMarks, listing
from tests.authorities import key, rsa_key

RSA = rsa_key().public_key()
KEYS = [RSA, *(key("list", KeyAlgorithm(name)).public_key for name in ("ec-p256", "ec-p384"))]
OTHER = KeyMarks.of(key("other").public_key)


def hexadecimal(public: object) -> str:
    return hashlib.sha256(spki_der(public)).hexdigest()  # type: ignore[arg-type]


def openssl_line() -> str:
    """As ``openssl rsa -noout -modulus | sha1sum | cut -c 21-40`` has it."""
    printed = f"Modulus={RSA.public_numbers().n:X}\n".encode()
    return hashlib.sha1(printed).hexdigest()[20:]


@pytest.mark.parametrize("public", KEYS)
@pytest.mark.parametrize("write", [hexadecimal, spki_pin, lambda k: hexadecimal(k).upper()])
def test_a_key_is_listed_by_its_sha_256(public: object, write: object) -> None:
    text = f"# stolen\n\n  {write(public)}  # found on a wall\r\n"  # type: ignore[operator]
    found = KeyList.parse("list", text.encode())
    assert len(found) == 1
    assert found.has(KeyMarks.of(public))  # type: ignore[arg-type]
    assert not found.has(OTHER)


def test_debians_list_has_the_modulus_whatever_the_exponent() -> None:
    head = "# blacklist.RSA-2048\n00005890bc78bcbee3ca\n"
    found = KeyList.parse("blacklist.RSA-2048", f"{head}{openssl_line()}\n".encode())
    assert len(found) == 2
    for exponent in (65537, 3):
        numbers = rsa.RSAPublicNumbers(exponent, RSA.public_numbers().n)
        assert found.has(KeyMarks.of(numbers.public_key()))
    assert not any(found.has(KeyMarks.of(public)) for public in KEYS[1:])


@pytest.mark.parametrize("public", KEYS)
def test_badkeys_list_has_the_number_in_whatever_collection(public: object) -> None:
    digest = number_digest(public)  # type: ignore[arg-type]
    assert digest is not None
    records = sorted([digest + b"\x07", bytes(16), b"\xff" * 16])
    found = KeyList.parse("blocklist.dat", b"".join(records))
    assert len(found) == 3
    assert found.has(KeyMarks.of(public))  # type: ignore[arg-type]
    assert not found.has(OTHER)


def test_a_list_of_many_is_searched_and_none_is_missed() -> None:
    digests = sorted(hashlib.sha256(b"%d" % n).digest()[:15] for n in range(70_000))
    found = KeyList.parse("blocklist.dat", b"".join(digest + b"\1" for digest in digests))
    for digest in (*digests[:3], *digests[65_530:65_540], *digests[-3:]):
        assert found.has(KeyMarks(b"", digest))
        assert not found.has(KeyMarks(b"", digest[:-1] + bytes([digest[-1] ^ 1])))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "lists no key"),
        (b"# nothing\n\n", "lists no key"),
        (
            b"abc\n" + b"00" * 32 + b"\nsha256/AAAA\n",
            "line 1: 'abc', line 3: 'sha256/AAAA': a line is",
        ),
        (b"xyz\n" * 9, "line 5: 'xyz' and 4 more: a line is"),
        (b"-----BEGIN CERTIFICATE-----\n", "line 1"),
        (b"\xff" * 17, "cut short"),
        (b"\xff" * 16 + bytes(16), "records are in order"),
        (bytes(16) * 65_536 + b"\xff" * 16 + b"\xfe" * 16, "records are in order"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(data: bytes, said: str) -> None:
    with pytest.raises(BadKeyList) as error:
        KeyList.parse("the file", data)
    assert str(error.value).startswith("the file")
    assert said in str(error.value)


@given(st.binary(max_size=200))
def test_no_file_raises_anything_else(data: bytes) -> None:
    try:
        found = KeyList.parse("list", data)
    except BadKeyList:
        return
    assert len(found) > 0


@given(st.sets(st.binary(min_size=32, max_size=32), min_size=1, max_size=20))
def test_all_that_is_written_is_found(digests: set[bytes]) -> None:
    text = "\n".join(
        digest.hex() if digest[0] & 1 else "sha256/" + base64.b64encode(digest).decode()
        for digest in digests
    )
    found = KeyList.parse("list", text.encode())
    assert len(found) == len(digests)
    assert all(found.has(KeyMarks(digest)) for digest in digests)


def test_the_first_list_that_has_it_is_named_and_a_change_is_seen() -> None:
    marks = KeyMarks.of(KEYS[1])
    one = KeyList.parse("one", b"00" * 32)
    two = KeyList.parse("two", marks.spki.hex().encode())
    assert listing([one, two], marks) == "two"
    assert listing([one], marks) is None
    assert one.content != two.content
    assert one.content == KeyList.parse("another name", b"00" * 32 + b"  # said otherwise").content


def test_a_key_that_the_mesh_does_not_use_is_known_by_its_sha_256_alone() -> None:
    public = ec.generate_private_key(ec.SECP521R1()).public_key()
    marks = KeyMarks.of(public)
    assert (marks.number, marks.openssl) == (b"", b"")
    assert KeyList.parse("list", marks.spki.hex().encode()).has(marks)
    assert not KeyList.parse("blocklist.dat", bytes(16)).has(marks)


def test_the_marks_of_a_key_are_those_of_its_encoding() -> None:
    made = MemoryKey.generate(KeyAlgorithm.EC_P256).public_key
    assert KeyMarks.of(made, spki_der(made)) == KeyMarks.of(made)
