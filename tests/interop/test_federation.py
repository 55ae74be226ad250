"""Two trust domains as processes: who is let in by whom, and that neither can be anybody of the other."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from attrs import define
from cryptography import x509

from pki.spiffe import TrustDomain
from pki.svid.bundle import TrustBundle
from pki.svid.x509svid import load_certificates
from tests.interop import forging
from tests.interop.house import Identity
from tests.interop.test_jwt_and_oidc import WebCa
from tests.running import CHECKOUT, Mesh, Running, free_port, mesh, run, until
from tests.tools import require_tool

US = f"unix:uid:{os.geteuid()}"
OPENED = ("--federation", "127.0.0.1:0", "--crl-http", "127.0.0.1:0")
FIRST = (
    "tests/interop/test_federation.py::test_each_lets_the_other_in_by_name_and_nobody_without_one"
)
BANK, SHOP = "bank.example", "shop.example"


@define(eq=False)
class Domain:
    """A trust domain, and its CA."""

    name: str
    mesh: Mesh
    ca: Running
    bundle_url: str
    crl_url: str

    @classmethod
    def started(cls, name: str, running: Mesh) -> "Domain":
        ca = running.start_ca(*OPENED, "--trust-domain", name)
        bundle = ca.wait_for(r"Our bundle is served to other trust domains .* at (\S+)")[1]
        crls = ca.wait_for(r"certificate are at (http\S+?),")[1]
        return cls(name, running, ca, bundle, f"{crls}/crls")

    def restart(self) -> None:
        self.ca = self.mesh.start_ca(*OPENED, "--trust-domain", self.name)

    def id(self, path: str) -> str:
        return f"spiffe://{self.name}/{path}"

    def ctl(self, *words: str | Path) -> str:
        done = self.mesh.ctl(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def enter(self, name: str, *federates_with: str) -> str:
        more = [word for one in federates_with for word in ("--federates-with", one)]
        named = ("--spiffe-id", self.id(f"service/{name}"), "--format", "json")
        made = self.ctl("entry", "create", "--selector", US, *named, *more)
        entry: str = json.loads(made)["id"]
        return entry

    def federate(self, other: "Domain", *more: str) -> None:
        self.ctl(
            *("federation", "add", other.name, "--profile", "https_spiffe"),
            *("--spiffe-id", other.id("mesh/ca"), "--bundle", other.mesh.root),
            *("--url", other.bundle_url, *more),
        )

    def server(self, name: str, *allow: str) -> tuple[Running, str]:
        """Of this domain, with its URL."""
        patterns = [word for one in allow for word in ("--allow", one)]
        named = ("--trust-domain", self.name, "--spiffe-id", self.id(f"service/{name}"))
        server = self.mesh.start_server(*named, *patterns)
        return server, self.mesh.server_url

    def call(self, url: str, whom: str, *more: str) -> subprocess.CompletedProcess[str]:
        """As the service ``web`` of this domain."""
        named = ("--trust-domain", self.name, "--spiffe-id", self.id("service/web"))
        return self.mesh.client("--server", url, "--server-id", whom, *named, *more)

    def forged(self, spiffe_id: str, directory: Path) -> Identity:
        """What this CA's own key mints, of whatever name."""
        return forging.forged(
            directory, forging.issuing_authority(self.mesh.state), uris=[spiffe_id]
        )


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Domain, Domain]]:
    """Two that federate, with an entry on each side that says so."""
    require_tool("curl")
    require_tool("openssl")
    with ExitStack() as stack:
        made = []
        for name in (BANK, SHOP):
            running = stack.enter_context(mesh(tmp_path_factory.mktemp(name)))
            made.append(Domain.started(name, running))
        bank, shop = made
        for name in ("payments", "ledger", "web"):
            bank.enter(name, SHOP)
        shop.enter("web", BANK)
        bank.federate(shop, "--crl-url", shop.crl_url)
        shop.federate(bank)
        until(lambda: believed(bank) and believed(shop))
        yield bank, shop


def believed(domain: Domain) -> bool:
    rows = json.loads(domain.ctl("federation", "list", "--format", "json"))
    # What came with the file has no number yet.
    return all(row["believed"] and row["sequence"] for row in rows) and bool(rows)


def called(bank: Domain, shop: Domain) -> tuple[Running, str, str]:
    """A service of the bank that the shop's is let in by: its process, URL and ID."""
    server, url = bank.server("payments", shop.id("service/web"))
    whom = bank.id("service/payments")
    until(lambda: shop.call(url, whom).returncode == 0)
    return server, url, whom


