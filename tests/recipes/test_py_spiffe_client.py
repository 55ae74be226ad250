"""docs/recipes/py-spiffe.md: requests of the real py-spiffe while rotations come, through an agent."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recipes.pages import need
from tests.recipes.workloads import Node, node

pytestmark = pytest.mark.recipes
PEER = Path(__file__).parent.parent / "peers" / "py_spiffe.py"


@pytest.fixture
def machine() -> Iterator[Node]:
    need("spiffe", "grpc")
    with node() as made:
        yield made


def test_a_python_client_keeps_up_with_rotations(machine: Node) -> None:
    both(machine, 3, 20)


@pytest.mark.soak
def test_a_thousand_requests_of_a_python_client_over_ten_rotations(machine: Node) -> None:
    both(machine, 10, 1000)


def both(machine: Node, rotations: int, least: int) -> None:
    """A client at our server, both by one agent."""
    client = machine.entry("py-client", "--ttl", "6s")
    ours = machine.entry("api-server", "--ttl", "6s")
    machine.mesh.start_server("--source", machine.source, "--spiffe-id", ours, "--allow", client)
    env = {
        **os.environ,
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{machine.socket}",
        "SPIFFE_ID": client,
        "ROTATIONS": str(rotations),
    }
    url = f"{machine.mesh.server_url}/api/status"
    words = [sys.executable, str(PEER), url, ours, str(least)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["asked"] >= least
