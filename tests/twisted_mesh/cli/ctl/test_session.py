"""A run that asks a CA ends by a signal as one on a reactor does: at once, without a word, with status 130."""

import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pki.errors import PkiError
from tests.running import BIN, PATIENCE
from twisted_mesh.api.blocking_client import result_of


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_wait(number: int, tmp_path: Path) -> None:
    path = tmp_path / "ca.sock"
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(PATIENCE)
        asking = subprocess.Popen(
            [sys.executable, BIN / "mesh-ctl", "cert", "list", "--ca-url", f"unix:{path}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        connection, _ = listening.accept()
        with closing(connection):
            connection.recv(1)
            asking.send_signal(number)
            assert asking.communicate(timeout=PATIENCE) == (b"", b"")
    assert asking.returncode == 130


def test_work_that_would_have_to_wait_for_a_reactor_is_a_bug() -> None:
    class Waits:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield

    async def works() -> int:
        return 3

    async def is_refused() -> int:
        raise PkiError("no")

    assert result_of(works()) == 3
    with pytest.raises(PkiError, match="no"):
        result_of(is_refused())
    with pytest.raises(RuntimeError, match="no reactor"):
        result_of(Waits())
