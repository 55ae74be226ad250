"""Transparency as a whole, each part a process: logs and witnesses, a CA, endpoints that demand receipts, a monitor."""

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import pytest

from pki.svid.x509svid import certificates_pem, load_certificates
from tests.authorities import forge, key
from tests.ctlogs import der
from tests.interop import forging
from tests.interop.forging import API_SERVER, HOUR, PAYMENT, present, server_names
from tests.interop.house import Identity
from tests.interop.logged_mesh import DOMAIN, LogProcess
from tests.interop.wires import impostor, listening
from tests.interop.witnessed_mesh import WitnessedMesh, witnessed_mesh
from tests.running import PATIENCE, Running, until
from tests.tools import require_tool
from twisted_mesh.ca.transparency.submitter import submitter
from twisted_mesh.state.key_files import KeyFiles

pytestmark = pytest.mark.interop(
    "tests/interop/test_stolen_issuing_key.py::test_a_server_refuses_it"
)
BRIEF = ("--cert-duration", "8s", "--max-cert-duration", "8s")
CA_ID = "spiffe://mesh.local/mesh/ca"
REFUSED = r"no-sct: receipts \(SCTs\) of 2 logs"
HEALTHY = b'{"status":"healthy"}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(HEALTHY), HEALTHY)


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[WitnessedMesh]:
    with witnessed_mesh(tmp_path, request.param) as made:
        yield made


def stolen(place: WitnessedMesh, spiffe_id: str) -> Identity:
    """An identity by the running mesh's issuing key, of which no log has heard."""
    now, own = present(), key("of whoever is minted")
    issuing = forging.issuing_authority(place.mesh.state)
    leaf = forge(
        issuing,
        subject_key=own,
        uris=[spiffe_id],
        start=now - HOUR / 60,
        end=now + HOUR,
        replace=server_names(spiffe_id),
    )
    directory = place.mesh.home / f"stolen-{spiffe_id.rpartition('/')[2]}"
    return forging.write(directory, (leaf, issuing.certificate), own)


def submit(place: WitnessedMesh, log: LogProcess, who: Identity) -> int:
    """Show it to a log, by the key that the log knows the CA by; the status of the answer."""
    private = KeyFiles(place.mesh.state / "ca" / "private")
    own = submitter(private, DOMAIN, datetime.now(UTC))
    shown = place.mesh.home / "submitter.pem"
    shown.touch(0o600)
    shown.write_bytes(own.key.to_pem() + certificates_pem([own.certificate]))
    context = ssl.create_default_context(cafile=str(log.home / "state" / "ctlog" / "tls.crt"))
    context.load_cert_chain(shown)
    chain = load_certificates(who.cert.read_bytes())
    body = json.dumps({"chain": [base64.b64encode(der(one)).decode() for one in chain]})
    connection = http.client.HTTPSConnection(
        "localhost", log.port, timeout=PATIENCE, context=context
    )
    with closing(connection):
        connection.request("POST", "/ct/v1/add-chain", body)
        return connection.getresponse().status


def plainly(port: int) -> bytes:
    """What a program that knows nothing of TLS gets through a proxy."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
        wire.settimeout(PATIENCE)
        try:
            wire.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return wire.recv(10_000)
        except OSError:
            return b""


def prove(place: WitnessedMesh, file: Path) -> bool:
    """Whether each log has it, in a tree that the log's own witness has cosigned."""
    witnesses = (word for one in place.witnesses for word in ("--witness", one.key))
    words = ("--ct-logs", str(place.list_file), *witnesses, "--cosigned", "1")
    return place.mesh.ctl("ct", "prove", file, *words).returncode == 0


def watch(place: WitnessedMesh) -> tuple[int, str]:
    """The status of one look, and what was told."""
    words = ("--once", "--compare", "--quorum", "2", "--ct-logs", place.list_file)
    done = place.mesh.ctl("ct", "watch", *words)
    return done.returncode, done.stdout


def proxied(place: WitnessedMesh, port: int) -> tuple[Running, int]:
    words = ("--verify", API_SERVER, *place.demand)
    return place.mesh.start_proxy("client", f"localhost:{port}", *words)


