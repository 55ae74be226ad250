"""Several processes serve at one address as one service, and each stands or falls for itself; with real ones."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.running import BIN, PATIENCE, Mesh, NeverSaid, Running, mesh, until
from tests.twisted_mesh.proxy.backend import Backend, digest
from tests.twisted_mesh.proxy.pairs import ID, pair, said_by
from tests.twisted_mesh.taps.test_activation import AS_SYSTEMD
from tests.twisted_mesh.workers.served import Served, asked, key_of, leaf, served

CALLER = "spiffe://mesh.local/service/payment-worker"


@pytest.fixture(scope="module")
def serving(running: Mesh) -> Iterator[Served]:
    """Two workers that no test harms."""
    with served(running) as found:
        yield found
    assert found.server.wait() == 0
    assert "Traceback" not in found.server.text


def is_taken(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def is_there(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_each_worker_has_a_key_of_its_own_and_all_have_one_id(serving: Served) -> None:
    found = serving
    with ExitStack() as stack:
        shown = [leaf(callers[0]) for callers in found.both(stack).values()]
        assert len({key_of(one) for one in shown}) == 2
        assert len({one.serial_number for one in shown}) == 2
        names = {
            one.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value.get_values_for_type(x509.UniformResourceIdentifier)[0]
            for one in shown
        }
        assert names == {"spiffe://mesh.local/service/api-server"}
        ready = json.loads(found.page("/readyz"))
        assert (ready["status"], ready["workers"], ready["workers_ready"]) == ("ready", 2, 2)
        metrics = found.page("/metrics").decode()
        for number in (1, 2):
            assert (
                f'mesh_handshake_seconds_count{{outcome="accepted",worker="{number}"}}' in metrics
            )
        assert 'mesh_workers_listening{worker="parent"} 2.0' in metrics
        assert metrics.count("# TYPE mesh_handshake_seconds histogram") == 1


def test_a_worker_that_is_killed_loses_its_own_connections_and_is_replaced(running: Mesh) -> None:
    with served(running) as found, ExitStack() as stack:
        before = found.both(stack)
        held = Path(f"/proc/{found.server.process.pid}/fd")
        usual = len(list(held.iterdir()))
        victim = found.workers()[0]["pid"]
        os.kill(victim, signal.SIGKILL)
        found.server.wait_for(rf"ERROR: Worker 1 \(process {victim}\) has ended \(by SIGKILL\)")
        lives = {key: [asked(one) for one in callers] for key, callers in before.items()}
        assert sorted(map(set, lives.values()), key=str) == [{False}, {True}]
        # Nobody waits at the socket of the one that is gone.
        for _ in range(10):
            assert asked(stack.enter_context(found.call()))
        found.server.wait_for("Worker 1 serves again")
        again = found.both(stack)
        assert len(again.keys() - before.keys()) == 1
        assert found.workers()[0]["restarts"] == 1
        until(lambda: len(list(held.iterdir())) <= usual, lambda: list(held.iterdir()))
        assert b'mesh_worker_restarts_total{worker="parent"} 1.0' in found.page("/metrics")


def test_no_worker_outlives_its_parent(running: Mesh) -> None:
    with served(running) as found:
        pids = found.pids()
        found.server.process.send_signal(signal.SIGKILL)
        with suppress(NeverSaid):
            found.server.wait()
        until(lambda: not any(map(is_there, pids)))
        # The kernel closes the sockets of one that has threads a moment after it is gone.
        until(lambda: not is_taken(found.port))


def test_a_revocation_cuts_in_every_worker_within_a_second(running: Mesh, serving: Served) -> None:
    running.port = serving.port
    found = evolve(serving, identity=running.export())
    with ExitStack() as stack:
        callers = [one for some in found.both(stack).values() for one in some]
        serial = x509.load_pem_x509_certificate(
            (found.identity / "svid.pem").read_bytes()
        ).serial_number
        running.ctl("cert", "revoke", "--serial", f"{serial:x}", "--yes")
        began = time.monotonic()
        for caller in callers:
            caller.settimeout(PATIENCE)
            with suppress(ConnectionResetError):
                assert caller.recv(1) == b""
        # The command itself returns once the CA has it on record; a loaded machine is given some more.
        assert time.monotonic() - began < 5
        for number in (1, 2):
            found.server.wait_for(
                rf"\[SERVER {number}\] .*Connection of {CALLER} from \S+ closed: .*revoked"
            )


def test_certificates_rotate_in_every_worker(running: Mesh) -> None:
    with served(running, "--ttl", "20s", "--rotate-at", "0.1") as found, ExitStack() as stack:
        callers = [stack.enter_context(found.call()) for _ in range(8)]
        for number in (1, 2):
            complete = rf"\[SERVER {number}\] Certificate rotation complete"
            found.server.wait_for(complete, count=len(re.findall(complete, found.server.text)) + 1)
        assert all(map(asked, callers))
        later = {key_of(leaf(stack.enter_context(found.call()))) for _ in range(8)}
        assert not later & {key_of(leaf(caller)) for caller in callers}


@pytest.mark.parametrize("more", [(), ("--workers", "2")], ids=["alone", "with workers"])
def test_one_address_has_one_owner(running: Mesh, serving: Served, more: tuple[str, ...]) -> None:
    late = running.twistd("mesh-server", "--listen", f"127.0.0.1:{serving.port}", *more)
    assert late.wait() == 1
    assert "cannot be listened on" in late.text


def test_what_is_carried_is_finished_by_every_worker(running: Mesh) -> None:
    with (
        Backend(digest) as backend,
        pair(running, backend.target, "--workers", "2") as found,
        ExitStack() as stack,
    ):
        found.proxy.wait_for("2 workers serve")
        callers = [stack.enter_context(found.call()) for _ in range(12)]
        for caller in callers:
            caller.sendall(b"x" * 1000)
        until(lambda: found.shown("in")["from_caller_bytes"] == 12_000)
        assert len({one["worker"] for one in found.shown("in")["connections"]}) == 2
        assert found.shown("in")["open"] == 12
        found.proxy.process.send_signal(signal.SIGTERM)
        found.proxy.wait_for("Stopping: nobody new is let in", count=3)
        for caller in callers:
            caller.sendall(b"x" * 1000)
            caller.shutdown(socket.SHUT_WR)
            assert said_by(caller).startswith(b"2000 ")
        assert found.proxy.wait() == 0
        assert "cut off" not in found.proxy.text


@pytest.mark.parametrize("program", ["server", pytest.param("proxy", marks=pytest.mark.interop)])
def test_a_second_sigterm_cuts_everybody_off(running: Mesh, program: str) -> None:
    with ExitStack() as stack:
        if program == "server":
            server = stack.enter_context(served(running, "--drain", "1h"))
            process, caller = server.server, stack.enter_context(server.call())
            caller.sendall(b"GET /api/status HTTP/1.1\r\nHost: local")
        else:
            backend = stack.enter_context(Backend())
            carried = stack.enter_context(
                pair(running, backend.target, "--workers", "2", "--drain", "1h")
            )
            carried.proxy.wait_for("2 workers serve")
            process, through = carried.proxy, stack.enter_context(carried.call())
            through.sendall(b"hello")
            assert through.recv(5) == b"hello"
        process.process.send_signal(signal.SIGTERM)
        process.wait_for("Stopping: nobody new is let in", count=3)
        process.process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        assert "Told to stop once more" in process.text


def test_a_file_is_read_again_by_all_and_a_broken_one_by_none(running: Mesh) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(Backend(lambda c: c.sendall(b"first")))
        second = stack.enter_context(Backend(lambda c: c.sendall(b"second")))
        found = stack.enter_context(pair(running, first.target, "--workers", "2"))
        found.proxy.wait_for("2 workers serve")

        def heard() -> set[bytes]:
            answers = set()
            for _ in range(12):
                with found.call() as caller:
                    answers.add(said_by(caller))
            return answers

        assert heard() == {b"first"}
        found.target = second.target
        found.write()
        # One that is replaced before anybody has said that the file counts has the rules of the others.
        (victim, *_) = json.loads(found.ask("/status")[1])["workers"]
        os.kill(victim["pid"], signal.SIGKILL)
        found.proxy.wait_for("Worker 1 serves again")
        assert heard() == {b"first"}
        found.proxy.process.send_signal(signal.SIGHUP)
        for number in (1, 2):
            found.proxy.wait_for(
                rf"\[PROXY {number}\] SIGHUP: --config \S+ was read again: changed: in"
            )
        assert heard() == {b"second"}
        found.inside = 'idle-timeout = "soon"'
        found.write()
        found.proxy.process.send_signal(signal.SIGHUP)
        found.proxy.wait_for(r"\[PROXY\] ERROR: SIGHUP: --config \S+ is not taken up")
        assert heard() == {b"second"}


def test_where_nothing_is_read_again_sighup_says_so_once(serving: Served) -> None:
    serving.server.process.send_signal(signal.SIGHUP)
    serving.server.wait_for("no option of this service names anything that is read again")
    assert serving.page(
        "/readyz"
    )  # what the workers have been told meanwhile, they have heard by now
    assert serving.server.text.count("SIGHUP") == 1


@pytest.mark.interop(
    "tests/twisted_mesh/workers/test_processes.py::test_what_is_carried_is_finished_by_every_worker"
)
def test_a_unix_socket_is_served_by_all(running: Mesh, tmp_path: Path) -> None:
    with Backend() as backend:
        door = tmp_path / "in.sock"
        out = tmp_path / "out.sock"
        server, _ = running.start_proxy(
            "server", backend.target, "--allow", ID, "--listen", f"unix:{door}", "--workers", "2"
        )
        server.wait_for("2 workers serve")
        words = ("--verify", ID, "--listen", f"unix:{out}", "--workers", "2")
        client, _ = running.start_proxy("client", f"unix:{door}", *words)
        client.wait_for("2 workers serve")
        for _ in range(8):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect(str(out))
                caller.sendall(b"hello")
                assert caller.recv(5) == b"hello"
        assert (client.stop(), server.stop()) == (0, 0)
        assert not door.exists() and not out.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("--listen", "haproxy:tcp:0:interface=127.0.0.1"),
            "is one that a single process listens on",
        ),
        (("--listen", "127.0.0.1:0", "--max-connections", "15"), "at least 8 are needed"),
    ],
)
def test_what_workers_cannot_share_is_refused(
    running: Mesh, words: tuple[str, ...], told: str
) -> None:
    late = running.twistd("mesh-server", "--workers", "2", *words)
    assert late.wait() == 1
    assert told in late.text


def test_connections_are_shared_out_or_refused(running: Mesh) -> None:
    words = ("--mode", "client", "--target", "localhost:1", "--verify", ID, "--workers", "3")
    proxy = running.twistd(
        "mesh-proxy", *words, "--listen", "127.0.0.1:0", "--max-connections", "2"
    )
    assert proxy.wait() == 1
    assert "2 connections at most cannot be shared out among 3 workers" in proxy.text


def test_a_worker_that_cannot_start_ends_the_start_with_its_sentence(running: Mesh) -> None:
    words = ("--mode", "client", "--target", "localhost:1", "--verify", ID, "--workers", "2")
    proxy = running.twistd("mesh-proxy", *words, "--listen", "0.0.0.0:0")
    assert proxy.wait() == 1
    assert "can be reached from other machines, whose words would come in plaintext" in proxy.text


def test_the_service_manager_hears_of_the_parent_alone(running: Mesh, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        env = dict(os.environ)
        os.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        try:
            with served(running) as found:
                assert manager.recv(100) == b"READY=1"
                for pid in found.pids():
                    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{pid}/environ").read_bytes()
        finally:
            os.environ.clear()
            os.environ.update(env)
        assert manager.recv(100) == b"STOPPING=1"
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)


def memory_of(pid: int) -> bytes:
    """All that a process can write to."""
    found = bytearray()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if not rights.startswith("rw") or "[vvar" in line:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            memory.seek(start)
            with suppress(OSError):
                found += memory.read(end - start)
    return bytes(found)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux'")
def test_the_parents_key_is_in_no_worker_and_its_token_too(running: Mesh, tmp_path: Path) -> None:
    name = "spiffe://mesh.local/service/api-server"
    token = json.loads(
        running.ctl("token", "create", "--spiffe-id", name, "--format", "json").stdout
    )["token"]
    over_tls = ("--ca-url", f"https://localhost:{running.ca_port}")
    over_tls += ("--ca-fingerprint", running.fingerprint, "--join-token", token)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with served(running, *over_tls, "--state-dir", str(state)) as found:
        (kept,) = (state / "identity").glob("*/svid_key.pem")
        pem = kept.read_bytes()
        key = load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        scalar = key.private_numbers().private_value.to_bytes(32, "big")
        forms = (scalar, scalar[::-1], pem.splitlines()[1])
        with suppress(PermissionError):
            mine = memory_of(found.server.process.pid)
            assert any(form in mine for form in forms)
        for pid in found.pids():
            theirs = memory_of(pid)
            assert b"Assignment" in theirs
            assert not any(form in theirs for form in forms)
            assert token.encode() not in theirs
            for written in ("cmdline", "environ"):
                assert token.encode() not in Path(f"/proc/{pid}/{written}").read_bytes()


@pytest.mark.interop(
    "tests/twisted_mesh/workers/test_processes.py::test_each_worker_has_a_key_of_its_own_and_all_have_one_id"
)
def test_with_a_workload_api_each_worker_asks_for_itself(tmp_path: Path) -> None:
    door = tmp_path / "workload.sock"
    with mesh(tmp_path / "ca") as own:
        own.start_ca("--workload-socket", str(door))
        made = own.ctl(
            *("entry", "create", "--selector", f"unix:uid:{os.geteuid()}"),
            *("--spiffe-id", "spiffe://mesh.local/service/api-server", "--dns", "localhost"),
        )
        assert made.returncode == 0, made.stderr
        source = ("--source", f"workload:unix://{door}", "--allow", "spiffe://mesh.local/**")
        with served(own, *source) as found, ExitStack() as stack:
            assert all(asked(stack.enter_context(found.call())) for _ in range(8))
            assert json.loads(found.page("/readyz"))["workers_ready"] == 2
            assert (
                'mesh_certificate_expiry_timestamp_seconds{worker="parent"}'
                not in found.page("/metrics").decode()
            )


@pytest.mark.interop(
    "tests/twisted_mesh/taps/test_activation.py::test_a_proxy_serves_at_the_socket_that_it_was_given"
)
def test_all_serve_at_a_socket_of_the_service_managers(running: Mesh, tmp_path: Path) -> None:
    with Backend() as backend:
        _, port = running.start_proxy("server", backend.target, "--allow", ID)
        words = ("--mode", "client", "--listen", "systemd:door", "--verify", ID, "--workers", "2")
        command = (sys.executable, "-c", AS_SYSTEMD, BIN / "twistd", "-n", "mesh-proxy", *words)
        proxy = Running.start(
            *command, "--target", f"localhost:{port}", cwd=tmp_path, env=running.env, real=True
        )
        running.processes.append(proxy)
        door = int(proxy.wait_for(r"^socket (\d+)")[1])
        proxy.wait_for("2 workers serve")
        for _ in range(8):
            with socket.create_connection(("127.0.0.1", door), PATIENCE) as caller:
                caller.sendall(b"hello")
                assert caller.recv(5) == b"hello"
        assert proxy.stop() == 0
        assert "Traceback" not in proxy.text


def test_a_worker_without_a_certificate_does_not_listen_and_the_others_serve(
    tmp_path: Path,
) -> None:
    with mesh(tmp_path) as own:
        ca = own.start_ca()
        with served(own) as found, ExitStack() as stack:
            assert ca.stop() == 0
            os.kill(found.workers()[0]["pid"], signal.SIGKILL)
            found.server.wait_for(r"\[SERVER 1\] WARNING: No certificate from the CA .*unreachable")
            shown = {key_of(leaf(stack.enter_context(found.call()))) for _ in range(8)}
            assert len(shown) == 1
            ready = json.loads(found.page("/readyz"))
            assert (ready["status"], ready["workers_ready"]) == ("ready", 1)
            assert [one["name"] for one in ready["degraded"]] == ["worker 1"]
            own.start_ca()
            found.server.wait_for("Worker 1 serves again")
            assert len(found.both(stack)) == 2
