"""Thousands of open connections end at once: those of one certificate, which come back or do not, and an issuing CA's.

From the moment at which the server's ``revoked`` has returned until the client sees the end of each.
``python -m tests.bench.revocation_many DIRECTORY [HOW_MANY]`` measures the first without the rest, and
``python -m tests.bench.revocation_many DIRECTORY ca`` the last.
"""

import selectors
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen

from attrs import define, field
from cryptography import x509

from tests.authorities import MESH, Mesh
from tests.bench.processes import SERVER_CORE, cpu_seconds, script
from tests.bench.revocation_live import REQUEST, Peers, found, revoke, row
from tests.bench.tables import Table
from tests.running import PATIENCE

#: How many connections of one certificate are cut, and how many of those that come back at once.
IDLE, RETURNING = 9000, 3000
#: Of an issuing CA, with a certificate each.
BELOW_A_CA = 1000
#: Handshakes that are under way at once while the connections are made.
_AT_ONCE = 100
#: So many come back between two looks at those who have been cut.
_RETURNING_AT_ONCE = 10
#: Whoever comes back has this address for each so many: an address has some 28,000 ports.
_OF_ADDRESS = 5000


@define(eq=False)
class _Client:
    """One connection, and what it is about to do."""

    connection: ssl.SSLSocket
    number: int
    returns: bool = False
    """Whether it is one that has been cut before."""
    is_done: bool = False
    """Whether its request has been answered."""


@define(eq=False)
class Crowd:
    """Many clients in one thread: they connect, ask once, and note the moment at which they are cut."""

    port: int
    context_of: Callable[[int], ssl.SSLContext]
    comes_back: bool = False
    cut: dict[int, float] = field(factory=dict)
    """When the connection of that number was closed, on the monotonic clock."""
    let_in: int = 0
    """How many were answered that had been cut before."""
    refused: int = 0
    """How many came back and were refused."""
    server_seconds: float = 0.0
    """The server's processor time until the last was cut."""
    _answered: int = 0
    _returning: list[int] = field(factory=list)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)

    def connect(self, count: int) -> None:
        """Open so many, and have each answered."""
        begun = 0
        deadline = time.monotonic() + count / 20 + PATIENCE
        while self._answered < count:
            while begun < count and begun - self._answered < _AT_ONCE:
                self._begin(begun)
                begun += 1
            self._look(deadline)

    def watch(self, until: Callable[[], bool], seconds: float) -> None:
        """Until that is so; for so many seconds at most."""
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline:
            self._look(deadline)

    def close(self) -> None:
        for key in tuple(self._selector.get_map().values()):
            key.data.connection.close()
        self._selector.close()

    def _begin(self, number: int, *, returns: bool = False) -> None:
        plain = socket.socket()
        plain.setblocking(False)
        plain.bind((f"127.0.1.{1 + number // _OF_ADDRESS}", 0))
        plain.connect_ex(("127.0.0.1", self.port))
        try:
            wrapped = self.context_of(number).wrap_socket(plain, do_handshake_on_connect=False)
        except OSError:  # reset before it was connected: it tries again
            self._returning.append(number)
            plain.close()
            return
        client = _Client(wrapped, number, returns)
        self._selector.register(wrapped, selectors.EVENT_WRITE, client)

    def _look(self, deadline: float) -> None:
        for key, _ in self._selector.select(min(0.1, max(0.0, deadline - time.monotonic()))):
            client: _Client = key.data
            try:
                self._go_on(client)
            except ssl.SSLWantReadError:
                self._selector.modify(client.connection, selectors.EVENT_READ, client)
            except ssl.SSLWantWriteError:
                self._selector.modify(client.connection, selectors.EVENT_WRITE, client)
            except OSError:
                self._ended(client)
        # A few at a time: whoever makes connections sees late that others have been cut.
        returning = self._returning[:_RETURNING_AT_ONCE]
        del self._returning[:_RETURNING_AT_ONCE]
        for number in returning:
            self._begin(number, returns=True)

    def _go_on(self, client: _Client) -> None:
        connection = client.connection
        if connection.version() is None:
            connection.do_handshake()
            connection.sendall(REQUEST)
        said = connection.recv(65536)
        if not said:
            self._ended(client)
            return
        assert said.startswith(b"HTTP/1.1 200"), said
        client.is_done = True
        self._answered += 1
        self.let_in += client.returns
        raise ssl.SSLWantReadError

    def _ended(self, client: _Client) -> None:
        self._selector.unregister(client.connection)
        client.connection.close()
        if client.returns:
            self.refused += 1
        else:
            assert client.is_done, "it was refused before anything was revoked"
            self.cut[client.number] = time.monotonic()
        if self.comes_back:
            self._returning.append(client.number)


