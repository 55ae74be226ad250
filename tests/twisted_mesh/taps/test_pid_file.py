"""A PID file that was left behind stops no start; one of a process that lives does, by its lock."""

import os
import signal
import stat
from pathlib import Path

import pytest

from twisted_mesh.state.directory import StateError
from twisted_mesh.taps.pid_file import PidFile


@pytest.mark.parametrize(
    "left",
    ["", "\n", "\0\0\0\0", "1", f"{os.getpid()}", f"{os.getppid()}\n", "999999999", " 7 "],
    ids=["empty", "newline", "zeros", "init", "ours", "the parent's", "nobody's", "spaces"],
)
def test_what_was_left_behind_is_replaced_whosever_number_it_is(tmp_path: Path, left: str) -> None:
    path = tmp_path / "mesh.pid"
    path.write_text(left)
    file = PidFile(str(path))
    file.take("mesh-ca")
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    file.remove()
    assert not path.exists()


def test_a_process_that_lives_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mesh.pid"
    first = PidFile(str(path))
    first.take("mesh-ca")
    with pytest.raises(
        StateError, match=f"another process, PID {os.getpid()}, holds --pidfile {path}"
    ):
        PidFile(str(path)).take("mesh-ca")
    first.remove()
    PidFile(str(path)).take("mesh-ca")


def test_a_process_that_was_killed_keeps_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mesh.pid"
    child = os.fork()
    if child == 0:
        PidFile(str(path)).take("mesh-ca")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert path.read_text() == f"{child}\n"
    PidFile(str(path)).take("mesh-ca")
    assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_of_another_kind_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "mesh.conf"
    path.write_text("listen = 9443\n")
    with pytest.raises(StateError, match="is no PID file, but another file that would be"):
        PidFile(str(path)).take("mesh-ca")
    assert path.read_text() == "listen = 9443\n"
    link = tmp_path / "link.pid"
    link.symlink_to(path)
    with pytest.raises(StateError, match="cannot be written"):
        PidFile(str(link)).take("mesh-ca")


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"missing/x.pid cannot be written \(No such file"):
        PidFile(str(tmp_path / "missing" / "x.pid")).take("mesh-ca")


@pytest.mark.parametrize("umask", [0, 0o777])
def test_others_may_read_and_not_write_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "mesh.pid"
    before = os.umask(umask)
    try:
        PidFile(str(path)).take("mesh-ca")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_another_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "mesh.pid"
    file = PidFile(str(path))
    file.take("mesh-ca")
    path.unlink()
    path.write_text("7")
    file.remove()
    assert path.read_text() == "7"
