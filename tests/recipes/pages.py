"""The pages of docs/recipes/: their programs, as they are run."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.tools import IN_CI

PAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "recipes"
_BLOCK = re.compile(r"^```(\w+) ([\w-]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def program(page: str, role: str, port: int = 0) -> str:
    """The block of that page that is marked with ``role``, with a port in it."""
    found = {marked: text for _, marked, text in _BLOCK.findall((PAGES / page).read_text())}
    return re.sub(r"\bPORT\b", str(port), found[role])


def need(*modules: str) -> None:
    """Skip where one is not installed; in CI that fails."""
    for module in modules:
        if find_spec(module) is None:
            if IN_CI:
                pytest.fail(f"{module} is not installed: make recipes does", pytrace=False)
            pytest.skip(f"{module} is not installed: make recipes does")
