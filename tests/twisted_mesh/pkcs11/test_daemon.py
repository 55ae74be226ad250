"""A token that a daemon reaches, p11-kit's, which is ended and started again; and a process that forks."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from pki.keys import KeyAlgorithm, signature_over
from tests.running import is_listening, until
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
    stores: Stores, softhsm: SoftHsm, tmp_path: Path
) -> None:
    client, socket = require_client(), Path(f"/tmp/mesh-p11-{os.getpid()}")
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
    socket.unlink(missing_ok=True)
