"""Two listeners of one process, one of each mode: what is said to one comes out of the other, by way of mutual TLS."""

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.running import PATIENCE, Mesh, Running, free_port, until

ID = "spiffe://mesh.local/service/proxy"


@define(eq=False)
class Pair:
    """mesh-proxy with a file: a client's listener whose target is a server's, whose target is a backend."""

    mesh: Mesh
    target: str
    """Of the server's listener."""
    inside: str = ""
    """More lines of the server's table."""
    outside: str = ""
    """More lines of the client's."""
    allow: str = ID
    verify: str = ID
    port: int = field(default=0, init=False)
    """Of the client's listener."""
    proxy: Running = field(init=False)
    status: int = field(factory=free_port, init=False)
    door: int = field(factory=free_port, init=False)
    """The port of the server's listener."""

    @property
    def config(self) -> Path:
        return self.mesh.home / f"proxy-{self.status}.toml"

    def write(self) -> None:
        """The file, as it is to be now."""
        self.config.write_text(
            f"""
[[listener]]
name = "in"
mode = "server"
listen = "127.0.0.1:{self.door}"
target = "{self.target}"
allow = ["{self.allow}"]
{self.inside}

[[listener]]
name = "out"
mode = "client"
listen = "127.0.0.1:0"
target = "localhost:{self.door}"
verify = ["{self.verify}"]
{self.outside}
"""
        )
        self.config.chmod(0o600)

    def start(self, *options: str) -> "Pair":
        self.write()
        words = ("--config", str(self.config), "--status", f"127.0.0.1:{self.status}")
        self.proxy = self.mesh.twistd("mesh-proxy", *words, *options)
        self.proxy.wait_for(r"Ready to carry connections\.")
        self.port = int(self.proxy.wait_for(r"Listener out \(client\) carries \S+:(\d+) to")[1])
        return self

    def call(self) -> socket.socket:
        """A caller of the client's listener."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def ask(self, path: str) -> tuple[int, bytes]:
        """A page of the status port, whatever its status."""
        url = f"http://127.0.0.1:{self.status}{path}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()

    def shown(self, name: str) -> dict[str, Any]:
        """What the status page says of a listener."""
        listeners = json.loads(self.ask("/status")[1])["listeners"]
        (found,) = [one for one in listeners if one["name"] == name]
        return dict(found)

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.proxy.process.pid}/fd"))

    def settled(self) -> None:
        """Wait until nothing is carried."""
        until(
            lambda: not any(self.shown(name)["open"] for name in ("in", "out")),
            lambda: self.ask("/status"),
        )


@contextmanager
def pair(mesh: Mesh, target: str, *options: str, **words: str) -> Iterator[Pair]:
    """One that runs, and is stopped."""
    running = Pair(mesh, target, **words).start(*options)
    try:
        yield running
    finally:
        running.proxy.stop()


def said_by(caller: socket.socket) -> bytes:
    """All that comes until the other side has said all."""
    found = bytearray()
    while data := caller.recv(65536):
        found += data
    return bytes(found)
