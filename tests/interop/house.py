"""A mesh that many tests knock at: its processes, the tools that call it, and what both sides said."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from tests.running import Mesh, Running

READY = r"Ready to accept mTLS connections\."
#: Seconds until a log line must be there once its cause is done.
HEARING = 10.0
HEALTHY = '"status":"healthy"'

Done = subprocess.CompletedProcess[str]


@frozen
class Identity:
    """Files as ``--export`` publishes them, or forged ones of the same names."""

    directory: Path

    @property
    def cert(self) -> Path:
        return self.directory / "svid.pem"

    @property
    def key(self) -> Path:
        return self.directory / "svid_key.pem"

    @property
    def for_curl(self) -> tuple[str | Path, ...]:
        return "--cert", self.cert, "--key", self.key

    @property
    def for_openssl(self) -> tuple[str | Path, ...]:
        """``-cert`` sends the leaf alone; ``-cert_chain`` what comes along, which may be the leaf again."""
        return "-cert", self.cert, "-cert_chain", self.cert, "-key", self.key


@frozen
class Reply:
    """What the CA's API answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """Of a problem document."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        code: str = self.json["code"]
        return code


@define(eq=False)
class House(Mesh):
    """A mesh whose every process is remembered, so that none of them can have shown a traceback."""

    said: list[str] = field(factory=list)

    @property
    def ca(self) -> Running:
        return self.processes[0]

    @property
    def server(self) -> Running:
        return self.processes[1]

    def run(self, *command: str | Path, **options: Any) -> Done:
        done = super().run(*command, **options)
        self.said.append(done.stdout + done.stderr)
        return done

    def identity(self, name: str, *options: str) -> Identity:
        """A good identity, made once: ``…/service/NAME``."""
        directory = self.home / f"of-{name}"
        if not directory.exists():
            spiffe_id = f"spiffe://mesh.local/service/{name}"
            done = self.client("--spiffe-id", spiffe_id, "--export", str(directory), *options)
            assert (directory / "svid.pem").exists(), done.stderr
        return Identity(directory)

    def curl(self, url: str, *options: str | Path) -> Done:
        """curl, which believes this mesh's root and no other."""
        return self.run("curl", "-sS", "--max-time", "30", "--cacert", self.root, *options, url)

    def s_client(self, port: int, *options: str | Path, stdin: str = "") -> Done:
        """``openssl s_client``, which sends ``stdin`` and then reads until the other side is done."""
        target = ("-connect", f"localhost:{port}", "-CAfile", self.root)
        return self.run("openssl", "s_client", *target, "-ign_eof", *options, stdin=stdin)

    def status_url(self, port: int = 0) -> str:
        return f"https://localhost:{port or self.port}/api/status"

    def assert_it_serves(self, port: int = 0) -> None:
        """A good client still gets its answer."""
        done = self.curl(self.status_url(port), *self.identity("payment-worker").for_curl)
        assert done.returncode == 0, done.stderr
        assert HEALTHY in done.stdout

    def ask(self, listener: str, path: str, *options: str | Path, method: str = "GET") -> Reply:
        """One request to the CA at one of its ``listeners``: socket, tls or plain."""
        opening: dict[str, tuple[str | Path, str]] = {
            "socket": (self.socket, "http://localhost"),
            "tls": ("", f"https://localhost:{self.ca_port}"),
            "plain": ("", f"http://localhost:{self.plain_port}"),
        }
        socket, origin = opening[listener]
        through = ("--unix-socket", socket) if socket else ()
        verb = ("--head",) if method == "HEAD" else ("-i", "-X", method)
        done = self.curl(f"{origin}{path}", *through, *verb, *options)
        assert done.returncode == 0, done.stderr
        return reply_of(done.stdout)

    def post(self, listener: str, path: str, body: object, *options: str | Path) -> Reply:
        text = body if isinstance(body, str) else json.dumps(body)
        sent = self.home / "body.json"
        sent.write_text(text)
        return self.ask(
            listener, path, *as_json(), "--data-binary", f"@{sent}", *options, method="POST"
        )

    @contextmanager
    def serving(self, *options: str) -> Iterator[tuple[Running, int]]:
        """One more mesh-server, and its port."""
        server = self.twistd("mesh-server", "--listen", "127.0.0.1:0", *options)
        try:
            server.wait_for(READY)
            yield server, int(server.wait_for(r"Starting mTLS server on \S*:(\d+)")[1])
        finally:
            assert server.stop() == 0

    def assert_nobody_met_a_traceback(self) -> None:
        for text in (*self.said, *(running.text for running in self.processes)):
            assert "Traceback" not in text, text


@contextmanager
def house(home: Path) -> Iterator[House]:
    """An empty house in ``home``; what is started there is stopped, and must have been polite."""
    home.mkdir(parents=True, exist_ok=True)
    inhabited = House(home)
    try:
        yield inhabited
    finally:
        inhabited.stop()
        inhabited.assert_nobody_met_a_traceback()


@contextmanager
def hears(running: Running, pattern: str, *, times: int = 1) -> Iterator[None]:
    """What is done inside makes ``running`` print ``pattern`` once more."""
    before = len(re.findall(pattern, running.text, re.MULTILINE))
    yield
    running.wait_for(pattern, HEARING, before + times)


def as_json() -> tuple[str, str]:
    return "-H", "content-type: application/json"


def reply_of(text: str) -> Reply:
    """A response as ``curl -i`` prints it; a 100 before it is passed over."""
    head, _, body = text.partition("\n\n")
    while re.match(r"HTTP/1.1 1\d\d", head):
        head, _, body = body.partition("\n\n")
    first, *rest = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (r.partition(":") for r in rest)}
    return Reply(int(first.split()[1]), headers, body)


@contextmanager
def house_of_one_kind(algorithm: str) -> Iterator[House]:
    """A CA whose keys are all of that kind, and encrypted, and a server like that; ``url`` says where the CRL is."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, house(Path(name)) as made:
        passphrase = made.home / "passphrase"
        passphrase.touch(0o600)
        passphrase.write_text("correct horse")
        ca = made.start_ca(
            *("--root-key", algorithm, "--issuing-key", algorithm, "--crl-http", "127.0.0.1:0"),
            *("--key-passphrase-file", str(passphrase)),
        )
        (made.home / "url").write_text(ca.wait_for(r"certificate are at (http://\S+), and")[1])
        server = made.start_server("--key", algorithm)
        yield made
        assert server.stop() == 0
        assert ca.stop() == 0
