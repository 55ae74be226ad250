"""Revocations that come from elsewhere than the CA: a CRL in a file, at a URL; OpenSSL's own responder."""

import asyncio
import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pki.crl.issue import issue_crl
from pki.issuing.authority import Authority
from pki.keys import MemoryKey
from pki.serial import serial_pairs
from pki.svid.revocation_set import Reason, Revocation
from pki.svid.x509svid import certificates_pem, load_certificates
from tests.interop.forging import HOUR, present
from tests.interop.house import House, Identity, hears
from tests.interop.test_revoked_clients import REQUEST, _rest
from tests.interop.wires import tls
from tests.running import Running, until

WORKER = "spiffe://mesh.local/service/payment-worker"


def leaf_of(identity: Identity) -> Any:
    return load_certificates(identity.cert.read_bytes())[0]


def crl(issuing: Authority, number: int, *revoked: Identity, lives: timedelta = HOUR) -> bytes:
    """The issuing CA's list of these."""
    now = present()
    listed = [
        Revocation(issuing.key_id, leaf_of(i).serial_number, now, Reason.SUPERSEDED, now + HOUR)
        for i in revoked
    ]
    made = issue_crl(issuing, listed, number, this_update=now, next_update=now + lives)
    return asyncio.run(made)


@contextmanager
def served(directory: Path) -> Iterator[int]:
    """What is in ``directory`` over plain HTTP, and its port."""
    handler = functools.partial(_Quiet, directory=str(directory))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def replace(path: Path, data: bytes) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(data)
    fresh.rename(path)


