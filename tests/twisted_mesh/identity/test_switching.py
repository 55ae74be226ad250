"""Over real sockets no request fails, however often the path is switched meanwhile."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.running import CHECKOUT


def switched(requests: int, transport: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.twisted_mesh.identity.switching", str(requests)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, "MESH_TLS_TRANSPORT": transport},
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("requests", "transport"),
    [
        (60, "socket"),
        pytest.param(100, "twisted", marks=pytest.mark.interop),
        pytest.param(2_000, "socket", marks=[pytest.mark.soak, pytest.mark.endurance]),
        pytest.param(10_000, "socket", marks=[pytest.mark.soak, pytest.mark.endurance]),
    ],
)
def test_no_request_fails_while_the_path_is_switched(requests: int, transport: str) -> None:
    told = switched(requests, transport)
    assert told["outcomes"] == {"word": requests}
    assert told["switches"] >= requests / 20
    assert len(told["roots"]) == 2, "each was served by one path or the other, and both were"
    assert sum(told["roots"].values()) == requests
