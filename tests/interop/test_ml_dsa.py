"""A mesh whose CAs have ML-DSA keys, workloads of all kinds in it, and those whose OpenSSL has never heard of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import crypto

from pki.keys import KeyAlgorithm, MemoryKey, verify
from pki.svid.x509svid import load_certificates
from tests.interop.house import House, Identity, house_of_one_kind
from tests.running import BIN

#: Two ends in memory, for the quick suite.
SMALL = "tests/twisted_mesh/tls/test_post_quantum_keys.py::test_two_ends_talk_whatever_the_kinds_of_their_keys"
pytestmark = pytest.mark.interop(SMALL)


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    """Every certificate, staple and list is as long as they get."""
    with house_of_one_kind("ml-dsa-87") as house:
        yield house


def exported(house: House, algorithm: KeyAlgorithm) -> Identity:
    return house.identity(f"of-{algorithm}", "--key", algorithm)


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_clients_of_every_kind_are_served_and_stapled(made: House, algorithm: KeyAlgorithm) -> None:
    done = made.client("--key", algorithm, "--require-staple")
    assert done.returncode == 0, done.stderr


def test_all_keys_are_of_that_kind(made: House) -> None:
    private = made.state / "ca" / "private"
    for path, passphrase, expected in (
        (private / "root.key", b"correct horse", KeyAlgorithm.ML_DSA_87),
        (private / "issuing.key", b"correct horse", KeyAlgorithm.ML_DSA_87),
        (exported(made, KeyAlgorithm.ML_DSA_44).key, None, KeyAlgorithm.ML_DSA_44),
    ):
        assert MemoryKey.from_pem(path.read_bytes(), passphrase).algorithm is expected


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_the_openssl_of_pyopenssl_verifies_the_chain_and_the_crl_strictly(
    made: House, algorithm: KeyAlgorithm, tmp_path: Path
) -> None:
    leaf, *above = load_certificates(exported(made, algorithm).cert.read_bytes())
    assert len(leaf.signature) == 4627
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.X509_STRICT | crypto.X509StoreFlags.CRL_CHECK)
    for root in load_certificates(made.root.read_bytes()):
        store.add_cert(crypto.X509.from_cryptography(root))
    der = tmp_path / "crl.der"
    assert made.curl((made.home / "url").read_text() + "/crl", "-o", der).returncode == 0
    crl = x509.load_der_x509_crl(der.read_bytes())
    store.add_crl(crl)
    crypto.X509StoreContext(
        store,
        crypto.X509.from_cryptography(leaf),
        [crypto.X509.from_cryptography(c) for c in above],
    ).verify_certificate()
    verify(above[0].public_key(), crl.signature, crl.tbs_certlist_bytes, None)  # type: ignore[arg-type]


def test_older_libraries_are_refused_in_words_at_their_side_and_ours(made: House) -> None:
    """curl and openssl of Debian 12 and the like; those that know the keys are served."""
    identity = exported(made, KeyAlgorithm.EC_P256)
    before = made.server.text.count("knows no signature that a key like ours makes")
    talk = made.s_client(made.port, stdin="")
    if "ML-DSA" in made.run("openssl", "list", "-signature-algorithms").stdout:
        assert "Verify return code: 0 (ok)" in talk.stdout
        return
    assert "alert handshake failure" in talk.stderr
    made.server.wait_for("knows no signature that a key like ours makes", count=before + 1)
    done = made.curl(made.status_url(), *identity.for_curl)
    assert done.returncode != 0
    assert "ca md too weak" in done.stderr or "handshake failure" in done.stderr


def test_pki_inspect_shows_and_verifies_it(made: House) -> None:
    identity = exported(made, KeyAlgorithm.ML_DSA_65)
    program = BIN / "pki-inspect"
    shown = made.run(program, "show", identity.cert)
    assert shown.stdout.count("ML-DSA-87") >= 2, shown.stdout
    assert "ML-DSA-65" in shown.stdout
    for words in (("verify", identity.cert, "--roots", made.root), ("lint", identity.cert)):
        done = made.run(program, *words)
        assert done.returncode == 0, done.stdout + done.stderr
