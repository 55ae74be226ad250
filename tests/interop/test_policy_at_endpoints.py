"""A policy over real sockets: who is let in by it, who is cut by a new one, and that a broken one changes nothing."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.interop.house import House
from tests.running import Running

EVERYBODY = "spiffe://mesh.local/service/**"
ANYBODY = '[[rule]]\nname = "anybody"\neffect = "allow"\nwhen = "true"\n'
NO_WORKERS = (
    '[[rule]]\nname = "no-workers"\neffect = "deny"\non = ["accept"]\n'
    'when = \'peer.path == "/service/payment-worker"\'\nreason = "not today"\n'
)
NO_SERVER = (
    '[[rule]]\nname = "no-server"\neffect = "deny"\non = ["connect"]\n'
    "when = 'peer.path == \"/service/api-server\"'\n"
)
BROKEN = '[[rule]]\nname = "broken"\neffect = "deny"\nwhen = \'peer.dns_names[9] == ""\'\n'


def written(file: Path, *rules: str) -> Path:
    file.write_text("version = 1\n" + "".join(rules))
    file.chmod(0o600)
    return file


@contextmanager
def ruled(house: House, *options: str) -> Iterator[tuple[Running, int]]:
    name = ("--spiffe-id", "spiffe://mesh.local/service/ruled", "--dns", "localhost")
    with house.serving(*name, "--allow", EVERYBODY, *options) as (server, port):
        yield server, port


def call(house: House, port: int) -> tuple[int, str]:
    who = ("--server-id", "spiffe://mesh.local/service/ruled")
    done = house.client("--server", f"https://localhost:{port}", *who)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_policy_moves_at_sighup_and_a_broken_one_changes_nothing(
    shared: House, tmp_path: Path, workers: int
) -> None:
    file = written(tmp_path / "rules.toml", ANYBODY)
    with ruled(shared, "--policy", str(tmp_path), "--workers", str(workers)) as (server, port):
        assert call(shared, port)[0] == 0
        for rules, said, status in (
            ((ANYBODY, NO_WORKERS), "policy-denied: .*rule 'no-workers' says no: not today", 1),
            ((ANYBODY, BROKEN), "policy-unavailable: .*rule 'broken' cannot be evaluated", 1),
            ((ANYBODY,), "", 0),
        ):
            before = server.text.count("rules, sha256:")
            written(file, *rules)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(r"--policy .*was read again: \d rules, sha256:", count=before + workers)
            ended, told = call(shared, port)
            assert ended == status
            server.wait_for(said)
            if said.startswith("policy-denied"):
                assert "refused us" in told, "inside HTTP the caller reads the rule"
                assert "the policy's rule 'no-workers' says no: not today" in told
        for wrong, said in (
            (NO_WORKERS.replace("peer.path", "peer.pth"), "did you mean path"),
            (NO_WORKERS, "no rule of the policy could allow accept"),
        ):
            written(file, wrong)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(f"ERROR: SIGHUP: --policy .*is not taken up.*{said}")
            assert call(shared, port)[0] == 0


def test_an_open_connection_ends_when_a_new_policy_denies_it(shared: House, tmp_path: Path) -> None:
    file = written(tmp_path / "rules.toml", ANYBODY)
    who = shared.identity("payment-worker")
    context = ssl.create_default_context(cafile=str(shared.root))
    context.load_cert_chain(who.cert, who.key)
    with ruled(shared, "--policy", str(file)) as (server, port):
        plain = socket.create_connection(("localhost", port), 30)
        with context.wrap_socket(plain, server_hostname="localhost") as wire:
            wire.sendall(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert wire.recv(10_000).startswith(b"HTTP/1.1 200")
            written(file, ANYBODY, NO_WORKERS)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(r"policy-denied")
            ended = b""
            while piece := wire.recv(10_000):
                ended += piece
            assert b"200" not in ended


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ((NO_WORKERS.replace("peer.path", "peer.pth"),), "did you mean path"),
        ((NO_WORKERS,), "nobody would be let in"),
        ((), "there is no rule in it"),
    ],
)
def test_nobody_starts_with_a_policy_that_cannot_be_used(
    shared: House, tmp_path: Path, rules: tuple[str, ...], said: str
) -> None:
    file = written(tmp_path / "rules.toml", *rules)
    server = shared.start_server("--policy", str(file), wait=False)
    assert server.wait() == 1
    assert said in server.text
    assert "Traceback" not in server.text


def test_a_policy_that_others_can_write_is_none(shared: House, tmp_path: Path) -> None:
    file = written(tmp_path / "rules.toml", ANYBODY)
    file.chmod(0o666)
    server = shared.start_server("--policy", str(file), wait=False)
    assert server.wait() == 1
    assert "rules.toml" in server.text


def test_a_proxy_asks_it_of_whom_it_is_called_by_and_of_whom_it_calls(
    shared: House, tmp_path: Path
) -> None:
    file = written(tmp_path / "rules.toml", ANYBODY, NO_WORKERS, NO_SERVER)
    name = ("--spiffe-id", "spiffe://mesh.local/service/carrier", "--dns", "localhost")
    allow = ("--allow", EVERYBODY, "--policy", str(file))
    proxy, port = shared.start_proxy("server", "127.0.0.1:9", *name, *allow)
    done = shared.client(
        *("--server", f"https://localhost:{port}"),
        *("--server-id", "spiffe://mesh.local/service/carrier"),
    )
    assert done.returncode == 1
    proxy.wait_for("policy-denied: .*rule 'no-workers' says no")
    assert proxy.stop() == 0
    verify = ("--verify", EVERYBODY, "--policy", str(file))
    proxy, port = shared.start_proxy("client", f"localhost:{shared.port}", *name, *verify)
    with socket.create_connection(("localhost", port), 30) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with suppress(ConnectionResetError):
            assert plain.recv(100) == b""
    proxy.wait_for("policy-denied: .*rule 'no-server' says no")
    assert proxy.stop() == 0
