"""The first line that each side says of a broken set-up names the cause, and a cure: a table of them."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from tests import first_lines
from tests.first_lines.row import FirstLine


def table() -> Iterator[FirstLine]:
    """The rows of every kind."""
    for module in iter_modules(first_lines.__path__):
        yield from getattr(import_module(f"{first_lines.__name__}.{module.name}"), "ROWS", ())


def rows() -> Iterator[object]:
    for row in table():
        marks = [pytest.mark.interop] if row.starts_processes else []
        yield pytest.param(row, id=f"{row.side}: {row.setup}", marks=marks)


@pytest.mark.parametrize("row", list(rows()))
def test_the_first_line_names_the_cause_and_the_cure(row: FirstLine, tmp_path: Path) -> None:
    said = row.say(tmp_path)
    assert not row.lacks(said), said


def test_every_row_is_another_set_up() -> None:
    names = [(row.side, row.setup) for row in table()]
    assert len(names) == len(set(names))
