"""What in a file holds a key, told by its public half alone."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from pki.inspect.key_holders import key_holders
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, key, mesh
from tests.pki.strategies import mutated

PASSWORD = b"correct horse"
CHAIN = certificates_pem([mesh().leaf(), mesh().issuing.certificate])


def public(of: MemoryKey, encoding: Encoding = Encoding.PEM) -> bytes:
    return of.public_key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


def private(
    of: MemoryKey, encoding: Encoding = Encoding.PEM, kind: PrivateFormat = PrivateFormat.PKCS8
) -> bytes:
    return of.private_key.private_bytes(encoding, kind, NoEncryption())


def encrypted(of: MemoryKey, encoding: Encoding = Encoding.PEM) -> bytes:
    return of.private_key.private_bytes(
        encoding, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD)
    )


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_a_key_has_one_pin_wherever_it_stands(algorithm: KeyAlgorithm) -> None:
    own = key("pinned", algorithm)
    digest = hashlib.sha256(public(own, Encoding.DER)).digest()
    pin = f"sha256/{base64.b64encode(digest).decode()}"
    held = {
        "certificate": certificates_pem([mesh().leaf(leaf_key=own)]),
        "CSR": build_csr(own, BACKEND),
        "public key": public(own),
        "private key": private(own),
    }
    for what, data in held.items():
        (holder,), lost = key_holders(data)
        assert (holder.what, holder.pin, lost) == (what, pin, ())
    for data in (public(own, Encoding.DER), private(own, Encoding.DER)):
        assert key_holders(data)[0][0].pin == pin


def test_older_forms_of_keys_are_read_too() -> None:
    own = key("pinned", KeyAlgorithm.RSA_2048)
    old = own.public_key.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    for data in (old, private(own, kind=PrivateFormat.TraditionalOpenSSL)):
        assert key_holders(data)[0][0].has_key_of(key_holders(public(own))[0][0])


def test_a_certificate_has_the_fingerprint_that_the_ca_prints() -> None:
    (root,), _ = key_holders(mesh().bundle.to_pem())
    assert root.fingerprint == str(Fingerprint.of(mesh().root.certificate))
    assert key_holders(public(key()))[0][0].fingerprint == ""


def test_a_spiffe_bundle_has_those_of_its_roots() -> None:
    assert key_holders(mesh().bundle.to_jwks()) == key_holders(mesh().bundle.to_pem())
    with pytest.raises(Malformed, match="holds no root for X"):
        key_holders(b'{"keys": []}')


def test_all_of_a_chain_is_told_and_what_cannot_be_read() -> None:
    held, lost = key_holders(CHAIN + private(key(3)) + encrypted(key(4)))
    assert [holder.what for holder in held] == ["certificate", "certificate", "private key"]
    assert lost == ("block 4 of 4: it is not the first private key of the file: give each its own",)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER], ids=["PEM", "DER"])
def test_of_an_encrypted_key_nothing_can_be_told(encoding: Encoding) -> None:
    with pytest.raises(
        Malformed, match="is encrypted, so that nothing can be told of it: give its public half"
    ):
        key_holders(encrypted(key(), encoding))


def test_a_file_without_any_key_says_what_it_holds() -> None:
    with pytest.raises(
        Malformed, match="nothing with a key but a CRL: give a certificate, a CSR or a key"
    ):
        key_holders(b"-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n")


@given(
    st.one_of(
        st.binary(), mutated(CHAIN), mutated(private(key())), mutated(mesh().bundle.to_jwks())
    )
)
def test_whatever_the_bytes_only_malformed_is_raised(data: bytes) -> None:
    try:
        held, _ = key_holders(data)
    except Malformed:
        return
    assert held
