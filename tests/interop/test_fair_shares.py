"""Who has much leaves something to others: connections, certificates, on real sockets."""

import resource
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from tests.interop.house import House, Identity, Reply
from tests.interop.house import house as inhabited
from tests.interop.wires import client_context, tls
from tests.running import PATIENCE, free_port

pytestmark = pytest.mark.slow

TRUST = b"GET /api/v1/trust HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATUS = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
MOST = 16


@pytest.fixture(scope="module")
def small() -> Iterator[House]:
    """A CA and a server of few connections, and three callers who have their certificates."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, inhabited(Path(name)) as house:
        house.start_ca("--max-connections", str(MOST))
        house.start_server("--max-connections", str(MOST))
        for caller in ("one", "two", "honest"):
            house.identity(caller)
        yield house


def asked(house: House, port: int, identity: Identity, request: bytes) -> int:
    with tls(port, house.root, identity) as wire:
        wire.sendall(request)
        return int(wire.recv(65536).split()[1])


def crowd(house: House, port: int, name: str, request: bytes, stack: ExitStack) -> None:
    """As many connections as there may be, each of which asks once and then idles."""
    context = client_context(house.root, house.identity(name))
    for _ in range(MOST):
        try:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
            wire = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            wire.sendall(request)
            wire.recv(65536)
        except OSError:
            return  # as many as it may have


@pytest.mark.parametrize("listener", ["ca", "server"])
def test_two_identities_that_have_taken_all_leave_an_honest_caller_in(
    listener: str, small: House
) -> None:
    port, request = (small.ca_port, TRUST) if listener == "ca" else (small.port, STATUS)
    with ExitStack() as stack:
        for name in ("one", "two"):
            crowd(small, port, name, request, stack)
        honest = small.identity("honest")
        assert [asked(small, port, honest, request) for _ in range(5)] == [200] * 5


@pytest.mark.interop(
    "tests/twisted_mesh/ca/api/test_throttle.py::test_what_lets_many_ids_in_has_a_share_of_its_own"
)
def test_all_ids_of_one_entry_share_a_rate(house: House) -> None:
    house.start_ca("--rate-limit", "1:20")
    house.start_server()
    identities = [house.identity(f"of-many-{number}") for number in range(14)]
    with ExitStack() as stack:
        wires = [stack.enter_context(tls(house.ca_port, house.root, i)) for i in identities]

        def statuses() -> list[int]:
            for wire in wires:
                wire.sendall(TRUST)
            return [int(wire.recv(65536).split()[1]) for wire in wires]

        # Each of them may ask twenty times; all of them two hundred times, and a little more by the clock.
        told = [status for _ in range(19) for status in statuses()]
    assert set(told) == {200, 429}
    assert 100 <= told.count(200) <= 230


def test_an_id_has_its_quota_of_certificates_and_not_more_after_a_restart(house: House) -> None:
    ca = house.start_ca("--quota", "2:100")
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).sign(key, SHA256())
    pem = csr.public_bytes(Encoding.PEM).decode()

    def sign(name: str) -> Reply:
        spiffe_id = f"spiffe://mesh.local/service/{name}"
        return house.post("socket", "/api/v1/sign", {"csr": pem, "requested_id": spiffe_id})

    # It is counted by the hour of the clock: where one ends meanwhile, another has all of the next.
    for greedy in ("greedy", "greedier"):
        begun = datetime.now(UTC).hour
        told = [sign(greedy).status for _ in range(3)]
        refused = sign(greedy)
        if datetime.now(UTC).hour == begun:
            break
    assert told == [201, 201, 429]
    assert refused.code == "quota"
    assert "has had 2 certificates since" in refused.json["detail"]
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert sign("modest").status == 201
    assert ca.stop() == 0
    house.start_ca("--quota", "2:100")
    again = sign(greedy).status
    assert again == 429 or datetime.now(UTC).hour != begun


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="cannot lower another's limits")
def test_a_server_out_of_descriptors_says_so_and_hangs_up_instead_of_letting_wait(
    house: House,
) -> None:
    house.start_ca()
    status = free_port()
    server = house.start_server("--status", f"127.0.0.1:{status}")
    pid = server.process.pid
    with ExitStack() as stack:
        early = stack.enter_context(closing(HTTPConnection("127.0.0.1", status, PATIENCE)))

        def ready() -> tuple[int, bytes]:
            early.request("GET", "/readyz")
            answer = early.getresponse()
            return answer.status, answer.read()

        assert ready()[0] == 200
        few = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()) + 4
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, few))
        wires = [
            stack.enter_context(socket.create_connection(("127.0.0.1", house.port), PATIENCE))
            for _ in range(16)
        ]
        server.wait_for(r"ERROR: No file descriptor is left")
        assert wires[-1].recv(1) == b"", "it is hung up on, and does not wait"
        code, told = ready()
        assert (code, b'"code":"unhealthy-descriptors"' in told) == (503, True)
        for wire in wires:
            wire.close()
        deadline = time.monotonic() + PATIENCE
        while ready()[0] != 200 and time.monotonic() < deadline:
            pass
        assert ready()[0] == 200
