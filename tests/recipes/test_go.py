"""docs/recipes/go.md: the real go-spiffe, as a workload of ours and as who gives us an identity."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.serial import serial_hex
from pki.svid.x509svid import load_certificates
from tests.peers.building import go_peer
from tests.recipes.estate import REFUSED, Identity, blocks
from tests.recipes.workloads import Node, node
from tests.running import Running, until

pytestmark = pytest.mark.recipes
SOURCE = Path(__file__).parent.parent / "peers" / "go" / "main.go"


def test_what_the_page_tells_to_write_is_what_is_run() -> None:
    written = " ".join(SOURCE.read_text().split())
    told = blocks("go", "go")
    assert told
    for block in told:
        assert " ".join(block.split()) in written


@pytest.fixture
def machine() -> Iterator[Node]:
    _ = go_peer()
    with node() as made:
        yield made


def peer(machine: Node, *words: str | Path, who: str = "") -> Running:
    """The Go program, which knows of us nothing but the address of a socket."""
    env = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{machine.socket}", "SPIFFE_ID": who}
    running = Running.start(go_peer(), *words, cwd=machine.home, env=env, real=True)
    machine.mesh.processes.append(running)
    return running


def asked(
    machine: Node, *words: str, who: str = "", socket: Path | None = None, rotations: int = 0
) -> dict[str, object]:
    """What it says at its end."""
    env = {
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{socket or machine.socket}",
        "ROTATIONS": str(rotations),
        "SPIFFE_ID": who,
    }
    done = subprocess.run(
        [go_peer(), *words], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr + "\n".join(p.text for p in machine.mesh.processes)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_every_call_of_go_spiffe_is_answered(machine: Node) -> None:
    web = machine.entry("web")
    assert asked(machine, "calls", "billing") == {
        "id": web,
        "chain": 2,
        "bundles": 1,
        "jwt": web,
        "keys": 1,
        "valid": web,
        "refused": True,
    }


def test_a_go_client_keeps_up_with_rotations(machine: Node) -> None:
    both_ways(machine, 3, 20)


@pytest.mark.soak
def test_a_thousand_requests_of_a_go_client_over_ten_rotations(machine: Node) -> None:
    both_ways(machine, 10, 1000)


def both_ways(machine: Node, rotations: int, least: int) -> None:
    """A Go client at our server, both by one agent."""
    client = machine.entry("go-client", "--ttl", "6s")
    ours = machine.entry("api-server", "--ttl", "6s")
    machine.mesh.start_server(
        *("--source", machine.source, "--spiffe-id", ours),
        *("--allow", client),
    )
    url = f"{machine.mesh.server_url}/api/status"
    found = asked(machine, "ask", url, ours, str(least), who=client, rotations=rotations)
    print(found)
    assert isinstance(found["asked"], int)
    assert found["asked"] >= least


def test_go_lives_with_a_root_whose_key_it_does_not_know(machine: Node) -> None:
    """docs/POST_QUANTUM.md, side by side: all that is sent still leads to the root that it does know."""
    running = machine.mesh
    assert running.processes[0].stop() == 0
    running.start_ca("--port", str(running.ca_port), "--root-key", "ml-dsa-87")
    done = running.ctl("ca", "root", "prepare", "--yes")
    assert done.returncode == 0, done.stderr
    web, held = machine.entry("web"), machine.home / "held"
    running.start_server("--source", machine.source, "--spiffe-id", web, "--allow", web)

    def has_both() -> bool:
        who = ("--source", machine.source, "--spiffe-id", web, "--server-id", web)
        said.append(running.client(*who, "--export", str(held)).stderr)
        bundle = held / "svid_bundle.pem"
        return bundle.exists() and len(load_certificates(bundle.read_bytes())) == 2

    said: list[str] = []
    until(has_both, lambda: said[-1])
    assert asked(machine, "calls", "billing")["bundles"] == 1
    done = running.ctl("ca", "root", "activate", "--force", "--yes")
    assert done.returncode == 0, done.stderr
    both_ways(machine, 1, 5)


def test_our_client_is_let_in_by_a_go_server(machine: Node) -> None:
    go, ours = machine.entry("go-server"), machine.entry("caller")
    server = peer(machine, "serve", ours, who=go)
    port = server.wait_for(r"listening (\d+)")[1]
    done = machine.mesh.client(
        *("/", "--server", f"https://127.0.0.1:{port}", "--server-id", go),
        *("--source", machine.source, "--spiffe-id", ours, "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["body"] == {"peer": ours}
    # Somebody else may not.
    done = machine.mesh.client(
        *("/", "--server", f"https://127.0.0.1:{port}", "--server-id", go),
        *("--source", machine.source, "--spiffe-id", go),
    )
    assert done.returncode != 0


def test_go_lets_the_revoked_in_as_the_page_tells_and_a_server_of_ours_does_not(
    machine: Node,
) -> None:
    go = machine.entry("go-server", "--dns", "localhost")
    ours = machine.entry("api-server", "--dns", "localhost")
    files = machine.home / "web"
    machine.mesh.start_agent(files).stop()
    web = Identity(files)
    server = machine.mesh.start_server(
        "--source", machine.source, "--spiffe-id", ours, "--trust-domain", "mesh.local"
    )
    theirs = peer(machine, "serve", "spiffe://mesh.local/service/web", who=go)
    port = int(theirs.wait_for(r"listening (\d+)")[1])
    assert web.get(port)
    assert seen(web, machine.mesh.port)
    done = machine.mesh.ctl("cert", "revoke", "--serial", serial_hex(web.serial), "--yes")
    assert done.returncode == 0, done.stderr
    until(lambda: not seen(web, machine.mesh.port), lambda: server.text)
    assert web.get(port), "docs/recipes/go.md says that it is let in"


def seen(web: Identity, port: int) -> bool:
    """Whether a server of ours lets it in: there is nothing at /."""
    try:
        answer, _ = web.talk(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\r\n\r\n")
    except REFUSED:
        return False
    return b" 404 " in answer


def test_our_server_and_client_live_on_a_workload_api_of_go_spiffes(machine: Node) -> None:
    theirs = machine.home / "go.sock"
    agent = peer(machine, "agent", theirs, "6s")
    agent.wait_for("listening")
    source, second = f"workload:unix://{theirs}", "spiffe://go.example/service/second"
    server = machine.mesh.start_server(
        *("--source", source, "--spiffe-id", second),
        *("--allow", "spiffe://go.example/service/first"),
    )
    url = f"{machine.mesh.server_url}/api/status"
    found = asked(machine, "ask", url, second, "20", socket=theirs, rotations=3)
    assert isinstance(found["ours"], int)
    assert found["ours"] > 3
    # Without --spiffe-id it is the default one.
    done = machine.mesh.client("--source", source, "--server-id", second, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["our_id"] == "spiffe://go.example/service/first"
    # What is good goes on while the agent is away, and its successor is found.
    agent.stop()
    server.wait_for("gives nothing new")
    done = machine.mesh.client("--source", source, "--server-id", second, "--timeout", "1s")
    assert "nobody listens at the socket any more" in done.stderr
    theirs.unlink()
    # Its successor has another root: who rests on the last one is believed no more.
    peer(machine, "agent", theirs, "6s").wait_for("listening")
    server.wait_for("answers again")

    def is_served() -> bool:
        asking = machine.mesh.client("--source", source, "--server-id", second)
        return asking.returncode == 0

    until(is_served, lambda: server.text)