def test_each_lets_the_other_in_by_name_and_nobody_without_one(
    domains: tuple[Domain, Domain],
) -> None:
    bank, shop = domains
    _, url, whom = called(bank, shop)
    assert f'"caller":"{shop.id("service/web")}"' in shop.call(url, whom).stdout
    closed, closed_url = bank.server("ledger")
    # Ours is let in by it: it serves.
    assert bank.call(closed_url, bank.id("service/ledger")).returncode == 0
    refused = shop.call(closed_url, bank.id("service/ledger"))
    assert refused.returncode == 1
    assert "is not among those that may connect" in refused.stderr
    closed.wait_for(r"refused: not-authorized")


@pytest.mark.interop(FIRST)
def test_what_is_exported_has_each_trust_domain_in_a_file_of_its_own(
    domains: tuple[Domain, Domain],
) -> None:
    bank, shop = domains
    _, url, whom = called(bank, shop)
    home = shop.mesh.home / "exported"
    assert shop.call(url, whom, "--export", str(home)).returncode == 0
    found = {path.name for path in home.iterdir() if path.suffix == ".pem"}
    assert found == {"svid.pem", "svid_key.pem", "svid_bundle.pem", f"svid_bundle.{BANK}.pem"}
    assert load_certificates((home / "svid_bundle.pem").read_bytes()) == roots(shop)
    assert load_certificates((home / f"svid_bundle.{BANK}.pem").read_bytes()) == roots(bank)


def roots(domain: Domain) -> tuple[x509.Certificate, ...]:
    return load_certificates(domain.mesh.root.read_bytes())


