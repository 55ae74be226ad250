"""A thousand open connections, and one peer after the other is revoked: when is it refused, when is it cut?

From the moment at which the server's ``revoked`` has returned. The way from the CA to the server is
not in it.
"""

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen

from attrs import define, field
from cryptography import x509

from pki.serial import serial_hex
from pki.svid.x509svid import certificates_pem
from tests.authorities import MESH, Mesh, key, mesh
from tests.bench.processes import SERVER_CORE, script
from tests.bench.tables import Table, Value, median
from tests.running import PATIENCE

_OPEN = 1000
_TRIALS = 200
CLIENT_KEY = key(9)
REQUEST = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


@define(eq=False)
class Watch:
    """Notes the moment at which each of many connections is closed by the other side."""

    closed: dict[int, float] = field(factory=dict)
    """By serial, on the monotonic clock."""
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _over: bool = False
    _lock: threading.Condition = field(factory=threading.Condition)

    def add(self, connection: ssl.SSLSocket, serial: int) -> None:
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, serial)

    def look(self) -> None:
        while not self._over:
            for found, _ in self._selector.select(0.1):
                connection = found.fileobj
                assert isinstance(connection, ssl.SSLSocket)
                try:
                    if connection.recv(65536):
                        continue
                except (ssl.SSLWantReadError, BlockingIOError):
                    continue  # a session ticket, say
                except OSError:
                    pass  # a reset is an end too
                now = time.monotonic()
                self._selector.unregister(connection)
                connection.close()
                with self._lock:
                    self.closed[found.data] = now
                    self._lock.notify_all()

    def wait_for(self, serial: int) -> float:
        with self._lock:
            assert self._lock.wait_for(lambda: serial in self.closed, PATIENCE), "never closed"
            return self.closed[serial]

    def stop(self) -> None:
        self._over = True


class Unanswered(AssertionError):
    """A connection was there, and then no answer."""


@define(eq=False)
class Peers:
    """Clients, each with a certificate of its own and the same key."""

    issue: Callable[[int], Sequence[x509.Certificate]]
    """A certificate of that number for :data:`CLIENT_KEY`, and its intermediates."""
    home: Path
    """Where ``root.pem`` is."""
    port: int
    _made: Iterator[tuple[ssl.SSLContext, x509.Certificate]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._made = self._make()

    def _make(self) -> Iterator[tuple[ssl.SSLContext, x509.Certificate]]:
        (self.home / "client.key").write_bytes(CLIENT_KEY.to_pem())
        path, number = self.home / "client.pem", 0
        while True:
            leaf, *above = self.issue(number)
            path.write_bytes(certificates_pem((leaf, *above)))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.load_verify_locations(self.home / "root.pem")
            context.load_cert_chain(path, self.home / "client.key")
            yield context, leaf
            number += 1

    def new(self) -> tuple[ssl.SSLContext, x509.Certificate]:
        return next(self._made)

    def connect(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        """A connection on which a request has been answered; raises ``ssl.SSLError`` if it is refused."""
        plain = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection = context.wrap_socket(plain)
        try:
            connection.sendall(REQUEST)
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise Unanswered("it was let in, and not answered")
        except BaseException:
            connection.close()
            raise
        return connection


def found(home: Path) -> Mesh:
    """A CA, and what the server needs of it, in files."""
    now = datetime.now(UTC).replace(microsecond=0)
    ca = mesh(now=now - timedelta(hours=1))
    leaf = ca.leaf(MESH.member("service", "server"), now, leaf_key=key("server"))
    (home / "server.pem").write_bytes(certificates_pem((leaf, *ca.issuing.intermediates)))
    (home / "server.key").write_bytes(key("server").to_pem())
    (home / "root.pem").write_bytes(ca.bundle.to_pem())
    return ca


def revoke(server: "Popen[bytes]", issuer: str, serial: int) -> float:
    """When the server had done so."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(f"{issuer} {serial_hex(serial)}\n".encode())
    server.stdin.flush()
    return float(server.stdout.readline())


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once, of many trials: ``rounds`` are for what is slow."""
    home.mkdir(parents=True, exist_ok=True)
    ca = found(home)
    with script("tests.bench.live_server", SERVER_CORE, str(home)) as server:
        assert server.stdout is not None
        now = datetime.now(UTC)

        def issue(number: int) -> Sequence[x509.Certificate]:
            leaf = ca.leaf(MESH.member("service", f"s{number}"), now)
            return leaf, *ca.issuing.intermediates

        peers = Peers(issue, home, int(server.stdout.readline()))
        watch = Watch()
        watcher = threading.Thread(target=watch.look, daemon=True)
        open_ones = [opened(peers, watch) for _ in range(_OPEN)]
        watcher.start()
        say(f"{_OPEN:,} connections are open")
        refused, cut, let_in = [], [], 0
        for _ in range(_TRIALS):
            context, leaf = open_ones.pop(0)
            done = revoke(server, ca.issuing.key_id, leaf.serial_number)
            try:
                peers.connect(context).close()
                let_in += 1
            except ssl.SSLError as error:
                assert "REVOKED" in str(error).upper(), error
                refused.append((time.monotonic() - done) * 1000)
            cut.append((watch.wait_for(leaf.serial_number) - done) * 1000)
            open_ones.append(opened(peers, watch))
        say(f"{_TRIALS} have been revoked one by one")
        serial = ca.issuing.certificate.serial_number
        done = revoke(server, ca.root.key_id, serial)
        all_cut = [(watch.wait_for(leaf.serial_number) - done) * 1000 for _, leaf in open_ones]
        watch.stop()
        watcher.join()
    return Table(
        "revocation-live",
        f"{_OPEN:,} open connections with a certificate each; {_TRIALS} are revoked one by one, the rest at once",
        (
            row("one revoked: a new handshake of it is refused, ms", refused, 100.0),
            row("one revoked: its open connection is closed, ms", cut, 1000.0),
            row(f"the issuing CA revoked: all {_OPEN:,} are closed, ms", all_cut, 1000.0),
        ),
        (
            "From the moment at which the server's revoke() had returned until the client saw it.",
            f"New handshakes of a revoked peer that were let in (must be 0): {let_in}.",
        ),
    )


def opened(peers: Peers, watch: Watch) -> tuple[ssl.SSLContext, x509.Certificate]:
    context, leaf = peers.new()
    watch.add(peers.connect(context), leaf.serial_number)
    return context, leaf


def row(what: str, values: list[float], bound: float) -> dict[str, Value]:
    ordered = sorted(values)
    return {
        "": what,
        "median": round(median(ordered), 2),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 2),
        "most": round(ordered[-1], 2),
        "must be under": bound,
    }
