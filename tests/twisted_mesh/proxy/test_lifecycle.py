"""The proxy while it is told to stop, to read again, whom to cut and whom to refuse; with real processes."""

import os
import resource
import select
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.running import PATIENCE, Mesh, until
from tests.twisted_mesh.proxy.backend import Backend, break_off, digest
from tests.twisted_mesh.proxy.pairs import ID, Pair, pair, said_by


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as found:
        yield found


def talk(caller: socket.socket) -> None:
    """Both sides are there, and say so."""
    caller.sendall(b"hello")
    assert caller.recv(5) == b"hello"


def test_who_stops_waits_for_what_is_carried(running: Mesh) -> None:
    with Backend(digest) as backend, pair(running, backend.target) as found, found.call() as caller:
        caller.sendall(b"x" * 1000)
        until(lambda: found.shown("in")["from_caller_bytes"] == 1000)
        found.proxy.process.send_signal(signal.SIGTERM)
        found.proxy.wait_for("Stopping: nobody new is let in")
        found.proxy.process.send_signal(signal.SIGHUP)
        found.proxy.wait_for("SIGHUP: it is stopping already")
        with pytest.raises(ConnectionRefusedError):
            found.call()
        caller.sendall(b"x" * 1000)
        caller.shutdown(socket.SHUT_WR)
        assert said_by(caller).startswith(b"2000 ")
        assert found.proxy.wait() == 0
        assert "cut off" not in found.proxy.text


def test_a_second_sigterm_ends_it_at_once(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target, "--drain", "1h") as found, found.call() as caller:
        talk(caller)
        found.proxy.process.send_signal(signal.SIGTERM)
        found.proxy.wait_for("Stopping: nobody new is let in")
        found.proxy.process.send_signal(signal.SIGTERM)
        assert found.proxy.wait() == 0
        assert "Told to stop once more: 2 connections are cut off" in found.proxy.text
        with pytest.raises(ConnectionResetError):
            said_by(caller)


def test_what_takes_too_long_is_cut_off(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target, "--drain", "0s") as found, found.call() as caller:
        talk(caller)
        assert found.proxy.stop() == 0
        assert "Stopping: nobody new is let in, and connections may finish" in found.proxy.text
        assert "2 connections were cut off after 0.0 s" in found.proxy.text


def test_a_file_is_read_again_and_a_broken_one_is_not_taken_up(running: Mesh) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(Backend(lambda c: c.sendall(b"first")))
        second = stack.enter_context(Backend(lambda c: c.sendall(b"second")))
        found = stack.enter_context(pair(running, first.target))
        with found.call() as caller:
            assert said_by(caller) == b"first"
        found.target = second.target
        found.write()
        found.proxy.process.send_signal(signal.SIGHUP)
        found.proxy.wait_for(r"SIGHUP: --config \S+ was read again: changed: in")
        with found.call() as caller:
            assert said_by(caller) == b"second"
        found.inside = 'idle-timeout = "soon"'
        found.write()
        found.proxy.process.send_signal(signal.SIGHUP)
        told = found.proxy.wait_for(r"SIGHUP: --config \S+ is not taken up, and what was read .*")
        assert "listener 'in': idle-timeout: 'soon' is not a duration" in told[0]
        with found.call() as caller:
            assert said_by(caller) == b"second"
        assert b'mesh_events_total{event="reread-failed"} 1.0' in found.ask("/metrics")[1]


@pytest.mark.parametrize("side", ["in", "out"])
def test_a_rule_that_is_taken_away_cuts_who_is_connected(
    running: Mesh, backend: Backend, side: str
) -> None:
    with pair(running, backend.target) as found, found.call() as caller:
        talk(caller)
        other = "spiffe://mesh.local/service/other"
        if side == "in":
            found.allow = other
        else:
            found.verify = other
        found.write()
        found.proxy.process.send_signal(signal.SIGHUP)
        with pytest.raises(ConnectionResetError):
            said_by(caller)
        found.proxy.wait_for(rf"Connection of {ID} from \S+ closed: .*at listener {side}: {other}")
        found.settled()
        with found.call() as again, pytest.raises(ConnectionResetError):
            said_by(again)
        if side == "out":
            found.proxy.wait_for(rf"out: connection from .* is not carried to .*{ID} is not among")