def test_a_foreign_ca_that_mints_our_names_is_refused_by_every_door(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    bank, shop = domains
    forged = shop.forged(bank.id("service/web"), tmp_path / "forged")
    genuine = shop.forged(shop.id("service/web"), tmp_path / "genuine")
    allow = (bank.id("service/web"), shop.id("service/web"))
    server, url = bank.server("payments", *allow)
    target = url.removeprefix("https://")
    options = [word for one in allow for word in ("--allow", one)]
    named = ("--trust-domain", BANK, "--spiffe-id", bank.id("service/payments"))
    proxy, port = bank.mesh.start_proxy(
        "server", target.replace("localhost", "127.0.0.1"), *named, *options
    )
    # They do believe the other one: what it may be, it is.
    until(lambda: not curl(url, genuine).returncode)
    ca_url = f"https://localhost:{bank.mesh.ca_port}"
    for door, at in ((server, url), (proxy, f"https://localhost:{port}"), (bank.ca, ca_url)):
        before = len(door.text)
        assert curl(at, forged).returncode in (35, 56)
        door.wait_for(r"refused: unknown-authority")
        assert len(door.text) > before
    # And the CA lets nobody of another trust domain in, whatever endpoints do.
    assert curl(ca_url, genuine).returncode in (35, 56)
    bank.ca.wait_for(r"refused: unknown-trust-domain")


def curl(url: str, identity: Identity) -> subprocess.CompletedProcess[str]:
    words = ("curl", "--silent", "--show-error", "--insecure", "--max-time", "20")
    path = "/livez" if "/" not in url.removeprefix("https://") else ""
    return subprocess.run(
        [*words, *map(str, identity.for_curl), url + (path or "")], capture_output=True, text=True
    )


@pytest.mark.interop(FIRST)
def test_a_server_that_a_foreign_ca_has_given_our_name_is_called_by_nobody(
    domains: tuple[Domain, Domain], tmp_path: Path
) -> None:
    bank, shop = domains
    names = forging.server_names(bank.id("service/ledger"))
    issuing = forging.issuing_authority(shop.mesh.state)
    posing = forging.forged(tmp_path / "posing", issuing, uris=[], replace=names)
    port = free_port()
    process = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"),
            *("-cert", str(posing.cert), "-cert_chain", str(posing.cert), "-key", str(posing.key)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(
            lambda: (
                not subprocess.run(
                    ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                ).returncode
            )
        )
        done = bank.call(f"https://localhost:{port}", bank.id("service/ledger"))
        assert done.returncode == 1
        assert "unknown-authority" in done.stderr
    finally:
        process.kill()
        process.wait()


@pytest.mark.interop(FIRST)
def test_whom_the_other_ca_has_revoked_is_refused_here(
    domains: tuple[Domain, Domain],
) -> None:
    bank, shop = domains
    _, url, whom = called(bank, shop)
    home = shop.mesh.home / "revoked"
    assert shop.call(url, whom, "--export", str(home)).returncode == 0
    shown = shop.mesh.run(
        sys.executable,
        CHECKOUT / "bin" / "pki-inspect",
        "show",
        home / "svid.pem",
        "--format",
        "json",
    )
    serial = json.loads(shown.stdout)[0]["serial"]
    shop.ctl("cert", "revoke", "--serial", serial, "--yes")
    # The list is asked for once a minute; a CA that starts anew asks at once.
    assert bank.ca.stop() == 0
    bank.restart()
    until(lambda: believed(bank))
    until(lambda: curl(url, Identity(home)).returncode in (35, 56))


def test_what_is_parted_is_cut(domains: tuple[Domain, Domain]) -> None:
    bank, shop = domains
    server, url, whom = called(bank, shop)
    home = shop.mesh.home / "parted"
    assert shop.call(url, whom, "--export", str(home)).returncode == 0
    context = ssl.create_default_context(cafile=str(bank.mesh.root))
    context.load_cert_chain(home / "svid.pem", home / "svid_key.pem")
    port = int(url.rpartition(":")[2])
    opened = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    opened.request("GET", "/api/status")
    assert opened.getresponse().read()
    bank.ctl("federation", "remove", SHOP, "--yes")
    assert opened.sock.recv(1) == b""
    server.wait_for(r"closed: unknown-trust-domain")
    assert shop.call(url, whom).returncode == 1
    server.wait_for(r"refused: unknown-trust-domain")
    opened.close()
    # It is over after a restart, too.
    assert bank.ca.stop() == 0
    bank.restart()
    assert json.loads(bank.ctl("federation", "list", "--format", "json")) == []


@pytest.mark.interop(FIRST)
def test_the_demonstration_comes_to_its_end() -> None:
    done = run(
        sys.executable,
        "-m",
        "twisted_mesh.cli.federation_demo",
        cwd=CHECKOUT,
        env={},
        timeout=400,
        real=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    for said in (
        "unknown-trust-domain: no bundle is held for bank.example",
        "The bundle of shop.example was had from https://localhost:",
        '"caller":"spiffe://shop.example/service/web"',
        "is not among those that may connect",
        "closed: unknown-trust-domain",
        "All of it worked",
    ):
        assert said in done.stdout


def test_by_the_web_the_bundle_is_served_with_its_certificate_which_is_read_again(
    tmp_path: Path,
) -> None:
    web = WebCa(tmp_path)
    told = ("--federation-cert", str(web.cert), "--federation-key", str(web.key))
    with mesh(tmp_path / "mesh") as running:
        profile = ("--federation", "127.0.0.1:0", "--federation-profile", "https_web")
        ca = running.start_ca(*profile, *told)
        url = ca.wait_for(r"Our bundle is served .*\(https_web\) at (\S+)")[1]
        with urlopen(url, context=web.context, timeout=20) as answer:
            bundle = TrustBundle.from_jwks(TrustDomain("mesh.local"), answer.read())
        assert bundle.roots == load_certificates(running.root.read_bytes())
        assert bundle.jwt_authorities
        web.renew()
        ca.process.send_signal(signal.SIGHUP)
        ca.wait_for(r"federation-cert .* was read again: CN=localhost")
        with urlopen(url, context=web.context, timeout=20) as answer:
            assert answer.status == 200
        # Nothing else is there.
        with pytest.raises(HTTPError, match="404"):
            urlopen(url.replace("/bundle", "/api/v1/ca"), context=web.context, timeout=20)


def test_a_mesh_of_our_own_name_is_nobody_to_federate_with(
    domains: tuple[Domain, Domain],
) -> None:
    bank, shop = domains
    told = ("--url", shop.bundle_url, "--profile", "https_web")
    done = bank.mesh.ctl("federation", "add", BANK, *told)
    assert done.returncode == 1
    assert "two meshes of one name cannot federate" in done.stderr
    done = bank.mesh.ctl(
        *("entry", "create", "--selector", US, "--spiffe-id", bank.id("service/x")),
        *("--federates-with", BANK),
    )
    assert done.returncode == 2
    assert "it names other trust domains" in done.stderr
