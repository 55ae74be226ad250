"""The whole way, with real processes: a CA, a server, a client."""

import ssl
import time
from contextlib import closing, suppress
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

import pytest

from tests.running import PATIENCE, Mesh, mesh


def kept_alive(port: int, identity: Path) -> HTTPSConnection:
    """A connection by Python's own TLS that proves ``identity``."""
    context = ssl.create_default_context(cafile=str(identity / "svid_bundle.pem"))
    context.load_cert_chain(identity / "svid.pem", identity / "svid_key.pem")
    return HTTPSConnection("localhost", port, context=context, timeout=PATIENCE)


def status_of(connection: HTTPSConnection, path: str) -> int:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def expiring(running: Mesh) -> Path:
    """An identity that is about to expire."""
    running.start_ca()
    running.start_server()
    return running.export("--ttl", "3s")


def test_two_services_prove_to_each_other_who_they_are(tmp_path: Path) -> None:
    with mesh(tmp_path, real=True) as running:
        ca = running.start_ca()
        server = running.start_server()
        done = running.client()
        assert done.returncode == 0, done.stderr
        assert (
            '{"status":"healthy","caller":"spiffe://mesh.local/service/payment-worker"}'
            in done.stdout
        )
        server.wait_for("Client identity verified: spiffe://mesh.local/service/payment-worker")
        assert server.stop() == 0
        assert ca.stop() == 0


@pytest.mark.slow
def test_a_connection_that_was_kept_open_ends_with_the_certificate_it_rests_on(
    tmp_path: Path,
) -> None:
    with mesh(tmp_path) as running:
        identity = expiring(running)
        began = time.monotonic()
        with closing(kept_alive(running.port, identity)) as connection:
            assert status_of(connection, "/api/status") == 200
            with suppress(OSError):
                assert connection.sock.recv(1) == b""
        assert time.monotonic() - began < 10


@pytest.mark.slow
def test_who_asks_on_such_a_connection_is_sent_off_with_an_answer_before_it_ends(
    tmp_path: Path,
) -> None:
    with mesh(tmp_path) as running:
        running.start_ca()
        running.start_server()
        identity = running.export("--ttl", "8s")
        with closing(kept_alive(running.port, identity)) as connection:
            assert status_of(connection, "/api/status") == 200
            deadline = time.monotonic() + PATIENCE
            while connection.sock is not None:  # until an answer says that it was the last
                assert time.monotonic() < deadline
                assert status_of(connection, "/api/status") == 200


@pytest.mark.slow
def test_an_expired_certificate_has_no_right_at_the_ca_on_an_open_connection_either(
    tmp_path: Path,
) -> None:
    with mesh(tmp_path) as running:
        identity = expiring(running)
        deadline = time.monotonic() + PATIENCE
        with closing(kept_alive(running.ca_port, identity)) as connection:
            trust = "/api/v1/trust?after=0"
            assert status_of(connection, trust) == 200
            connection.auto_open = False  # type: ignore[assignment]
            with suppress(HTTPException, OSError):
                while (status := status_of(connection, trust)) in (200, 429):  # it asks often
                    assert time.monotonic() < deadline
                assert status in (401, 403)
