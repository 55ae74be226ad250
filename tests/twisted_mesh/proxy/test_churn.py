"""Many connections, one batch after the other, ended in every way: descriptors and memory are back where they were."""

import os
import random
import socket
from pathlib import Path

import pytest

from tests.running import PATIENCE, Mesh, until
from tests.twisted_mesh.proxy.backend import Backend, break_off, echo
from tests.twisted_mesh.proxy.pairs import Pair, pair, said_by

_AT_ONCE, _WARM, _ROUNDS = 20, 100, 3
#: What a connection may say: a few bytes, some records, or more than buffers hold.
_SIZES = (1, 16, 1000, 40_000, 300_000)

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc"
)


def resident_kib(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def churn(carried: Pair, count: int, draw: random.Random) -> None:
    """So many connections, each with an echo, or without a word, and an end of its own."""
    for _ in range(count // _AT_ONCE):
        callers = [carried.call() for _ in range(_AT_ONCE)]
        for caller in callers:
            said = bytes(draw.choice(_SIZES))
            end = draw.choice(("close", "half-close", "reset", "silent"))
            if end == "silent":
                caller.close()
                continue
            caller.settimeout(PATIENCE)
            caller.sendall(said)
            if end == "half-close":
                caller.shutdown(socket.SHUT_WR)
                assert len(said_by(caller)) == len(said)
                caller.close()
            elif end == "close":
                left = len(said)
                while left:
                    left -= len(caller.recv(left))
                caller.close()
            else:
                break_off(caller)


@pytest.mark.parametrize(
    ("count", "more_kib"),
    [
        pytest.param(160, 8 * 1024, id="160"),
        pytest.param(
            100_000, 32 * 1024, id="100000", marks=[pytest.mark.soak, pytest.mark.endurance]
        ),
    ],
)
def test_descriptors_and_memory_are_back_where_they_were(
    running: Mesh, count: int, more_kib: int
) -> None:
    draw = random.Random(count)
    backend = Backend()

    def serve(connection: socket.socket) -> None:
        try:
            echo(connection)
        finally:
            backend.seen.remove(connection)
            connection.close()

    backend.serve = serve
    with backend, pair(running, backend.target) as carried:
        churn(carried, _WARM, draw)
        carried.settled()
        pid = carried.proxy.process.pid
        before, resident = descriptors(pid), resident_kib(pid)
        # What leaks leaks each time; a heap that lies about differently than before grows once.
        for _ in range(_ROUNDS):
            churn(carried, count, draw)
            carried.settled()
            until(lambda: descriptors(pid) <= before, lambda: descriptors(pid))
            grown, resident = resident_kib(pid) - resident, resident_kib(pid)
            if grown <= more_kib:
                break
        else:
            pytest.fail(f"it grew by {grown} KiB in the last of {_ROUNDS} rounds")
        assert not carried.shown("in")["waiting"]
