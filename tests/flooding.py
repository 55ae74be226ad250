"""Floods: many connections of a kind that proves nothing, and what a process keeps of them."""

import select
import socket
import ssl
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import define

from tests.running import CHECKOUT, PATIENCE

#: What a client says first, as OpenSSL would, and then no more: the server has made its keys by then.
_HALF = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_HALF.check_hostname = False
_HALF.verify_mode = ssl.CERT_NONE


def silent(wire: socket.socket) -> None:
    """Says nothing."""


def garbage(wire: socket.socket) -> None:
    wire.sendall(b"\x00\xff" * 64)


def half_a_handshake(wire: socket.socket) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _HALF.wrap_bio(incoming, outgoing).do_handshake()
    wire.sendall(outgoing.read())


KINDS = {kind.__name__: kind for kind in (silent, garbage, half_a_handshake)}


#: Connections a second: so many that they matter, and so few that they do not just take the machine's time.
RATE = 150


def main(port: str, kind: str, kept: str) -> None:
    """Open connections for ever, keep the last so many of them, and print how many there were."""
    wires: deque[socket.socket] = deque()
    opened = 0
    started = time.monotonic()
    while True:
        early = max(0.0, opened / RATE - (time.monotonic() - started))
        if select.select([sys.stdin], [], [], early)[0]:
            break
        wire = socket.socket()
        wire.settimeout(PATIENCE)
        with suppress(OSError):  # to be hung up on is what it is for
            wire.connect(("127.0.0.1", int(port)))
            opened += 1
            KINDS[kind](wire)
        wires.append(wire)
        if len(wires) > int(kept):
            wires.popleft().close()
        if opened == int(kept):
            print("under way", flush=True)
    print(opened, flush=True)


@define(eq=False)
class Flood:
    """How it went."""

    opened: int = 0


@contextmanager
def flooding(port: int, kind: str, kept: int) -> Iterator[Flood]:
    """A flood, in a process of its own, that begins when ``kept`` connections were opened."""
    command = (sys.executable, "-m", __name__, str(port), kind, str(kept))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        flood = Flood()
        try:
            yield flood
        finally:
            process.stdin.close()
            *_, opened = process.stdout.read().split()
            flood.opened = int(opened)
            assert process.wait(PATIENCE) == 0


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> float:
    """Megabytes of memory that a process really has."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
