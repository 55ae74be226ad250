"""Pins of CA keys over real sockets: enforced and reported, at a server and a client, moved at SIGHUP."""

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from pki.svid.spki_pin import SpkiHash
from pki.svid.x509svid import load_certificates
from pki.validity import rfc3339
from tests.interop.house import House
from tests.running import BIN, Running, until
from twisted_mesh.runtime.clock import wall_clock

EVERYBODY = "spiffe://mesh.local/service/**"
STRANGERS = [f"sha256/{letter * 43}=" for letter in "AEI"]
UNTIL = rfc3339(wall_clock() + timedelta(days=30))
ENFORCE = ("--peer-pin-mode", "enforce", "--peer-pin-until", UNTIL)


def root_pin(house: House) -> str:
    """As people are told to find it."""
    done = house.run(BIN / "pki-inspect", "fingerprint", house.root, "--format", "json")
    (told,) = json.loads(done.stdout)
    assert told["pin"] == str(SpkiHash.of(load_certificates(house.root.read_bytes())[0]))
    return str(told["pin"])


def rule(*pins: str) -> str:
    return f"{EVERYBODY}={','.join(pins)}"


@contextmanager
def pinning(house: House, *options: str) -> Iterator[tuple[Running, str]]:
    name = ("--spiffe-id", "spiffe://mesh.local/service/pinning", "--dns", "localhost")
    with house.serving(*name, "--allow", EVERYBODY, *options) as (server, port):
        yield server, f"https://localhost:{port}"


def call(house: House, url: str, *options: str) -> tuple[int, str]:
    who = ("--server-id", "spiffe://mesh.local/service/pinning")
    done = house.client("--server", url, *who, *options)
    return done.returncode, done.stdout + done.stderr


def test_a_server_refuses_whom_no_pinned_key_vouches_for(shared: House) -> None:
    with pinning(shared, "--peer-pin", rule(*STRANGERS[:2]), *ENFORCE) as (server, url):
        server.wait_for(f"Peers are held to 1 pins of CA keys until {UNTIL}: ")
        assert call(shared, url)[0] == 1
        said = server.wait_for(r"refused: pin-mismatch: (.*)")[1]
        assert root_pin(shared) in said
    with pinning(shared, "--peer-pin", rule(STRANGERS[0], root_pin(shared)), *ENFORCE) as (_, url):
        assert call(shared, url)[0] == 0


def test_a_server_that_reports_lets_them_in_and_says_so_once(shared: House) -> None:
    with pinning(shared, "--peer-pin", rule(*STRANGERS[:2])) as (server, url):
        server.wait_for("Pins of CA keys are only reported")
        for _ in range(2):
            assert call(shared, url)[0] == 0
        server.wait_for(r"payment-worker is let in, and would be refused .*: pin-mismatch: ")
    assert server.text.count("would be refused") == 1


def test_a_client_is_held_to_its_pins(shared: House) -> None:
    wrong, right = rule(*STRANGERS[:2]), rule(root_pin(shared), STRANGERS[0])
    with pinning(shared) as (server, url):
        status, said = call(shared, url, "--peer-pin", wrong, *ENFORCE)
        assert (status, "pin-mismatch" in said) == (1, True)
        status, said = call(shared, url, "--peer-pin", wrong)
        assert (status, "would be refused if pins were enforced" in said) == (0, True)
        assert call(shared, url, "--peer-pin", right, *ENFORCE)[0] == 0
        status, said = call(shared, url, "--peer-pin", right.partition(",")[0])
        assert (status, "give two at least" in said) == (2, True)
        assert "payment-worker" not in server.text.partition("pin-mismatch")[2]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_pins_move_at_sighup_and_the_ca_hears_of_it(
    shared: House, tmp_path: Path, workers: int
) -> None:
    file = tmp_path / "pins"
    head = f"mode enforce\nuntil {UNTIL}\n"
    file.write_text(head + rule(*STRANGERS[:2]))
    options = ("--peer-pin-file", str(file), "--workers", str(workers))
    with pinning(shared, *options) as (server, url):
        assert call(shared, url)[0] == 1
        until(lambda: told(shared, "enforce"))
        for text, said, status in (
            (f"mode report\n{rule(*STRANGERS[:2])}", "gone: mode enforce", 0),
            (head + rule(*STRANGERS[1:3]), "new: mode enforce", 1),
            (head + rule(STRANGERS[1], root_pin(shared)), "new: spiffe://mesh.local/service", 0),
        ):
            file.write_text(text)
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(f"was read again: .*{said}")
            assert call(shared, url)[0] == status
        before = server.text.count("is not taken up")
        file.write_text(head)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("ERROR: SIGHUP: .*is not taken up.* has no pin", count=before + 1)
        assert call(shared, url)[0] == 0


def told(house: House, mode: str) -> bool:
    answer = house.ask("socket", "/api/v1/connections").json
    return any(one["pins"]["mode"] == mode for one in answer.get("pins", []))


def test_an_open_connection_ends_when_pins_move_away_from_it(shared: House, tmp_path: Path) -> None:
    file = tmp_path / "pins"
    head = f"mode enforce\nuntil {UNTIL}\n"
    file.write_text(head + rule(root_pin(shared), STRANGERS[0]))
    who = shared.identity("payment-worker")
    context = ssl.create_default_context(cafile=str(shared.root))
    context.load_cert_chain(who.cert, who.key)
    with pinning(shared, "--peer-pin-file", str(file)) as (server, url):
        address = ("localhost", int(url.rpartition(":")[2]))
        plain = socket.create_connection(address, 30)
        with context.wrap_socket(plain, server_hostname="localhost") as wire:
            request = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
            wire.sendall(request)
            assert wire.recv(10_000).startswith(b"HTTP/1.1 200")
            file.write_text(head + rule(*STRANGERS[:2]))
            server.process.send_signal(signal.SIGHUP)
            server.wait_for(r"pin-mismatch")
            ended = b""
            while piece := wire.recv(10_000):
                ended += piece
            assert b"200" not in ended
