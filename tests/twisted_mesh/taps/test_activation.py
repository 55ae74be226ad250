"""Sockets of systemd's, and what it is told: a service takes what it was given, and says when it serves."""

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.running import BIN, PATIENCE, Mesh, Running, mesh
from tests.twisted_mesh.proxy.backend import Backend
from tests.twisted_mesh.proxy.pairs import ID
from twisted_mesh.runtime.service_manager import ServiceManager
from twisted_mesh.taps.activation import given, is_activated
from twisted_mesh.taps.service_options import StartError

#: What systemd does: the socket is descriptor 3, and the environment says whose it is.
AS_SYSTEMD = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print("socket", listening.getsockname()[1], flush=True)
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "door"}
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def running(tmp_path: Path) -> object:
    with mesh(tmp_path) as found:
        found.start_ca()
        yield found


def test_a_proxy_serves_at_the_socket_that_it_was_given(running: Mesh, tmp_path: Path) -> None:
    with Backend() as backend, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        words = ("--mode", "client", "--listen", "systemd:door", "--verify", ID)
        told = {**running.env, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        _, port = running.start_proxy("server", backend.target, "--allow", ID)
        command = (sys.executable, "-c", AS_SYSTEMD, BIN / "twistd", "-n", "mesh-proxy", *words)
        proxy = Running.start(
            *command, "--target", f"localhost:{port}", cwd=tmp_path, env=told, real=True
        )
        running.processes.append(proxy)
        door = int(proxy.wait_for(r"^socket (\d+)")[1])
        # Before it is ready.
        with socket.create_connection(("127.0.0.1", door), PATIENCE) as caller:
            caller.sendall(b"hello")
            assert caller.recv(5) == b"hello"
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        assert proxy.stop() == 0
        while (said := manager.recv(100)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"


@pytest.mark.parametrize("address", ["systemd:", "systemd:door"])
def test_what_was_not_given_is_told(address: str) -> None:
    with pytest.raises(StartError, match=r"no socket of that name: start it by its socket unit"):
        given(address)


@pytest.mark.parametrize(
    ("address", "is_so"),
    [
        ("systemd:door", True),
        ("systemd:", True),
        ("systemd:domain=INET:index=0", False),
        ("9443", False),
    ],
    ids=["name", "only", "twisted", "port"],
)
def test_which_addresses_are_systemds(address: str, is_so: bool) -> None:
    assert is_activated(address) is is_so


def test_nobody_is_told_where_nobody_asks() -> None:
    assert ServiceManager.of({}) == ServiceManager()
    assert ServiceManager.of({"NOTIFY_SOCKET": "relative"}) == ServiceManager()
    other = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    assert ServiceManager.of(other).watchdog == 0
    assert ServiceManager.of({**other, "WATCHDOG_PID": str(os.getpid())}).watchdog == 0.5
    ServiceManager("/nowhere").ready()
