"""Encrypted keys are what cryptography and OpenSSL read, and cost whoever guesses."""

import binascii
import subprocess
from unittest.mock import Mock, patch

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given

from pki.der import INTEGER, OCTET_STRING, SEQUENCE, blocks, element, integer
from pki.der import pem as pem_of
from pki.errors import ANY_ERROR, HOSTILE_INPUT, PANICS
from pki.keys import UnusableKey, pkcs8
from pki.keys.pkcs8 import encrypted_pem, read_pem, write_pem
from tests.authorities import rsa_key
from tests.pki.strategies import mutated
from tests.tools import require_tool

#: OpenSSL's count of rounds, as an INTEGER.
ROUNDS = bytes.fromhex("02020800")
KEYS = {
    "EC": ec.generate_private_key(ec.SECP256R1()),
    "RSA": rsa_key(),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def plain(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


with patch.multiple("pki.keys.pkcs8", _COST=2, _PASSES=1):
    #: Encrypted so that it is decrypted at once.
    CHEAP = encrypted_pem(plain(KEYS["EC"]), b"correct horse")


@pytest.mark.parametrize("kind", KEYS)
def test_cryptography_reads_it(kind: str) -> None:
    pem = encrypted_pem(plain(KEYS[kind]), b"correct horse")
    found = load_pem_private_key(pem, b"correct horse")
    assert plain(found) == plain(KEYS[kind])  # type: ignore[arg-type]
    assert max(map(len, pem.splitlines())) == 64
    (block,) = blocks(pem)
    assert block.label == "ENCRYPTED PRIVATE KEY"


def test_openssl_reads_it_and_sees_scrypt() -> None:
    pem = encrypted_pem(plain(KEYS["RSA"]), b"correct horse")
    openssl = require_tool("openssl")
    asked = [openssl, "pkcs8", "-passin", "pass:correct horse", "-outform", "DER"]
    done = subprocess.run(asked, input=pem, capture_output=True)
    assert done.returncode == 0, done.stderr
    parsed = subprocess.run([openssl, "asn1parse"], input=pem, capture_output=True, check=True)
    for words in (b":PBES2", b":scrypt", b":4000", b":08", b":05", b":aes-256-cbc"):
        assert words in parsed.stdout


def test_another_passphrase_does_not_open_it() -> None:
    """One in 256 decrypts to well-padded bytes: of so many some do, and they are no key either."""
    assert write_pem(read_pem(CHEAP, b"correct horse")) == write_pem(KEYS["EC"])
    for number in range(2000):
        with pytest.raises(UnusableKey, match="wrong passphrase"):
            read_pem(CHEAP, b"battery staple %d" % number)


def test_a_key_is_written_as_cryptography_writes_it() -> None:
    for key in KEYS.values():
        assert write_pem(key) == key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )


@pytest.mark.parametrize("rounds", ["00", "ffff", "7f", "0080000000", "7fffffffffff"])
def test_a_damaged_count_of_rounds_is_a_damaged_key(rounds: str) -> None:
    """From 2,147,483,648 on cryptography's Rust panics, and a panic is no Exception."""
    der = KEYS["EC"].private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse")
    )
    at = der.index(ROUNDS)
    salt = next(
        n for n in range(at - 20, at) if der[n] == OCTET_STRING and n + 2 + der[n + 1] == at
    )
    # Salt and count side by side keep their length together, so that all lengths around them stay.
    count = element(INTEGER, bytes.fromhex(rounds))
    kept = der[salt + 2 : at + len(ROUNDS) - len(count)].ljust(at + 2 - salt - len(count), b"x")
    damaged = der[:salt] + element(OCTET_STRING, kept) + count + der[at + len(ROUNDS) :]
    assert len(damaged) == len(der)
    with pytest.raises(UnusableKey, match=r"wrong passphrase|most here is 2000000"):
        read_pem(pem_of("ENCRYPTED PRIVATE KEY", damaged), b"correct horse")


@pytest.mark.parametrize("costs", [(2**18, 8, 1), (2**14, 8, 2**10), (2, 2**17, 2**10)])
def test_what_scrypt_would_cost_is_read_before_it_is_spent(costs: tuple[int, int, int]) -> None:
    written = encrypted_pem(b"x", b"p")
    der = binascii.a2b_base64(b"".join(written.splitlines()[1:-1]))
    scrypt = element(SEQUENCE, element(OCTET_STRING, bytes(16)) + b"".join(map(integer, costs)))
    scheme = element(SEQUENCE, element(SEQUENCE, pkcs8._SCRYPT + scrypt))
    info = element(SEQUENCE, pkcs8._PBES2 + scheme)
    dear = element(SEQUENCE, info + element(OCTET_STRING, bytes(16)))
    with patch.object(serialization, "load_pem_private_key") as load:
        with pytest.raises(UnusableKey, match=r"scrypt with N=.* the most here is 32 MiB"):
            read_pem(pem_of("ENCRYPTED PRIVATE KEY", dear), b"p")
        load.assert_not_called()
        read_pem(pem_of("ENCRYPTED PRIVATE KEY", der), b"p")
        load.assert_called_once()


@given(mutated(CHEAP))
def test_damage_is_told_and_never_anything_else(data: bytes) -> None:
    try:
        read_pem(data, b"correct horse")
    except UnusableKey as error:
        assert str(error).isprintable()


def test_a_panic_of_cryptography_is_among_those_that_are_caught() -> None:
    """A panic has no documented name: this fails the day it has another."""
    der = KEYS["EC"].private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"correct horse")
    )
    at = der.index(ROUNDS)
    # The salt gives up the three bytes that the larger count takes.
    (salt,) = (n for n in range(at - 20, at) if der[n] == OCTET_STRING and n + 2 + der[n + 1] == at)
    kept = element(OCTET_STRING, der[salt + 2 : at - 3])
    damaged = der[:salt] + kept + element(INTEGER, bytes.fromhex("0080000000")) + der[at + 4 :]
    assert len(damaged) == len(der)
    with pytest.raises(PANICS):
        load_pem_private_key(pem_of("ENCRYPTED PRIVATE KEY", damaged), b"correct horse")
    assert set(PANICS) <= {*HOSTILE_INPUT} & {*ANY_ERROR}


def test_a_panic_is_a_damaged_key_and_an_interrupt_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for raised, seen in ((PANICS[0], UnusableKey), (KeyboardInterrupt, KeyboardInterrupt)):
        monkeypatch.setattr(serialization, "load_pem_private_key", Mock(side_effect=raised))
        with pytest.raises(seen):
            read_pem(write_pem(KEYS["EC"]))


def test_the_same_key_is_never_encrypted_twice_to_the_same_bytes() -> None:
    assert encrypted_pem(b"x", b"p") != encrypted_pem(b"x", b"p")


@pytest.mark.parametrize("number", ["modulus", "d", "p", "q", "dmp1", "dmq1", "iqmp"])
def test_a_known_key_of_rsa_is_taken_if_all_its_numbers_belong_together(number: str) -> None:
    key = rsa_key()
    whole = write_pem(key)
    assert read_pem(whole, is_known=True).private_numbers() == key.private_numbers()  # type: ignore[union-attr]
    numbers, public = key.private_numbers(), key.public_key().public_numbers()
    named = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    named = {"modulus": public.n, "e": public.e, **named}
    named[number] += 2
    order = ("modulus", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp")
    content = b"".join(integer(named[name]) for name in order)
    damaged = pem_of("RSA PRIVATE KEY", element(SEQUENCE, integer(0) + content))
    for is_known in (False, True):
        with pytest.raises(UnusableKey):
            read_pem(damaged, is_known=is_known)
