"""What an operator does by habit neither kills a service nor freezes it."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pki.keys.pkcs8 import read_pem, write_pem
from tests.forkserver import Forked
from tests.interop.house import House
from tests.running import BIN, PATIENCE, free_port, until


@pytest.mark.interop(
    "tests/twisted_mesh/runtime/test_log_writer.py::test_a_reader_that_stalls_holds_up_nobody_and_hears_what_it_missed"
)
def test_a_log_that_nobody_reads_freezes_nothing(house: House) -> None:
    port = free_port()
    options = ["--port", "0", "--root-key", "ec-p256", "--insecure-http", str(port)]
    with unread() as pipe:
        ca = started("mesh-ca", *options, house=house, stdout=pipe)
        try:
            until(lambda: answers(port))
            for _ in range(50):  # each costs a line, and a page of them is full at once
                assert asked(port, "/api/v1/nothing").startswith("HTTP/1.1 404")
            assert answers(port)
        finally:
            ca.send_signal(signal.SIGTERM)
        assert ca.wait(PATIENCE) == 0


def started(program: str, *options: str, house: House, stdout: int) -> Forked:
    """One of our programs, whose standard output is ``stdout``."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        return Forked.start(
            [str(BIN / program), *options],
            stdin=nothing,
            stdout=stdout,
            stderr=nothing,
            cwd=house.home,
            env={**os.environ, **house.env},
        )
    finally:
        os.close(nothing)


