"""A root that is rotated under a running mesh, by the commands that people give: nobody's request fails."""

import json
from pathlib import Path

import pytest

from tests.interop.house import Done, House
from tests.running import BIN, Running

BRIEF = ("--cert-duration", "4s", "--max-cert-duration", "4s", "--issuing-duration", "1h")
YES = ("--yes", "--format", "json")


def step(house: House, name: str, *options: str, status: int = 0) -> Done:
    done = house.ctl("ca", "root", name, *options)
    assert done.returncode == status, done.stdout + done.stderr
    return done


def phase(house: House) -> str:
    found: str = json.loads(step(house, "status", "--format", "json").stdout)["phase"]
    return found


def verified(house: House, *roots: Path) -> list[bool]:
    """Whether openssl believes what the server sends, by each of these roots alone."""
    return [
        "Verify return code: 0 (ok)"
        in house.run(
            *("openssl", "s_client", "-connect", f"localhost:{house.port}", "-CAfile", root),
            stdin="",
        ).stdout
        for root in roots
    ]


@pytest.mark.interop(
    "tests/twisted_mesh/ca/rotation/test_root_steps.py::test_who_verifies_what_at_each_step"
)
def test_no_request_fails_while_the_root_is_rotated(house: House) -> None:
    ca = house.start_ca(*BRIEF)
    server = house.start_server("--ttl", "4s")
    old, new = house.home / "old.crt", house.home / "new.crt"
    old.write_bytes(house.root.read_bytes())
    clients = [
        Running.start(
            *(BIN / "mesh-client", "--server", house.server_url, "--ttl", "4s"),
            *("--repeat", "100000", "--interval", "50ms", "--format", "json"),
            cwd=house.home,
            env=house.env,
        )
        for _ in range(2)
    ]
    house.processes += clients
    for client in clients:
        client.wait_for('"status": 200', count=5)
    assert "root-out-of-turn" in step(house, "activate", "--yes", status=1).stderr
    made = json.loads(step(house, "prepare", *YES).stdout)["status"]
    assert [root["is_served"] for root in made["roots"]] == [True, False]
    assert len(made["next_keys"]) == 2
    new.write_bytes((house.state / "ca" / "root-2.crt").read_bytes())
    assert verified(house, old, new) == [True, False]
    early = step(house, "activate", "--dry-run", status=1)
    assert "[root-too-soon]" in early.stdout
    assert "root-too-soon" in step(house, "activate", "--yes", status=1).stderr
    assert phase(house) == "prepared"
    step(house, "activate", "--force", *YES)
    server.wait_for(r"Issuer: .*generation 2,")
    assert verified(house, old, new) == [True, False]
    # What the first issuing CA has signed is good for seconds yet.
    for _ in range(100):
        done = house.ctl("ca", "root", "retire", "--dry-run")
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stdout
    retired = json.loads(step(house, "retire", *YES).stdout)
    assert retired["done"], retired
    assert phase(house) == "settled"
    assert house.root.read_bytes() == new.read_bytes()
    assert verified(house, old, new) == [False, True]
    said = {client: client.text.count('"status": 200') for client in clients}
    for client in clients:
        client.wait_for('"status": 200', count=said[client] + 20)
    for client in clients:
        assert client.stop() == 130
        answers = [json.loads(line) for line in client.text.splitlines() if line.startswith("{")]
        assert {answer.get("status") for answer in answers if "status" in answer} == {200}
    assert house.client("--repeat", "2").returncode == 0
    assert "root-retired" in house.ctl("audit", "show").stdout
    for running in (ca, server):
        assert running.stop() == 0
        assert "ERROR" not in running.text
    again = house.start_ca(*BRIEF)
    assert phase(house) == "settled"
    assert again.stop() == 0
