"""A token that a daemon reaches, p11-kit's, which is ended and started again; and a process that forks."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from pki.keys import KeyAlgorithm, signature_over
from tests.running import CHECKOUT, PATIENCE, is_listening, until
from tests.tools import IN_CI, require_tool
from tests.twisted_mesh.pkcs11.conftest import Stores
from tests.twisted_mesh.pkcs11.softhsm import SoftHsm
from twisted_mesh.keystores.errors import KeyStoreAway

_CLIENTS = (
    "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib64/pkcs11/p11-kit-client.so",
    "/usr/lib/pkcs11/p11-kit-client.so",
    "/opt/homebrew/lib/pkcs11/p11-kit-client.so",
)


def require_client() -> str:
    require_tool("p11-kit")
    found = next((path for path in _CLIENTS if os.path.exists(path)), None)
    if found is None:
        (pytest.fail if IN_CI else pytest.skip)("p11-kit-client.so is nowhere that is looked at")
    return found


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        yield Path(name)


@contextmanager
def serving(softhsm: SoftHsm, socket: Path) -> Iterator[None]:
    socket.unlink(missing_ok=True)
    daemon = subprocess.Popen(
        [
            *(require_tool("p11-kit"), "server", "--foreground", "--name", socket),
            *("--provider", softhsm.module, "pkcs11:token=mesh"),
        ],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: is_listening(socket))
        yield
    finally:
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def test_a_daemon_that_was_started_anew_signs_at_once(
    stores: Stores, softhsm: SoftHsm, short: Path
) -> None:
    client, socket = require_client(), short / "p11-kit"
    address = {"P11_KIT_SERVER_ADDRESS": f"unix:path={socket}"}
    with patch.dict(os.environ, address):
        store = stores.open(softhsm.uri(module=client), softhsm.pin)
        with serving(softhsm, socket):
            key = stores.settle(store.generate(KeyAlgorithm.EC_P256, "mesh.test issuing-1"))
            assert stores.settle(signature_over(b"data", key, key.public_key))
        # Between two signatures: nobody hears of it.
        with serving(softhsm, socket):
            assert stores.settle(signature_over(b"data", key, key.public_key))
        with pytest.raises(KeyStoreAway):
            stores.settle(key.sign(b"data"))
        stores.settle(store.look())
        assert store.problem is not None
        with serving(softhsm, socket):
            stores.settle(store.look())
            assert store.problem is None
            assert stores.settle(signature_over(b"data", key, key.public_key))
            stores.settle(store.stop())


_FORKS = """
import os, sys
from pathlib import Path
from tests.twisted_mesh.pkcs11.conftest import Stores, TokenReactor
from pki.keys import KeyAlgorithm, KeyReference, signature_over

uri, pin = sys.argv[1], Path(sys.argv[2])
stores = Stores(TokenReactor(), pin.parent)
store = stores.open(uri, pin)
key = stores.settle(store.generate(KeyAlgorithm.EC_P256, "mesh.test issuing-1"))
child = os.fork()
if not child:
    # It has no threads, and a module that nobody has initialised.
    stores = Stores(TokenReactor(), pin.parent)
    again = stores.open(uri, pin).key(key.reference)
    stores.settle(signature_over(b"data", again, key.public_key))
    stores.stop()
    os._exit(7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
stores.settle(signature_over(b"data", key, key.public_key))
stores.stop()
sys.exit(status)
"""


def test_a_process_that_has_forked_begins_anew(softhsm: SoftHsm) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKS, softhsm.uri(), softhsm.pin],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 7, done.stderr


def test_nothing_is_loaded_before_the_start(stores: Stores, softhsm: SoftHsm) -> None:
    """twistd forks between the two, and a session does not live through that."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what a process has loaded")
    module = softhsm.directory / "module.so"
    shutil.copy(softhsm.module, module)
    store = stores.open(softhsm.uri(module=str(module)), softhsm.pin, start=False)
    assert str(module) not in maps.read_text()
    store.start()
    stores.settle(store.look())
    assert str(module) in maps.read_text()


def test_a_token_whose_answers_make_no_sense_is_away_and_the_log_says_why(
    stores: Stores, softhsm: SoftHsm
) -> None:
    store = stores.open(softhsm.uri(), softhsm.pin)

    def nonsense(_: object) -> None:
        b"\xff".decode()

    with pytest.raises(KeyStoreAway, match="UnicodeDecodeError"):
        stores.settle(store._run(nonsense, 10.0, "a test"))
    assert store.problem is not None
    stores.settle(store.look())
    assert store.problem is None
