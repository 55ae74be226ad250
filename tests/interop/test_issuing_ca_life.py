"""A real CA whose issuing CAs live for seconds, with a server and a client that never notice."""

import json

import pytest

from tests.interop.house import House
from tests.running import BIN, Running

BRIEF = ("--issuing-duration", "8s", "--cert-duration", "2s", "--max-cert-duration", "2s")
REQUESTS = 60


def issuers(said: str) -> set[str]:
    """Which generations have issued to the one whose log this is."""
    lines = (line for line in said.splitlines() if line.startswith("  Issuer: "))
    return {line.partition("generation ")[2].partition(",")[0] for line in lines}


@pytest.mark.interop(
    "tests/twisted_mesh/ca/rotation/test_rotator.py::test_lives_of_seconds_keep_their_order"
)
def test_no_request_fails_while_two_issuing_cas_take_over(house: House) -> None:
    ca = house.start_ca(*BRIEF)
    server = house.start_server("--ttl", "2s")
    client = Running.start(
        *(BIN / "mesh-client", "--server", house.server_url, "--ttl", "2s"),
        *("--repeat", str(REQUESTS), "--interval", "100ms", "--format", "json"),
        cwd=house.home,
        env=house.env,
    )
    house.processes.append(client)
    assert client.wait() == 0, client.text
    answers = [json.loads(line) for line in client.text.splitlines() if line.startswith("{")]
    assert len([answer for answer in answers if answer.get("status") == 200]) == REQUESTS
    ca.wait_for("A new issuing CA issues from now on", count=2)
    server.wait_for(r"Issuer: .*generation 3,")
    assert house.client("--repeat", "3").returncode == 0
    assert {"1", "2", "3"} <= issuers(server.text)
    assert len(issuers(client.text)) >= 2
    for running in (ca, server):
        assert running.stop() == 0
        assert "ERROR" not in running.text
        assert "succession-" not in running.text
    again = house.start_ca(*BRIEF)
    assert again.stop() == 0


@pytest.mark.interop(
    "tests/twisted_mesh/ca/rotation/test_rotator.py::test_a_root_key_that_is_brought_back_is_picked_up_at_the_next_tick"
)
def test_a_root_key_that_was_away_is_picked_up_without_a_restart(house: House) -> None:
    options = ("--issuing-duration", "16s", "--cert-duration", "4s", "--max-cert-duration", "4s")
    assert house.start_ca(*options).stop() == 0
    root_key, elsewhere = house.state / "ca" / "private" / "root.key", house.home / "root.key"
    root_key.rename(elsewhere)
    ca = house.start_ca(*options)
    ca.wait_for(r"WARNING: succession-waits: .*certificates can be issued for \ds more")
    assert "mesh_ca_succession_waits 1.0" in house.ask("socket", "/metrics").text
    elsewhere.rename(root_key)
    ca.wait_for("The root's key is back")
    ca.wait_for("A new issuing CA issues from now on")
    assert "mesh_ca_succession_waits 0.0" in house.ask("socket", "/metrics").text
    assert ca.stop() == 0
