"""What a TLS port of the mesh says to those who do not speak TLS 1.3, or speak it for the second time."""

import os
import re
from pathlib import Path

import pytest

from pki.serial import serial_pairs
from pki.svid.x509svid import load_certificates
from tests.interop.house import House, Identity, hears
from tests.interop.test_forged_clients import REFUSED, REQUEST
from tests.interop.test_revoked_clients import revoke
from tests.interop.wires import listening, recorder, talk
from tests.running import Running, until

PLAIN_REQUEST = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: A TLS record of a handshake message that is no ClientHello: a Finished, out of order.
OUT_OF_ORDER = bytes.fromhex("160301000414000000")

NOT_TLS: dict[str, tuple[bytes, str]] = {
    "plain HTTP": (
        PLAIN_REQUEST,
        r"not-tls: the peer speaks plain HTTP \(use https:// on this port\)",
    ),
    "garbage": (bytes(range(255, 128, -1)) * 9, r"not-tls: what the peer sent is not TLS"),
    "zeros": (bytes(500), r"not-tls: what the peer sent is not TLS"),
    "a message out of order": (OUT_OF_ORDER, r"malformed: the peer sent a message out of order"),
    "a record too long": (b"\x16\x03\x01\xff\xff" + bytes(100), r"not-tls: "),
    "half a ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", r"interrupted: "),
    "nothing": (b"", r"interrupted: "),
}

PORTS = ("server", "ca")


def listener(shared: House, port: str) -> tuple[Running, int, str]:
    """A TLS port, the process behind it, and what a good client gets there."""
    if port == "server":
        return shared.server, shared.port, "/api/status"
    return shared.ca, shared.ca_port, "/api/v1/trust"


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("what", NOT_TLS)
def test_what_is_not_tls_is_refused_in_words(what: str, port: str, shared: House) -> None:
    running, number, _ = listener(shared, port)
    sent, words = NOT_TLS[what]
    with hears(running, REFUSED + words):
        answered = talk(number, sent)
    assert b"HTTP" not in answered
    # Either a TLS alert record or nothing at all.
    assert answered == b"" or answered[0] == 0x15
    shared.assert_it_serves()


@pytest.mark.parametrize("port", PORTS)
def test_random_bytes_never_bring_it_down(port: str, shared: House) -> None:
    running, number, _ = listener(shared, port)
    for size in (1, 5, 6, 64, 4096, 100_000):
        with hears(running, REFUSED):
            talk(number, os.urandom(size))
    shared.assert_it_serves()


def test_curl_hears_that_plain_http_is_not_spoken(shared: House) -> None:
    with hears(shared.server, REFUSED + "not-tls: the peer speaks plain HTTP"):
        done = shared.curl(f"http://localhost:{shared.port}/api/status")
    assert done.returncode != 0
    assert "healthy" not in done.stdout


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_1"])
def test_older_tls_is_refused(version: str, port: str, shared: House) -> None:
    running, number, _ = listener(shared, port)
    good = shared.identity("payment-worker").for_openssl
    # Security level 0, or OpenSSL itself would not offer TLS 1.1.
    words = r"protocol-version: the peer speaks no TLS 1\.3 \(the mesh speaks TLS 1\.3 only: update the peer\)"
    with hears(running, REFUSED + words):
        done = shared.s_client(
            number, version, "-cipher", "DEFAULT:@SECLEVEL=0", *good, stdin=REQUEST
        )
    assert done.returncode == 1
    assert "alert protocol version" in done.stderr
    shared.assert_it_serves()


@pytest.mark.parametrize("port", PORTS)
def test_a_session_cannot_be_resumed(port: str, shared: House, tmp_path: Path) -> None:
    _, number, path = listener(shared, port)
    good = shared.identity("payment-worker")
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    session = tmp_path / "session"
    first = shared.s_client(number, *good.for_openssl, "-sess_out", session, stdin=request)
    assert "HTTP/1.1 200 OK" in first.stdout
    assert session.exists(), "a session came, so that there is something to resume"
    early = tmp_path / "early"
    early.write_text(request)
    resumed = ("-sess_in", session)
    for options in (resumed, (*resumed, "-early_data", early)):
        again = shared.s_client(number, *good.for_openssl, *options, stdin=request)
        assert "New, TLSv1.3" in again.stdout
        assert "Reused" not in again.stdout
        assert "Early data was not sent" in again.stdout
        # Only a full handshake shows the server's certificate again, and asks for ours.
        assert "depth=2" in again.stderr
        assert "Shared Requested Signature Algorithms" in again.stdout
    assert re.findall(r"Max Early Data: (\d+)", first.stdout) in ([], ["0"], ["0", "0"])


