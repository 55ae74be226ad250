"""Encrypted keys are what cryptography and OpenSSL read, and cost whoever guesses."""

import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pki.der import blocks
from pki.pkcs8 import encrypted_pem
from tests.authorities import rsa_key
from tests.tools import require_tool

KEYS = {
    "EC": ec.generate_private_key(ec.SECP256R1()),
    "RSA": rsa_key(),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def plain(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


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
    pem = encrypted_pem(plain(KEYS["EC"]), b"correct horse")
    with pytest.raises(ValueError, match="could not decrypt"):
        load_pem_private_key(pem, b"battery staple")


def test_the_same_key_is_never_encrypted_twice_to_the_same_bytes() -> None:
    assert encrypted_pem(b"x", b"p") != encrypted_pem(b"x", b"p")
