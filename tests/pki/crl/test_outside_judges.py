"""What others say of our CRLs, OCSP answers and responders: openssl, GnuTLS and pkilint."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509

from pki.crl.issue import issue_crl
from pki.issuing.authority import Authority
from pki.issuing.profile import WORKLOAD
from pki.issuing.publication import Publication
from pki.keys import KeyAlgorithm
from pki.ocsp.request import SHA1, OcspRequest
from pki.ocsp.sign import Responder, SingleResponse, Standing, single_responses
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import certificates_pem
from tests.authorities import BACKEND, HOUR, MESH, Mesh, der, key, mesh, pem, sign_crl
from tests.pki.issuing.test_outside_judges import unwaived
from tests.tools import require_tool

pytestmark = pytest.mark.slow

#: Not all of the judges can be told another time.
WALL = datetime.now(UTC).replace(microsecond=0)
ALGORITHMS = [
    pytest.param((KeyAlgorithm.RSA_4096, KeyAlgorithm.EC_P256), marks=pytest.mark.interop),
    (KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048),
    (KeyAlgorithm.ED25519, KeyAlgorithm.ED25519),
]


def made(algorithms: tuple[KeyAlgorithm, KeyAlgorithm]) -> Mesh:
    root, issuing = algorithms
    return mesh(MESH, key("root", root), key("issuing", issuing), WALL)


@cache
def leaf_of(algorithms: tuple[KeyAlgorithm, KeyAlgorithm]) -> x509.Certificate:
    return made(algorithms).leaf(now=WALL)


def revoked(issuer: Authority, serial: int, reason: Reason = Reason.SUPERSEDED) -> Revocation:
    return Revocation(issuer.key_id, serial, WALL, reason, WALL + HOUR)


def crl(issuer: Authority, told: Iterable[Revocation] = ()) -> bytes:
    made_crl = issue_crl(issuer, told, 4096, this_update=WALL, next_update=WALL + HOUR)
    return pem(asyncio.run(made_crl), "X509 CRL")


def run(*command: str | Path) -> tuple[int, str]:
    result = subprocess.run(command, capture_output=True, timeout=60)
    return result.returncode, (result.stdout + result.stderr).decode()


@pytest.fixture(params=ALGORITHMS, ids="-".join)
def algorithms(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[KeyAlgorithm, KeyAlgorithm]:
    """The keys of a mesh whose certificates lie in the test's directory."""
    pair: tuple[KeyAlgorithm, KeyAlgorithm] = request.param
    here, leaf = made(pair), leaf_of(pair)
    root, issuing = here.root.certificate, here.issuing.certificate
    for name, certificates in (
        ("root", [root]),
        ("issuing", [issuing]),
        ("cas", [root, issuing]),
        ("leaf", [leaf]),
        ("chain", [leaf, issuing]),
    ):
        (tmp_path / f"{name}.pem").write_bytes(certificates_pem(certificates))
    return pair


# CRLs


def test_openssl_and_certtool_verify_the_signature_of_a_crl(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path
) -> None:
    openssl, certtool = require_tool("openssl"), require_tool("certtool")
    here = made(algorithms)
    told = [revoked(here.issuing, 5 + n, reason) for n, reason in enumerate(Reason)]
    file = tmp_path / "crl.pem"
    for issuer in (here.root, here.issuing):
        for listed in ([], told):
            file.write_bytes(crl(issuer, listed))
            own = tmp_path / "own.pem"
            own.write_bytes(certificates_pem([issuer.certificate]))
            _, said = run(openssl, "crl", "-in", file, "-CAfile", tmp_path / "cas.pem", "-noout")
            assert "verify OK" in said
            _, said = run(certtool, "--verify-crl", "--load-ca-certificate", own, "--infile", file)
            assert "Verified. The certificate is trusted." in said
    _, said = run(openssl, "crl", "-in", file, "-noout", "-text")
    for words in ("X509v3 CRL Number", "4096", "Key Compromise", "Certificate Hold"):
        assert words in said
    file.write_bytes(crl(mesh(now=WALL).issuing))
    _, said = run(openssl, "crl", "-in", file, "-CAfile", tmp_path / "cas.pem", "-noout")
    assert "verify OK" not in said


