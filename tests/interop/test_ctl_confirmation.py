"""``mesh-ctl`` at a terminal: it asks before what cannot be undone."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.administering import issue, statuses
from tests.interop.house import House
from tests.running import BIN, PATIENCE

WHO = "spiffe://mesh.local/asked/about"


def interrupt(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """As impatient people do: a signal in the instant before it reads is seen with the next one."""
    for _ in range(3):
        process.send_signal(number)
        try:
            process.wait(
                PATIENCE / 3
            )  # a second one while it ends would end it before it can say how
        except subprocess.TimeoutExpired:
            continue
        return


def at_a_terminal(
    shared: House, answer: bytes | signal.Signals, *arguments: str
) -> tuple[int, str]:
    """Exit status and stderr of mesh-ctl, after one answer to its question."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [BIN / "mesh-ctl", *arguments],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=shared.home,
        env={**os.environ, **shared.env},
    ) as process:
        try:
            os.close(theirs)
            assert process.stderr is not None
            said = b""
            while not said.endswith(b"]: "):
                byte = process.stderr.read(1)
                assert byte, said
                said += byte
            if isinstance(answer, bytes):
                os.write(ours, answer)
            else:
                interrupt(process, answer)
            _, rest = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            os.close(ours)
    return process.returncode, (said + rest).decode()


@pytest.mark.parametrize(
    ("answer", "status", "after"),
    [(b"n\n", 1, "valid"), (b"\n", 1, "valid"), (signal.SIGINT, 130, "valid"), (b"y\n", 0, "revoked")],
)  # fmt: skip
def test_nothing_is_revoked_without_a_yes(
    answer: bytes | signal.Signals, status: int, after: str, shared: House
) -> None:
    serial = issue(shared, WHO)
    code, said = at_a_terminal(shared, answer, "cert", "revoke", "--serial", serial)
    assert code == status, said
    assert f"Revoke 1 certificate of {WHO}, for good (unspecified)? [y/N]: " in said
    assert "Traceback" not in said
    assert statuses(shared, "--spiffe-id", WHO)[serial] == after


def test_a_full_disk_leaves_no_half_export(shared: House, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, BIN / "mesh-ctl", "cert", "export"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared.env},
        )
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("mesh-ctl: the output cannot be written (No space left")
