"""How hypothesis runs (dev, ci or soak), which tests wait for ``make interop`` or ``make soak``, what they count."""

import os
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.tools import IN_CI

ROOT = Path(__file__).parent
SOAK = os.environ.get("MESH_SOAK") == "1"

# Machines that run tests are busy: no deadline, and slow generation is not a finding.
_shared = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("dev", max_examples=100, **_shared)
settings.register_profile("ci", max_examples=100, derandomize=True, print_blob=True, **_shared)
settings.register_profile("soak", max_examples=2000, **_shared)
settings.load_profile("soak" if SOAK else "ci" if IN_CI else "dev")


#: Which rule of the suite which tests break.
_BROKEN: pytest.StashKey[str] = pytest.StashKey()
#: What make interop, make soak and make recipes look for by .ci/marked.
_MARKS = ("interop", "soak", "recipes")
_TOLD = "the suite breaks a rule of its own: see the first failure"


@pytest.hookimpl(tryfirst=True)  # while those are here that -m leaves out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if lonely := _without_sibling(items):
        items[0].config.stash[_BROKEN] = f"make test needs a small sibling of: {', '.join(lonely)}"
    elif unseen := _unseen(items):
        items[0].config.stash[_BROKEN] = f".ci/marked does not see the mark of: {', '.join(unseen)}"
    if SOAK:
        return
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: make soak runs it"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where a rule of the suite is broken no test passes: what is said while collecting, xdist does not show."""
    if broken := item.config.stash.get(_BROKEN, ""):
        item.config.stash[_BROKEN] = _TOLD
        if broken == _TOLD:
            pytest.skip(_TOLD)
        pytest.fail(broken, pytrace=False)


def _without_sibling(items: list[pytest.Item]) -> list[str]:
    """Those for ``make interop`` that stand alone; nothing is said where only a part of the tests was asked for."""
    if {item.path for item in items} < set(ROOT.rglob("test_*.py")):
        return []
    usual = {
        _name(item)
        for item in items
        if not (item.get_closest_marker("interop") or item.get_closest_marker("soak"))
    }
    lonely = []
    for item in items:
        marker = item.get_closest_marker("interop")
        if marker and (marker.args[0] if marker.args else _name(item)) not in usual:
            lonely.append(item.nodeid)
    return lonely


def _unseen(items: list[pytest.Item]) -> list[str]:
    """Those with a mark that is written neither in their file nor in a ``conftest.py`` above it."""
    return [
        item.nodeid
        for item in items
        if any(item.get_closest_marker(name) and not _says(item.path, name) for name in _MARKS)
    ]


@cache
def _says(path: Path, name: str) -> bool:
    above = [place / "conftest.py" for place in path.parents if ROOT in place.parents]
    return any(f"mark.{name}" in file.read_text() for file in (path, *above) if file.exists())


def _name(item: pytest.Item) -> str:
    """Its node without parameters."""
    return item.nodeid.partition("[")[0]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What tests measured (``record_property``): the sum, or of what is longest, the longest."""
    told: dict[str, list[float]] = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                told[name].append(value)
    for name, values in told.items():
        total = max(values) if name.startswith("longest") else sum(values)
        terminalreporter.write_line(f"{name}: {total:g}")
