"""One running mesh per test process, at which all of these tests knock."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.issuing.authority import Authority
from tests.interop import forging
from tests.interop.house import House
from tests.interop.house import house as inhabited
from tests.running import Running
from tests.tools import require_tool

PAYMENT_ONLY = ("--allow", "spiffe://mesh.local/service/payment-worker")


@pytest.fixture(scope="session")
def shared() -> Iterator[House]:
    """A CA with all its listeners open and a server. Tests may be refused there, and must not harm it."""
    require_tool("curl")
    require_tool("openssl")
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        home = Path(name)
        home.chmod(0o711)  # the socket is for other users too
        with inhabited(home) as house:
            ca = house.start_ca("--insecure-http", "0")
            server = house.start_server()
            house.identity("payment-worker")
            yield house
            assert server.stop() == 0
            assert ca.stop() == 0


@pytest.fixture
def house() -> Iterator[House]:
    """An empty house for one test; not in its own directory, whose name may leave a unix socket's path no room."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name, inhabited(Path(name)) as house:
        yield house


@pytest.fixture(scope="session")
def issuing(shared: House) -> Authority:
    """The shared mesh's own issuing CA, for forging with."""
    return forging.issuing_authority(shared.state)


@pytest.fixture(scope="session")
def choosy(shared: House) -> Iterator[tuple[Running, int]]:
    """A server that lets in payment-worker and nobody else, and its port."""
    with shared.serving(*PAYMENT_ONLY, "--spiffe-id", forging.API_SERVER) as (server, port):
        yield server, port
