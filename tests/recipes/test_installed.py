"""What the recipes are about is here, in the versions that requirements/recipes.lock pins."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from tests.tools import IN_CI

REQUIREMENTS = Path(__file__).resolve().parent.parent.parent / "requirements"
NAMED = re.findall(r"^[A-Za-z0-9_.-]+", (REQUIREMENTS / "recipes.in").read_text(), re.MULTILINE)
#: Some are pinned twice, for older and newer Pythons.
PINNED = set(
    re.findall(r"^[a-z0-9.-]+==\S+", (REQUIREMENTS / "recipes.lock").read_text(), re.MULTILINE)
)


@pytest.mark.recipes
@pytest.mark.parametrize("name", NAMED)
def test_a_package_that_is_named_is_installed_as_it_is_pinned(name: str) -> None:
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        if IN_CI:
            raise
        pytest.skip(f"{name} is not installed: make recipes does")
    assert f"{name.lower()}=={installed}" in PINNED
