"""``--key`` and ``--issuer``: digests as people copy them, and files of several kinds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pki.der import pem
from pki.issuing.csr import build_csr
from pki.keys import key_id
from pki.pem import REQUEST
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, key, mesh
from tests.pki.issuing.odd_csrs import GRANTED, REFUSED
from twisted_mesh.cli.ctl.cert_filters import digest_in, issuer_meant, key_meant
from twisted_mesh.cli.program import Unusable

DIGEST = "0123456789abcdef" * 4
OURS = key(3)
HOME = mesh()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    def written(*pieces: bytes) -> str:
        path = tmp_path / "file.pem"
        path.write_bytes(b"\n".join(pieces))
        return str(path)

    return written


def spki() -> bytes:
    return OURS.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "text",
    [DIGEST, DIGEST.upper(), f"sha256:{DIGEST}", f"SHA256:{DIGEST}", ":".join([DIGEST[:32], DIGEST[32:]])],
)  # fmt: skip
def test_a_digest_is_read_as_it_is_copied(text: str) -> None:
    assert digest_in(text) == key_meant(text) == issuer_meant(text) == DIGEST


@given(st.text(max_size=80))
def test_what_is_no_digest_is_none(text: str) -> None:
    digest = digest_in(text)
    assert digest is None or (len(digest) == 64 and int(digest, 16) >= 0)


def test_a_key_is_found_in_a_csr_a_public_key_and_a_certificate(file: Callable[..., str]) -> None:
    issuing = HOME.issuing.certificate
    assert key_meant(file(build_csr(OURS, BACKEND))) == key_id(OURS.public_key)
    assert key_meant(file(pem(REQUEST, GRANTED["version 3"].der()))) == key_id(key().public_key)
    assert key_meant(file(spki())) == key_id(OURS.public_key)
    chain = certificates_pem([issuing, HOME.root.certificate])
    assert key_meant(file(chain)) == key_id(issuing.public_key()), "the first counts"
    assert key_meant(file(issuing.public_bytes(Encoding.DER))) == key_id(issuing.public_key())
    assert key_meant(file(OURS.to_pem(), chain)) == key_id(issuing.public_key())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "there is nothing in it"),
        (b"nonsense", "neither PEM nor DER"),
        (OURS.to_pem(), "no certificate, CSR or public key in it (of a private key: openssl pkey"),
        (b"-----BEGIN PUBLIC KEY-----\nMAMCAQE=\n-----END PUBLIC KEY-----\n", "cannot be read"),
        (b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n", "cannot be read"),
        (pem(REQUEST, REFUSED["version 8"][0]().der()), "the CSR says that it is of version 8"),
    ],
    ids=[
        "empty",
        "nonsense",
        "private key",
        "damaged key",
        "damaged certificate",
        "CSR of a version",
    ],
)
def test_a_file_without_a_key_is_refused(
    file: Callable[..., str], content: bytes, words: str
) -> None:
    with pytest.raises(Unusable) as refused:
        key_meant(file(content))
    assert words in refused.value.message
    assert b"PRIVATE" not in refused.value.message.encode()


@given(st.binary(max_size=200))
def test_no_file_does_worse_than_being_refused(content: bytes) -> None:
    from tempfile import NamedTemporaryFile

    with NamedTemporaryFile() as written:
        written.write(content)
        written.flush()
        for meant in (key_meant, issuer_meant):
            with pytest.raises(Unusable):
                meant(written.name)


def test_an_issuer_is_an_issuing_ca(file: Callable[..., str]) -> None:
    issuing = HOME.issuing.certificate
    assert issuer_meant(file(certificates_pem([issuing]))) == HOME.issuing.key_id
    with pytest.raises(Unusable, match="this is a root: name the issuing CA"):
        issuer_meant(file(certificates_pem([HOME.root.certificate])))
    with pytest.raises(Unusable, match="there is no certificate in it"):
        issuer_meant(file(build_csr(OURS, BACKEND)))
    damaged = b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"
    with pytest.raises(Unusable, match="cannot be read"):
        issuer_meant(file(damaged))
