"""What was measured: tables as data, and one place that prints them."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

Value = float | int | str | None


@frozen
class Table:
    """One comparison: a row each contestant, a column each figure."""

    name: str
    title: str
    rows: tuple[Mapping[str, Value], ...]
    """Each with the same keys; the first names the row."""
    notes: tuple[str, ...] = ()


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def beside(
    rows: Sequence[Mapping[str, Value]], column: str, peer: str, into: str
) -> tuple[Mapping[str, Value], ...]:
    """The rows with a column more: ``column`` as a multiple of the peer's (its row's first value)."""
    base = next((r[column] for r in rows if next(iter(r.values())) == peer), None)

    def ratio(row: Mapping[str, Value]) -> Value:
        value = row[column]
        if isinstance(value, int | float) and isinstance(base, int | float) and base:
            return round(value / base, 2)
        return None

    return tuple({**row, into: ratio(row)} for row in rows)


def as_text(tables: Sequence[Table], conditions: Mapping[str, str]) -> str:
    lines = [f"{name}: {value}" for name, value in conditions.items()]
    for table in tables:
        lines += ["", f"== {table.name}: {table.title}", *_grid(table.rows)]
        lines += [f"   {note}" for note in table.notes]
    return "\n".join(lines) + "\n"


def as_json(tables: Sequence[Table], conditions: Mapping[str, str]) -> str:
    told = {"conditions": dict(conditions), "tables": [asdict(table) for table in tables]}
    return json.dumps(told, indent=2) + "\n"


RENDERERS: dict[str, Callable[[Sequence[Table], Mapping[str, str]], str]] = {
    "text": as_text,
    "json": as_json,
}


def _grid(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return ["   (nothing)"]
    columns = list(rows[0])
    cells = [columns, *([_cell(row[column]) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = []
    for line in cells:
        first, *rest = (
            text.ljust(width) if not at else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("   " + "  ".join((first, *rest)).rstrip())
    return lines


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value
