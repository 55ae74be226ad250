"""What every recipe is tried with: a CA, agents that keep files, and a document whose blocks are what is run."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509

from pki.serial import serial_hex
from tests.running import BIN, PATIENCE, Mesh, Running, mesh, run, until

DOCUMENTS = Path(__file__).resolve().parent.parent.parent / "docs" / "recipes"
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_GREETING = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
#: What a client meets whom a server does not let in, and never one that it does.
REFUSED = (ssl.SSLError, ConnectionError, PermissionError)


def blocks(document: str, language: str) -> list[str]:
    """The blocks of that language in a recipe, without the indentation of a list."""
    text = (DOCUMENTS / f"{document}.md").read_text(encoding="utf-8")
    return [
        re.sub(rf"^{found[1]}", "", found[3], flags=re.MULTILINE)
        for found in _BLOCK.finditer(text)
        if found[2] == language
    ]


def adapted(block: str, here: dict[str, str | Path | int]) -> str:
    """A block for this machine: each place that it names by one of the test's own."""
    for theirs, ours in here.items():
        assert theirs in block, f"{theirs} is not in the recipe any more"
        block = block.replace(theirs, str(ours))
    return block


def probed(port: int, *options: str | Path) -> tuple[dict[str, Any], int]:
    """What ``pki-inspect probe`` sees of a server, and its exit status."""
    words = (BIN / "pki-inspect", "probe", f"localhost:{port}", *options, "--format", "json")
    done = run(*words, cwd=Path.cwd(), env={})
    return json.loads(done.stdout), done.returncode


@define(eq=False)
class Estate:
    """A CA and the directories of one test, where every user of the machine may go."""

    mesh: Mesh
    home: Path
    processes: "list[subprocess.Popen[bytes]]" = field(factory=list)

    def agent(self, directory: Path, name: str, *options: str | Path, user: str = "") -> Running:
        """mesh-agent for ``spiffe://mesh.local/service/NAME``; as that user where one is named."""
        words: list[str | Path] = [
            *(BIN / "mesh-agent", "--write", directory),
            *("--spiffe-id", f"spiffe://mesh.local/service/{name}", *options),
        ]
        env = dict(self.mesh.env)
        if user:
            words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *words]
            env["MESH_STATE_DIR"] = str(self.home / f"state-{user}")
            words += ["--ca-url", f"unix:{self.mesh.socket}"]
        running = Running.start(*words, cwd=self.home, env=env, real=bool(user))
        self.mesh.processes.append(running)
        running.wait_for(r"Files in \S+ are new: svid, bundle, crl")
        return running

    def identity(self, name: str, *options: str) -> "Identity":
        """Files that are kept no longer: those of somebody who is going to be revoked, say."""
        directory = self.home / f"of-{name}"
        self.agent(directory, name, *options).stop()
        return Identity(directory)

    def revoke(self, identity: "Identity") -> float:
        """Have its certificate revoked; when that was done, by a steady clock."""
        done = self.mesh.ctl("cert", "revoke", "--serial", serial_hex(identity.serial), "--yes")
        assert done.returncode == 0, done.stderr
        return time.monotonic()

    def start(self, *words: str | Path, log: Path | None = None) -> "subprocess.Popen[bytes]":
        """Somebody else's program."""
        out = (log or self.home / "programs.log").open("ab")
        with out:
            process = subprocess.Popen(
                list(map(str, words)), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@define(eq=False)
class Identity:
    """The files of one client."""

    directory: Path

    @property
    def current(self) -> Path:
        """One generation of them."""
        return (self.directory / "current").resolve()

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(
            (self.current / "svid.pem").read_bytes()
        ).serial_number

    def context(self) -> ssl.SSLContext:
        home = self.current
        context = ssl.create_default_context(cafile=str(home / "svid_bundle.pem"))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(home / "svid.pem", home / "svid_key.pem")
        return context

    def connected(self, port: int) -> ssl.SSLSocket:
        """A connection; a refusal comes with the first thing that is read."""
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        try:
            return self.context().wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def talk(self, port: int, said: bytes, enough: bytes) -> tuple[bytes, int]:
        """What is answered to ``said``, up to ``enough``, and the serial of who answers."""
        with self.connected(port) as connection:
            connection.sendall(said)
            answer = b""
            while enough not in answer:
                part = connection.recv(65536)
                if not part:
                    raise ConnectionResetError("it hung up")
                answer += part
            shown = connection.getpeercert(binary_form=True)
            assert shown is not None
            return answer, x509.load_der_x509_certificate(shown).serial_number

    def get(self, port: int) -> int:
        """The serial of whoever answers 200. Raises PermissionError for another status."""
        asked = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer, serial = self.talk(port, asked, b"\r\n\r\n")
        status = answer.split()[1]
        if status != b"200":
            raise PermissionError(status.decode())
        return serial


def over_rotations(ask: Callable[[], int], rotations: int, least: int = 1) -> int:
    """Ask until so many more certificates were seen, and at least so often; none may fail. How often it was."""
    seen: set[int] = set()
    asked = 0
    until_when = time.monotonic() + PATIENCE * max(1, rotations)
    while len(seen) <= rotations or asked < least:
        seen.add(ask())
        asked += 1
        assert time.monotonic() < until_when, f"{len(seen)} certificates in {asked} requests"
    return asked


def seconds_to_refusal(ask: Callable[[], object], since: float) -> float:
    """How long after ``since`` it is refused for good: a server that reloads may have old workers still."""

    def is_refused() -> bool:
        try:
            ask()
        except REFUSED:
            return True
        return False

    took = 0.0

    def is_refused_throughout() -> bool:
        nonlocal took
        took = time.monotonic() - since
        return all(is_refused() for _ in range(4))

    until(is_refused_throughout)
    return took


def run_shell(block: str, shell: Sequence[str] = ("sh", "-euc")) -> str:
    """What a block of shell prints. Raises :class:`PermissionError` where it fails."""
    done = subprocess.run([*shell, block], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise PermissionError(done.stderr)
    return done.stdout


@contextmanager
def greeting(identity: Identity | None = None) -> Iterator[int]:
    """A service that greets everybody over HTTP, with mutual TLS where it has an identity; its port."""
    context = None
    if identity is not None:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=str(identity.current / "svid_bundle.pem")
        )
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(identity.current / "svid.pem", identity.current / "svid_key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:
                    return
                with suppress(OSError), taken:
                    caller = context.wrap_socket(taken, server_side=True) if context else taken
                    with caller:
                        caller.recv(65536)
                        caller.sendall(_GREETING)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE)


@contextmanager
def estate(*options: str, ca: bool = True) -> Iterator[Estate]:
    """A directory, and in it a CA with those options, where one is wanted."""
    home = Path(tempfile.mkdtemp(prefix="mesh-recipe-"))
    home.chmod(0o755)
    try:
        with mesh(home) as running:
            if ca:
                running.start_ca(*options)
            made = Estate(running, home)
            try:
                yield made
            finally:
                made.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def is_open(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
