"""Full mutual TLS 1.3 handshakes, a new connection and one request each."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.meshes import MeshOnStage
from tests.bench.peers import ASYNCIO, NGINX, peers
from tests.bench.processes import stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.tables import Table, beside

OURS = "mesh-server"
_CLIENTS = 8


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    with stage(home) as running:
        mesh = MeshOnStage(running)
        mesh.start_ca()
        server, port = mesh.start_server()
        identity = mesh.export(port)

        def job(to: int) -> dict[str, object]:
            return {
                "kind": "handshakes",
                "port": to,
                "path": "/api/status",
                "clients": _CLIENTS,
                **identity.job(),
            }

        there, absent = peers(running, identity)
        contestants = [
            Contestant(OURS, server, job(port)),
            *(Contestant(peer.name, peer.service, job(peer.port)) for peer in there),
        ]
        notes = [
            "mesh-server judges the SPIFFE ID and what was revoked, names the caller and logs every connection and "
            "request; nginx and envoy log every request, and envoy looks at the SPIFFE ID's beginning;",
            f"{ASYNCIO} does none of it. Nobody sends session tickets. The load offers X25519, no hybrid group.",
            *absent,
        ]
        compete(contestants, rounds, seconds, say)
        rows = [contestant.row("handshakes") for contestant in contestants]
    return Table(
        "handshakes",
        "full mutual TLS 1.3 handshakes, P-256, chain of two, new connection and one request each",
        beside(rows, "CPU us each", NGINX, f"CPU beside {NGINX}"),
        (*notes, *busy(contestants)),
    )
