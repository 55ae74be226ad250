"""What ``mesh-ctl`` prints: tables and facts for people, JSON for programs, one sentence on stderr."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from typing import TypeVar

import click

from twisted_mesh.cli import stdout

T = TypeVar("T")

#: No table is wider than that; where nobody looks, its lines are not folded.
_UNFOLDED = 10_000

_Fact = str | Sequence[str] | None
#: Names and values, one or several, as :func:`put_facts` prints them.
Facts = dict[str, _Fact]

_STYLES = {
    "valid": "green", "ok": "green", "pending": "yellow", "warn": "yellow",
    "revoked": "red", "fail": "red", "expired": "dim", "live": "green", "spent": "dim",
}  # fmt: skip


def has_colour() -> bool:
    """On a terminal, and never with ``NO_COLOR``."""
    return bool(sys.stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR"))


def put(text: str) -> None:
    """One piece of the result, on stdout."""
    if sys.stdout is not None:
        click.echo(text, file=sys.stdout, color=has_colour())


def put_json(value: object) -> None:
    """One value as the whole result."""
    put(json.dumps(value, indent=2))


def say(sentence: str) -> None:
    """What is not the result: on stderr."""
    stdout.say("mesh-ctl", sentence)


def terminal_width() -> int | None:
    """How many characters a line has where somebody looks; None where nobody does."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def tail(text: str, width: int) -> str:
    """The end of ``text``, in so many characters."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def put_table(
    headings: Sequence[str], rows: Iterable[Sequence[str | None]], *, headed: bool = True
) -> None:
    """Columns, folded only where a terminal is too narrow. A known status has its colour."""
    from pki.errors import printable

    cells = [[printable(cell) if cell else "-" for cell in row] for row in rows]
    lines = None if terminal_width() else _unfolded(headings, cells, headed=headed)
    if lines is None:
        lines = _folded(headings, cells, headed=headed)
    put("\n".join(line.rstrip() for line in lines))


def put_rows(
    rows: Sequence[T],
    headings: Sequence[str],
    cells: Callable[[T], Sequence[str | None]],
    nothing: str,
    *,
    as_json: bool,
) -> None:
    """All that there are of one kind; for people a table, and ``nothing`` is said where there is none."""
    import msgspec

    if as_json:
        put_json([msgspec.to_builtins(row) for row in rows])
    elif rows:
        put_table(headings, map(cells, rows))
    else:
        say(nothing)


def _unfolded(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, headed: bool
) -> list[str] | None:
    """As rich writes it where nobody looks, without loading it; None where it knows better how wide a letter is."""
    lines = [headings, *rows] if headed else rows
    widths = [max((len(row[at]) for row in lines), default=0) for at in range(len(headings))]
    if sum(widths) + 2 * len(widths) > _UNFOLDED or not all(
        cell.isascii() for row in lines for cell in row
    ):
        return None
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in lines
    ]


def _folded(headings: Sequence[str], rows: Iterable[Sequence[str]], *, headed: bool) -> list[str]:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=headed, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    written = StringIO()
    console = Console(
        file=written,
        width=terminal_width() or _UNFOLDED,
        force_terminal=has_colour(),
        color_system="standard" if has_colour() else None,
        legacy_windows=False,
    )
    console.print(table)
    return written.getvalue().splitlines()


def put_facts(facts: Mapping[str, _Fact]) -> None:
    """Names and values, one a line; a name with several values once."""
    from pki.errors import printable

    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        values = [value] if isinstance(value, str) else list(value or ["-"])
        for number, text in enumerate(values):
            shown = click.style((name if not number else "").ljust(width), fg="cyan")
            put(f"{shown}  {printable(text, 2000)}".rstrip())


def status_word(status: str, width: int = 0) -> str:
    """A status in its colour, for a line of text."""
    style = _STYLES.get(status, "")
    text = status.ljust(width)  # first: the colour's codes have no width
    return click.style(text, fg=style) if style not in ("", "dim") else text


class JsonList:
    """A JSON array that is printed as its items come, however many there are."""

    def __init__(self) -> None:
        self._begun = False

    def put(self, items: Iterable[object]) -> None:
        """Print some more of them."""
        for item in items:
            comma = "," if self._begun else "["
            _write(f"{comma}\n  {json.dumps(item)}")
            self._begun = True

    def end(self) -> None:
        """Close the array, which is whole now."""
        _write("\n]\n" if self._begun else "[]\n")


def _write(text: str) -> None:
    if sys.stdout is not None:
        click.echo(text, file=sys.stdout, nl=False)


def counted(number: int, noun: str, nouns: str = "") -> str:
    """``1 certificate``, ``2,000 certificates``."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
