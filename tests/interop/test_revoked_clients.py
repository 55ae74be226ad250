"""A revoked client: refused by every server within moments, and cut off where it is connected."""

import re
import ssl
import time

from tests.interop.house import Done, House, Identity, hears
from tests.interop.test_who_may import serial_of
from tests.interop.wires import tls
from tests.running import BIN, Running, until

REQUEST = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


def revoke(shared: House, identity: Identity) -> None:
    body = {"serial": serial_of(identity), "reason": "keyCompromise"}
    assert shared.post("socket", "/api/v1/revoke", body).status == 200


def until_refused(shared: House, identity: Identity) -> Done:
    """Call again and again: the server asks the CA once a second."""
    calls: list[Done] = []

    def refused() -> bool:
        calls.append(shared.curl(shared.status_url(), *identity.for_curl))
        return calls[-1].returncode != 0

    until(refused)
    return calls[-1]


def test_a_revoked_client_is_refused_within_moments(shared: House) -> None:
    gone = shared.identity("revoked-1")
    assert shared.curl(shared.status_url(), *gone.for_curl).returncode == 0
    words = r"WARNING: Connection from .* refused: revoked: serial .* was revoked at .* \(keyCompromise\)"
    started = time.monotonic()
    with hears(shared.server, words):
        revoke(shared, gone)
        done = until_refused(shared, gone)
    assert time.monotonic() - started < 5, "it is polled once a second"
    assert "alert certificate revoked" in done.stderr
    again = shared.curl(shared.status_url(), *gone.for_curl)
    assert "alert certificate revoked" in again.stderr, "and from then on"
    shared.assert_it_serves()


def test_an_open_connection_of_a_revoked_client_is_closed(shared: House) -> None:
    gone, staying = shared.identity("revoked-2"), shared.identity("payment-worker")
    with (
        tls(shared.port, shared.root, gone) as theirs,
        tls(shared.port, shared.root, staying) as ours,
    ):
        for connection in (theirs, ours):
            connection.sendall(REQUEST)
            assert b"200 OK" in connection.recv(65536)
        severed = (
            r"Connection of spiffe://mesh\.local/service/revoked-2 from .* closed: revoked: serial "
        )
        with hears(shared.server, severed):
            revoke(shared, gone)
            assert _rest(theirs) == b"", "nothing more is said on it"
        ours.sendall(REQUEST)
        assert b"200 OK" in ours.recv(65536), "others stay"


def test_the_ca_closes_the_connection_of_who_is_revoked(shared: House) -> None:
    gone = shared.identity("revoked-4")
    question = b"GET /api/v1/trust HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with tls(shared.ca_port, shared.root, gone) as connection:
        connection.sendall(question)
        assert b"200 OK" in connection.recv(65536)
        with hears(
            shared.ca, r"Connection of spiffe://mesh\.local/service/revoked-4 from .* closed: "
        ):
            revoke(shared, gone)
        assert _rest(connection) == b""


def _rest(connection: ssl.SSLSocket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def test_a_client_that_is_revoked_between_two_requests_says_so(shared: House) -> None:
    spiffe_id = "spiffe://mesh.local/service/revoked-3"
    client = Running.start(
        BIN / "mesh-client", "--server", shared.server_url, "--spiffe-id", spiffe_id,
        "--repeat", "1000", "--interval", "100ms", cwd=shared.home, env=shared.env,
    )  # fmt: skip
    shared.processes.append(client)
    client.wait_for("mTLS mesh communication successful!")
    listed = shared.ask("socket", f"/api/v1/certificates?spiffe_id={spiffe_id}").json[
        "certificates"
    ]
    shared.post("socket", "/api/v1/revoke", {"serial": listed[0]["serial"]})
    assert client.wait() == 1
    # Whichever is there first: the news of it, the alert, or both.
    assert re.search(
        r"mesh-client: (our own certificate, that of \S+revoked-3, would be refused: serial .* was revoked at "
        r"|the other side refused us: (it says that our certificate is revoked|our certificate, .* was revoked at ))",
        client.text,
    ), client.text


def test_a_revoked_server_is_refused_by_its_clients(shared: House) -> None:
    with shared.serving("--spiffe-id", "spiffe://mesh.local/service/fallen") as (_, port):
        options = (
            "--server",
            f"https://localhost:{port}",
            "--server-id",
            "spiffe://mesh.local/service/fallen",
        )
        assert shared.client(*options).returncode == 0
        listed = shared.ask(
            "socket", "/api/v1/certificates?spiffe_id=spiffe://mesh.local/service/fallen"
        )
        body = {"serial": listed.json["certificates"][0]["serial"]}
        assert shared.post("socket", "/api/v1/revoke", body).status == 200
        client = Running.start(
            BIN / "mesh-client", *options, "--repeat", "1000", "--interval", "100ms",
            cwd=shared.home, env=shared.env,
        )  # fmt: skip
        shared.processes.append(client)
        assert client.wait() == 1
        assert "mesh-client: revoked: serial" in client.text


def test_who_was_turned_away_and_is_revoked_then_is_not_even_told(
    shared: House, choosy: tuple[Running, int]
) -> None:
    server, port = choosy
    gone = shared.identity("revoked-5")
    with tls(port, shared.root, gone) as connection:
        server.wait_for(r"refused: not-authorized: spiffe://mesh\.local/service/revoked-5 is not")
        revoke(shared, gone)
        began = time.monotonic()
        assert _rest(connection) == b""
        assert time.monotonic() - began < 8, "and not after the time for a handshake"
