"""What a stranger's bytes cost: each reader with the dearest input that is known for it."""

from collections.abc import Callable
from pathlib import Path

from tests.bench.tables import Table
from tests.strangers import READERS, Reader, seconds


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    rows = []
    for reader in READERS:
        say(reader.name)
        rows.append(_row(reader, rounds))
    return Table(
        "strangers",
        "processor time of one core for the dearest known input of each reader",
        tuple(rows),
        (
            "A reader whose bytes have a bound in MiB is measured with less: what it costs grows with the bytes, as",
            "the tests see to.",
        ),
    )


def _row(reader: Reader, rounds: int) -> dict[str, float | int | str]:
    data = reader.make(reader.size)
    spent = seconds(reader, data, rounds)
    return {
        "reader": reader.name,
        "dearest known input": reader.dearest,
        "KiB at most": reader.most // 1024,
        "signatures at most": reader.checks,
        "us for each KiB": round(spent * 1e6 / len(data) * 1024, 1),
        "us for all": round(spent * 1e6 / len(data) * max(len(data), reader.most)),
    }
