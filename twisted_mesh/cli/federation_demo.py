"""``make demo-federation``: two trust domains learn of each other and part again, with real processes."""

import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

from attrs import define

from twisted_mesh.cli.demonstration import Demo, DemoFailed, run

_GO_PEER = Path(__file__).parents[2] / "tests" / "peers" / "go"
#: What go-spiffe asks for.
_LEAST_GO = (1, 24)
_BUILDS_WITHIN = 240.0


@define(eq=False)
class _Domain:
    """One of the two, and its CA."""

    demo: Demo
    name: str
    ca: subprocess.Popen[str]
    bundle_url: str
    crl_url: str

    @classmethod
    def started(cls, demo: Demo, name: str) -> "_Domain":
        demo.state = name
        socket = ("--workload-socket", str(demo.home / f"{name}.sock"))
        anywhere = ("--port", "0", "--federation", "127.0.0.1:0", "--crl-http", "127.0.0.1:0")
        ca = demo.start("mesh-ca", "--trust-domain", name, *anywhere, *socket)
        bundle = demo.wait_for(ca, r"Our bundle is served to other trust domains .* at (\S+)")[1]
        crls = demo.wait_for(ca, r"CRLs, OCSP answers .* at (http\S+?),")[1]
        demo.wait_for(ca, r"Ready to issue certificates")
        return cls(demo, name, ca, bundle, f"{crls}/crls")

    @property
    def root(self) -> str:
        """The file of its root."""
        return f"{self.name}/ca/root.crt"

    def id(self, path: str) -> str:
        return f"spiffe://{self.name}/{path}"

    def ctl(self, *words: str, last: int | None = None) -> str:
        """``mesh-ctl``, as its administrator."""
        self.demo.state = self.name
        return self.demo.run("mesh-ctl", *words, last=last)

    def enter(self, name: str, *more: str) -> None:
        """An entry for a service of this user."""
        user = f"unix:uid:{os.geteuid()}"
        named = ("--spiffe-id", self.id(f"service/{name}"))
        self.ctl("entry", "create", "--selector", user, *named, *more, last=0)

    def federate(self, other: "_Domain") -> None:
        """Begin with the file of the other's root, and follow its endpoint from then on."""
        proof = ("--spiffe-id", other.id("mesh/ca"), "--bundle", other.root)
        found = ("--url", other.bundle_url, "--crl-url", other.crl_url)
        told = ("--profile", "https_spiffe", *proof, *found)
        self.ctl("federation", "add", other.name, *told, last=0)

    def serve(self, name: str, *allow: str) -> tuple[subprocess.Popen[str], str]:
        """A server, and its URL."""
        self.demo.state = self.name
        patterns = [word for pattern in allow for word in ("--allow", pattern)]
        named = ("--trust-domain", self.name, "--spiffe-id", self.id(f"service/{name}"))
        server = self.demo.start("mesh-server", "--listen", "127.0.0.1:0", *named, *patterns)
        port = self.demo.wait_for(server, r"Starting mTLS server on \S*:(\d+)")[1]
        self.demo.wait_for(server, r"Ready to accept")
        return server, f"https://localhost:{port}"


def show(demo: Demo) -> None:
    """The whole demonstration. Raises :class:`DemoFailed`."""
    demo.step("Two certificate authorities start: of the bank, and of the shop")
    bank, shop = (_Domain.started(demo, name) for name in ("bank.example", "shop.example"))

    demo.step("The bank has two services: one for the shop, by name, and one for its own domain")
    for name in ("payments", "ledger"):
        bank.enter(name, "--federates-with", shop.name)
    shown = (shop.id("service/web"), shop.id("service/batch"))
    payments, url = bank.serve("payments", *shown)
    ledger, ledger_url = bank.serve("ledger")

    demo.step("The shop's first one calls it: nobody here has ever heard of the other domain")
    for name in ("web", "batch"):
        shop.enter(name, "--federates-with", bank.name)
    call = _call(shop, url, bank.id("service/payments"))
    demo.run("mesh-client", *call, expect=1, last=1)

    demo.step("Each is told of the other: its root by hand, once; then each follows the other")
    bank.federate(shop)
    shop.federate(bank)
    bank.ctl("federation", "list")
    demo.shown = re.compile(r"^\[SERVER\].* (closed|refused)")
    _until_believed(demo, call)
    demo.run("mesh-client", *call, last=2)

    demo.step("The shop's second one is written with go-spiffe, and has its identity from a socket")
    _ask_with_go(demo, shop, url, bank.id("service/payments"))

    demo.step("Whoever is not named stays out: federated or not, the default is one's own domain")
    others = _call(shop, ledger_url, bank.id("service/ledger"))
    demo.run("mesh-client", *others, expect=1, last=1)
    demo.wait_for(ledger, r"refused: not-authorized")

    demo.step("The bank ends it: open connections are closed, and no new one is accepted")
    demo.run("mesh-client", *call, "--export", "identity", last=0)
    opened = _kept_connection(demo, bank, int(url.rpartition(":")[2]))
    bank.ctl("federation", "remove", shop.name, "--yes")
    demo.say(f"  an open connection is closed, {_closed_after(opened):.0f} ms after that")
    demo.wait_for(payments, r"closed: unknown-trust-domain")
    demo.state = shop.name
    demo.run("mesh-client", *call, expect=1, last=1)

    demo.shown = re.compile("Stopp")
    demo.step("SIGTERM: requests finish, exit status 0")
    for process in (payments, ledger, bank.ca, shop.ca):
        process.send_signal(signal.SIGTERM)
        if process.wait(15) != 0:
            raise DemoFailed(f"a service ended with {process.returncode}")