@pytest.mark.parametrize("bad", ["nobody", "leaf", "issuing"])
def test_openssl_and_certtool_refuse_whom_a_crl_lists_and_nobody_else(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path, bad: str
) -> None:
    openssl, certtool = require_tool("openssl"), require_tool("certtool")
    here, leaf = made(algorithms), leaf_of(algorithms)
    issuing_serial = here.issuing.certificate.serial_number
    by_root = [revoked(here.root, 5)]
    by_issuing = [revoked(here.issuing, 5)]
    if bad == "leaf":
        by_issuing.append(revoked(here.issuing, leaf.serial_number))
    if bad == "issuing":
        by_root.append(revoked(here.root, issuing_serial))
    lists = tmp_path / "crls.pem"
    lists.write_bytes(crl(here.root, by_root) + crl(here.issuing, by_issuing))
    status, said = run(
        openssl, "verify", "-x509_strict", "-crl_check_all", "-CRLfile", lists,
        "-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "issuing.pem",
        tmp_path / "leaf.pem",
    )  # fmt: skip
    assert (status == 0) == (bad == "nobody"), said
    assert ("certificate revoked" in said) == (bad != "nobody")
    _, said = run(
        certtool, "--verify", "--verify-profile=medium",
        "--load-ca-certificate", tmp_path / "root.pem", "--load-crl", lists,
        "--infile", tmp_path / "chain.pem",
    )  # fmt: skip
    assert ("Chain verification output: Verified." in said) == (bad == "nobody")
    assert ("is revoked" in said) == (bad != "nobody")


def pkilint(program: str, *arguments: str | Path) -> str:
    """What one of pkilint's programs has to say, notices included."""
    path = Path(sys.executable).with_name(program)
    status, said = run(require_tool(str(path)), "lint", "-s", "NOTICE", *arguments)
    assert (status == 0) == (not said.strip())
    return said.strip()


def test_pkilint_finds_no_fault_with_crls(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path
) -> None:
    here, file = made(algorithms), tmp_path / "crl.pem"
    given = [revoked(here.issuing, 5 + n, Reason.SUPERSEDED) for n in range(3)]
    for issuer, kind in ((here.root, "ARL"), (here.issuing, "CRL")):
        for listed in ([], given):
            file.write_bytes(crl(issuer, listed))
            assert pkilint("lint_crl", "-t", kind, "-p", "PKIX", file) == ""
    numberless = sign_crl(here.issuing, number=None, this_update=WALL, next_update=WALL + HOUR)
    file.write_bytes(pem(numberless, "X509 CRL"))
    assert pkilint("lint_crl", "-t", "CRL", "-p", "PKIX", file)


# OCSP


def responders(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm],
) -> dict[str, Responder]:
    issuer = made(algorithms).issuing
    delegate = asyncio.run(issuer.create_responder(key("responder"), WALL))
    return {
        "issuer": Responder(issuer.certificate, issuer.key),
        "delegate": Responder(issuer.certificate, key("responder"), delegate),
        "delegate by name": Responder(issuer.certificate, key("responder"), delegate, True),
    }


@pytest.mark.parametrize("who", ["issuer", "delegate", "delegate by name"])
@pytest.mark.parametrize("bad", [False, True])
def test_openssl_asks_and_believes_the_answer(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path, who: str, bad: bool
) -> None:
    openssl = require_tool("openssl")
    leaf, responder = leaf_of(algorithms), responders(algorithms)[who]
    asked, answered = tmp_path / "request.der", tmp_path / "answer.der"
    about = ("-issuer", tmp_path / "issuing.pem", "-cert", tmp_path / "leaf.pem")
    status, said = run(
        openssl, "ocsp", *about, "-serial", "5", "-sha256", *about[2:], "-reqout", asked
    )
    assert status == 0, said
    request = OcspRequest.parse(asked.read_bytes())
    assert [c.serial for c in request.cert_ids] == [leaf.serial_number, 5, leaf.serial_number]
    assert request.nonce

    def lookup(issuer: str, serial: int) -> Standing | Revocation:
        if serial != leaf.serial_number:
            return Standing.UNKNOWN
        return Revocation(issuer, serial, WALL, Reason.SUPERSEDED, WALL) if bad else Standing.GOOD

    told = single_responses(
        request, responder.identity, lookup, this_update=WALL, next_update=WALL + HOUR
    )
    answered.write_bytes(
        asyncio.run(responder.respond(told, produced_at=WALL, nonce=request.nonce))
    )
    status, said = run(
        openssl, "ocsp", *about, "-serial", "5", "-sha256", *about[2:],
        "-no_nonce", "-reqin", asked, "-respin", answered, "-CAfile", tmp_path / "root.pem",
        "-verify_other", tmp_path / "issuing.pem",
    )  # fmt: skip
    assert status == 0, said
    assert "Response verify OK" in said
    assert "nonce" not in said
    assert said.count(f"leaf.pem: {'revoked' if bad else 'good'}") == 2
    assert "5: unknown" in said
    assert ("Reason: superseded" in said) is bad


