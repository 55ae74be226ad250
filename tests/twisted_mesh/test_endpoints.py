"""Endpoint strings ``mesh:``: what they mean, what is refused, and a twistd web that is a server of the mesh."""

import re
import shutil
import socket
import ssl
import subprocess
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock

from pki.policy.join_token import JoinToken
from pki.rules.facts import RuleAction
from pki.spiffe import SpiffePattern
from pki.validity import rfc3339
from tests.recipes.pages import need
from tests.running import CHECKOUT, PATIENCE, Mesh, free_port, mesh, until
from tests.twisted_mesh.tls.wires import home
from twisted_mesh import endpoints
from twisted_mesh.endpoints import BadEndpoint
from twisted_mesh.identity.agent import Agent
from twisted_mesh.identity.shared import AGENTS
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.tls import groups

ID = "spiffe-id=spiffe\\://mesh.local/service/web"
LIBRARY = CHECKOUT / "docs" / "LIBRARY.md"
SHOP = "spiffe\\://mesh.local/service/shop"


class Reactor(MemoryReactorClock):
    """One that forgets triggers, too."""

    def removeSystemEventTrigger(self, trigger: object) -> None:
        """There is no shutdown here."""


@pytest.fixture
def reactor() -> MemoryReactorClock:
    return Reactor()


def test_a_server_is_understood(reactor: MemoryReactorClock, tmp_path: Path) -> None:
    text = f"mesh:0:interface=127.0.0.1:{ID}:dns=a.example,b.example:state-dir={tmp_path}:allow={SHOP},{SHOP}2"
    server = serverFromString(reactor, text)
    assert isinstance(server, endpoints.MeshServerEndpoint)
    assert [str(pattern) for pattern in server.allow] == [
        "spiffe://mesh.local/service/shop",
        "spiffe://mesh.local/service/shop2",
    ]
    assert server.asked.wanted.dns_names == ("a.example", "b.example")
    assert reactor.tcpServers == []  # nothing before it is listened on


def test_a_client_is_understood(reactor: MemoryReactorClock, tmp_path: Path) -> None:
    client = clientFromString(
        reactor, f"mesh:example.org:9443:peer={SHOP}:{ID}:state-dir={tmp_path}"
    )
    assert isinstance(client, endpoints.MeshClientEndpoint)
    assert client.peer == SpiffePattern.parse("spiffe://mesh.local/service/shop")


PIN, BACKUP = (f"sha256/{letter * 43}=" for letter in "AE")


def test_pins_are_understood(reactor: MemoryReactorClock, tmp_path: Path) -> None:
    text = (
        f"mesh:example.org:9443:peer={SHOP}:{ID}:state-dir={tmp_path}:peer-pin={SHOP}={PIN},{BACKUP};"
        f"spiffe\\://mesh.local/**={BACKUP},{PIN}:peer-pin-mode=report"
    )
    client = clientFromString(reactor, text)
    assert [str(rule) for rule in client.asked.wanted.pins.rules] == [
        f"spiffe://mesh.local/service/shop={PIN},{BACKUP}",
        f"spiffe://mesh.local/**={BACKUP},{PIN}",
    ]
    for wrong, why in (
        (f"peer-pin={SHOP}={PIN}", "peer-pin=: .* has one pin"),
        ("peer-pin-mode=enforce", "peer-pin-mode= says nothing without a pin"),
        (f"peer-pin={SHOP}={PIN},{BACKUP}:peer-pin-mode=enforce", "give peer-pin-until= and a"),
    ):
        with pytest.raises(BadEndpoint, match=why):
            serverFromString(reactor, f"mesh:9443:{ID}:state-dir={tmp_path}:{wrong}")


def test_hybrid_groups_are_required_of_peers_and_of_the_ca(
    reactor: MemoryReactorClock, tmp_path: Path
) -> None:
    (tmp_path / "root.crt").write_bytes(home().bundles.all_roots[0].public_bytes(Encoding.PEM))
    ca = f"ca-url=https\\://ca.example\\:8443:ca-file={tmp_path}/root.crt"
    for said, required in (("", False), (":require-pq=yes", True), (":require-pq=no", False)):
        client = clientFromString(
            reactor, f"mesh:h:9443:peer={SHOP}:{ID}:state-dir={tmp_path}:{ca}{said}"
        )
        assert client.asked.wanted.requires_pq is required
        assert client.asked.client.security.contexts.role.requires_pq is required
        agent = Agent(client.asked.client, client.asked.wanted, reactor, ())
        for serves in (True, False):
            assert agent.security(serves=serves).contexts.role.requires_pq is required
    with pytest.raises(BadEndpoint, match="require-pq=maybe: write yes or no"):
        serverFromString(reactor, f"mesh:9443:{ID}:state-dir={tmp_path}:require-pq=maybe")


