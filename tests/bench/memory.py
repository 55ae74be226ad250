"""What a connection that does nothing takes of its server's memory."""

from collections.abc import Callable
from pathlib import Path

from tests.bench import load
from tests.bench.handshakes import OURS
from tests.bench.meshes import MeshOnStage
from tests.bench.peers import Peer, peers
from tests.bench.processes import stage
from tests.bench.tables import Table, Value, median
from tests.running import until

_WARM, _CONNECTIONS = 100, 600
#: Seconds that all are kept open once they are.
_KEPT = 0.5


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    with stage(home) as running:
        mesh = MeshOnStage(running)
        mesh.start_ca()
        server, port = mesh.start_server("--max-connections", "2000")
        identity = mesh.export(port)
        there, absent = peers(running, identity)
        found: dict[str, list[float]] = {}
        for number in range(rounds):
            for peer in (Peer(OURS, server, port), *there):
                job = {"kind": "idle", "path": "/api/status", "port": peer.port, **identity.job()}
                found.setdefault(peer.name, []).append(_each(peer, job))
            say(f"round {number + 1} of {rounds} done")
    rows: list[dict[str, Value]] = [
        {"": name, "KiB each": round(median(values), 1), "most": round(max(values), 1)}
        for name, values in found.items()
    ]
    return Table(
        "memory",
        f"resident memory of a server for each of {_CONNECTIONS:,} idle connections, after one request on each",
        tuple(rows),
        (f"Beyond what {_WARM} connections at once had made it take before.", *absent),
    )


def _each(peer: Peer, job: dict[str, object]) -> float:
    load.work({**job, "clients": _WARM, "seconds": 0.0})
    before = peer.service.resident_kib() or 0
    most = [before]
    begun = load.begin({**job, "clients": _CONNECTIONS, "seconds": _KEPT})
    _, process = begun

    def is_over() -> bool:
        most.append(peer.service.resident_kib() or 0)
        return process.poll() is not None

    until(is_over)
    told = load.finish(begun)
    if told["done"] != _CONNECTIONS:
        raise AssertionError(f"{peer.name} did not take them all: {told}")
    return (max(most) - before) / _CONNECTIONS