def test_a_revocation_cuts_who_is_connected(running: Mesh, backend: Backend) -> None:
    with ExitStack() as stack:
        name = "spiffe://mesh.local/service/cut"
        server, port = running.start_proxy("server", backend.target, "--allow", name)
        words = ("--verify", ID, "--spiffe-id", name)
        client, out = running.start_proxy("client", f"localhost:{port}", *words)
        stack.callback(client.stop)
        stack.callback(server.stop)
        caller = stack.enter_context(socket.create_connection(("127.0.0.1", out), PATIENCE))
        talk(caller)
        running.ctl("cert", "revoke", "--spiffe-id", name, "--yes")
        began = time.monotonic()
        with pytest.raises(ConnectionResetError):
            said_by(caller)
        assert time.monotonic() - began < PATIENCE / 2
        server.wait_for(rf"Connection of {name} from \S+ closed: .*revoked")


def test_who_comes_when_there_is_no_room_waits(running: Mesh, backend: Backend) -> None:
    narrow = "max-connections = 1"
    with pair(running, backend.target, inside=narrow) as found, ExitStack() as stack:
        first = stack.enter_context(found.call())
        talk(first)
        waiting = [stack.enter_context(found.call()) for _ in range(2)]
        for caller in waiting:
            caller.sendall(b"hello")
        found.proxy.wait_for("in carries 1 connections, as many as it may: who comes now waits")
        assert select.select(waiting, [], [], 0.2)[0] == []
        first.close()
        for _ in range(2):
            (served, *_), _, _ = select.select(waiting, [], [], PATIENCE)
            assert served.recv(5) == b"hello"
            served.close()
            waiting.remove(served)
        found.settled()


def test_honest_callers_are_served_beside_silence_and_garbage(
    running: Mesh, backend: Backend
) -> None:
    with pair(running, backend.target) as found, ExitStack() as stack:
        crowd(found, stack, 40)
        for _ in range(10):
            with found.call() as caller:
                talk(caller)


@pytest.mark.interop(
    "tests/twisted_mesh/proxy/test_lifecycle.py::test_honest_callers_are_served_beside_silence_and_garbage"
)
def test_honest_callers_are_served_beside_two_thousand_others(
    running: Mesh, backend: Backend
) -> None:
    with pair(running, backend.target) as found, ExitStack() as stack:
        crowd(found, stack, 1000)
        for _ in range(20):
            with found.call() as caller:
                talk(caller)


def crowd(found: Pair, stack: ExitStack, count: int) -> None:
    """So many callers of the server's listener who say nothing, and as many who say garbage."""
    for number in range(2 * count):
        stranger = socket.create_connection(("127.0.0.1", found.door), PATIENCE)
        stack.enter_context(stranger)
        if number % 2:
            stranger.sendall(b"\x00garbage\r\n\r\n")


def test_a_caller_without_tls_is_refused(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target) as found:
        with socket.create_connection(("127.0.0.1", found.door), PATIENCE) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with_alert = b""
            with suppress(ConnectionResetError):
                with_alert = said_by(caller)
            assert b"HTTP" not in with_alert
        found.proxy.wait_for(r"Connection from \S+ refused: .*")
        assert not found.shown("in")["peers"]


def test_a_caller_who_may_not_is_refused(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target, allow="spiffe://mesh.local/service/other") as found:
        with found.call() as caller, pytest.raises(ConnectionResetError):
            talk(caller)
            said_by(caller)
        found.proxy.wait_for(rf"Connection from \S+ refused: .*{ID} is not among those that may")
        assert not found.shown("in")["peers"]


def test_a_client_that_is_refused_says_so(running: Mesh, backend: Backend) -> None:
    # In TLS 1.3 it hears of that when it reads, once its own handshake is over; here before it has said anything.
    with pair(running, backend.target, allow="spiffe://mesh.local/service/other") as found:
        with found.call() as caller, pytest.raises(ConnectionResetError):
            said_by(caller)
        found.proxy.wait_for(
            r"out: connection from \S+ .* is not carried to \S+: .*refuses our certificate"
        )
        until(lambda: found.shown("out")["ended"]["target-refused"] == 1)
        assert found.shown("out")["not_carried"] == {"bad-certificate": 1}


def test_who_answers_is_judged_before_a_byte_is_said(running: Mesh, backend: Backend) -> None:
    other = "spiffe://mesh.local/service/other"
    with pair(running, backend.target, verify=other) as found:
        with found.call() as caller:
            caller.sendall(b"secret")
            with pytest.raises(ConnectionResetError):
                said_by(caller)
        found.proxy.wait_for(rf"out: connection from .* is not carried to .*{ID} is not among")
        assert found.shown("in")["from_caller_bytes"] == 0
        assert found.shown("out")["not_carried"] == {"not-authorized": 1}


