"""What it costs a server to refuse a handshake: each dear kind that is known, beside an ordinary one."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.tables import Table
from tests.twisted_mesh.tls.test_dear_chains import KINDS, ordinary, seconds


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    say("an ordinary one")
    usual = min(seconds(ordinary()) for _ in range(rounds))
    rows: list[dict[str, float | int | str]] = [_row("ordinary: of another CA", usual, usual)]
    for name, make in KINDS.items():
        say(name)
        presented = make()
        rows.append(_row(name, min(seconds(presented) for _ in range(rounds)), usual))
    return Table(
        "refusals",
        "reactor time for a handshake that is refused, by what the peer presents",
        tuple(rows),
        ("Processor time of the server's side alone; the best of several.",),
    )


def _row(name: str, spent: float, usual: float) -> dict[str, float | int | str]:
    return {
        "presented": name,
        "ms": round(spent * 1e3, 2),
        "beside an ordinary one": round(spent / usual, 2),
        "must be at most": 3.0,
    }