def test_where_they_cannot_be_required_no_endpoint_is_made(
    reactor: MemoryReactorClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "HYBRID", ("Frodo976",))
    with pytest.raises(BadEndpoint, match="has none of X25519MLKEM768"):
        serverFromString(reactor, f"mesh:9443:{ID}:state-dir={tmp_path}:require-pq=yes")


RULE = 'version = 1\n[[rule]]\nname = "shop"\neffect = "allow"\nwhen = "peer.path == \'/service/shop\'"\n'


def test_a_policy_is_understood(reactor: MemoryReactorClock, tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text(RULE)
    file.chmod(0o600)
    told = f"{ID}:state-dir={tmp_path}:policy={file}"
    server = serverFromString(reactor, f"mesh:9443:{told}")
    client = clientFromString(reactor, f"mesh:example.org:9443:peer={SHOP}:{told}")
    for endpoint in (server, client):
        policy = endpoint.asked.wanted.policy
        assert policy is not None
        assert set(policy.actions) == {RuleAction.ACCEPT, RuleAction.CONNECT}
    assert server.asked == client.asked, "they share one identity"
    file.write_text(RULE.replace("[[rule]]", '[[rule]]\non = ["connect"]'))
    clientFromString(reactor, f"mesh:example.org:9443:peer={SHOP}:{told}")
    for wrong, why in (
        (told, "could allow accept: nobody would be let in"),
        (f"{ID}:state-dir={tmp_path}:policy={tmp_path / 'none'}", "policy= .*none"),
    ):
        with pytest.raises(BadEndpoint, match=why):
            serverFromString(reactor, f"mesh:9443:{wrong}")


def test_who_says_nothing_is_who_the_commands_are(
    reactor: MemoryReactorClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path))
    server = serverFromString(reactor, "mesh:9443")
    client = clientFromString(reactor, "mesh:h:9443:peer=spiffe\\://td.example/service/x")
    other = serverFromString(reactor, "mesh:9443:trust-domain=td.example:dns=a.example")
    asked = [endpoint.asked.wanted for endpoint in (server, client, other)]
    assert [str(wanted.spiffe_id) for wanted in asked] == [
        "spiffe://mesh.local/service/api-server",
        "spiffe://td.example/service/payment-worker",
        "spiffe://td.example/service/api-server",
    ]
    assert [wanted.dns_names for wanted in asked] == [
        ("localhost",),
        ("localhost",),
        ("a.example",),
    ]


@pytest.mark.parametrize(
    "text, said",
    [
        (f"mesh:9443:{ID}:alow={SHOP}", "alow= is no option of it: did you mean allow=?"),
        ("mesh:9443:spiffe-id=spiffe://mesh.local/service/web", "is one too many: a colon"),
        (f"mesh:http:{ID}", "http is no port"),
        (f"mesh:{ID}", "something is missing"),
        (f"mesh:9443:{ID}:key=rsa-512", "key= is one of"),
        (f"mesh:9443:{ID}:trust-domain=other.example", "is not of trust-domain=other.example"),
        (f"mesh:9443:{ID}:allow=spiffe\\://mesh.local/", "SPIFFE ID"),
    ],
    ids=["misspelt", "colon", "port", "no-port", "key", "domain", "allow"],
)
def test_a_server_that_cannot_be_meant_is_refused(
    text: str, said: str, reactor: MemoryReactorClock
) -> None:
    with pytest.raises(BadEndpoint) as refused:
        serverFromString(reactor, text)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "options, said",
    [
        (ID, "peer= is missing"),
        (f"{ID}:peer=spiffe\\://other.example/x", "can prove nothing to us"),
        (f"{ID}:peer={SHOP}:allow={SHOP}", "allow= is no option of it"),
    ],
    ids=["no-peer", "elsewhere", "allow"],
)
def test_a_client_that_cannot_be_meant_is_refused(
    options: str, said: str, reactor: MemoryReactorClock
) -> None:
    with pytest.raises(BadEndpoint, match=said):
        clientFromString(reactor, f"mesh:host:9443:{options}")


