"""Outside tools that judge what we make: openssl, curl, certtool and the like."""

import os
import shutil

import pytest

IN_CI = os.environ.get("CI") == "true"


def require_tool(name: str) -> str:
    """The path of a program; without it the test is skipped, or in CI (``CI=true``) fails."""
    path = shutil.which(name)
    if path is not None:
        return path
    if IN_CI:
        pytest.fail(f"{name} is not installed, and in CI no judge may be missing", pytrace=False)
    pytest.skip(f"{name} is not installed")
