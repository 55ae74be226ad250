"""CSRs of other programs, and such as strict readers refuse: the CA certifies the proven key, or says why not."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pki.der import pem
from pki.keys import spki_der
from pki.pem import REQUEST
from pki.svid.x509svid import load_certificates
from tests.authorities import key
from tests.interop.forging import PAYMENT
from tests.interop.house import House
from tests.interop.test_bad_csrs import codes, sign
from tests.pki.issuing.odd_csrs import GRANTED, REFUSED
from tests.tools import require_tool

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
_OPENSSL = {
    "EC": (*_EC, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
    "a curve in numbers": (*_EC, "-pkeyopt", "ec_param_enc:explicit"),
    "RSA, signed by PSS": ("-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss"),
    "Ed25519": ("-newkey", "ed25519"),
    "Latin-1 in its subject": (*_EC, "-subj", b"/CN=B\xfccher"),
}
_OPENSSL_REFUSED = {
    "SHA-1": (("-newkey", "rsa:2048", "-sha1"), "weak-signature", "SHA-1"),
    "PSS": (("-newkey", "rsa-pss"), "weak-key", "RSASSA-PSS alone"),
    "names": (
        (*_EC, "-addext", "subjectAltName=DNS:127.0.0.1"),
        "malformed-dns-name",
        "ask for it as an IP address",
    ),
}
_KEYTOOL_REFUSED = {"DSA": "DSA are not used", "RSASSA-PSS": "RSASSA-PSS alone"}


@pytest.mark.parametrize(
    "kind",
    ["no attributes", "version 3", "NULL parameters of ECDSA", "critical FALSE", "a T61 subject"],
)
def test_what_is_harmless_is_certified(kind: str, shared: House) -> None:
    reply = sign(shared, pem(REQUEST, GRANTED[kind].der()).decode())
    assert reply.status == 201, reply
    (leaf, *_) = load_certificates(reply.json["certificate"].encode())
    assert spki_der(leaf.public_key()) == spki_der(key().public_key)


@pytest.mark.parametrize(
    "kind", ["Latin-1", "an address as text", "names twice", "a key of RSASSA-PSS", "SHA-1"]
)
def test_what_breaks_a_rule_is_told_which(kind: str, shared: House) -> None:
    made, code, _ = REFUSED[kind]
    reply = sign(shared, pem(REQUEST, made().der()).decode())
    assert code in codes(reply)
    assert "damaged" not in reply.text


def test_what_is_no_csr_by_its_form_is_told_in_a_sentence(shared: House) -> None:
    reply = sign(shared, pem(REQUEST, REFUSED["a byte after its end"][0]().der()).decode())
    assert (reply.status, reply.code) == (400, "malformed")
    assert "1 byte after its end" in reply.json["detail"]
    assert "openssl req -in FILE -out NEW" in reply.json["detail"]


def openssl_csr(home: Path, *options: str | bytes) -> str:
    command = ("openssl", "req", "-new", "-nodes", "-subj", "/CN=x", "-keyout", home / "key.pem")
    return subprocess.run((*command, *options), capture_output=True, check=True).stdout.decode()


@pytest.mark.parametrize("kind", _OPENSSL)
def test_what_openssl_makes_is_certified_for_its_key(
    kind: str, shared: House, tmp_path: Path
) -> None:
    reply = sign(shared, openssl_csr(tmp_path, *_OPENSSL[kind]))
    assert reply.status == 201, reply
    (leaf, *_) = load_certificates(reply.json["certificate"].encode())
    command = ("openssl", "pkey", "-in", tmp_path / "key.pem", "-pubout")
    public = subprocess.run(command, capture_output=True, check=True).stdout
    assert spki_der(leaf.public_key()) == spki_der(load_pem_public_key(public))


@pytest.mark.parametrize("kind", _OPENSSL_REFUSED)
def test_what_openssl_makes_and_no_svid_has_is_refused_with_the_cure(
    kind: str, shared: House, tmp_path: Path
) -> None:
    options, code, words = _OPENSSL_REFUSED[kind]
    reply = sign(shared, openssl_csr(tmp_path, *options))
    assert codes(reply) == [code]
    assert words in reply.text


def keytool_csr(home: Path, algorithm: str) -> str:
    keytool = require_tool("keytool")
    store = ("-alias", "shop", "-keystore", home / "store.p12", "-storepass", "changeit")
    group = ("-groupname", "secp256r1") if algorithm == "EC" else ()
    made = ("-genkeypair", "-keyalg", algorithm, *group, "-dname", "CN=shop")
    subprocess.run((keytool, *made, *store), capture_output=True, check=True)
    asked = ("-certreq", "-ext", f"san=dns:localhost,uri:{PAYMENT}")
    done = subprocess.run((keytool, *asked, *store), capture_output=True, check=True)
    return done.stdout.decode()


@pytest.mark.interop(
    "tests/interop/test_odd_csrs.py::test_what_openssl_makes_is_certified_for_its_key"
)
def test_what_keytool_makes_is_certified(shared: House, tmp_path: Path) -> None:
    reply = sign(shared, keytool_csr(tmp_path, "EC"))
    assert reply.status == 201, reply
    assert "localhost" in str(load_certificates(reply.json["certificate"].encode())[0].extensions)


@pytest.mark.interop(
    "tests/interop/test_odd_csrs.py::test_what_openssl_makes_and_no_svid_has_is_refused_with_the_cure"
)
@pytest.mark.parametrize("algorithm", _KEYTOOL_REFUSED)
def test_what_keytool_makes_and_no_svid_has_is_refused_with_the_cure(
    algorithm: str, shared: House, tmp_path: Path
) -> None:
    reply = sign(shared, keytool_csr(tmp_path, algorithm))
    assert codes(reply) == ["weak-key"]
    assert _KEYTOOL_REFUSED[algorithm] in reply.text
    assert "keytool -genkeypair -keyalg EC" in reply.text
