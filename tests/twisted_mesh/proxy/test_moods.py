"""Callers and a target that do anything at any moment: the proxy has no fault of its own, and keeps nothing of them."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from random import Random

import pytest

from tests.running import PATIENCE, Mesh, until
from tests.twisted_mesh.proxy.backend import Backend, break_off
from tests.twisted_mesh.proxy.pairs import Pair, pair
from tests.twisted_mesh.proxy.test_http_filter import BAD, CHUNKED, GET, OK, POST, SWITCHED, UPGRADE

SAID = [GET, POST, CHUNKED, UPGRADE, GET * 50, b"GET / HTTP/1.0\r\n\r\n"] * 4 + [*BAD.values()]
ANSWERED = [
    OK,
    OK * 3,
    SWITCHED,
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000,
    b"HTTP/1.1 413 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nup to the end",
    b"no answer at all\r\n\r\n",
]
numbers = count()


def act(end: socket.socket, moods: Random, words: list[bytes]) -> None:
    """Talk, or not, and go, or break off; nobody waits long for anybody."""
    end.settimeout(0.1)
    with suppress(OSError):
        for _ in range(moods.randrange(6)):
            word = moods.choice(words)
            if moods.random() < 0.3:
                word = word[: moods.randrange(len(word))]
            with suppress(TimeoutError):
                if moods.random() < 0.7:
                    end.sendall(word)
                if moods.random() < 0.6:
                    end.recv(moods.choice([10, 65536]))
            if moods.random() < 0.1:
                end.shutdown(socket.SHUT_WR)
    if moods.random() < 0.3:
        break_off(end)
    else:
        end.close()


def serve(connection: socket.socket) -> None:
    act(connection, Random(next(numbers)), ANSWERED)


def call(found: Pair, number: int) -> None:
    moods = Random(f"caller {number}")
    with suppress(OSError):
        port = moods.choice([found.port] * 4 + [found.door])
        act(socket.create_connection(("127.0.0.1", port), PATIENCE), moods, SAID)


def all_moods(running: Mesh, inside: str, times: int) -> None:
    with Backend(serve) as backend, pair(running, backend.target, inside=inside) as found:
        usual = found.descriptors
        with ThreadPoolExecutor(8) as callers:
            for number in range(times):
                callers.submit(call, found, number)
        found.settled()
        until(lambda: found.descriptors <= usual + 2, lambda: found.descriptors)
        assert found.proxy.process.poll() is None
        assert "Traceback" not in found.proxy.text
        assert found.shown("in")["waiting"] == 0


WAYS = ["", "http = true", "http = true\npermissive = true", "max-connections = 2"]


@pytest.mark.parametrize("inside", WAYS)
def test_whatever_both_sides_do_nothing_is_left(running: Mesh, inside: str) -> None:
    all_moods(running, inside, 150)


@pytest.mark.soak
@pytest.mark.endurance
@pytest.mark.parametrize("inside", WAYS)
def test_whatever_both_sides_do_for_long_nothing_is_left(running: Mesh, inside: str) -> None:
    all_moods(running, inside, 10_000)
