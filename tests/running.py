"""Processes for tests: the CA, servers and clients, as a user starts them, on free ports.

Our own programs are forked from a server that has imported them, where that makes no difference to them;
``real=True`` starts them as a shell does.
"""

import hashlib
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from attrs import define, field

from tests import forkserver

CHECKOUT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
#: How long anything may take on a loaded machine. Nothing waits this long unless it is broken.
PATIENCE = 30.0


def free_port() -> int:
    """One that nobody listens on; below those that systems give to whoever calls, or asks for any."""
    while True:
        port = 10_000 + secrets.randbelow(22_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def until(is_so: Callable[[], bool], otherwise: Callable[[], object] = str) -> None:
    """Wait for what no log tells, and no longer than it may take; ``otherwise`` says what is there instead."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, f"it never came to that: {otherwise()}"
        time.sleep(0.02)


def is_listening(path: Path) -> bool:
    """Whether somebody takes connections at a unix socket: it is bound before that."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


class NeverSaid(AssertionError):
    """A process did not print what was waited for."""


@define(eq=False)
class Running:
    """A process whose output is read as it comes."""

    process: subprocess.Popen[bytes] | forkserver.Forked
    _output: int
    _lines: list[str] = field(factory=list)
    _changed: threading.Condition = field(factory=threading.Condition)
    _readers: list[threading.Thread] = field(factory=list)

    @classmethod
    def start(
        cls,
        *command: str | Path,
        cwd: Path,
        env: dict[str, str] | None = None,
        real: bool = False,
    ) -> Self:
        words = [str(part) for part in command]
        whole = {**os.environ, **(env or {})}
        output, theirs = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            process: subprocess.Popen[bytes] | forkserver.Forked
            if not real and forkserver.can_fork(words, whole):
                process = forkserver.Forked.start(
                    words, stdin=nothing, stdout=theirs, stderr=theirs, cwd=cwd, env=whole
                )
            else:
                process = subprocess.Popen(
                    words, stdin=nothing, stdout=theirs, stderr=theirs, cwd=cwd, env=whole
                )
        finally:
            os.close(theirs)
            os.close(nothing)
        running = cls(process, output)
        reader = threading.Thread(target=running._read, daemon=True)
        reader.start()
        running._readers.append(reader)
        return running

    @property
    def text(self) -> str:
        """All that it has printed so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, patience: float = PATIENCE, count: int = 1) -> re.Match[str]:
        """The ``count``-th match of ``pattern`` in the output, as soon as it is there."""
        expression = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + patience
        with self._changed:
            while True:
                matches = list(expression.finditer("".join(self._lines)))
                if len(matches) >= count:
                    return matches[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or (
                    self.process.poll() is not None and not self._readers[0].is_alive()
                ):
                    raise NeverSaid(f"{pattern!r} x{count} is not in:\n" + "".join(self._lines))
                self._changed.wait(min(left, 0.5))

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and wait; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self, patience: float = PATIENCE) -> int:
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise NeverSaid("it did not end:\n" + self.text) from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def _read(self) -> None:
        with open(self._output) as stream:
            for line in stream:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


def run(
    *command: str | Path,
    cwd: Path,
    env: Mapping[str, str],
    stdin: str = "",
    timeout: float = PATIENCE * 2,
    real: bool = False,
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself; ``env`` is added to our own."""
    words = [str(part) for part in command]
    whole = {**os.environ, **env}
    if not real and forkserver.can_fork(words, whole):
        return forkserver.run(words, stdin=stdin, timeout=timeout, cwd=cwd, env=whole)
    return subprocess.run(
        words, input=stdin, capture_output=True, text=True, timeout=timeout, cwd=cwd, env=whole
    )


@define(eq=False)
class Mesh:
    """A state directory, and what runs on it. Everything that it started, it stops."""

    home: Path
    real: bool = field(default=False, kw_only=True)
    """Whether each of its processes starts as a shell starts it."""
    processes: list[Running] = field(factory=list)
    port: int = 0
    """Of the server that was started last."""
    ca_port: int = 0
    plain_port: int = 0

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def socket(self) -> Path:
        return self.state / "ca" / "ca.sock"

    @property
    def root(self) -> Path:
        return self.state / "ca" / "root.crt"

    @property
    def fingerprint(self) -> str:
        """Of the root, as whoever has written it down knows it."""
        der = ssl.PEM_cert_to_DER_cert(self.root.read_text())
        return f"sha256:{hashlib.sha256(der).hexdigest()}"

    @property
    def env(self) -> dict[str, str]:
        return {"MESH_STATE_DIR": str(self.state), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}

    def twistd(self, *arguments: str) -> Running:
        running = Running.start(
            BIN / "twistd", "-n", *arguments, cwd=self.home, env=self.env, real=self.real
        )
        self.processes.append(running)
        return running

    def start_ca(self, *options: str, wait: bool = True) -> Running:
        """mesh-ca on a free port with a small root key; with ``--insecure-http 0`` its port is known too."""
        ca = self.twistd("mesh-ca", "--port", "0", "--root-key", "ec-p256", *options)
        if wait:
            ca.wait_for(r"Ready to issue certificates\.")
            self.ca_port = int(ca.wait_for(r"listening on https://[^:]+:(\d+)")[1])
            if "--insecure-http" in options:
                self.plain_port = int(ca.wait_for(r"at http://localhost:(\d+)")[1])
        return ca

    def start_server(self, *options: str, wait: bool = True) -> Running:
        server = self.twistd("mesh-server", "--listen", "127.0.0.1:0", *options)
        if wait:
            server.wait_for(r"Ready to accept mTLS connections\.")
            self.port = int(server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1])
        return server

    def start_agent(self, directory: Path, *options: str | Path, wait: bool = True) -> Running:
        """mesh-agent that keeps files in ``directory``."""
        words = ("mesh-agent", "--write", directory, *options)
        if "--spiffe-id" not in options:
            words = (*words, "--spiffe-id", "spiffe://mesh.local/service/web")
        agent = self.twistd(*map(str, words))
        if wait:
            agent.wait_for(r"Files in \S+ are new: svid, bundle, crl")
        return agent

    def start_proxy(self, mode: str, target: str, *options: str | Path) -> tuple[Running, int]:
        """mesh-proxy with one listener on a free port of loopback; and that port, or 0 where it listens elsewhere."""
        words = ("mesh-proxy", "--mode", mode, "--target", target, *map(str, options))
        if "--listen" not in options:
            words = (*words, "--listen", "127.0.0.1:0")
        proxy = self.twistd(*words)
        proxy.wait_for(r"Ready to carry connections\.")
        found = proxy.wait_for(r"carries (?:\S+:(\d+)|\S+) to")
        return proxy, int(found[1] or 0)

    @property
    def server_url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """bin/mesh-client against the server that was started last, unless the arguments say otherwise."""
        server = () if "--server" in arguments else ("--server", self.server_url)
        return self.run(BIN / "mesh-client", *server, *arguments)

    def ctl(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """bin/mesh-ctl, which finds the CA by the state directory."""
        return self.run(BIN / "mesh-ctl", *arguments, stdin=stdin)

    def run(
        self,
        *command: str | Path,
        stdin: str = "",
        timeout: float = PATIENCE * 2,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        whole = {**self.env, **(env or {})}
        return run(*command, stdin=stdin, timeout=timeout, cwd=self.home, env=whole, real=self.real)

    def export(self, *options: str) -> Path:
        """An identity's files: needs a CA and a server that lets it in."""
        directory = self.home / f"identity-{len(list(self.home.glob('identity-*')))}"
        done = self.client("--export", str(directory), *options)
        assert (directory / "svid.pem").exists(), done.stderr
        return directory

    def stop(self) -> None:
        for running in reversed(self.processes):
            if running.process.poll() is None:
                running.process.kill()
            running.wait()


@contextmanager
def mesh(home: Path, *, real: bool = False) -> Iterator[Mesh]:
    """A mesh in ``home``, of which nothing is left running afterwards."""
    home.mkdir(parents=True, exist_ok=True)
    running = Mesh(home, real=real)
    try:
        yield running
    finally:
        running.stop()
