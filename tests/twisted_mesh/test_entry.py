"""Whose modules are in the way, told by where Python finds them; as processes, in the table of first lines."""

import sys
from pathlib import Path

import pytest

from twisted_mesh.entry import foreign_modules


def test_a_foreign_module_is_named_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "msgspec.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "msgspec")
    sentence = foreign_modules(ImportError("no Struct\nin it"))
    assert sentence == (
        f"Python takes msgspec in {tmp_path} in the place of what belongs to this program: take that directory out "
        "of PYTHONPATH, or start elsewhere (ImportError: no Struct)"
    )


def test_an_error_of_another_cause_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    assert foreign_modules(ImportError("no such name")) is None
