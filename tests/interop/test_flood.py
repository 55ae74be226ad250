"""Ten thousand callers without proof, and one noisy one with: everybody else is served as ever."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field

from tests.flooding import descriptors, resident
from tests.interop.house import House, Identity
from tests.interop.house import house as inhabited
from tests.interop.wires import client_context
from tests.running import CHECKOUT, PATIENCE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]

NOBODY = "65534"
#: Small, so that few requests are a flood.
LIMITS = ("--rate-limit", "20:100")
AT_ONCE = 100
#: Seconds between two requests of somebody honest.
PAUSE = 0.05


@pytest.fixture(scope="module")
def besieged() -> Iterator[House]:
    """A CA with a low limit, and two services that have their certificates."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        home = Path(name)
        home.chmod(0o711)  # the socket is for other users too
        with inhabited(home) as house:
            ca = house.start_ca(*LIMITS)
            server = house.start_server()
            house.identity("honest")
            house.identity("noisy")
            yield house
            assert server.stop() == 0
            assert ca.stop() == 0


@define(eq=False)
class Caller:
    """Somebody honest: one request to a connection, as a program that is started now and then."""

    connect: Callable[[], socket.socket]
    path: str
    waits: list[float] = field(factory=list)
    answers: list[bytes] = field(factory=list)

    def ask(self) -> bytes:
        started = time.monotonic()
        with self.connect() as wire:
            wire.sendall(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = wire.recv(65536)
        self.waits.append(time.monotonic() - started)
        self.answers.append(head)
        return head

    def status(self) -> int:
        return int(self.ask().split()[1])


def over_tls(house: House, identity: Identity) -> Caller:
    context = client_context(house.root, identity)

    def connect() -> socket.socket:
        wire = socket.create_connection(("127.0.0.1", house.ca_port), PATIENCE)
        return context.wrap_socket(wire, server_hostname="localhost")

    return Caller(connect, "/api/v1/trust")


def on_the_socket(house: House) -> Caller:
    def connect() -> socket.socket:
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(PATIENCE)
        wire.connect(str(house.socket))
        return wire

    return Caller(connect, "/api/v1/certificates?limit=1")


@contextmanager
def strangers(*arguments: str) -> "Iterator[subprocess.Popen[str]]":
    command = (sys.executable, "-m", "tests.interop.strangers", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("requests", "at_least"),
    [(900, 300), pytest.param(10_000, 5_000, marks=pytest.mark.interop)],
    ids=["nine-hundred", "ten-thousand"],
)
@pytest.mark.parametrize("listener", ["tls", "socket"])
def test_a_flood_of_requests_without_proof_leaves_room_for_others(
    listener: str,
    requests: int,
    at_least: int,
    besieged: House,
    record_property: Callable[[str, object], None],
) -> None:
    """``at_least`` so many must be told to wait."""
    if listener == "socket" and os.getuid() != 0:
        pytest.skip("only root can become another user")
    callers = [over_tls(besieged, besieged.identity("honest")), on_the_socket(besieged)]
    assert [caller.status() for caller in callers] == [200, 200]
    ca = besieged.ca.process.pid
    open_before, memory = descriptors(ca), resident(ca)
    target = (
        (f"tls:{besieged.ca_port}", str(besieged.root), str(requests), str(AT_ONCE))
        if listener == "tls"
        else (f"unix:{besieged.socket}", "-", str(requests), str(AT_ONCE), NOBODY)
    )
    largest = 0.0
    with strangers(*target) as flood:
        ends = time.monotonic() + PATIENCE
        while flood.poll() is None and time.monotonic() < ends:
            assert [caller.status() for caller in callers] == [200, 200]
            largest = max(largest, resident(ca) - memory)
            time.sleep(PAUSE)
        assert flood.poll() == 0, "it takes too long"
        assert flood.stdout is not None
        answered = json.loads(flood.stdout.read())
    for caller, what in zip(callers, ("over TLS", "on the socket"), strict=True):
        record_property(f"longest wait {what} in a flood at {listener}", max(caller.waits))
    record_property(f"longest growth by a flood at {listener}, in MB", largest)
    assert sum(answered.values()) >= requests
    assert set(answered) <= {
        "400",
        "401",
        "403",
        "429",
        "ConnectionResetError",
        "IncompleteReadError",
    }, answered
    assert answered["429"] > at_least
    assert largest < 32
    for caller in callers:
        assert max(caller.waits) < 1.0
    deadline = time.monotonic() + PATIENCE
    while descriptors(ca) > open_before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert descriptors(ca) <= open_before


def test_one_noisy_caller_with_proof_is_told_to_wait_and_another_is_not(besieged: House) -> None:
    noisy = over_tls(besieged, besieged.identity("noisy"))
    asked = b"GET /api/v1/trust HTTP/1.1\r\nHost: localhost\r\n\r\n"
    heard = b""
    with noisy.connect() as wire:
        for _ in range(1000):
            wire.sendall(asked)
            heard = wire.recv(65536)
            if heard.startswith(b"HTTP/1.1 429 "):
                break
    assert heard.startswith(b"HTTP/1.1 429 "), heard
    assert b"\r\nRetry-After: 1\r\n" in heard
    assert b'"code":"rate-limited"' in heard
    assert over_tls(besieged, besieged.identity("honest")).status() == 200
    assert on_the_socket(besieged).status() == 200
    time.sleep(1)
    assert noisy.status() == 200, "it has waited as long as it was told"


def test_administrators_are_not_counted(besieged: House) -> None:
    administrator = on_the_socket(besieged)
    assert {administrator.status() for _ in range(500)} == {200}


def test_a_hundred_clients_of_one_user_start_at_once_with_the_usual_limits(house: House) -> None:
    house.start_ca()
    callers = [on_the_socket(house) for _ in range(100)]
    wires = [caller.connect() for caller in callers]
    for wire in wires:
        wire.sendall(b"GET /api/v1/trust HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answers = []
    for wire in wires:
        with wire:
            answers.append(wire.recv(65536))
    assert {answer.split()[1] for answer in answers} == {b"200"}
