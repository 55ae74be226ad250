"""Nobody starts a proxy that calls itself without end."""

import signal
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from tests.running import Mesh, free_port
from tests.twisted_mesh.proxy.pairs import ID, pair
from twisted_mesh.proxy.circle import circle
from twisted_mesh.proxy.listener import Target

BACKEND = Target.parse("127.0.0.1:80")


def tcp(host: str, port: int) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


@pytest.mark.parametrize(
    ("host", "target", "is_circle"),
    [
        ("127.0.0.1", "127.0.0.1:1", True),
        ("0.0.0.0", "127.0.0.1:1", True),
        ("0.0.0.0", "127.9.9.9:1", True),
        ("::", "[::1]:1", True),
        ("::", "localhost:1", True),
        ("127.0.0.1", "localhost:1", True),
        ("127.0.0.1", "127.0.0.2:1", False),
        ("127.0.0.1", "127.0.0.1:2", False),
        ("0.0.0.0", "10.0.0.1:1", False),
        ("0.0.0.0", "host.example:1", False),
        ("127.0.0.1", "unix:/run/1.sock", False),
    ],
)
def test_who_carries_to_itself_is_found(host: str, target: str, is_circle: bool) -> None:
    found = circle({"a": (tcp(host, 1), Target.parse(target))})
    assert found == (["a"] if is_circle else ())


def test_a_longer_way_round_is_found_and_a_way_through_is_none(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    at_socket = UNIXAddress(path.encode())
    there, back = Target.parse(f"unix:{tmp_path}/./s"), Target.parse("localhost:2")
    way = {
        "first": (tcp("127.0.0.1", 1), back),
        "in": (tcp("127.0.0.1", 2), there),
        "out": (at_socket, back),
    }
    assert circle(way) == ["in", "out"]
    assert circle({**way, "out": (at_socket, BACKEND)}) == ()
    assert circle({}) == ()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_it_does_not_start_and_does_not_come_to_it(running: Mesh, workers: str) -> None:
    port = free_port()
    words = ("--mode", "client", "--listen", f"127.0.0.1:{port}", "--verify", ID)
    words = (*words, "--workers", workers)
    proxy = running.twistd("mesh-proxy", *words, "--target", f"localhost:{port}")
    assert proxy.wait() == 1
    assert f"listener 127.0.0.1:{port} carries to itself" in proxy.text
    with pair(running, str(BACKEND), "--workers", workers) as found:
        found.target = f"127.0.0.1:{found.port}"
        found.write()
        found.proxy.process.send_signal(signal.SIGHUP)
        found.proxy.wait_for("is not taken up.*listener in carries to out, and that back to in")
        assert found.shown("in")["target"] == str(BACKEND)
