"""A machine that nobody has set up: its agent joins by the platform, and serves workloads through an alias."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest

from tests.running import PATIENCE, Running, until
from tests.twisted_mesh.attest.programs import programs_of
from tests.twisted_mesh.attest.test_platform_drill import BUILD, Place

AGENT, ALIAS = "spiffe://mesh.local/mesh/agent/prod.node7", "spiffe://mesh.local/mesh/alias/prod"
WEB = "spiffe://mesh.local/service/web"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with programs_of("with_badge", tmp_path) as start:
        yield Place(tmp_path, start)
