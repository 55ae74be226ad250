"""Stores to run the suite on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.twisted_mesh.stores import scratch
from tests.twisted_mesh.stores.certificates import intent
from tests.twisted_mesh.support import ThreadCalls
from twisted_mesh.stores.commands import Command
from twisted_mesh.stores.opening import open_store
from twisted_mesh.stores.sql import SqlStore


@pytest.fixture
def calls() -> ThreadCalls:
    return ThreadCalls()


@pytest.fixture(params=["alone", "in a batch"])
def others(request: pytest.FixtureRequest) -> list[Command]:
    """What else is told in the same turn: a command must come to the same either way."""
    return [] if request.param == "alone" else [intent(1000), intent(1001, request_key="other")]


@pytest.fixture(params=["memory:", "sqlite", "scratch:"])
def store(request: pytest.FixtureRequest, tmp_path: Path, calls: ThreadCalls) -> Iterator[SqlStore]:
    """An open store of each kind, that of the drill among them."""
    spec = (
        f"scratch:{tmp_path / 'scratch.db'}" if request.param == scratch.SCHEME else request.param
    )
    store = open_store(spec, tmp_path, calls)
    store.start()
    yield store
    calls.result(store.stop())
