"""Whose things are: the CA in a directory that many share, and what is exported where others can write."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.house import House
from tests.interop.house import house as inhabited
from tests.running import BIN, PATIENCE, Running
from tests.tools import require_tool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

NOBODY = 65534


@pytest.fixture
def shared() -> Iterator[House]:
    """A house whose state directory is as ``/tmp`` is, and in it the CA of another user."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as name:
        home = Path(name)
        home.chmod(0o711)
        with inhabited(home) as house:
            house.state.mkdir()
            house.state.chmod(0o1777)
            ca = Running.start(
                *(require_tool("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}"),
                *("--clear-groups", BIN / "twistd", "-n", "--logfile=-", "--pidfile="),
                *("mesh-ca", "--port", "0", "--root-key", "ec-p256"),
                cwd=Path("/"),
                env={**house.env, "PYTHONDONTWRITEBYTECODE": "1"},
            )
            house.processes.append(ca)
            ca.wait_for(r"Ready to issue certificates\.")
            yield house


def test_a_ca_that_anybody_founded_is_not_believed_until_it_is_named(shared: House) -> None:
    own = ("--server", "https://localhost:1", "--timeout", "2s")
    done = shared.client(*own)
    assert "name its user with --ca-user" in done.stderr
    assert done.returncode != 0
    for command in (("entry", "list"), ("cert", "list"), ("doctor",)):
        done = shared.run(BIN / "mesh-ctl", *command)
        assert done.returncode != 0
        assert "name its user with --ca-user" in done.stdout + done.stderr, command
    done = shared.run(BIN / "mesh-ctl", "entry", "list", "--ca-user", str(NOBODY))
    assert done.returncode == 0, done.stderr
    server = shared.start_server(wait=False)
    server.wait_for(r"name its user with --ca-user")
    assert "Ready to accept" not in server.text
    trusting = shared.start_server("--ca-user", str(NOBODY))
    assert trusting.stop() == server.stop() == 0


def test_a_process_of_another_user_at_the_socket_is_told_nothing(
    house: House, tmp_path: Path
) -> None:
    """Its directory is ours, and somebody else listens there."""
    path = tmp_path / "ca.sock"
    listening = (
        "import os, socket, sys\n"
        "wire = socket.socket(socket.AF_UNIX)\n"
        "os.chmod(sys.argv[1], 0o777)\n"
        f"os.setgroups([]); os.setuid({NOBODY})\n"
        "wire.bind('ca.sock')\n"
        "wire.listen()\n"
        "print('listening', flush=True)\n"
        "there, _ = wire.accept()\n"
        "print('heard', there.recv(100), flush=True)\n"
    )
    there = Running.start(
        require_tool("python3"), "-c", listening, str(tmp_path), cwd=tmp_path, real=True
    )
    house.processes.append(there)
    there.wait_for("listening")
    done = house.run(BIN / "mesh-ctl", "entry", "list", "--ca-url", f"unix:{path}")
    assert done.returncode != 0
    assert "runs as nobody, and root may be the CA there" in done.stderr
    assert there.wait_for(r"heard (.*)", PATIENCE)[1] == "b''"


def test_root_exports_no_key_into_another_users_directory(house: House, tmp_path: Path) -> None:
    house.start_ca()
    house.start_server()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, -1)
    for target, told in (
        (theirs, "belongs to another user"),
        (theirs / "below", "theirs is another user's"),
    ):
        done = house.client("--export", str(target))
        assert told in done.stderr
        assert done.returncode != 0
        assert not list(theirs.rglob("*.pem"))
    done = house.client("--export", str(tmp_path / "ours"))
    assert done.returncode == 0, done.stderr


def test_root_makes_no_backup_where_another_user_could_take_its_place(
    house: House, tmp_path: Path
) -> None:
    house.start_ca()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, -1)
    done = house.run(BIN / "mesh-ctl", "backup", "create", theirs / "mesh.backup")
    assert done.returncode != 0
    assert "belongs to another user" in done.stderr
    assert not list(theirs.iterdir())
    done = house.run(BIN / "mesh-ctl", "backup", "create", tmp_path / "mesh.backup")
    assert done.returncode == 0, done.stderr
