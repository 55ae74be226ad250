"""Programs of ours run by a module of the tests, which registers something first."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.running import CHECKOUT, Running

Starting = Callable[..., Running]


@contextmanager
def programs_of(module: str, directory: Path) -> Iterator[Starting]:
    """Starts a program by ``module`` beside this one, whose state is in ``directory``; ends all of them."""
    started: list[Running] = []

    def start(*command: str) -> Running:
        started.append(
            Running.start(
                *(sys.executable, "-m", f"tests.twisted_mesh.attest.{module}", *command),
                cwd=CHECKOUT,
                env={"MESH_STATE_DIR": str(directory / "state"), "NO_COLOR": "1"},
            )
        )
        return started[-1]

    yield start
    for running in reversed(started):
        running.stop()
        assert "Traceback" not in running.text