def test_a_session_of_a_good_client_lets_no_other_in(shared: House, tmp_path: Path) -> None:
    good = shared.identity("payment-worker")
    session = tmp_path / "session"
    shared.s_client(shared.port, *good.for_openssl, "-sess_out", session, stdin=REQUEST)
    with hears(shared.server, REFUSED + "no-certificate"):
        done = shared.s_client(shared.port, "-sess_in", session, stdin=REQUEST)
    assert "alert certificate required" in done.stderr
    assert "healthy" not in done.stdout


def test_a_recorded_handshake_cannot_be_replayed(shared: House) -> None:
    good = shared.identity("payment-worker")
    with listening(recorder(shared.port)) as proxy:
        with hears(shared.server, "Response sent to payment-worker: 200 OK"):
            done = shared.curl(shared.status_url(proxy.port), *good.for_curl)
        assert done.returncode == 0, done.stderr
    recorded = bytes(proxy.heard)
    assert len(recorded) > 1000
    (leaf, *_) = load_certificates(good.cert.read_bytes())
    told = f"Serial: {serial_pairs(leaf.serial_number)}"
    before = shared.server.text.count(told), shared.server.text.count("Handling request")
    with hears(shared.server, REFUSED):
        answered = talk(shared.port, recorded, hang_up=False)
    assert b"healthy" not in answered
    assert (shared.server.text.count(told), shared.server.text.count("Handling request")) == before
    shared.assert_it_serves()


def test_a_recorded_handshake_with_one_bit_changed_is_refused(shared: House) -> None:
    good = shared.identity("payment-worker")
    with listening(recorder(shared.port)) as proxy:
        shared.curl(shared.status_url(proxy.port), *good.for_curl)
    changed = bytearray(proxy.heard)
    changed[60] ^= 1
    with hears(shared.server, REFUSED):
        assert b"healthy" not in talk(shared.port, bytes(changed), hang_up=False)
    shared.assert_it_serves()


def test_several_requests_on_one_port_do_not_mix_their_callers(shared: House) -> None:
    for name in ("payment-worker", "billing", "payment-worker"):
        done = shared.curl(shared.status_url(), *shared.identity(name).for_curl)
        assert (
            done.stdout == f'{{"status":"healthy","caller":"spiffe://mesh.local/service/{name}"}}'
        )


@pytest.mark.parametrize("port", PORTS)
def test_a_revoked_client_that_offers_its_session_is_refused(
    port: str, shared: House, tmp_path: Path
) -> None:
    """What nginx and most others let straight back in."""
    running, number, path = listener(shared, port)
    gone = shared.identity(f"resuming-{port}")
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    session, early = tmp_path / "session", tmp_path / "early"
    early.write_text(request)
    first = shared.s_client(number, *gone.for_openssl, "-sess_out", session, stdin=request)
    assert "HTTP/1.1 200 OK" in first.stdout
    with hears(running, "WARNING: Connection from .* refused: revoked: serial "):
        revoke(shared, gone)
        until_refused(shared, number, path, gone)
    resumed = (*gone.for_openssl, "-sess_in", session)
    for options in (resumed, (*resumed, "-early_data", early)):
        with hears(running, "WARNING: Connection from .* refused: revoked: serial "):
            again = shared.s_client(number, *options, stdin=request)
        assert "200 OK" not in again.stdout
        assert "Reused" not in again.stdout
        assert "alert certificate revoked" in again.stderr


def until_refused(shared: House, port: int, path: str, gone: Identity) -> None:
    """Endpoints hear of it within a second."""
    url = f"https://localhost:{port}{path}"
    until(lambda: "alert certificate revoked" in shared.curl(url, *gone.for_curl).stderr)
