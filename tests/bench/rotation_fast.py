"""A new key and a new certificate every 50 ms, while clients connect and ask: nobody may notice."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.handshakes import OURS
from tests.bench.meshes import CLIENT_ID, Identity
from tests.bench.processes import stage
from tests.bench.rounds import Contestant, compete
from tests.bench.tables import Table, Value

_EVERY = 0.05


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.5) -> Table:
    rows: list[dict[str, Value]] = []
    with stage(home) as running:
        jobs = {
            "new connections": {"kind": "handshakes", "clients": 8},
            "kept connections": {"kind": "kept-alive", "clients": 8},
        }
        servers = {}
        for name, every in (("rotating", _EVERY), ("at rest", 0)):
            directory = home / name.replace(" ", "-")
            directory.mkdir()
            server = running.module(
                directory.name, "tests.bench.own_server", directory, "http", every
            )
            servers[name] = server, int(server.wait_for(r"^(\d+)$")[1]), Identity(directory)
        for what, job in jobs.items():
            contestants = [
                Contestant(
                    f"{OURS} {name}, {what}",
                    server,
                    {
                        **job,
                        **identity.job(),
                        "path": "/api/status",
                        "port": port,
                        "expected": CLIENT_ID,
                    },
                )
                for name, (server, port, identity) in servers.items()
            ]
            compete(contestants, rounds, seconds, say)
            rows += [contestant.row("requests") for contestant in contestants]
    return Table(
        "rotation-fast",
        f"requests while a server has a new key and certificate every {_EVERY * 1000:g} ms",
        tuple(rows),
        (
            "Making the key and the certificate is the server's own work here, and among its CPU time.",
        ),
    )
