"""What an operator does by habit neither kills a service nor freezes it."""

import fcntl
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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