@contextmanager
def _serving(home: Path) -> Iterator[tuple[Mesh, "Popen[bytes]", Peers]]:
    home.mkdir(parents=True, exist_ok=True)
    ca = found(home)
    with script("tests.bench.live_server", SERVER_CORE, str(home)) as server:
        assert server.stdout is not None
        now = datetime.now(UTC)

        def issue(number: int) -> Sequence[x509.Certificate]:
            leaf = ca.leaf(MESH.member("service", f"s{number}"), now)
            return leaf, *ca.issuing.intermediates

        yield ca, server, Peers(issue, home, int(server.stdout.readline()))


def of_one_certificate(home: Path, count: int, *, comes_back: bool) -> tuple[list[float], Crowd]:
    """Milliseconds until each of so many was cut; and who saw it."""
    with _serving(home) as (ca, server, peers):
        context, leaf = peers.new()
        crowd = Crowd(peers.port, lambda _: context, comes_back)
        crowd.connect(count)
        before = cpu_seconds(server.pid)
        done = revoke(server, ca.issuing.key_id, leaf.serial_number)
        crowd.watch(lambda: len(crowd.cut) == count, PATIENCE)
        crowd.server_seconds = cpu_seconds(server.pid) - before
        crowd.close()
    assert len(crowd.cut) == count, f"{count - len(crowd.cut)} were never cut"
    return [(moment - done) * 1000 for moment in crowd.cut.values()], crowd


def below_a_ca(home: Path, count: int) -> tuple[list[float], Crowd]:
    """Milliseconds until each of so many, with a certificate each, was cut; and who saw it."""
    with _serving(home) as (ca, server, peers):
        contexts = [peers.new()[0] for _ in range(count)]
        crowd = Crowd(peers.port, contexts.__getitem__)
        crowd.connect(count)
        before = cpu_seconds(server.pid)
        done = revoke(server, ca.root.key_id, ca.issuing.certificate.serial_number)
        crowd.watch(lambda: len(crowd.cut) == count, PATIENCE)
        crowd.server_seconds = cpu_seconds(server.pid) - before
        crowd.close()
    assert len(crowd.cut) == count, f"{count - len(crowd.cut)} were never cut"
    return [(moment - done) * 1000 for moment in crowd.cut.values()], crowd


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once each: ``rounds`` are for what is slow."""
    idle, first = of_one_certificate(home / "idle", IDLE, comes_back=False)
    say(f"{IDLE:,} of one certificate are cut")
    returning, crowd = of_one_certificate(home / "returning", RETURNING, comes_back=True)
    say(f"{RETURNING:,} that come back are cut")
    below, third = below_a_ca(home / "ca", BELOW_A_CA)
    return Table(
        "revocation-many",
        "Connections that end at once",
        (
            row(f"{IDLE:,} of one certificate, ms", idle, 2500.0),
            row(f"{RETURNING:,} of one certificate that come back at once, ms", returning, 1000.0),
            row(f"{BELOW_A_CA:,} below a revoked issuing CA, ms", below, 1000.0),
        ),
        (
            "From the moment at which the server's revoke() had returned until the client saw it.",
            f"The server's processor time until the last was cut: {first.server_seconds:.2f} s, and "
            f"{crowd.server_seconds:.2f} s where they come back; {third.server_seconds:.2f} s below the issuing CA.",
            f"Of those that came back {crowd.refused:,} were refused meanwhile; let in (must be 0): {crowd.let_in}.",
        ),
    )


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    if sys.argv[2:] == ["ca"]:
        times, seen = below_a_ca(where, BELOW_A_CA)
        print(row("", times, 1000.0), f"{seen.server_seconds=:.2f}")
        sys.exit()
    how_many = int(sys.argv[2]) if len(sys.argv) > 2 else IDLE
    for comes_back in (False, True):
        times, seen = of_one_certificate(where, how_many, comes_back=comes_back)
        print(
            f"{comes_back=}",
            row("", times, 0.0),
            f"{seen.refused=} {seen.let_in=} {seen.server_seconds=:.2f}",
            flush=True,
        )