@pytest.mark.parametrize("who", ["issuer", "delegate", "delegate by name"])
def test_ocsptool_believes_the_answer_and_pkilint_finds_no_fault(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path, who: str
) -> None:
    ocsptool = require_tool("ocsptool")
    leaf, responder = leaf_of(algorithms), responders(algorithms)[who]
    cert_id = responder.identity.cert_id(leaf.serial_number, SHA1)
    file = tmp_path / "answer.der"
    for standing, words in (
        (Standing.GOOD, "Certificate Status: good"),
        (revoked(made(algorithms).issuing, leaf.serial_number), "Certificate Status: revoked"),
    ):
        told = [SingleResponse(cert_id, standing, WALL, WALL + HOUR)]
        file.write_bytes(asyncio.run(responder.respond(told, produced_at=WALL, nonce=b"n" * 16)))
        trusting = "--load-trust" if responder.certificate else "--load-signer"
        status, said = run(
            ocsptool, "--verify-response", trusting, tmp_path / "issuing.pem",
            "--load-response", file,
        )  # fmt: skip
        assert status == 0, said
        assert "Verifying OCSP Response: Success." in said
        assert words in said
        assert pkilint("lint_ocsp_response", "--document-format", "DER", file) == ""


def test_the_judges_tell_a_responder_that_nobody_made_one(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path
) -> None:
    openssl, ocsptool = require_tool("openssl"), require_tool("ocsptool")
    stranger = mesh(now=WALL).issuing
    responder = Responder(stranger.certificate, stranger.key)
    issuer = responders(algorithms)["issuer"].identity
    serial = leaf_of(algorithms).serial_number
    file = tmp_path / "answer.der"
    told = [SingleResponse(issuer.cert_id(serial, SHA1), Standing.GOOD, WALL, WALL + HOUR)]
    file.write_bytes(asyncio.run(responder.respond(told, produced_at=WALL)))
    _, said = run(
        openssl, "ocsp", "-issuer", tmp_path / "issuing.pem", "-cert", tmp_path / "leaf.pem",
        "-respin", file, "-CAfile", tmp_path / "root.pem",
    )  # fmt: skip
    assert "Response verify OK" not in said
    _status, said = run(
        ocsptool, "--verify-response", "--load-trust", tmp_path / "issuing.pem",
        "--load-response", file,
    )  # fmt: skip
    assert "Verifying OCSP Response: Success." not in said


def test_openssl_and_pkilint_find_no_fault_with_a_responders_certificate(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path
) -> None:
    openssl = require_tool("openssl")
    delegate = responders(algorithms)["delegate"].certificate
    assert delegate is not None
    file = tmp_path / "responder.pem"
    file.write_bytes(certificates_pem([delegate]))
    chain = ("-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "issuing.pem", file)
    status, said = run(openssl, "verify", "-x509_strict", "-purpose", "ocsphelper", *chain)
    assert status == 0, said
    for purpose in ("sslserver", "sslclient"):
        status, said = run(openssl, "verify", "-purpose", purpose, *chain)
        assert status != 0
    assert pkilint("lint_pkix_cert", file) == ""
    assert der(delegate)


def test_openssl_and_pkilint_find_no_fault_with_places_of_publication(
    algorithms: tuple[KeyAlgorithm, KeyAlgorithm], tmp_path: Path
) -> None:
    openssl = require_tool("openssl")
    here = made(algorithms)
    places = Publication("http://ca.example/crl", "http://ca.example/ocsp", "http://ca.example/ca")
    issuer = Authority(
        here.issuing.certificate, here.issuing.key, workload=evolve(WORKLOAD, publication=places)
    )
    leaf = asyncio.run(issuer.sign(issuer.draft(key(9).public_key, BACKEND, WALL, HOUR)))
    published = asyncio.run(here.root.create_issuing(key(8), MESH, WALL, publication=places))
    assert unwaived(leaf) == unwaived(published.certificate) == []
    file = tmp_path / "published.pem"
    file.write_bytes(certificates_pem([leaf]))
    chain = ("-CAfile", tmp_path / "root.pem", "-untrusted", tmp_path / "issuing.pem", file)
    status, said = run(openssl, "verify", "-x509_strict", "-purpose", "sslclient", *chain)
    assert status == 0, said
    _, said = run(openssl, "x509", "-in", file, "-noout", "-text", "-ocsp_uri")
    for words in ("URI:http://ca.example/crl", "CA Issuers - URI:http://ca.example/ca"):
        assert words in said
    assert said.splitlines().count("http://ca.example/ocsp") == 1
