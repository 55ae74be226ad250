"""A server that is in a process of its own, :mod:`tests.twisted_mesh.crowded`, and honest peers of it."""

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define

from tests.running import CHECKOUT, PATIENCE
from twisted_mesh.tls.transport import TRANSPORT


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

    def ask(
        self, *, proves: bool = True, times: int = 1, source: str = "127.0.0.1"
    ) -> tuple[int, float]:
        """The status of the last of so many requests on one new connection, and the seconds that all took."""
        started = time.monotonic()
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE, (source, 0)) as wire,
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


@contextmanager
def serving(directory: Path, most: int, transport: str = "") -> Iterator[Server]:
    """One that holds so many connections, on the transport that is usual if not on another."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.twisted_mesh.crowded", str(directory), str(most)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, **({TRANSPORT: transport} if transport else {})},
    )
    with process:
        running = Server(process, directory)
        running.port = int(running.read(r"port (\d+)")[1])
        running.ask()
        yield running
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE) == 0
