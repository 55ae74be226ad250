"""Each test of this directory runs on both transports; those that name ``network`` on several kinds of socket."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import _producer_helpers
from twisted.internet.task import Cooperator

from tests.twisted_mesh.tls.transport.rig import Rig
from twisted_mesh.tls import record_layer
from twisted_mesh.tls.transport import TRANSPORT


@pytest.fixture(params=["socket", "twisted", pytest.param("public", marks=pytest.mark.interop)])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which it is; ``public`` is ours where only pyOpenSSL's public way to the records is known."""
    chosen: str = request.param
    if chosen == "public":
        chosen = "socket"
        monkeypatch.setattr(record_layer, "_quicker", lambda: record_layer.PublicRecordLayer)
    monkeypatch.setenv(TRANSPORT, chosen)
    return chosen


@pytest.fixture
def network(request: pytest.FixtureRequest) -> str:
    """TCP over IPv4, unless the test is of several."""
    chosen: str = getattr(request, "param", "tcp4")
    return chosen


@pytest.fixture
def rig(transport: str, network: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with tempfile.TemporaryDirectory() as directory:  # its path is short enough for a socket's
        made = Rig(transport, network, Path(directory))
        # Twisted asks for the pieces of a pull producer on the reactor of the process.
        cooperator = Cooperator(scheduler=lambda call: made.reactor.callLater(0, call))
        monkeypatch.setattr(_producer_helpers, "cooperate", cooperator.cooperate)
        yield made
        made.over()