def is_refused_by_each(place: WitnessedMesh, server: Running) -> None:
    """What the stolen key signs past the logs, by a server, a client, a proxy and an agent."""
    mesh = place.mesh
    caller, served = stolen(place, PAYMENT), stolen(place, API_SERVER)
    curl = ("curl", "-sS", "--max-time", "30", "--cacert", mesh.root, *caller.for_curl)
    assert mesh.run(*curl, f"{mesh.server_url}/api/status").returncode != 0
    server.wait_for(f"refused: {REFUSED}")
    with listening(impostor(served, OK)) as fake:
        done = mesh.client("--server", fake.url, *place.demand)
        assert (done.returncode, "no-sct" in done.stdout + done.stderr) == (1, True), done
        proxy, port = proxied(place, fake.port)
        assert plainly(port) == b""
        proxy.wait_for(REFUSED)
        assert fake.heard == b""
    with listening(impostor(stolen(place, CA_ID))) as fake:
        joining = mesh.start_agent(
            mesh.home / "joining",
            *("--ca-url", fake.url, "--ca-file", mesh.root),
            *("--state-dir", str(mesh.home / "of-joining"), *place.demand),
            wait=False,
        )
        joining.wait_for(REFUSED)
        assert fake.heard == b"", "neither a CSR nor a request line"
        joining.stop()


@pytest.mark.parametrize("place", [2], indirect=True)
def test_a_stolen_key_is_of_no_use_and_the_mesh_goes_on_without_a_log(place: WitnessedMesh) -> None:
    require_tool("curl")
    mesh, file = place.mesh, place.mesh.home / "agent" / "svid.pem"
    ca = place.start_ca("--ct-quorum", "2")
    server = mesh.start_server(*place.demand)
    agent = mesh.start_agent(mesh.home / "agent", *place.demand)
    proxy, port = proxied(place, mesh.port)
    assert mesh.client(*place.demand).returncode == 0
    assert b"healthy" in plainly(port)
    until(lambda: prove(place, file))
    assert watch(place) == (0, "")
    is_refused_by_each(place, server)
    assert (
        submit(place, place.logs[0], Identity(mesh.home / "stolen-payment-worker")) == HTTPStatus.OK
    )
    status, said = watch(place)
    assert (status, said.count("not-on-record: "), said.count(PAYMENT)) == (1, 1, 1), said
    assert watch(place) == (0, "")
    place.logs[0].kill()
    asked = mesh.client("--spiffe-id", PAYMENT, "--timeout", "1s", *place.demand)
    assert (asked.returncode, "log-away" in asked.stderr) == (3, True), asked
    ca.wait_for("/api/v1/sign answered 503: log-away")
    assert b"healthy" in plainly(port)
    place.start_log(0)
    until(lambda: mesh.client(*place.demand).returncode == 0, lambda: ca.text)
    assert watch(place) == (0, "")
    for running in (proxy, agent, server, ca):
        assert running.stop() == 0
        assert "Traceback" not in running.text


@pytest.mark.parametrize("place", [3], indirect=True)
def test_with_a_log_to_spare_renewals_go_on_without_it_and_it_is_taken_back(
    place: WitnessedMesh,
) -> None:
    mesh = place.mesh
    ca = place.start_ca("--ct-quorum", "2", *BRIEF)
    server = mesh.start_server(*place.demand)
    agent = mesh.start_agent(mesh.home / "agent", *place.demand)
    place.logs[0].kill()
    ca.wait_for("The log log-1 gives no SCTs")
    renewed = server.text.count("New certificate issued")
    files = agent.text.count("new: svid")
    server.wait_for("New certificate issued", count=renewed + 1)
    agent.wait_for("new: svid", count=files + 1)
    assert mesh.client(*place.demand).returncode == 0
    assert "log-1" in mesh.ctl("doctor").stdout
    place.start_log(0)
    ca.wait_for("The log log-1 gives SCTs again")
    assert watch(place) == (0, "")
    for running in (agent, server, ca):
        assert running.stop() == 0
        assert "Traceback" not in running.text