@contextmanager
def unread() -> Iterator[int]:
    """A pipe that holds a page."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


def asked(port: int, path: str) -> str:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as wire:
        wire.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        return b"".join(iter(lambda: wire.recv(65536), b"")).decode()


def answers(port: int) -> bool:
    try:
        return asked(port, "/livez").startswith("HTTP/1.1 200")
    except OSError:
        return False


def test_the_directory_of_the_log_is_missing(house: House) -> None:
    missing: Path = house.home / "missing" / "ca.log"
    for command in (("twistd", "-n", "--logfile", missing, "mesh-ca"), ("mesh-ca", "-l", missing)):
        done = house.run(BIN / command[0], *command[1:])
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"the log {missing} cannot be opened (No such file or directory)" in done.stderr


ENTRY = '[entries.{name}]\nselectors = ["unix:uid:{uid}"]\nspiffe_id = "spiffe://mesh.local/service/{name}"\n'


def entry(name: str) -> str:
    return ENTRY.format(name=name, uid=os.getuid())


def test_sighup_reads_again_and_says_what_has_changed(house: House) -> None:
    entries, level = house.home / "entries.toml", house.home / "level"
    entries.write_text(entry("web"))
    level.write_text("info\n")
    ca = house.start_ca("--entries", str(entries), "--log-level", f"@{level}", "--no-default-entry")
    entries.write_text(entry("shop"))
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"--entries \S+ was read again: new: file\.shop\.\w+; gone: file\.web\.\w+$")
    ca.wait_for("SIGHUP: 1 of 2 things that are read again have changed")
    assert "spiffe://mesh.local/service/shop" in house.ctl("entry", "list").stdout
    until(lambda: "reread-entries" in house.ctl("audit", "show", "--format", "json").stdout)
    entries.write_text("[entries.web]\nselectors = [")
    level.write_text("loud\n")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"ERROR: SIGHUP: --entries \S+ is not taken up, and what was read before stays")
    ca.wait_for("SIGHUP: 0 of 2 things", count=1)
    assert "spiffe://mesh.local/service/shop" in house.ctl("entry", "list").stdout
    assert ca.stop() == 0


def test_sighup_changes_who_may_connect(house: House) -> None:
    allowed = house.home / "allowed"
    allowed.write_text("spiffe://mesh.local/service/*\n")
    house.start_ca()
    server = house.start_server("--allow-file", str(allowed))
    assert house.client("--spiffe-id", "spiffe://mesh.local/service/web").returncode == 0
    allowed.write_text("spiffe://mesh.local/service/shop  # web is gone\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for(r"was read again: new: spiffe://mesh.local/service/shop; gone: spiffe://")
    assert house.client("--spiffe-id", "spiffe://mesh.local/service/web").returncode == 1
    assert house.client("--spiffe-id", "spiffe://mesh.local/service/shop").returncode == 0
    allowed.write_text("")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("ERROR: SIGHUP: --allow-file .* is not taken up.* names nobody")
    assert house.client("--spiffe-id", "spiffe://mesh.local/service/shop").returncode == 0


def test_sighup_takes_up_a_passphrase_that_opens_the_keys_and_no_other(house: House) -> None:
    file = house.home / "passphrase"
    file.touch(0o600)
    file.write_text("one\n")
    ca = house.start_ca("--key-passphrase-file", str(file))
    file.write_text("two\n")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(
        r"is not taken up, and what was read before stays in force: it does not open \S+\.key"
    )
    for path in (house.state / "ca" / "private").glob("*.key"):
        path.write_bytes(write_pem(read_pem(path.read_bytes(), b"one"), b"two"))
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for("the keys are encrypted with it, and so are the next ones")
    assert ca.stop() == 0
    assert house.start_ca("--key-passphrase-file", str(file)).stop() == 0


@pytest.mark.parametrize("program", ["mesh-ca", "mesh-server"])
def test_no_signal_of_habit_ends_a_service_and_one_stop_does(house: House, program: str) -> None:
    log = house.home / "log"
    options = (
        ["--root-key", "ec-p256", "--port", "0"]
        if program == "mesh-ca"
        else ["--listen", "127.0.0.1:0"]
    )
    service = house.twistd("--logfile", str(log), program, *options)
    # A server without a CA is not ready, and heeds all of them as well.
    until(
        lambda: log.exists() and ("Ready" in log.read_text() or "trying again" in log.read_text())
    )
    for number in (signal.SIGWINCH, signal.SIGPIPE, signal.SIGTSTP, signal.SIGCONT, signal.SIGUSR2):
        service.process.send_signal(number)
    until(lambda: "SIGUSR2 means nothing here" in log.read_text())
    for number, path in ((signal.SIGUSR1, "log.1"), (signal.SIGHUP, "log.2")):
        log.rename(house.home / path)
        service.process.send_signal(number)
        until(log.exists)
        until(lambda: "Log reopened" in log.read_text())
    until(lambda: "SIGHUP: no option" in log.read_text())
    assert service.stop(signal.SIGQUIT) == 0
    assert log.read_text().rstrip().endswith("Stopped")


def test_sigterm_at_any_moment_of_the_start_ends_it_with_0(house: House) -> None:
    for _ in range(6):
        ca = house.start_ca(wait=False)
        ca.process.send_signal(signal.SIGCONT)
        assert ca.stop() in (0, -signal.SIGTERM)
    ca = house.start_ca(wait=False)
    ca.wait_for("Root CA")
    assert ca.stop() == 0
    assert "Traceback" not in ca.text


def test_a_pid_file_of_a_crash_stops_no_start(house: House) -> None:
    for left in ("", "not", str(os.getpid()), "1"):
        file = house.home / "left.pid"
        file.write_text(left)
        ca = house.twistd("--pidfile", str(file), "mesh-ca", "--port", "0", "--root-key", "ec-p256")
        if left == "not":
            assert ca.wait() == 1
            assert "is no PID file" in ca.text
            continue
        ca.wait_for("Ready to issue")
        assert file.read_text() == f"{ca.process.pid}\n"
        second = house.twistd("--pidfile", str(file), "mesh-server", "--listen", "127.0.0.1:0")
        assert second.wait() == 1
        assert f"another process, PID {ca.process.pid}, holds --pidfile" in second.text
        assert ca.stop() == 0
        assert not file.exists()
