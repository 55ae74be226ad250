"""docs/LIBRARY.md: its examples run, and it names what is offered and nothing else."""

import re
from importlib import import_module
from pathlib import Path

import pytest

LIBRARY = (Path(__file__).resolve().parent.parent / "docs" / "LIBRARY.md").read_text()


def test_its_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", LIBRARY, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 1
    exec(compile("\n".join(blocks), "docs/LIBRARY.md", "exec"), {"__name__": "library"})


@pytest.mark.parametrize("package, section", [("pki", "Deciding"), ("twisted_mesh", "Acting")])
def test_it_names_all_that_is_offered_and_nothing_else(package: str, section: str) -> None:
    text = re.search(rf"^## {section}.*?\n(.*?)(?=^## |\Z)", LIBRARY, re.MULTILINE | re.DOTALL)
    assert text
    rows = [line.split("|")[1] for line in text[1].splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    module = import_module(package)
    assert told == set(module.__all__)
    assert all(getattr(module, name) for name in told)