def test_the_name_of_a_target_is_only_where_to_go(running: Mesh, backend: Backend) -> None:
    # Nobody's certificate is valid for that address; who is there the SPIFFE ID says.
    listening = ("--listen", "127.0.0.2:0")
    server, port = running.start_proxy("server", backend.target, "--allow", ID, *listening)
    client, door = running.start_proxy("client", f"127.0.0.2:{port}", "--verify", ID)
    with socket.create_connection(("127.0.0.1", door), PATIENCE) as caller:
        talk(caller)
    assert (client.stop(), server.stop()) == (0, 0)


@pytest.mark.slow
def test_no_connection_fails_over_rotations_of_both_sides(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target, "--ttl", "6s") as found:
        while found.proxy.text.count("Certificate rotation complete.") < 3:
            with found.call() as caller:
                talk(caller)
        reasons = found.shown("out")["ended"]
        assert {reason for reason, count in reasons.items() if count} == {"done"}


def test_one_address_has_one_owner(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target) as found:
        words = ("--mode", "server", "--target", backend.target, "--allow", ID)
        late = running.twistd("mesh-proxy", *words, "--listen", f"127.0.0.1:{found.door}")
        assert late.wait() == 1
        assert "cannot be listened on" in late.text
        assert f"PID {found.proxy.process.pid}" in late.text


def test_all_listeners_come_up_or_none(running: Mesh, backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = Pair(running, backend.target)
        found.write()
        text = found.config.read_text().replace(
            "127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"
        )
        found.config.write_text(text)
        proxy = running.twistd("mesh-proxy", "--config", str(found.config))
        assert proxy.wait() == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", found.door))


@pytest.mark.parametrize(
    ("inside", "reason"),
    [('idle-timeout = "1s"', "idle"), ('max-conn-lifetime = "1s"', "lifetime")],
    ids=["idle", "lifetime"],
)
def test_a_bound_ends_a_connection(
    running: Mesh, backend: Backend, inside: str, reason: str
) -> None:
    with pair(running, backend.target, inside=inside) as found, found.call() as caller:
        talk(caller)
        with pytest.raises(ConnectionResetError):
            said_by(caller)
        found.settled()
        assert found.shown("in")["ended"][reason] == 1


def test_a_half_that_stays_silent_is_closed(running: Mesh) -> None:
    never = threading.Event()
    with (
        Backend(lambda connection: never.wait(PATIENCE) and None) as backend,
        pair(running, backend.target, inside='close-timeout = "1s"') as found,
        found.call() as caller,
    ):
        until(lambda: found.shown("in")["open"] == 1)
        caller.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            said_by(caller)
        assert found.shown("in")["ended"]["close-timeout"] == 1
        never.set()


def test_a_client_listens_for_this_machine_alone(running: Mesh) -> None:
    words = ("--mode", "client", "--target", "localhost:1", "--verify", ID)
    proxy = running.twistd("mesh-proxy", *words, "--listen", "0.0.0.0:0")
    assert proxy.wait() == 1
    assert "can be reached from other machines, whose words would come in plaintext" in proxy.text


def test_it_serves_at_and_to_unix_sockets(running: Mesh, tmp_path: Path) -> None:
    with Backend(path=tmp_path / "backend.sock") as backend:
        door, out = tmp_path / "in.sock", tmp_path / "out.sock"
        listening = ("--listen", f"unix:{door}")
        server, _ = running.start_proxy("server", backend.target, "--allow", ID, *listening)
        words = ("--verify", ID, "--listen", f"unix:{out}")
        client, _ = running.start_proxy("client", f"unix:{door}", *words)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(out))
            talk(caller)
            caller.shutdown(socket.SHUT_WR)
            assert said_by(caller) == b""
        assert (client.stop(), server.stop()) == (0, 0)
        assert not door.exists() and not out.exists()


