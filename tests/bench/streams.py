"""Bytes over mutual TLS without HTTP: as many as go through, and as many small ones there and back."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.meshes import Identity
from tests.bench.peers import ASYNCIO
from tests.bench.processes import stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.tables import Table, Value, beside

OURS = "twisted_mesh"
_SIZE = 8_000_000
_KINDS = {
    "bulk": ("MB", {"kind": "bulk", "clients": 4, "size": _SIZE}),
    "round trips": ("round trips", {"kind": "round-trips", "clients": 32}),
}


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.5) -> Table:
    rows: list[dict[str, Value]] = []
    with stage(home) as running:
        server = running.module("own-server", "tests.bench.own_server", home, "stream", 0)
        port = int(server.wait_for(r"^(\d+)$")[1])
        identity = Identity(home)
        peer = running.module(
            "asyncio",
            *("tests.bench.asyncio_server", identity.certificate, identity.key, identity.roots),
            "stream",
        )
        peers_port = int(peer.wait_for(r"listening on (\d+)")[1])
        warnings: tuple[str, ...] = ()
        for name, (unit, job) in _KINDS.items():
            contestants = [
                Contestant(f"{OURS}, {name}", server, {**job, **identity.job(), "port": port}),
                Contestant(
                    f"{ASYNCIO}, {name}", peer, {**job, **identity.job(), "port": peers_port}
                ),
            ]
            compete(contestants, rounds, seconds, say)
            found = [contestant.row(unit) for contestant in contestants]
            rows += [
                {
                    "": row[""],
                    "a second": row[f"{unit}/s"],
                    "CPU us each": row["CPU us each"],
                    "failures": row["failures"],
                    f"CPU beside {ASYNCIO}": row[f"CPU beside {ASYNCIO}"],
                }
                for row in beside(
                    found,
                    *("CPU us each", f"{ASYNCIO}, {name}", f"CPU beside {ASYNCIO}"),
                )
            ]
            warnings = (*warnings, *busy(contestants))
    return Table(
        "streams",
        "a server's bytes over mutual TLS: MB by 4 connections, and round trips of 16 bytes by 32",
        tuple(rows),
        (
            "Ours judges its peer by its SPIFFE ID; the other one believes whomever the root vouches for.",
            *warnings[:1],
        ),
    )