def test_one_identity_asked_for_in_two_ways_is_refused(
    reactor: MemoryReactorClock, tmp_path: Path
) -> None:
    first = serverFromString(reactor, f"mesh:0:{ID}:state-dir={tmp_path}")
    again = serverFromString(reactor, f"mesh:0:{ID}:state-dir={tmp_path}")
    other = serverFromString(reactor, f"mesh:0:{ID}:state-dir={tmp_path}:ttl=5m")
    waiting = [first.listen(None), again.listen(None)]
    failed = other.listen(None)
    problems: list[str] = []
    failed.addErrback(lambda failure: problems.append(str(failure.value)))
    assert "with other values of ttl: give both the same" in problems[0]
    for deferred in waiting:
        deferred.addErrback(lambda failure: None)
        deferred.cancel()
    assert not AGENTS[reactor]  # with the last of them
    assert not [call for call in reactor.getDelayedCalls() if call.active()]


def test_an_agent_keeps_no_token_that_its_source_forgets(
    reactor: MemoryReactorClock, tmp_path: Path
) -> None:
    server = serverFromString(reactor, f"mesh:0:{ID}:state-dir={tmp_path}")
    wanted = evolve(server.asked.wanted, token=JoinToken.generate())
    assert Agent(server.asked.client, wanted, reactor, ()).wanted.token is None