def _call(shop: _Domain, url: str, server_id: str) -> tuple[str, ...]:
    """The words by which the shop's client calls that server of the bank's."""
    shop.demo.state = shop.name
    named = ("--trust-domain", shop.name, "--spiffe-id", shop.id("service/web"))
    return ("--server", url, "--server-id", server_id, *named)


def _until_believed(demo: Demo, call: tuple[str, ...]) -> None:
    """The other domain's CRLs are read first, and its bundle reaches the server by its feed: a moment."""
    demo.state = "shop.example"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done = subprocess.run(
            demo.command("mesh-client", *call),
            capture_output=True,
            cwd=demo.home,
            env=demo.environment,
            check=False,
        )
        if done.returncode == 0:
            return
        time.sleep(0.2)
    raise DemoFailed("the two trust domains never came to believe each other")


def _ask_with_go(demo: Demo, shop: _Domain, url: str, server_id: str) -> None:
    """By the program that is kept for the tests, where Go is there to build it; else by a word and mesh-client."""
    program, why_not = _built(demo.home)
    if program is None:
        demo.say(f"  {why_not}: mesh-client calls in its place")
        batch = ("--trust-domain", shop.name, "--spiffe-id", shop.id("service/batch"))
        demo.run("mesh-client", "--server", url, "--server-id", server_id, *batch, last=1)
        return
    demo.say(f"$ peer ask {url}/api/status {server_id} 3")
    done = subprocess.run(
        [program, "ask", f"{url}/api/status", server_id, "3"],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{demo.home / f'{shop.name}.sock'}",
            "SPIFFE_ID": shop.id("service/batch"),
        },
        check=False,
    )
    if done.returncode:
        raise DemoFailed(f"the client of go-spiffe says: {done.stderr.strip()}")
    demo.say(f"  {json.loads(done.stdout)['asked']} requests of go-spiffe were answered 200 OK")


def _built(home: Path) -> tuple[Path | None, str]:
    """The program, or why there is none."""
    go = shutil.which("go")
    if go is None or not _GO_PEER.is_dir():
        return None, "Go is not installed"
    env = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    told = subprocess.run(
        [go, "env", "GOVERSION"], capture_output=True, text=True, env=env, check=False
    )
    version = re.match(r"go(\d+)\.(\d+)", told.stdout)
    if version is None or tuple(map(int, version.groups())) < _LEAST_GO:
        return None, f"go-spiffe asks for Go 1.24, and this is {told.stdout.strip() or 'none'}"
    program = home / "peer"
    words = [go, "build", "-buildvcs=false", "-o", str(program), "."]
    built = subprocess.run(
        words, cwd=_GO_PEER, env=env, capture_output=True, timeout=_BUILDS_WITHIN, check=False
    )
    return (
        (program, "") if built.returncode == 0 else (None, "go-spiffe cannot be fetched from here")
    )


def _kept_connection(demo: Demo, bank: _Domain, port: int) -> http.client.HTTPSConnection:
    """A connection of the shop's that stays open, and has been answered once."""
    identity = demo.home / "identity"
    context = ssl.create_default_context(cafile=str(demo.home / bank.root))
    context.load_cert_chain(identity / "svid.pem", identity / "svid_key.pem")
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    connection.request("GET", "/api/status")
    answer = connection.getresponse()
    if answer.status != 200 or b"healthy" not in answer.read():
        raise DemoFailed(f"the open connection was answered {answer.status}")
    return connection


def _closed_after(connection: http.client.HTTPSConnection) -> float:
    """Milliseconds until the other side has closed it."""
    began = time.monotonic()
    if connection.sock.recv(1):
        raise DemoFailed("the open connection of a domain that is gone was answered")
    return (time.monotonic() - began) * 1000


_BY_HAND = """
docs/FEDERATION.md has it step by step, and what it lets another trust domain do."""


def main() -> int:
    """Returns the exit status."""
    return run(show, _BY_HAND)


if __name__ == "__main__":
    sys.exit(main())
