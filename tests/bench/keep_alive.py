"""Requests over connections that stay: one of them, and 32."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.handshakes import OURS
from tests.bench.meshes import MeshOnStage
from tests.bench.peers import ENVOY, peers
from tests.bench.processes import stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.tables import Table, Value, beside

CONNECTIONS = (1, 32)


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.5) -> Table:
    rows: list[dict[str, Value]] = []
    with stage(home) as running:
        mesh = MeshOnStage(running)
        mesh.start_ca()
        server, port = mesh.start_server()
        identity = mesh.export(port)
        there, absent = peers(running, identity)
        warnings: tuple[str, ...] = ()
        for clients in CONNECTIONS:
            job = {"kind": "kept-alive", "path": "/api/status", "clients": clients}
            contestants = [
                Contestant(OURS, server, {**job, **identity.job(), "port": port}),
                *(
                    Contestant(
                        peer.name, peer.service, {**job, **identity.job(), "port": peer.port}
                    )
                    for peer in there
                ),
            ]
            compete(contestants, rounds, seconds, say)
            found = [contestant.row("requests") for contestant in contestants]
            rows += [
                {"": f"{row['']}, {clients}", **{name: row[name] for name in list(row)[1:]}}
                for row in found
            ]
            warnings = (*warnings, *busy(contestants))
    compared = [
        row
        for clients in CONNECTIONS
        for row in beside(
            [row for row in rows if str(row[""]).endswith(f", {clients}")],
            *("CPU us each", f"{ENVOY}, {clients}", f"CPU beside {ENVOY}"),
        )
    ]
    return Table(
        "keep-alive",
        "GET over mutual TLS on connections that stay: how many of them stands behind the name",
        tuple(compared),
        (
            "The load is Python too: a server that is faster than it idles. Compare CPU times, not rates.",
            *absent,
            *(warnings[:1]),
        ),
    )
