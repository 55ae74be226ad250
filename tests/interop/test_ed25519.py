"""A mesh all of whose keys are Ed25519, and those who were never told: openssl, curl, certtool and pki-inspect."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.keys import KeyAlgorithm, MemoryKey
from tests.interop.house import House, Identity, house_of_one_kind
from tests.interop.test_forged_clients import REQUEST
from tests.running import BIN
from tests.tools import require_tool

ED25519 = ("--key", "ed25519")


@pytest.fixture(scope="module")
def made() -> Iterator[House]:
    with house_of_one_kind("ed25519") as house:
        house.identity("payment-worker", *ED25519)
        yield house


@pytest.fixture
def identity(made: House) -> Identity:
    return made.identity("payment-worker")


def test_a_client_is_served(made: House) -> None:
    done = made.client(*ED25519, "--require-staple")
    assert done.returncode == 0, done.stderr
    made.assert_it_serves()


def test_all_keys_are_of_that_kind(made: House, identity: Identity) -> None:
    private = made.state / "ca" / "private"
    for path, passphrase in (
        (private / "root.key", b"correct horse"),
        (private / "issuing.key", b"correct horse"),
        (identity.key, None),
    ):
        key = MemoryKey.from_pem(path.read_bytes(), passphrase)
        assert key.algorithm is KeyAlgorithm.ED25519


def test_openssl_shakes_hands_and_finds_the_server_stapled(made: House, identity: Identity) -> None:
    done = made.s_client(made.port, "-status", *identity.for_openssl, stdin=REQUEST)
    assert "Peer signature type: ed25519" in done.stdout
    assert "Verify return code: 0 (ok)" in done.stdout
    assert "Cert Status: good" in done.stdout
    assert "HTTP/1.1 200 OK" in done.stdout


def test_openssl_and_certtool_verify_the_chain_and_the_crl(
    made: House, identity: Identity, tmp_path: Path
) -> None:
    crl = made.curl((made.home / "url").read_text() + "/crl", "-o", tmp_path / "crl.der")
    assert crl.returncode == 0, crl.stderr
    asked = ("-noout", "-CAfile", made.state / "ca" / "issuing.crt", "-in", tmp_path / "crl.der")
    assert "verify OK" in made.run("openssl", "crl", "-inform", "DER", *asked).stderr
    asked = ("-x509_strict", "-CAfile", made.root, "-untrusted", identity.cert, identity.cert)
    assert ": OK" in made.run("openssl", "verify", *asked).stdout
    certtool = require_tool("certtool")
    asked = ("--verify", "--load-ca-certificate", made.root)
    said = made.run(certtool, *asked, stdin=identity.cert.read_text()).stdout
    assert "The certificate is trusted." in said


def test_openssl_makes_a_csr_that_the_ca_signs(made: House, tmp_path: Path) -> None:
    key, csr = tmp_path / "key.pem", tmp_path / "csr.pem"
    asked = ("-new", "-newkey", "ed25519", "-nodes", "-subj", "/CN=x", "-keyout", key, "-out", csr)
    assert made.run("openssl", "req", *asked).returncode == 0
    body = {"csr": csr.read_text(), "requested_id": "spiffe://mesh.local/service/by-openssl"}
    reply = made.post("socket", "/api/v1/sign", body)
    assert reply.status == 201, reply.text


def test_the_bundle_tells_the_key(made: House) -> None:
    keys = made.ask("socket", "/api/v1/bundle").json["keys"]
    (jwk,) = (key for key in keys if key["use"] == "x509-svid")
    assert (jwk["kty"], jwk["crv"], len(jwk["x"])) == ("OKP", "Ed25519", 43)


def test_pki_inspect_shows_and_verifies_it(made: House, identity: Identity) -> None:
    program = BIN / "pki-inspect"
    shown = made.run(program, "show", identity.cert)
    assert shown.stdout.count("Ed25519") >= 2, shown.stdout
    done = made.run(program, "verify", identity.cert, "--roots", made.root)
    assert done.returncode == 0, done.stdout + done.stderr
