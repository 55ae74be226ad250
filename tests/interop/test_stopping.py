"""Every way to stop: what is under way finishes, nothing is left behind, the status is 0."""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.interop.house import House, reply_of
from tests.interop.test_who_may import csr_for
from tests.interop.wires import tls
from tests.running import BIN, PATIENCE, Running, until


def request_for(spiffe_id: str) -> tuple[bytes, bytes]:
    """Head and body of a sign request."""
    body = json.dumps({"csr": csr_for(spiffe_id), "requested_id": spiffe_id}).encode()
    head = (
        b"POST /api/v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n"
    )
    return head % len(body), body


def read_all(wire: socket.socket) -> str:
    heard = b""
    with suppress(ConnectionResetError):
        while more := wire.recv(65536):
            heard += more
    return heard.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_ca_finishes_what_it_was_asked_and_ends_with_0(number: int, house: House) -> None:
    ca = house.start_ca()
    head, body = request_for("spiffe://mesh.local/service/x")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as idle:
        for wire in (busy, idle):
            wire.settimeout(PATIENCE)
            wire.connect(str(house.socket))
        busy.sendall(head + body[:100])
        idle.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in idle.recv(65536)
        ca.process.send_signal(number)
        ca.wait_for("Stopping: nobody new is let in, and requests may finish")
        assert idle.recv(1) == b"", "an idle connection is closed at once"
        busy.sendall(body[100:])
        reply = reply_of(read_all(busy))
    assert reply.status == 201
    assert reply.headers["connection"] == "close"
    assert ca.wait() == 0
    assert ca.text.rstrip().endswith("Stopped")
    assert not house.socket.exists()


def test_a_request_that_never_ends_is_cut_off_after_the_time_to_drain(house: House) -> None:
    ca = house.start_ca("--drain", "1s")
    head, body = request_for("spiffe://mesh.local/service/x")
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.settimeout(PATIENCE)
        stuck.connect(str(house.socket))
        stuck.sendall(head + body[:100])
        started = time.monotonic()
        assert ca.stop() == 0
        assert time.monotonic() - started < 5
        assert "HTTP" not in read_all(stuck)
    assert "WARNING: 1 requests were cut off after 1" in ca.text


def test_a_second_interrupt_does_not_wait_for_requests(house: House) -> None:
    ca = house.start_ca("--drain", "60s")
    head, _ = request_for("spiffe://mesh.local/service/x")
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(str(house.socket))
        stuck.sendall(head)
        until(lambda: house.ask("socket", "/livez").status == 200)  # it has come to the request
        ca.process.send_signal(signal.SIGINT)
        ca.wait_for("Stopping")
        assert ca.stop(signal.SIGINT) == 130


def test_the_server_ends_with_0_with_kept_alive_connections_open(shared: House) -> None:
    good = shared.identity("payment-worker")
    with shared.serving() as (server, port), tls(port, shared.root, good) as connection:
        connection.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5
        assert server.text.rstrip().endswith("Stopped")


def test_a_client_that_never_shook_hands_does_not_hold_up_the_stop(shared: House) -> None:
    with (
        shared.serving() as (server, port),
        socket.create_connection(("127.0.0.1", port), PATIENCE),
    ):
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_waits_for_its_ca_stops_at_once(number: int, house: House) -> None:
    server = house.start_server(wait=False)
    server.wait_for("trying again in")
    started = time.monotonic()
    assert server.stop(number) == 0
    assert time.monotonic() - started < 5


def test_a_client_that_is_interrupted_leaves_without_a_traceback(shared: House) -> None:
    client = Running.start(
        BIN / "mesh-client",
        "--server",
        shared.server_url,
        "--repeat",
        "1000",
        cwd=shared.home,
        env=shared.env,
    )
    shared.processes.append(client)
    client.wait_for("mTLS mesh communication successful!")
    assert client.stop(signal.SIGINT) != 0
    assert "Traceback" not in client.text


def _alive(pid: int) -> bool:
    with suppress(OSError):
        # A daemon is init's child; where init reaps nobody, it stays as a zombie.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self").exists()


def test_as_a_daemon_it_writes_its_pid_and_log_and_stops_by_them(house: House) -> None:
    house.real = True
    pidfile, logfile = house.home / "ca.pid", house.home / "ca.log"
    done = house.run(
        BIN / "twistd",
        "--pidfile",
        pidfile,
        "--logfile",
        logfile,
        "mesh-ca",
        "--port",
        "0",
        "--root-key",
        "ec-p256",
    )
    assert done.returncode == 0, done.stderr
    until(lambda: logfile.exists() and "Ready to issue certificates." in logfile.read_text())
    pid = int(pidfile.read_text())
    try:
        assert house.ask("socket", "/livez").status == 200
        second = house.start_ca(wait=False)
        assert second.wait() == 1
        assert f"another mesh-ca, PID {pid}, owns" in second.text, (
            "the daemon's PID, not its parent's"
        )
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not _alive(pid))
    assert logfile.read_text().rstrip().endswith("Stopped")
    assert "Traceback" not in logfile.read_text()
    assert not pidfile.exists()
    assert not house.socket.exists()
    assert house.start_ca().stop() == 0


def test_a_daemon_that_cannot_start_leaves_its_reason_in_the_log(house: House) -> None:
    pidfile, logfile = house.home / "ca.pid", house.home / "ca.log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = house.run(
            BIN / "twistd",
            "--pidfile",
            pidfile,
            "--logfile",
            logfile,
            "mesh-ca",
            "--port",
            port,
            "--root-key",
            "ec-p256",
        )
    assert done.returncode == 1
    assert f"the TLS address {port} cannot be listened on (Address already in use)" in done.stderr
    assert f"ERROR: the TLS address {port} cannot be listened on" in logfile.read_text()
    assert "Traceback" not in logfile.read_text()
    assert not pidfile.exists()


def test_two_services_start_in_one_directory_without_pid_files(house: House) -> None:
    house.start_ca()
    house.start_server()
    assert not list(house.home.glob("*.pid"))
