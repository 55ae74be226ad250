"""A handshake by the standard library's ssl: plain contexts beside those of the mesh, in memory, in one process."""

import random
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.tables import Table, beside, median
from tests.twisted_mesh.stdlib.standing import CA, Memory, standing
from twisted_mesh.stdlib.context import MeshContext

_PLAIN = "ssl, ssl"
_HANDSHAKES = 300


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    plain = CA.member("shop").ssl_context(serves=True), CA.member("till").ssl_context(serves=False)
    plain[0].num_tickets = 0
    server, client = standing("shop"), standing("till")
    ours = server.server(), client.client()

    def forget() -> None:
        for context in ours:
            _forget(context)

    contestants: dict[str, tuple[ssl.SSLContext, ssl.SSLContext, Callable[[], None]]] = {
        _PLAIN: (*plain, lambda: None),
        "ours, ssl": (ours[0], plain[1], lambda: None),
        "ours, ours": (*ours, lambda: None),
        "ours, ours, never seen before": (*ours, forget),
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        turns = list(contestants.items())
        random.shuffle(turns)
        for name, (serving, calling, between) in turns:
            Memory.between(serving, calling).shake_hands()
            started = time.process_time()
            for _ in range(_HANDSHAKES):
                between()
                Memory.between(serving, calling).shake_hands()
            taken[name].append((time.process_time() - started) / _HANDSHAKES * 1e6)
    rows = [
        {"server, client": name, "CPU us each, both ends": round(median(values))}
        for name, values in taken.items()
    ]
    return Table(
        "stdlib",
        "mutual TLS 1.3 handshakes of ssl.SSLObject in memory, P-256, no tickets",
        beside(rows, "CPU us each, both ends", _PLAIN, f"beside {_PLAIN}"),
        (
            "plain contexts believe whomever the root vouches for: no ID, no revocation, and one certificate for ever.",
            "A verdict on a chain is remembered; in the last row nothing was.",
        ),
    )


def _forget(context: MeshContext) -> None:
    current = context._current
    if current is not None:
        current.judge._verdicts.clear()