def test_descriptors_that_run_out_come_back(running: Mesh, backend: Backend) -> None:
    bound = 'handshake-timeout = "1s"\nconnect-timeout = "1s"'
    with (
        pair(running, backend.target, inside=bound, outside=bound) as found,
        ExitStack() as stack,
    ):
        with found.call() as caller:
            talk(caller)
        found.settled()
        usual = found.descriptors
        pid = found.proxy.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (usual + 10, hard))
        for _ in range(20):
            caller = stack.enter_context(found.call())
            with suppress(OSError):
                caller.sendall(b"hello")
        found.proxy.wait_for("descriptor")
        stack.close()
        until(lambda: found.descriptors <= usual + 1, lambda: found.descriptors)
        with found.call() as caller:
            talk(caller)
        assert found.proxy.process.poll() is None
        assert "Traceback" not in found.proxy.text


def test_churn_leaves_nothing_behind(running: Mesh, backend: Backend) -> None:
    with pair(running, backend.target) as found:
        with found.call() as caller:
            talk(caller)
        found.settled()
        usual = found.descriptors
        for number in range(60):
            with found.call() as caller:
                talk(caller)
                if number % 3 == 0:
                    break_off(caller)
        found.settled()
        until(lambda: found.descriptors <= usual + 1, lambda: found.descriptors)
        shown = found.shown("in")
        assert sum(one["connections"] for one in shown["peers"].values()) == 61
        assert sum(shown["ended"].values()) == 61


@pytest.mark.parametrize(
    ("options", "heard"),
    [((), ConnectionResetError), (("--on-cut", "end"), b"transfer 1000")],
    ids=["reset", "end"],
)
def test_an_end_without_a_goodbye_is_passed_on_as_a_reset_or_as_is_told(
    running: Mesh, options: tuple[str, ...], heard: object
) -> None:
    how: SimpleQueue[object] = SimpleQueue()

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"go on")
        try:
            how.put(said_by(connection))
        except OSError as error:
            how.put(type(error))

    name = "spiffe://mesh.local/service/payment-worker"
    with Backend(serve) as backend:
        server, port = running.start_proxy("server", backend.target, "--allow", name, *options)
        running.start_server()
        identity = running.export()
        context = ssl.create_default_context(cafile=str(identity / "svid_bundle.pem"))
        context.check_hostname = False
        context.load_cert_chain(identity / "svid.pem", identity / "svid_key.pem")
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        with context.wrap_socket(plain) as caller:
            assert caller.recv(5) == b"go on"
            caller.sendall(b"transfer 1000")
            with socket.socket(fileno=os.dup(caller.fileno())) as below:
                below.shutdown(socket.SHUT_RDWR)
            assert how.get(timeout=PATIENCE) == heard
        assert server.stop() == 0


def test_a_target_that_takes_nobody_is_waited_for_no_longer_than_its_bound(running: Mesh) -> None:
    with socket.socket() as busy, ExitStack() as stack:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)
        target = "{}:{}".format(*busy.getsockname())
        for _ in range(2):  # its queue is full with these
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(busy.getsockname())
        bound = 'connect-timeout = "1s"'
        with pair(running, target, inside=bound) as found, found.call() as caller:
            with pytest.raises(ConnectionResetError):
                said_by(caller)
            found.proxy.wait_for("in: .* is not carried to .*there was no connection within 1 s")
            assert found.shown("in")["ended"]["target-unreachable"] == 1


def test_a_rule_that_means_nobody_is_told(running: Mesh, backend: Backend) -> None:
    other = "spiffe://other.test/service/shop"
    with pair(running, backend.target, allow=other) as found:
        found.proxy.wait_for(f"Listener in: {other} means nobody before an entry .* federates with")


def test_a_transport_that_cannot_end_one_direction_is_refused(
    running: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_TLS_TRANSPORT", "twisted")
    words = ("--mode", "client", "--target", "localhost:1", "--verify", ID, "--listen", "0")
    proxy = running.twistd("mesh-proxy", *words)
    assert proxy.wait() == 1
    assert "MESH_TLS_TRANSPORT=twisted cannot end one direction" in proxy.text


def test_who_comes_at_once_with_many_others_waits_and_is_not_hung_up_on(
    running: Mesh, backend: Backend
) -> None:
    with pair(running, backend.target, inside="max-connections = 2") as found, ExitStack() as stack:
        callers = [stack.enter_context(found.call()) for _ in range(60)]
        for caller in callers:
            caller.sendall(b"hello")
        while callers:
            ready, _, _ = select.select(callers, [], [], PATIENCE)
            assert ready, f"{len(callers)} wait"
            for caller in ready:
                assert caller.recv(5) == b"hello"
                caller.close()
                callers.remove(caller)
