"""Revoking reaches every server at once, through whatever becomes of the CA and of the way to it."""

import http.client
import json
import re
import select
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from attrs import define, field

from tests.ca_socket import CaSocket
from tests.interop.house import HEALTHY, Done, House, Identity, hears
from tests.interop.test_revoked_clients import REQUEST, revoke
from tests.interop.test_who_may import csr_for
from tests.interop.wires import client_context, tls
from tests.running import BIN, PATIENCE, Running, free_port, until

TOO_OLD = r"What has been revoked for .* is not known here"
FRESH = r"Revocations are fresh again"
SEVERED = r"Connection of spiffe://mesh\.local/service/{} from .* closed: {}: "


def call(house: House, identity: Identity, port: int) -> Done:
    return house.curl(house.status_url(port), *identity.for_curl)


def ask(connection: ssl.SSLSocket) -> bytes:
    connection.sendall(REQUEST)
    return connection.recv(65536)


def rest(connection: ssl.SSLSocket) -> bytes:
    """What still comes until the other side closes."""
    found = b""
    with suppress(OSError):
        while more := connection.recv(65536):
            found += more
    return found


@define(eq=False)
class Status:
    """What a server says of itself."""

    port: int

    def ask(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def ready(self) -> tuple[int, Any]:
        status, text = self.ask("/readyz")
        return status, json.loads(text)

    def metric(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self.ask("/metrics")[1], re.MULTILINE)
        assert found is not None, name
        return float(found[1])


@contextmanager
def serving(house: House, *options: str) -> Iterator[tuple[Running, int, Status]]:
    """One more server, its port and its status."""
    status = Status(free_port())
    with house.serving("--status", f"127.0.0.1:{status.port}", *options) as (server, port):
        yield server, port, status


@define(eq=False)
class Way:
    """The way to the CA's port, which a test can cut: connections hang then, and nobody gets a word."""

    to: int
    port: int = 0
    is_cut: bool = False
    _stopped: bool = False
    _server: socket.socket = field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _pairs: list[tuple[socket.socket, socket.socket]] = field(factory=list)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        while not self._stopped:
            ends = {} if self.is_cut else {end: pair for pair in self._pairs for end in pair}
            for ready in select.select([self._server, *ends], [], [], 0.02)[0]:
                if ready is self._server:
                    caller = self._server.accept()[0]
                    self._pairs.append((caller, socket.create_connection(("127.0.0.1", self.to))))
                elif not self.is_cut and ends[ready] in self._pairs:
                    one, other = ends[ready]
                    self._pass_on(ready, other if ready is one else one, ends[ready])

    def _pass_on(
        self, come: socket.socket, go: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        data = b""
        with suppress(OSError):
            data = come.recv(65536)
            go.sendall(data)
        if not data:
            self._pairs.remove(pair)
            for end in pair:
                end.close()

    def stop(self) -> None:
        self._stopped = True
        self._thread.join(PATIENCE)
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._server.close()


@pytest.fixture
def way(house: House) -> Iterator[Way]:
    house.start_ca()
    house.start_server()  # to get identities by
    made = Way(house.ca_port)
    yield made
    made.stop()


def by(way: Way, house: House, spiffe_id: str) -> tuple[str, ...]:
    """The options of a server that goes this way to the CA."""
    token = json.loads(
        house.ctl("token", "create", "--spiffe-id", spiffe_id, "--format", "json").stdout
    )
    return (
        "--ca-url", f"https://localhost:{way.port}", "--ca-fingerprint", token["fingerprint"],
        "--join-token", token["token"], "--spiffe-id", spiffe_id,
    )  # fmt: skip


# In time, and in order.


def test_who_is_revoked_is_cut_without_anybody_asking_again(shared: House) -> None:
    gone = shared.identity("feed-1")
    with tls(shared.port, shared.root, gone) as connection:
        assert b"200 OK" in ask(connection)
        revoke(shared, gone)
        assert rest(connection) == b""
    assert "alert certificate revoked" in call(shared, gone, shared.port).stderr


def test_a_server_over_tls_is_told_too_and_after_each_rotation(house: House, way: Way) -> None:
    options = by(way, house, "spiffe://mesh.local/service/far")
    with serving(house, *options, "--ttl", "6s") as (server, port, status):
        for number in range(3):
            gone = house.identity(f"feed-far-{number}")
            with tls(port, house.root, gone) as connection:
                assert b"200 OK" in ask(connection)
                revoke(house, gone)
                assert rest(connection) == b""
            server.wait_for("Certificate rotation complete", count=number + 1)
        assert status.metric("mesh_revocations_known") == 3
        assert "cannot be refreshed" not in server.text, "a rotation is no trouble"


def test_a_thousand_revocations_in_a_burst_all_arrive(house: House) -> None:
    house.start_ca()
    x = "spiffe://mesh.local/many/x"
    asked = [{"csr": csr_for(x), "requested_id": x}] * 1000
    with serving(house) as (server, _, status):
        serials = [answer["serial"] for answer in _posted(house, "/api/v1/sign", asked)]
        assert len(_posted(house, "/api/v1/revoke", [{"serial": s} for s in serials])) == 1000
        until(lambda: status.metric("mesh_revocations_known") == 1000)
        assert status.metric("mesh_revocation_stale") == 0
        assert "cannot be refreshed" not in server.text


def _posted(house: House, path: str, bodies: list[dict[str, str]]) -> list[Any]:
    """What the CA answers to each, of many at once."""

    def post(some: list[dict[str, str]]) -> list[Any]:
        with closing(CaSocket(house.socket)) as connection:
            return [connection.post(path, body) for body in some]

    callers = 16
    with ThreadPoolExecutor(callers) as pool:
        return [
            a
            for found in pool.map(post, (bodies[n::callers] for n in range(callers)))
            for a in found
        ]


# Whatever the caller is doing.


def test_who_is_revoked_while_it_uploads_gets_an_answer_that_says_so(shared: House) -> None:
    gone = shared.identity("feed-uploading")
    head = b"POST /api/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with tls(shared.port, shared.root, gone) as connection:
        connection.sendall(head + b"x" * 100)
        with hears(shared.server, SEVERED.format("feed-uploading", "revoked")):
            revoke(shared, gone)
            heard = rest(connection)
    assert heard.startswith(b"HTTP/1.1 403 ")
    assert b'"code":"revoked"' in heard


def test_who_is_revoked_in_the_middle_of_the_handshake_does_not_get_in(shared: House) -> None:
    gone = shared.identity("feed-shaking")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = client_context(shared.root, gone)
    shaking = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with (
        socket.create_connection(("127.0.0.1", shared.port), PATIENCE) as wire,
        tls(shared.port, shared.root, gone) as idle,
    ):
        assert b"200 OK" in ask(idle)
        while True:
            try:
                shaking.do_handshake()
                break
            except ssl.SSLWantReadError:
                wire.sendall(outgoing.read())
                incoming.write(wire.recv(65536))
        revoke(shared, gone)
        assert rest(idle) == b"", "now the server knows"
        shaking.write(REQUEST)
        with hears(shared.server, r"refused: revoked: serial"):
            wire.sendall(outgoing.read())  # our certificate, our Finished, and a request
            heard = _read(wire, incoming, shaking)
    assert heard == "CERTIFICATE_REVOKED"


def _read(wire: socket.socket, incoming: ssl.MemoryBIO, shaking: ssl.SSLObject) -> str:
    while True:
        try:
            return repr(shaking.read(65536))
        except ssl.SSLWantReadError:
            data = wire.recv(65536)
            if not data:
                return "nothing"
            incoming.write(data)
        except ssl.SSLError as error:
            return str(error.reason).removeprefix("TLSV1_ALERT_").removeprefix("SSLV3_ALERT_")


# Cut off.


def test_a_server_that_is_cut_off_for_too_long_lets_nobody_in_until_it_knows_all(
    house: House, way: Way
) -> None:
    gone, staying = house.identity("feed-gone"), house.identity("payment-worker")
    options = by(way, house, "spiffe://mesh.local/service/cut")
    with serving(house, *options, "--revocation-max-age", "4s") as (server, port, status):
        code, ready = status.ready()
        assert (code, ready["status"]) == (200, "ready")
        assert 0 <= ready["revocation_age_seconds"] < 4
        with tls(port, house.root, staying) as connection:
            assert b"200 OK" in ask(connection)
            way.is_cut = True
            revoke(house, gone)
            server.wait_for(TOO_OLD)
            assert rest(connection) == b""
        server.wait_for(SEVERED.format("payment-worker", "stale-revocation"))
        done = call(house, staying, port)
        assert "alert certificate unknown" in done.stderr
        server.wait_for(r"refused: stale-revocation: what was revoked after \S+Z is not known here")
        code, ready = status.ready()
        assert (code, ready["code"]) == (503, "stale-revocation")
        assert status.metric("mesh_revocation_stale") == 1
        assert time.time() - status.metric("mesh_revocation_known_timestamp_seconds") > 4
        way.is_cut = False
        outcomes = []
        until(lambda: outcomes.append(call(house, gone, port).stderr) or "revoked" in outcomes[-1])
        assert all("alert certificate" in heard for heard in outcomes), "it was never let in"
        assert HEALTHY in call(house, staying, port).stdout
        server.wait_for(FRESH)
        assert status.ready()[0] == 200


def test_with_grace_a_server_that_is_cut_off_goes_on_and_says_so(house: House, way: Way) -> None:
    gone = house.identity("feed-gone")
    options = by(way, house, "spiffe://mesh.local/service/cut")
    limits = ("--revocation-max-age", "3s", "--on-stale", "grace")
    with (
        serving(house, *options, *limits) as (server, port, status),
        tls(port, house.root, gone) as connection,
    ):
        assert b"200 OK" in ask(connection)
        way.is_cut = True
        revoke(house, gone)
        server.wait_for(r"WARNING: " + TOO_OLD)
        assert b"200 OK" in ask(connection)
        assert HEALTHY in call(house, gone, port).stdout
        assert status.ready()[0] == 200
        assert status.metric("mesh_revocation_stale") == 1
        way.is_cut = False
        assert rest(connection) == b""
        assert "alert certificate revoked" in call(house, gone, port).stderr
        server.wait_for(FRESH)


def test_a_ca_that_hangs_is_noticed_and_believed_again(house: House) -> None:
    ca = house.start_ca()
    house.start_server()
    staying = house.identity("payment-worker")
    with serving(house, "--revocation-max-age", "3s") as (server, port, _):
        ca.process.send_signal(signal.SIGSTOP)
        try:
            server.wait_for(TOO_OLD)
            assert "alert certificate unknown" in call(house, staying, port).stderr
        finally:
            ca.process.send_signal(signal.SIGCONT)
        server.wait_for(FRESH)
        assert HEALTHY in call(house, staying, port).stdout


# A CA that goes and comes.


def test_a_ca_that_stops_does_not_wait_for_those_who_wait(house: House) -> None:
    ca = house.start_ca()
    server = house.start_server()
    began = time.monotonic()
    assert ca.stop() == 0
    assert time.monotonic() - began < 8, (
        "the default of --drain is 10 s, and a question stands 25 s"
    )
    assert "requests were cut off" not in ca.text
    server.wait_for("Revocations cannot be refreshed from unix:")
    house.start_ca()
    server.wait_for(FRESH)


def test_what_is_revoked_by_the_next_life_of_the_ca_arrives(house: House) -> None:
    ca = house.start_ca()
    house.start_server()
    gone = house.identity("feed-gone")
    assert ca.stop(signal.SIGKILL) == -signal.SIGKILL
    house.start_ca()
    with tls(house.port, house.root, gone) as connection:
        assert b"200 OK" in ask(connection)
        revoke(house, gone)
        assert rest(connection) == b""


def test_a_ca_that_was_restored_begins_its_feed_anew(house: House) -> None:
    """Its next position may be the one that the server has already, of the record that is lost."""
    ca = house.start_ca()
    house.start_server()
    first, second = house.identity("feed-first"), house.identity("feed-second")
    archive = house.home / "ca.tar"
    assert house.ctl("backup", "create", archive).returncode == 0
    revoke(house, first)
    until(lambda: "alert certificate revoked" in call(house, first, house.port).stderr)
    fingerprint = house.fingerprint
    assert ca.stop() == 0
    shutil.rmtree(house.state / "ca")
    restored = house.ctl("backup", "restore", archive, "--fingerprint", fingerprint)
    assert restored.returncode == 0, restored.stderr
    house.start_ca()
    with tls(house.port, house.root, second) as connection:
        assert b"200 OK" in ask(connection)
        revoke(house, second)
        assert rest(connection) == b""
    assert "alert certificate revoked" in call(house, first, house.port).stderr, "nor forgotten"


def test_a_client_that_is_cut_off_for_too_long_calls_nobody(house: House) -> None:
    ca = house.start_ca()
    house.start_server()
    client = Running.start(
        BIN / "mesh-client", "--server", house.server_url, "--repeat", "1000", "--interval", "200ms",
        "--revocation-max-age", "3s", cwd=house.home, env=house.env,
    )  # fmt: skip
    house.processes.append(client)
    client.wait_for("mTLS mesh communication successful!")
    ca.process.send_signal(signal.SIGSTOP)
    try:
        assert client.wait() == 1
    finally:
        ca.process.send_signal(signal.SIGCONT)
    assert "stale-revocation" in client.text or "is not known here" in client.text