def test_whoever_a_file_lists_is_refused_and_cut_within_moments(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    gone, staying, listed = (
        shared.identity("crl-gone"),
        shared.identity("payment-worker"),
        shared.identity("crl-listed"),
    )
    path = tmp_path / "issuing.crl"
    path.write_bytes(crl(issuing, 1, listed))
    with shared.serving("--crl", str(path), "--spiffe-id", f"{WORKER}-crl-server") as (
        server,
        port,
    ):
        url = shared.status_url(port)
        refused = shared.curl(url, *listed.for_curl)
        assert "alert certificate revoked" in refused.stderr, "from the first connection on"
        with tls(port, shared.root, gone) as theirs, tls(port, shared.root, staying) as ours:
            for connection in (theirs, ours):
                connection.sendall(REQUEST)
                assert b"200 OK" in connection.recv(65536)
            with hears(server, r"Connection of \S*crl-gone from .* closed: revoked: "):
                replace(path, crl(issuing, 2, listed, gone))
                assert _rest(theirs) == b""
            ours.sendall(REQUEST)
            assert b"200 OK" in ours.recv(65536)
        # A list of before, and one that is cut short, change nothing.
        with hears(server, "refused: crl-rolled-back: "):
            replace(path, crl(issuing, 1))
        with hears(server, "refused: malformed: "):
            replace(path, crl(issuing, 3)[:-5])
        assert "alert certificate revoked" in shared.curl(url, *gone.for_curl).stderr
        shared.assert_it_serves(port)


def test_once_a_list_is_stale_nobody_is_let_in_until_there_is_a_new_one(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "issuing.crl"
    path.write_bytes(crl(issuing, 1, lives=timedelta(seconds=4)))
    good = shared.identity("payment-worker")
    with shared.serving("--crl", str(path), "--spiffe-id", f"{WORKER}-stale-server") as (
        server,
        port,
    ):
        server.wait_for("ERROR: The CRL of .* is stale")
        with hears(server, "refused: stale-revocation: the CRL from "):
            assert shared.curl(shared.status_url(port), *good.for_curl).returncode
        path.write_bytes(crl(issuing, 2))
        until(lambda: not shared.curl(shared.status_url(port), *good.for_curl).returncode)


def test_a_client_heeds_a_list_at_a_url(shared: House, issuing: Authority, tmp_path: Path) -> None:
    spiffe_id = "spiffe://mesh.local/service/listed-server"
    with shared.serving("--spiffe-id", spiffe_id) as (_, port), served(tmp_path) as http:
        options = (
            "--server", f"https://localhost:{port}", "--server-id", spiffe_id,
            "--crl", f"http://127.0.0.1:{http}/issuing.crl",
        )  # fmt: skip
        (tmp_path / "issuing.crl").write_bytes(crl(issuing, 1))
        assert shared.client(*options).returncode == 0
        listed = shared.ask("socket", f"/api/v1/certificates?spiffe_id={spiffe_id}")
        serial = int(listed.json["certificates"][0]["serial"], 16)
        now = present()
        revoked = Revocation(issuing.key_id, serial, now, Reason.SUPERSEDED, now + HOUR)
        made = issue_crl(issuing, [revoked], 2, this_update=now, next_update=now + HOUR)
        (tmp_path / "issuing.crl").write_bytes(asyncio.run(made))
        done = shared.client(*options)
        assert done.returncode == 1
        assert f"mesh-client: revoked: serial {serial_pairs(serial)} was revoked" in done.stderr
        (tmp_path / "issuing.crl").unlink()
        done = shared.client(*options)
        assert done.returncode == 1
        assert "stale-revocation: the CRL from http://127.0.0.1" in done.stderr


@contextmanager
def openssl_responder(
    home: Path, issuing: Authority, revoked: Identity, good: Identity
) -> Iterator[int]:
    """``openssl ocsp`` as the issuing CA's own responder, which knows of these two, and its port."""
    assert isinstance(issuing.key, MemoryKey)
    (home / "ca.pem").write_bytes(certificates_pem([issuing.certificate]))
    (home / "ca.key").write_bytes(issuing.key.to_pem())
    lines = []
    for identity, status, at in (
        (revoked, "R", f"{present():%y%m%d%H%M%SZ},superseded"),
        (good, "V", ""),
    ):
        leaf = leaf_of(identity)
        until = f"{leaf.not_valid_after_utc:%y%m%d%H%M%SZ}"
        lines.append(f"{status}\t{until}\t{at}\t{leaf.serial_number:X}\tunknown\t/CN=leaf\n")
    # openssl reads it again only once its time has another second.
    (home / "index.txt").write_text("".join(lines))
    responder = Running.start(
        "openssl", "ocsp", "-index", "index.txt", "-port", "0", "-rsigner", "ca.pem",
        "-rkey", "ca.key", "-CA", "ca.pem", "-nmin", "5", cwd=home,
    )  # fmt: skip
    try:
        yield int(responder.wait_for(r"ACCEPT \S*:(\d+)")[1])
    finally:
        responder.stop()


def test_openssls_responder_is_asked_about_each_new_peer(
    shared: House, issuing: Authority, tmp_path: Path
) -> None:
    gone, good = shared.identity("ocsp-gone"), shared.identity("ocsp-good")
    stranger = shared.identity("ocsp-stranger")
    with openssl_responder(tmp_path, issuing, gone, good) as ocsp:
        options = ("--ocsp", f"http://127.0.0.1:{ocsp}/", "--spiffe-id", f"{WORKER}-ocsp-server")
        with shared.serving(*options) as (server, port):
            url = shared.status_url(port)
            with hears(server, r"refused: revoked: serial .* \(superseded\)"):
                assert shared.curl(url, *gone.for_curl).returncode
            with hears(server, "refused: ocsp-unknown: "):
                assert shared.curl(url, *stranger.for_curl).returncode
            assert shared.curl(url, *good.for_curl).returncode == 0


def test_without_a_responder_nobody_is_let_in(shared: House) -> None:
    options = ("--ocsp", "http://127.0.0.1:9/", "--spiffe-id", f"{WORKER}-mute-server")
    words = "refused: ocsp-unreachable: nobody says whether it is revoked: "
    good = shared.identity("payment-worker")
    with shared.serving(*options) as (server, port), hears(server, words):
        assert shared.curl(shared.status_url(port), *good.for_curl).returncode


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--crl", "https://ca.example/crl"), "over plain http only"),
        (("--ocsp", "aia"), "--ocsp-origin http://HOST:PORT"),
        (("--crl-issuer", "/nowhere.pem"), "--crl-issuer"),
    ],
)
def test_options_that_cannot_be_used_end_the_start(
    options: tuple[str, ...], words: str, shared: House
) -> None:
    done = shared.client(*options)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("on_stale", ["fail-closed", "grace"])
def test_open_connections_are_closed_too_once_a_list_is_stale_unless_grace_is_given(
    on_stale: str, shared: House, issuing: Authority, tmp_path: Path
) -> None:
    path = tmp_path / "issuing.crl"
    path.write_bytes(crl(issuing, 1, lives=timedelta(seconds=6)))
    good = shared.identity("payment-worker")
    options = ("--crl", str(path), "--on-stale", on_stale)
    identity = ("--spiffe-id", f"{WORKER}-{on_stale}")
    with (
        shared.serving(*options, *identity) as (server, port),
        tls(port, shared.root, good) as connection,
    ):
        connection.sendall(REQUEST)
        assert b"200 OK" in connection.recv(65536)
        server.wait_for("ERROR: The CRL of .* is stale")
        if on_stale == "grace":
            connection.sendall(REQUEST)
            assert b"200 OK" in connection.recv(65536)
        else:
            server.wait_for("Connection of .* closed: stale-revocation: the CRL from ")
            assert _rest(connection) == b""