def test_listing_plugins_loads_no_reactor_and_none_of_ours() -> None:
    code = (
        "import sys\n"
        "from twisted.internet.interfaces import IStreamServerEndpointStringParser as P\n"
        "from twisted.plugin import getPlugins\n"
        "assert 'mesh' in [p.prefix for p in getPlugins(P)]\n"
        "import twisted.plugins.mesh_plugins\n"
        "sys.exit('twisted_mesh' in sys.modules or 'twisted_mesh.endpoints' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def start_web(house: Mesh, *options: str) -> int:
    """twistd web over ``mesh:``, with one file to serve."""
    (house.home / "site").mkdir()
    (house.home / "site" / "hello.txt").write_text("hello over the mesh\n")
    port = free_port()
    listen = (
        f"mesh:{port}:interface=127.0.0.1:spiffe-id=spiffe\\://mesh.local/service/api-server"
        ":dns=localhost:ip=127.0.0.1:allow=spiffe\\://mesh.local/service/payment-worker"
        ",spiffe\\://mesh.local/service/barred"
    )
    listen = ":".join((listen, *options))
    web = house.twistd("web", "--listen", listen, "--path", str(house.home / "site"))
    web.wait_for(r"Site .*starting on")
    return port


def test_twistd_web_serves_the_mesh_and_cuts_who_is_revoked(tmp_path: Path) -> None:
    with mesh(tmp_path / "house") as house:
        house.start_ca()
        rules = tmp_path / "rules.toml"
        rules.write_text(RULE.replace("== '/service/shop'", "!= '/service/barred'"))
        rules.chmod(0o600)
        house.port = start_web(house, f"policy={rules}")
        web = house.processes[-1]

        def asked(*options: str) -> "subprocess.CompletedProcess[str]":
            return house.client("/hello.txt", *options)

        assert "hello over the mesh" in asked().stdout
        # What asks the CA, over and over, does not write a log of its own there.
        assert "HTTP11ClientFactory" not in web.text
        other = "spiffe://mesh.local/service/other"
        assert asked("--spiffe-id", other).returncode != 0
        web.wait_for("refused: not-authorized")
        assert asked("--spiffe-id", "spiffe://mesh.local/service/barred").returncode != 0
        web.wait_for("refused: policy-denied")
        if curl := shutil.which("curl"):
            files = house.export("/hello.txt")
            done = house.run(
                *(curl, "-sS", "--cert", files / "svid.pem", "--key", files / "svid_key.pem"),
                *(
                    "--cacert",
                    files / "svid_bundle.pem",
                    f"https://localhost:{house.port}/hello.txt",
                ),
            )
            assert done.stdout == "hello over the mesh\n", done.stderr
        script = re.search(
            r"^```python script\n(.*?)^```$", LIBRARY.read_text(), re.MULTILINE | re.DOTALL
        )
        assert script
        (house.home / "ask.py").write_text(script[1])
        url = f"https://127.0.0.1:{house.port}/hello.txt"
        done = house.run(sys.executable, house.home / "ask.py", url)
        assert (done.returncode, done.stdout) == (0, "hello over the mesh\n\n"), done.stderr
        files = house.export("/hello.txt")
        ours = ssl.create_default_context(cafile=str(files / "svid_bundle.pem"))
        ours.load_cert_chain(files / "svid.pem", files / "svid_key.pem")
        address = ("127.0.0.1", house.port)
        with ours.wrap_socket(
            socket.create_connection(address), server_hostname="localhost"
        ) as open_one:
            open_one.settimeout(PATIENCE)
            open_one.sendall(b"GET /hello.txt HTTP/1.1\r\nHost: localhost\r\n\r\n")
            heard = b""
            while b"hello over the mesh" not in heard:
                heard += open_one.recv(4096)
            leaf = x509.load_pem_x509_certificate((files / "svid.pem").read_bytes())
            revoked = house.ctl("cert", "revoke", "--serial", f"{leaf.serial_number:x}", "--yes")
            assert revoked.returncode == 0, revoked.stderr
            with suppress(ConnectionError, ssl.SSLError):  # cut, too
                assert open_one.recv(4096) == b""
        assert web.stop() in (0, -15)
        assert "Traceback" not in web.text


def test_a_server_of_twistd_web_is_held_to_pins_and_tells_the_ca(tmp_path: Path) -> None:
    need_curl = shutil.which("curl")
    if need_curl is None:
        pytest.skip("no curl")
    with mesh(tmp_path / "house") as house:
        house.start_ca()
        rule = f"spiffe\\://mesh.local/**={PIN},{BACKUP}"
        ends = rfc3339(wall_clock() + timedelta(days=9)).replace(":", "\\:")
        house.port = start_web(
            house, f"peer-pin={rule}", "peer-pin-mode=enforce", f"peer-pin-until={ends}"
        )
        web = house.processes[-1]
        assert house.client("/hello.txt").returncode == 1
        web.wait_for("pin-mismatch")
        asking = (need_curl, "-sS", "--unix-socket", house.socket)
        until(
            lambda: PIN in house.run(*asking, "http://localhost/api/v1/connections").stdout,
            lambda: web.text,
        )
        assert web.stop() in (0, -15)
        assert "Traceback" not in web.text


LOAD = """
import sys
from twisted.internet.task import react
from twisted.web.client import HTTPConnectionPool, readBody
from twisted_mesh import endpoints
from twisted_mesh.identity.shared import AGENTS

async def main(reactor, url):
    agent = endpoints.web_agent(
        reactor,
        pool=HTTPConnectionPool(reactor),
        peer="spiffe://mesh.local/service/api-server",
        spiffe_id="spiffe://mesh.local/service/payment-worker",
        ttl="4s",
    )
    method = b"GET"
    if sys.argv[2:]:
        import treq.client
        method = "GET"
        agent = treq.client.HTTPClient(agent)
    served, rotations = 0, 0
    while rotations < 2:
        response = await agent.request(method, url.encode())
        assert await readBody(response) == b"hello over the mesh\\n"
        served += 1
        (shared,) = AGENTS[reactor].values()
        rotations = shared.agent.manager.rotations
    assert served > 20
    await endpoints.leave(reactor)
    print("served")

react(main, sys.argv[1:2])
"""


@pytest.mark.interop(
    "tests/twisted_mesh/test_endpoints.py::test_twistd_web_serves_the_mesh_and_cuts_who_is_revoked"
)
@pytest.mark.parametrize("by", ["agent", pytest.param("treq", marks=pytest.mark.recipes)])
def test_no_request_fails_while_both_ends_rotate(by: str, tmp_path: Path) -> None:
    if by == "treq":
        need("treq")
    with mesh(tmp_path / "house") as house:
        house.start_ca()
        port = start_web(house, "ttl=4s")
        web = house.processes[-1]
        (house.home / "load.py").write_text(LOAD)
        words = [by] if by == "treq" else []
        url = f"https://127.0.0.1:{port}/hello.txt"
        done = house.run(sys.executable, house.home / "load.py", url, *words)
        assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
        web.wait_for("[Rr]otation complete")
        assert web.stop() in (0, -15)
