"""What others' tools make of the CRLs and OCSP answers of a real CA: they agree on every certificate."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.crl.issue import issue_crl
from pki.issuing.authority import Authority
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.ocsp.request import SHA1, Issuer, OcspRequest, encode_get
from pki.serial import serial_hex
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import certificates_pem, load_certificates
from tests.interop.forging import issuing_authority
from tests.interop.house import Done, House, house
from tests.running import BIN
from tests.tools import require_tool

pytestmark = pytest.mark.slow

WEB = SpiffeId.parse("spiffe://mesh.local/service/web")
HERE = Path(__file__).parent
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
REASONS = {
    "key-compromise": Reason.KEY_COMPROMISE,
    "superseded": Reason.SUPERSEDED,
    "unspecified": Reason.UNSPECIFIED,
    "privilege-withdrawn": Reason.PRIVILEGE_WITHDRAWN,
}
CASES = ("good", *REASONS, "expired", "unknown-serial", "issuing-revoked")
#: Two for every run, and the others for make interop.
ASKED = [
    case if case in ("good", "superseded") else pytest.param(case, marks=pytest.mark.interop)
    for case in CASES
]
#: By CRL nobody can know that a serial was never issued; by OCSP only the leaf is asked about.
BY_CRL = {
    "good": "good",
    **dict.fromkeys(REASONS, "revoked"),
    "expired": "expired",
    "unknown-serial": "good",
    "issuing-revoked": "issuer revoked",
}
BY_OCSP = {
    "good": "good",
    **dict.fromkeys(REASONS, "revoked"),
    "expired": "expired",
    "unknown-serial": "unknown",
    "issuing-revoked": "good",
}


@frozen
class Leaf:
    path: Path
    serial: int
    crls: Path
    """The directory of the CRLs that it is judged by."""


@define(eq=False)
class Published:
    """A CA that publishes, certificates that stand in every way, and what it says of them."""

    house: House
    url: str
    leaves: dict[str, Leaf] = field(factory=dict)

    @property
    def here(self) -> Path:
        return self.house.home

    @property
    def root(self) -> Path:
        return self.here / "root.pem"

    @property
    def issuing(self) -> Path:
        return self.here / "issuing.pem"

    def sign(self, ttl: str) -> x509.Certificate:
        key = MemoryKey.generate(KeyAlgorithm.EC_P256)
        asked = {"csr": build_csr(key, WEB).decode(), "requested_id": str(WEB), "ttl": ttl}
        reply = self.house.post("socket", "/api/v1/sign", asked)
        assert reply.status == 201, reply.text
        (issuing,) = reply.json["chain"]
        self.issuing.write_text(issuing)
        (leaf,) = load_certificates(reply.json["certificate"].encode())
        return leaf

    def revoke(self, serial: int, reason: Reason) -> None:
        body = {"serial": serial_hex(serial), "reason": str(reason)}
        assert self.house.post("socket", "/api/v1/revoke", body).status == 200

    def keep(self, name: str, leaf: x509.Certificate, crls: Path) -> None:
        path = self.here / f"{name}.pem"
        path.write_bytes(certificates_pem([leaf]))
        self.leaves[name] = Leaf(path, leaf.serial_number, crls)

    def fetch(self, path: str, target: Path) -> bytes:
        done = self.house.run("curl", "-sSf", "-o", target, self.url + path)
        assert done.returncode == 0, done.stderr
        return target.read_bytes()

    def fetch_crls(self, directory: Path) -> None:
        """In DER and in PEM, each for itself and both in one file."""
        directory.mkdir()
        for name, path in (("issuing", "/crl"), ("root", "/crl/root")):
            self.write_crl(directory, name, self.fetch(path, directory / f"{name}.der"))

    def write_crl(self, directory: Path, name: str, der: bytes) -> None:
        (directory / f"{name}.der").write_bytes(der)
        pem = x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
        (directory / f"{name}.crl").write_bytes(pem)
        both = [path.read_bytes() for path in sorted(directory.glob("*.crl"))]
        (directory / "both.pem").write_bytes(b"".join(both))

    def authority(self) -> Authority:
        return issuing_authority(self.house.state)

    def root_authority(self) -> Authority:
        key = MemoryKey.from_pem((self.house.state / "ca/private/root.key").read_bytes())
        return Authority(load_certificates(self.root.read_bytes())[0], key)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    require_tool("curl")
    with house(tmp_path_factory.mktemp("published")) as made:
        running = made.start_ca("--crl-http", "127.0.0.1:0", "--rate-limit", "off")
        url = running.wait_for(r"certificate are at (http://\S+), and")[1]
        published = Published(made, url)
        published.root.write_bytes(made.root.read_bytes())
        fill(published)
        yield published
        assert running.stop() == 0


def fill(ca: Published) -> None:
    crls = ca.here / "crls"
    expired = ca.sign("1s")
    ca.keep("expired", expired, crls)
    ca.keep("good", ca.sign("1h"), crls)
    for name, reason in REASONS.items():
        leaf = ca.sign("1h")
        ca.revoke(leaf.serial_number, reason)
        ca.keep(name, leaf, crls)
    now = datetime.now(UTC)
    issuing = ca.authority()
    draft = issuing.draft(MemoryKey.generate(KeyAlgorithm.EC_P256).public_key, WEB, now, HOUR)
    ca.keep("unknown-serial", asyncio.run(issuing.sign(draft)), crls)
    ca.fetch_crls(crls)
    # There is no command for it yet: what the root's CRL would say then.
    other = ca.here / "issuing-revoked"
    ca.fetch_crls(other)
    root = ca.root_authority()
    gone = Revocation(
        root.key_id,
        issuing.certificate.serial_number,
        now,
        Reason.CA_COMPROMISE,
        issuing.certificate.not_valid_after_utc,
    )
    made = issue_crl(root, [gone], 1 << 62, this_update=now - MINUTE, next_update=now + HOUR)
    ca.write_crl(other, "root", asyncio.run(made))
    ca.keep("issuing-revoked", ca.sign("1h"), other)
    while datetime.now(UTC) <= expired.not_valid_after_utc + timedelta(seconds=1):
        time.sleep(0.05)


# By CRL.


def openssl_verify(ca: Published, leaf: Leaf) -> str:
    done = ca.house.run(
        *(require_tool("openssl"), "verify", "-x509_strict", "-crl_check_all"),
        *("-CRLfile", leaf.crls / "both.pem", "-CAfile", ca.root, "-untrusted", ca.issuing),
        leaf.path,
    )
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return "good"
    found = re.search(r"at (\d) depth lookup: (.*)", said)
    assert found, said
    words = {"certificate revoked": "revoked", "certificate has expired": "expired"}
    return ("issuer " if found[1] == "1" else "") + words.get(found[2], found[2])


def certtool(ca: Published, leaf: Leaf) -> str:
    chain = ca.here / "chain.pem"
    chain.write_bytes(leaf.path.read_bytes() + ca.issuing.read_bytes())
    done = ca.house.run(
        *(require_tool("certtool"), "--verify", "--load-ca-certificate", ca.root),
        *("--load-crl", leaf.crls / "both.pem", "--infile", chain),
    )
    said = done.stdout + done.stderr
    found = re.search(r"^Chain verification output: (.*)$", said, re.MULTILINE)
    assert found, said
    if found[1] == "Verified. The certificate is trusted. ":
        return "good"
    if "expired" in found[1]:
        return "expired"
    assert "revoked" in found[1], said
    # It begins at the root's end, and goes no further than to the first that is refused.
    assert said.count("Not verified.") in (1, 2), said
    at = next(part for part in said.split("Subject:") if "Not verified." in part)
    return "issuer revoked" if "issuing-ca" in at.splitlines()[0] else "revoked"


def inspect_crl(ca: Published, leaf: Leaf) -> str:
    return inspected(ca, leaf, "--crl", leaf.crls / "both.pem")


def inspected(ca: Published, leaf: Leaf, option: str, file: Path) -> str:
    done = ca.house.run(
        *(BIN / "pki-inspect", "verify", leaf.path, "--roots", ca.root),
        *("--intermediates", ca.issuing, option, file, "--format", "json"),
    )
    if done.returncode == 2:
        assert "ocsp-unknown" in done.stderr or "does not know" in done.stderr, done.stderr
        return "unknown"
    problems = json.loads(done.stdout)["problems"]
    if not problems:
        return "good"
    codes = {problem["code"] for problem in problems}
    assert len(codes) == 1, problems
    is_issuer = any("issuing-ca" in problem["subject"] for problem in problems)
    return ("issuer " if is_issuer and "revoked" in codes else "") + min(codes)


# By OCSP.


def openssl_ocsp(ca: Published, leaf: Leaf) -> str:
    """POST, with a nonce."""
    done = ca.house.run(
        *(require_tool("openssl"), "ocsp", "-issuer", ca.issuing, "-cert", leaf.path),
        *("-url", f"{ca.url}/ocsp", "-CAfile", ca.root, "-verify_other", ca.issuing),
        "-nonce",
    )
    return ocsp_word(done, leaf)


def openssl_get(ca: Published, leaf: Leaf) -> str:
    """GET by curl, and openssl judges what came."""
    issuer = Issuer.of(load_certificates(ca.issuing.read_bytes())[0])
    request = OcspRequest((issuer.cert_id(leaf.serial, SHA1),))
    answer = leaf.path.with_suffix(".ocsp")
    ca.fetch(f"/ocsp/{encode_get(request.to_der())}", answer)
    done = ca.house.run(
        *(require_tool("openssl"), "ocsp", "-issuer", ca.issuing, "-cert", leaf.path),
        *("-respin", answer, "-no_nonce", "-CAfile", ca.root, "-verify_other", ca.issuing),
    )
    return ocsp_word(done, leaf)


def ocsp_word(done: Done, leaf: Leaf) -> str:
    said = done.stdout + done.stderr
    assert "Response verify OK" in said, said
    assert "WARNING" not in said, said
    found = re.search(r"\.pem: (\w+)", said)
    assert found, said
    if found[1] == "revoked":
        told = re.search(r"Reason: (.*)", said)
        reason = REASONS[leaf.path.stem]
        # OpenSSL 3.0 has no word for the ninth.
        words = {str(reason)} | ({"(UNKNOWN)"} if reason is Reason.PRIVILEGE_WITHDRAWN else set())
        assert (told[1] if told else "unspecified") in words, said
    return found[1]


def ocsptool(ca: Published, leaf: Leaf) -> str:
    done = ca.house.run(
        *(require_tool("ocsptool"), f"--ask={ca.url}/ocsp", "--nonce"),
        *("--load-cert", leaf.path, "--load-issuer", ca.issuing),
        *("--load-trust", ca.issuing),
    )
    said = done.stdout + done.stderr
    assert "Success" in said, said
    found = re.search(r"Certificate Status: (\w+)", said)
    assert found, said
    return found[1]


def inspect_ocsp(ca: Published, leaf: Leaf) -> str:
    openssl_get(ca, leaf)
    return inspected(ca, leaf, "--ocsp", leaf.path.with_suffix(".ocsp"))


@pytest.fixture(scope="module")
def java(ca: Published) -> dict[tuple[str, str], str]:
    """What Java says of every case, in one run."""
    leaves = [
        f"{leaf.path},{leaf.crls / 'issuing.der'},{leaf.crls / 'root.der'}"
        for leaf in ca.leaves.values()
    ]
    done = ca.house.run(
        *(require_tool("java"), HERE / "Revocation.java", ca.root, ca.issuing),
        *(f"{ca.url}/ocsp", *leaves),
    )
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(\S+)\.pem (\w+) (.*)$", done.stdout, re.MULTILINE)
    return {(name, way): java_word(name, said) for name, way, said in found}


def java_word(name: str, said: str) -> str:
    word, *reason = said.partition(" (")[0].split()
    if reason and name in REASONS:
        told = reason[0].replace("_", "").lower()
        assert told == str(REASONS[name]).lower(), said
    words = {"REVOKED": "revoked", "EXPIRED": "expired"}
    if name == "issuing-revoked" and word == "REVOKED":
        return "issuer revoked"
    if "UNKNOWN" in said.upper() and word == "UNDETERMINED_REVOCATION_STATUS":
        return "unknown"
    return words.get(word, word)


WITH_CRLS: dict[str, Any] = {
    "openssl verify -crl_check_all": openssl_verify,
    "certtool --verify --load-crl": certtool,
    "pki-inspect --crl": inspect_crl,
}
#: These look at the answer only; the others look at the certificate's dates too.
BLIND = ("openssl ocsp (POST, nonce)", "openssl ocsp (GET)", "ocsptool")
WITH_OCSP: dict[str, Any] = {
    "openssl ocsp (POST, nonce)": openssl_ocsp,
    "openssl ocsp (GET)": openssl_get,
    "ocsptool": ocsptool,
    "pki-inspect --ocsp": inspect_ocsp,
}


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize("tool", WITH_CRLS)
def test_by_our_crls_they_say_the_same(ca: Published, tool: str, case: str) -> None:
    assert WITH_CRLS[tool](ca, ca.leaves[case]) == BY_CRL[case]


@pytest.mark.parametrize("case", ASKED)
@pytest.mark.parametrize("tool", WITH_OCSP)
def test_by_our_ocsp_answers_they_say_the_same(ca: Published, tool: str, case: str) -> None:
    expected = BY_OCSP[case]
    if tool in BLIND and case == "expired":
        expected = "good"
    assert WITH_OCSP[tool](ca, ca.leaves[case]) == expected


@pytest.mark.interop("tests/interop/test_published.py::test_by_our_ocsp_answers_they_say_the_same")
@pytest.mark.parametrize("case", CASES)
def test_java_says_the_same(ca: Published, java: dict[tuple[str, str], str], case: str) -> None:
    assert java[case, "crl"] == BY_CRL[case]
    assert java[case, "ocsp"] == BY_OCSP[case]


def test_certtool_and_openssl_verify_the_crls_themselves(ca: Published) -> None:
    crls = ca.leaves["good"].crls
    for name, issuer in (("issuing", ca.issuing), ("root", ca.root)):
        done = ca.house.run(
            *(require_tool("certtool"), "--verify-crl", "--load-ca-certificate", issuer),
            *("--infile", crls / f"{name}.crl"),
        )
        assert "Verified. The certificate is trusted." in done.stdout + done.stderr
    shown = ca.house.run(
        require_tool("openssl"), "crl", "-in", crls / "issuing.crl", "-noout", "-text"
    ).stdout
    assert "X509v3 CRL Number" in shown
    assert shown.count("Serial Number:") == len(REASONS)


def test_openssl_asks_about_several_at_once(ca: Published) -> None:
    names = ("good", "superseded", "unknown-serial", "key-compromise")
    certs = [part for name in names for part in ("-cert", ca.leaves[name].path)]
    done = ca.house.run(
        *(require_tool("openssl"), "ocsp", "-issuer", ca.issuing, *certs),
        *("-url", f"{ca.url}/ocsp", "-CAfile", ca.root, "-verify_other", ca.issuing, "-nonce"),
    )
    said = done.stdout + done.stderr
    assert "Response verify OK" in said
    standings = re.findall(r"\.pem: (\w+)", said)
    assert standings == ["good", "revoked", "unknown", "revoked"]


def test_openssl_finds_the_crl_by_what_the_certificate_says(ca: Published) -> None:
    """Without being told where it is."""
    for case, status in (("good", 0), ("superseded", 2)):
        done = ca.house.run(
            *(require_tool("openssl"), "verify", "-crl_check", "-crl_download"),
            *("-CAfile", ca.root, "-untrusted", ca.issuing, ca.leaves[case].path),
        )
        assert done.returncode == status, done.stderr


def test_the_responder_is_found_by_what_the_certificate_says(ca: Published) -> None:
    done = ca.house.run(
        *(require_tool("openssl"), "x509", "-in", ca.leaves["good"].path, "-noout", "-ocsp_uri")
    )
    assert done.stdout.strip() == f"{ca.url}/ocsp"
    text = ca.house.run(
        *(require_tool("openssl"), "x509", "-in", ca.leaves["good"].path, "-noout", "-text")
    ).stdout
    (where,) = re.findall(r"CA Issuers - URI:(\S+)", text)
    issuer = ca.fetch(where.removeprefix(ca.url), ca.here / "issuer.der")
    found = x509.load_der_x509_certificate(issuer)
    assert found == load_certificates(ca.issuing.read_bytes())[0]


def test_the_api_says_the_same_at_every_door(ca: Published) -> None:
    leaf = ca.leaves["superseded"]
    for listener in ("socket", "tls"):
        origin, through = {
            "socket": ("http://localhost", ("--unix-socket", ca.house.socket)),
            "tls": (f"https://localhost:{ca.house.ca_port}", ()),
        }[listener]
        target = ca.here / f"{listener}.crl"
        done = ca.house.curl(f"{origin}/api/v1/crl", *through, "-f", "-o", target)
        assert done.returncode == 0, done.stderr
        assert x509.load_der_x509_crl(target.read_bytes()).get_revoked_certificate_by_serial_number(
            leaf.serial
        )


def test_revoking_is_seen_by_the_next_who_asks(ca: Published) -> None:
    """By CRL and by OCSP, at once, each time."""
    for n in range(5):
        leaf = ca.sign("1h")
        ca.keep(f"next-{n}", leaf, ca.here)
        assert openssl_get(ca, ca.leaves[f"next-{n}"]) == "good"
        ca.revoke(leaf.serial_number, Reason.SUPERSEDED)
        REASONS[f"next-{n}"] = Reason.SUPERSEDED
        assert openssl_get(ca, ca.leaves[f"next-{n}"]) == "revoked"
        der = ca.fetch("/crl", ca.here / "now.crl")
        crl = x509.load_der_x509_crl(der)
        assert crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
