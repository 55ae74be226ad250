"""A service on an agent's Workload API: what its CA decides reaches it through the agent, and no CA is asked."""

import json
import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pki.serial import serial_hex
from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import load_certificates
from tests.interop.test_pins import ENFORCE, STRANGERS, rule
from tests.recipes.estate import Identity
from tests.recipes.workloads import Node, node
from tests.running import is_listening, mesh, until

SMALL = "tests/twisted_mesh/workload/test_source.py::"


@pytest.fixture
def machine() -> Iterator[Node]:
    with node() as made:
        yield made


def is_open(connection: ssl.SSLSocket) -> bool:
    """Whether it still answers."""
    with suppress(OSError):
        connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return b"200 OK" in connection.recv(65536)
    return False


@pytest.mark.interop(SMALL + "test_a_crl_counts")
def test_who_is_revoked_is_cut_off_by_a_server_that_asks_no_ca(machine: Node) -> None:
    ours = machine.entry("api-server")
    server = machine.mesh.start_server(
        "--source", machine.source, "--trust-domain", "mesh.local", "--spiffe-id", ours
    )
    files = machine.home / "caller"
    machine.mesh.start_agent(files)
    caller = Identity(files)
    with caller.connected(machine.mesh.port) as connection:
        assert is_open(connection)
        serial = serial_hex(caller.serial)
        done = machine.mesh.ctl("cert", "revoke", "--serial", serial, "--yes")
        assert done.returncode == 0, done.stderr
        until(lambda: not is_open(connection), lambda: server.text)
    server.wait_for("revoked at")


@pytest.mark.interop(SMALL + "test_a_final_no_takes_it_away_with_the_reason")
def test_an_entry_that_goes_takes_the_identity_and_one_that_comes_brings_it(machine: Node) -> None:
    ours = machine.entry("api-server")
    server = machine.mesh.start_server(
        "--source", machine.source, "--trust-domain", "mesh.local", "--spiffe-id", ours
    )
    asked = ("--source", machine.source, "--spiffe-id", ours, "--server-id", ours)
    assert machine.mesh.client(*asked).returncode == 0
    told = json.loads(machine.mesh.ctl("entry", "list", "--format", "json").stdout)
    (entry,) = [one["id"] for one in told if one["spiffe_id"] == ours]
    done = machine.mesh.ctl("entry", "delete", entry, "--yes")
    assert done.returncode == 0, done.stderr
    server.wait_for("was taken away by the Workload API")
    done = machine.mesh.client(*asked)
    assert done.returncode == 1
    assert "PERMISSION_DENIED" in done.stderr
    assert "unix:uid:" in done.stderr, "which selectors were seen"
    machine.entry("api-server")
    server.wait_for("the certificate is fresh")
    assert machine.mesh.client(*asked).returncode == 0


@pytest.mark.interop("tests/interop/test_pins.py::test_a_client_is_held_to_its_pins")
def test_pins_hold_at_who_has_its_trust_from_an_agent_too(machine: Node) -> None:
    ours = machine.entry("api-server")
    right = rule(pin_of(machine), STRANGERS[0])
    options = ("--source", machine.source, "--trust-domain", "mesh.local", "--spiffe-id", ours)
    server = machine.mesh.start_server(*options, "--peer-pin", right, *ENFORCE)
    asked = ("--source", machine.source, "--spiffe-id", ours, "--server-id", ours)
    assert machine.mesh.client(*asked, "--peer-pin", right, *ENFORCE).returncode == 0
    wrong = ("--peer-pin", rule(*STRANGERS[:2]), *ENFORCE)
    done = machine.mesh.client(*asked, *wrong)
    assert done.returncode == 1
    assert "pin-mismatch" in done.stderr
    assert server.stop() == 0
    server = machine.mesh.start_server(*options, *wrong)
    assert machine.mesh.client(*asked).returncode == 1
    server.wait_for(r"refused: pin-mismatch: ")


def pin_of(machine: Node) -> str:
    return str(SpkiHash.of(load_certificates(machine.mesh.root.read_bytes())[0]))


@pytest.mark.interop(SMALL + "test_an_agent_that_is_away_takes_nothing_away")
def test_a_server_goes_on_while_its_agent_is_away(machine: Node) -> None:
    ours = machine.entry("api-server")
    server = machine.mesh.start_server(
        "--source", machine.source, "--trust-domain", "mesh.local", "--spiffe-id", ours
    )
    (agent,) = [one for one in machine.mesh.processes if "Serving the workloads" in one.text]
    files = machine.home / "caller"
    machine.mesh.start_agent(files)
    agent.stop()
    server.wait_for("gives nothing new")
    with Identity(files).connected(machine.mesh.port) as connection:
        assert is_open(connection)


@pytest.mark.interop(SMALL + "test_a_rotation_is_pushed")
def test_a_connection_stays_through_rotations_which_new_ones_see(machine: Node) -> None:
    ours = machine.entry("api-server", "--ttl", "6s", "--dns", "localhost")
    server = machine.mesh.start_server(
        "--source", machine.source, "--trust-domain", "mesh.local", "--spiffe-id", ours
    )
    files = machine.home / "caller"
    machine.mesh.start_agent(files)
    caller = Identity(files)
    with caller.connected(machine.mesh.port) as connection:
        assert is_open(connection)
        server.wait_for("Certificate rotation complete", count=2)
        assert is_open(connection)
        with caller.connected(machine.mesh.port) as other:
            assert is_open(other)
            assert other.getpeercert(binary_form=True) != connection.getpeercert(binary_form=True)


@pytest.mark.interop(SMALL + "test_the_first_answer_brings_an_identity_and_whom_to_believe")
def test_one_machine_needs_no_agent(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory, mesh(tmp_path) as running:
        socket = Path(directory, "s")
        ca = running.start_ca("--workload-socket", str(socket))
        until(lambda: is_listening(socket), lambda: ca.text)
        ours = "spiffe://mesh.local/service/api-server"
        selector = f"unix:uid:{os.getuid()}"
        done = running.ctl("entry", "create", "--spiffe-id", ours, "--selector", selector)
        assert done.returncode == 0, done.stderr
        source = ("--source", f"workload:unix://{socket}", "--trust-domain", "mesh.local")
        running.start_server(*source)
        done = running.client(*source, "--format", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["server_id"] == ours
