"""Real sockets, a flood of them: whoever proves who it is gets in, and nothing of the flood is kept."""

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define

from tests.flooding import KINDS, flooding, resident
from tests.running import CHECKOUT, PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]

MOST = 200


@define(eq=False)
class Server:
    """:mod:`tests.twisted_mesh.crowded`, in a process of its own."""

    process: "subprocess.Popen[str]"
    directory: Path
    port: int = 0

    def read(self, pattern: str) -> "re.Match[str]":
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if match := re.match(pattern, line):
                return match
        raise AssertionError(f"it never said {pattern!r}")

    @property
    def counted(self) -> dict[str, int]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        names = ("open", "unproven", "refused", "made-room", "descriptors")
        found = self.read(" ".join(rf"{name} (\d+)" for name in names))
        return dict(zip(names, map(int, found.groups()), strict=True))

    def context(self, *, proves: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.directory / "root.pem"))
        context.check_hostname = False  # it is named by a SPIFFE ID alone
        if proves:
            peer = self.directory / "peer.pem", self.directory / "peer_key.pem"
            context.load_cert_chain(*peer)
        return context

    def ask(self, *, proves: bool = True, times: int = 1) -> tuple[int, float]:
        """The status of the last of so many requests on one new connection, and the seconds that all took."""
        started = time.monotonic()
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as wire,
            self.context(proves=proves).wrap_socket(wire) as secured,
        ):
            for _ in range(times):
                secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                heard = secured.recv(65536)
                if not heard:
                    raise ConnectionResetError("it hung up")
            return int(heard.split()[1]), time.monotonic() - started

    def settled(self, open_: int = 0) -> dict[str, int]:
        """What is counted once no more than ``open_`` connections are."""
        deadline = time.monotonic() + PATIENCE
        while (counted := self.counted)["open"] > open_ and time.monotonic() < deadline:
            time.sleep(0.05)
        return counted


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.twisted_mesh.crowded", str(tmp_path), str(MOST)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    with process:
        running = Server(process, tmp_path)
        running.port = int(running.read(r"port (\d+)")[1])
        running.ask()
        yield running
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_peer_gets_in_while_a_flood_proves_nothing(
    kind: str, server: Server, record_property: Callable[[str, object], None]
) -> None:
    server.settled()
    before = server.counted["descriptors"]
    memory = resident(server.process.pid)
    waits, hung_up, most_open, most_besides = [], 0, 0, 0
    with flooding(server.port, kind, MOST):
        ends = time.monotonic() + 3
        while time.monotonic() < ends:
            try:
                status, seconds = server.ask()
            except OSError:  # its whole handshake took longer than so many others took to come
                hung_up += 1
                continue
            assert status == 200
            waits.append(seconds)
            counted = server.counted
            most_open = max(most_open, counted["open"])
            most_besides = max(most_besides, counted["descriptors"] - before - counted["open"])
    counted = server.settled()
    grown = resident(server.process.pid) - memory
    record_property(f"longest wait of an honest peer in a flood of {kind}", max(waits))
    record_property("longest growth by a flood, in MB", grown)
    assert hung_up <= len(waits) / 10
    assert sorted(waits)[len(waits) * 9 // 10] < 1.0
    assert most_open <= MOST // 2 + 64 + 2
    assert most_besides <= 2, "one for each connection, and nothing that is kept"
    assert counted["open"] == counted["unproven"] == 0
    assert counted["descriptors"] <= before
    assert grown < 32


def test_strangers_without_end_cost_memory_once(server: Server) -> None:
    """Whole requests without a certificate, each on a connection of its own and many on one."""
    server.ask(proves=False)
    before = resident(server.process.pid)
    answered = [server.ask(proves=False, times=20)[0] for _ in range(20)]
    # A hundred requests are let through, then one a second: which of them is chance.
    assert answered[:4] == [200] * 4 and answered[6:].count(429) >= 12
    assert server.ask()[0] == 200, "who proves who it is does not pay for strangers of its address"
    assert server.settled()["open"] == 0
    assert resident(server.process.pid) - before < 8
