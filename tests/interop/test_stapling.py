"""Stapling, as ``openssl s_client -status`` and mesh-client see it."""

import re

from pki.svid.x509svid import load_certificates
from tests.interop.house import House
from tests.interop.test_forged_clients import REQUEST

FALLEN = "spiffe://mesh.local/service/fallen-stapler"


def serial_in(text: str) -> int:
    found = re.search(r"Serial Number: ([0-9A-F]+)", text)
    assert found, text
    return int(found[1], 16)


def test_openssl_finds_the_server_stapled(shared: House) -> None:
    good = shared.identity("payment-worker")
    done = shared.s_client(shared.port, "-status", "-showcerts", *good.for_openssl, stdin=REQUEST)
    assert "OCSP Response Status: successful" in done.stdout
    assert "Cert Status: good" in done.stdout
    assert "HTTP/1.1 200 OK" in done.stdout
    pems = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", done.stdout, re.S)
    leaf = load_certificates(pems[-1].encode())[0]
    for pem in pems:
        (found,) = load_certificates(pem.encode())
        if found.serial_number == serial_in(done.stdout):
            leaf = found
    assert leaf.serial_number == serial_in(done.stdout), "it is about the server's certificate"


def test_the_ca_staples_too(shared: House) -> None:
    asked = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    done = shared.s_client(shared.ca_port, "-status", stdin=asked)
    assert "OCSP Response Status: successful" in done.stdout
    assert "Cert Status: good" in done.stdout


def test_a_client_may_demand_a_staple(shared: House) -> None:
    done = shared.client("--require-staple")
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_revoked_tells_it_itself(shared: House) -> None:
    good = shared.identity("payment-worker").for_openssl
    with shared.serving("--spiffe-id", FALLEN) as (server, port):
        before = shared.s_client(port, "-status", *good, stdin=REQUEST)
        assert "Cert Status: good" in before.stdout
        listed = shared.ask("socket", f"/api/v1/certificates?spiffe_id={FALLEN}")
        body = {"serial": listed.json["certificates"][0]["serial"], "reason": "keyCompromise"}
        assert shared.post("socket", "/api/v1/revoke", body).status == 200
        server.wait_for("ERROR: Our own certificate is revoked, and clients that ask are told so")
        after = shared.s_client(port, "-status", *good, stdin=REQUEST)
        assert "Cert Status: revoked" in after.stdout
        assert "Revocation Reason: keyCompromise (0x1)" in after.stdout
