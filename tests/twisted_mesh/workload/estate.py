"""A CA, an agent and workloads, as processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from attrs import define, field

from tests.ca_socket import CaSocket
from tests.running import PATIENCE, Mesh, Running, is_listening, until

FOLLOWING = Path(__file__).with_name("following.py")
US = f"unix:uid:{os.geteuid()}"


@define(eq=False)
class Workload:
    """A process that follows its SVIDs, and what it has been told."""

    process: subprocess.Popen[str]
    _lines: SimpleQueue[str] = field(factory=SimpleQueue)
    reader: Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def told(self) -> dict[str, Any]:
        """The next of its answers."""
        try:
            found: dict[str, Any] = json.loads(self._lines.get(timeout=PATIENCE))
        except Empty:
            raise AssertionError("the workload is told nothing") from None
        return found

    def wait_for(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next that is so."""
        while True:
            found = self.told()
            if is_it(found):
                return found

    def wait_for_id(self, name: str) -> dict[str, Any]:
        return self.wait_for(
            lambda told: f"spiffe://mesh.local/service/{name}" in told.get("ids", ())
        )


@contextmanager
def workload(socket: Path, *options: str) -> Iterator[Workload]:
    process = subprocess.Popen(
        [sys.executable, str(FOLLOWING), str(socket), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    it = Workload(process)
    try:
        yield it
    finally:
        process.kill()
        process.wait(PATIENCE)
        it.reader.join(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()


@define(eq=False)
class Node:
    """An agent that has joined, with a state directory of its own."""

    mesh: Mesh
    name: str
    home: Path
    agent: Running | None = None

    @property
    def socket(self) -> Path:
        return self.home / "agent" / "workload.sock"

    @property
    def id(self) -> str:
        return f"spiffe://mesh.local/mesh/agent/{self.name}"

    def start(self, *options: str, token: str | None = None) -> Running:
        """The agent, with a token if there is one."""
        joining = ("--join-token", token) if token else ()
        self.agent = self.mesh.twistd(
            "mesh-agent",
            *("--name", self.name, "--state-dir", str(self.home)),
            *("--ca-url", f"https://localhost:{self.mesh.ca_port}"),
            *("--ca-fingerprint", self.mesh.fingerprint, *joining, *options),
        )
        until(lambda: is_listening(self.socket))
        return self.agent

    def join(self, *options: str) -> Running:
        """The agent, by a token of its own; it has its entries once this is over."""
        agent = self.start(*options, token=self.token())
        agent.wait_for("entries for the workloads of this machine")
        return agent

    def token(self) -> str:
        made = self.mesh.ctl("agent", "token", "create", self.name, "--format", "json")
        assert made.returncode == 0, made.stderr
        token: str = json.loads(made.stdout)["token"]
        return token

    def entry(self, name: str, *options: str, selector: str = US) -> str:
        """Make an entry of this agent's; its id."""
        made = self.mesh.ctl(
            *("entry", "create", "--parent", self.id, "--selector", selector),
            *("--spiffe-id", f"spiffe://mesh.local/service/{name}", "--format", "json", *options),
        )
        assert made.returncode == 0, made.stderr
        found: str = json.loads(made.stdout)["id"]
        return found


def status(path: Path, question: str = "/readyz") -> tuple[int, Any]:
    """What ``--status`` answers."""
    with closing(CaSocket(path)) as caller:
        caller.request("GET", question)
        answer = caller.getresponse()
        body = answer.read()
    return answer.status, json.loads(body) if question == "/readyz" else body.decode()
