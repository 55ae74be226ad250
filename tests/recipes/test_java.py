"""docs/recipes/java.md: the real java-spiffe, as a workload of ours."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.building import java_peer
from tests.recipes.estate import blocks
from tests.recipes.workloads import Node, node

pytestmark = pytest.mark.recipes
SOURCE = Path(__file__).parent.parent / "peers" / "java" / "Peer.java"


def test_what_the_page_tells_to_write_is_what_is_run() -> None:
    written = " ".join(SOURCE.read_text().split())
    told = blocks("java", "java")
    assert told
    for block in told:
        assert " ".join(block.split()) in written


@pytest.fixture
def machine() -> Iterator[Node]:
    _ = java_peer()
    with node() as made:
        yield made


def asked(machine: Node, *words: str, who: str = "", rotations: int = 0) -> dict[str, object]:
    """What the Java program says at its end."""
    env = {
        **os.environ,
        "SPIFFE_ENDPOINT_SOCKET": f"unix:{machine.socket}",
        "SPIFFE_ID": who,
        "ROTATIONS": str(rotations),
    }
    done = subprocess.run(
        [*java_peer(), *words], env=env, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr + "\n".join(p.text for p in machine.mesh.processes)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_every_call_of_java_spiffe_is_answered(machine: Node) -> None:
    web = machine.entry("web")
    assert asked(machine, "calls", "billing") == {
        "id": web,
        "chain": 2,
        "bundles": 1,
        "jwt": web,
        "keys": 1,
        "valid": web,
    }


def test_a_java_client_keeps_up_with_rotations(machine: Node) -> None:
    both(machine, 3, 20)


@pytest.mark.soak
def test_a_thousand_requests_of_a_java_client_over_ten_rotations(machine: Node) -> None:
    both(machine, 10, 1000)


def both(machine: Node, rotations: int, least: int) -> None:
    """A Java client at our server, both by one agent: of identities with one and the same hint it sees the first."""
    client = machine.entry("java-client", "--ttl", "6s", "--hint", "client")
    ours = machine.entry("api-server", "--ttl", "6s", "--hint", "server")
    machine.mesh.start_server("--source", machine.source, "--spiffe-id", ours, "--allow", client)
    url = f"{machine.mesh.server_url}/api/status"
    found = asked(machine, "ask", url, ours, str(least), who=client, rotations=rotations)
    print(found)
    assert isinstance(found["asked"], int)
    assert found["asked"] >= least
