"""Each fact that the classic walk-through of an mTLS mesh shows has a line here that states the same.

docs/DIFFERENCES.md says where the words differ, and why.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.running import Mesh, Running, mesh
from tests.tools import require_tool

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
SERIAL = r"([0-9A-F]{2}:){15}[0-9A-F]{2}"
ISSUER = r"CN=mtls-mesh-issuing-ca,OU=generation 1,O=mesh\.local"
SERVER_ID = r"spiffe://mesh\.local/service/api-server"
CLIENT_ID = r"spiffe://mesh\.local/service/payment-worker"


@frozen
class Told:
    """What a CA, a server and a client printed, from nothing to a rotation."""

    ca: str
    server: str
    client: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with mesh(tmp_path_factory.mktemp("guide")) as running:
        ca = running.twistd("mesh-ca", "--port", "0", "--cert-duration", "1h")
        ca.wait_for(r"Ready to issue certificates\.")
        server = running.start_server("--ttl", "4s")
        client = running.client()
        assert client.returncode == 0, client.stderr
        server.wait_for(r"Certificate rotation complete\.")
        server.wait_for(r"Response sent to payment-worker")
        yield Told(ca.text, server.text, client.stdout)


CA = {
    "generating the root's key": r"\[CA\] Generating Root CA key pair \(RSA-4096\)\.\.\.",
    "the root is created": r"\[CA\] Root CA certificate created:",
    "its subject": r"^  Subject: CN=mtls-mesh-root-ca",
    "its serial": rf"^  Serial: {SERIAL}",
    "its validity": rf"^  Valid: {TIME} to {TIME}",
    "its key usage": r"^  Key Usage: Certificate Sign, CRL Sign",
    "where the API listens": r"\[CA\] API server listening on \S+:\d+",
    "endpoints": r"\[CA\] Endpoints:",
    "sign": r"POST /api/v1/sign +Submit CSR, receive signed certificate",
    "ca": r"GET /api/v1/ca +Download CA root certificate",
    "revoke": r"POST /api/v1/revoke +Revoke a certificate",
    "ready": r"\[CA\] Ready to issue certificates\.",
    "a CSR arrived": r"\[CA\] Received CSR:",
    "whose subject": r"^  Subject: CN=api-server",
    "and which name was asked for": rf"^  Requested SAN: {SERVER_ID}",
}
SERVER = {
    "generating the key": r"\[SERVER\] Generating service key pair \(ECDSA P-256\)\.\.\.",
    "the CSR": rf"\[SERVER\] Creating CSR for identity: {SERVER_ID}",
    "the request": r"\[SERVER\] Requesting certificate from CA at \S+\.\.\.",
    "issued": r"\[SERVER\] Certificate issued:",
    "serial": rf"^  Serial: {SERIAL}",
    "issuer": rf"^  Issuer: {ISSUER}",
    "subject": r"^  Subject: CN=api-server",
    "SAN": rf"^  SAN URI: {SERVER_ID}",
    "valid": rf"^  Valid: {TIME} to {TIME}",
    "expires in": r"^  Expires in: \d+s",
    "where it listens": r"\[SERVER\] Starting mTLS server on \S*:\d+",
    "demands a certificate": r"\[SERVER\] Client certificate required: YES",
    "trusted CA": r"\[SERVER\] Trusted CA: CN=mtls-mesh-root-ca",
    "rotation scheduled": r"\[SERVER\] Certificate rotation scheduled:",
    "when": rf"^  Next rotation: {TIME} \(in \w+\)",
    "ready": r"\[SERVER\] Ready to accept mTLS connections\.",
}
CONNECTION = {
    "new connection": r"\[SERVER\] New connection from 127\.0\.0\.1:\d+",
    "certificate presented": r"\[SERVER\] Client certificate presented:",
    "subject": r"^  Subject: CN=payment-worker",
    "SAN": rf"^  SAN URI: {CLIENT_ID}",
    "issuer": rf"^  Issuer: {ISSUER}",
    "serial": rf"^  Serial: {SERIAL}",
    "identity verified": rf"\[SERVER\] Client identity verified: {CLIENT_ID}",
    "request": r"\[SERVER\] Handling request: GET /api/status",
    "response": r"\[SERVER\] Response sent to payment-worker: 200 OK",
}
ROTATION = {
    "triggered": r"\[SERVER\] Certificate rotation triggered \(50% lifetime reached\)",
    "new CSR": rf"\[SERVER\] Creating CSR for identity: {SERVER_ID}",
    "issued": r"\[SERVER\] New certificate issued:",
    "serial": rf"^  Serial: {SERIAL}",
    "valid": rf"^  Valid: {TIME} to {TIME}",
    "hot swap": r"\[SERVER\] Hot-swapping certificate\.\.\.",
    "open connections": r"\[SERVER\] Active connections: \d+ \(will use new cert for new connections\)",
    "complete": r"\[SERVER\] Certificate rotation complete\.",
    "next": rf"\[SERVER\] Next rotation: {TIME}",
}
CLIENT = {
    "generating the key": r"\[CLIENT\] Generating service key pair \(ECDSA P-256\)\.\.\.",
    "the CSR": rf"\[CLIENT\] Creating CSR for identity: {CLIENT_ID}",
    "the request": r"\[CLIENT\] Requesting certificate from CA",
    "issued": r"\[CLIENT\] Certificate issued:",
    "serial": rf"^  Serial: {SERIAL}",
    "subject": r"^  Subject: CN=payment-worker",
    "SAN": rf"^  SAN URI: {CLIENT_ID}",
    "valid": rf"^  Valid: {TIME} to {TIME}",
    "connecting": r"\[CLIENT\] Initiating mTLS connection to localhost:\d+\.\.\.",
    "details": r"\[CLIENT\] TLS Handshake Details:",
    "cipher": r"^  Cipher Suite: TLS_\w+",
    "version": r"^  TLS Version: TLS 1\.3",
    "server's identity": rf"^  Server Identity: {SERVER_ID}",
    "own identity": rf"^  Our Identity: {CLIENT_ID}",
    "established": r"\[CLIENT\] Connection established! Server verified our identity\.",
    "request sent": r"\[CLIENT\] Sending request: GET /api/status",
    "response": r"\[CLIENT\] Response: 200 OK",
    "body": rf'^  Body: {{"status":"healthy","caller":"{CLIENT_ID}"}}',
    "success": r"\[CLIENT\] mTLS mesh communication successful!",
}


def in_order(text: str, facts: dict[str, str]) -> None:
    """Every fact is there, each after the one before it."""
    position = 0
    for name, pattern in facts.items():
        found = re.compile(pattern, re.MULTILINE).search(text, position)
        assert found, f"{name}: {pattern!r} does not follow in:\n{text[position:]}"
        position = found.end()


def test_the_ca_tells_each_fact(told: Told) -> None:
    in_order(told.ca, CA)


def test_the_server_tells_each_fact(told: Told) -> None:
    in_order(told.server, SERVER)


def test_the_server_tells_each_fact_of_a_connection(told: Told) -> None:
    in_order(told.server, CONNECTION)


def test_the_server_tells_each_fact_of_a_rotation(told: Told) -> None:
    in_order(told.server, ROTATION)


def test_the_client_tells_each_fact(told: Told) -> None:
    in_order(told.client, CLIENT)


@pytest.fixture
def identity(tmp_path: Path) -> Iterator[tuple[Mesh, Running, Path]]:
    with mesh(tmp_path) as running:
        running.start_ca()
        server = running.start_server()
        yield running, server, running.export()


def test_the_walk_with_curl_and_openssl(identity: tuple[Mesh, Running, Path]) -> None:
    running, server, me = identity
    curl, openssl = require_tool("curl"), require_tool("openssl")
    url = f"{running.server_url}/api/status"
    trusting = ("--no-progress-meter", "--cacert", str(me / "svid_bundle.pem"))
    proving = ("--cert", str(me / "svid.pem"), "--key", str(me / "svid_key.pem"))

    good = running.run(curl, *trusting, *proving, url)
    assert (
        good.stdout == '{"status":"healthy","caller":"spiffe://mesh.local/service/payment-worker"}'
    )

    without = running.run(curl, *trusting, url)
    assert without.returncode == 56
    assert "certificate required" in without.stderr
    server.wait_for("refused: no-certificate: the peer presented no certificate")

    text = running.run(openssl, "x509", "-in", me / "svid.pem", "-text", "-noout").stdout
    for fact in (
        "URI:spiffe://mesh.local/service/payment-worker",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        "ecdsa-with-SHA256",
        "NIST CURVE: P-256",
    ):
        assert fact in text
    assert "Key Encipherment" not in text

    verified = running.run(
        openssl, "verify", "-x509_strict", "-CAfile", me / "svid_bundle.pem",
        "-untrusted", me / "svid.pem", me / "svid.pem",
    )  # fmt: skip
    assert verified.returncode == 0, verified.stderr

    session = running.run(
        openssl, "s_client", "-connect", f"localhost:{running.port}", "-servername", "localhost",
        "-CAfile", me / "svid_bundle.pem", "-cert", me / "svid.pem", "-cert_chain", me / "svid.pem",
        "-key", me / "svid_key.pem", "-verify_return_error", "-ign_eof",
        stdin="GET /api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    )  # fmt: skip
    assert "Verification: OK" in session.stdout
    assert '"status":"healthy"' in session.stdout
