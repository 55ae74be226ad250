"""A CA, an agent and its socket, for workloads of any language: what docs/recipes/ says of the Workload API."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define

from tests.running import Mesh, is_listening, mesh, until

AGENT = "spiffe://mesh.local/mesh/agent/node-1"


@define(eq=False)
class Node:
    """One machine with an agent."""

    mesh: Mesh
    home: Path

    @property
    def socket(self) -> Path:
        return self.home / "workload.sock"

    @property
    def source(self) -> str:
        return f"workload:unix://{self.socket}"

    def entry(self, name: str, *options: str) -> str:
        """One for every process of this user; the ID that it buys."""
        spiffe_id = f"spiffe://mesh.local/service/{name}"
        words = (
            "--spiffe-id",
            spiffe_id,
            "--selector",
            f"unix:uid:{os.getuid()}",
            "--parent",
            AGENT,
        )
        done = self.mesh.ctl("entry", "create", *words, *options)
        assert done.returncode == 0, done.stderr
        return spiffe_id


@contextmanager
def node() -> Iterator[Node]:
    """A machine whose agent has joined."""
    with tempfile.TemporaryDirectory() as directory, mesh(Path(directory)) as running:
        made = Node(running, Path(directory))
        running.start_ca()
        token = made.home / "token"
        told = running.ctl("agent", "token", "create", "node-1", "--format", "json")
        token.touch(mode=0o600)
        token.write_text(json.loads(told.stdout)["token"] + "\n")
        agent = running.twistd(
            *("mesh-agent", "--name", "node-1", "--socket", str(made.socket)),
            *("--ca-url", f"https://localhost:{running.ca_port}"),
            *("--ca-fingerprint", running.fingerprint, "--join-token-file", str(token)),
            *("--state-dir", str(made.home / "agent")),
        )
        until(lambda: is_listening(made.socket), lambda: agent.text)
        yield made
