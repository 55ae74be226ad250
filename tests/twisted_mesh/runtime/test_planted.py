"""What another user has put where our log or our PID file is to be is not written to."""

import os
from pathlib import Path

import pytest

from twisted_mesh.runtime.log_file import LogFile
from twisted_mesh.runtime.planted import open_own
from twisted_mesh.state.directory import StateError
from twisted_mesh.taps.pid_file import PidFile

OTHER = 65534
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give files to another user"
)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


def plant_file(path: Path) -> None:
    path.write_text("1\n")
    path.chmod(0o666)
    os.chown(path, OTHER, OTHER)


def plant_link(path: Path, target: Path) -> None:
    path.symlink_to(target)
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


@needs_root
def test_a_log_does_not_follow_another_users_link(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "root's"
    plant_link(shared / "mesh.log", target)
    with pytest.raises(PermissionError, match="another user has put it there"):
        LogFile(str(shared / "mesh.log"))
    assert not target.exists()
    target.write_text("kept")
    with pytest.raises(PermissionError):
        LogFile(str(shared / "mesh.log"))
    assert target.read_text() == "kept"


@needs_root
def test_a_log_goes_on_where_it_is_while_another_users_file_has_its_name(shared: Path) -> None:
    path = shared / "mesh.log"
    log = LogFile(str(path))
    path.rename(shared / "mesh.log.old")
    plant_file(path)
    with pytest.raises(PermissionError):
        log.reopen()
    os.write(log.ready(), b"a line\n")
    assert ((shared / "mesh.log.old").read_text(), path.read_text()) == ("a line\n", "1\n")
    log.close()


@needs_root
def test_no_pid_file_of_another_user_is_taken(shared: Path) -> None:
    path = shared / "mesh.pid"
    plant_file(path)
    with pytest.raises(StateError, match="another user has put it there"):
        PidFile(str(path)).take("service")
    assert path.read_text() == "1\n"


@needs_root
def test_what_the_owner_of_the_directory_has_made_is_used(shared: Path, tmp_path: Path) -> None:
    os.chown(shared, OTHER, OTHER)
    plant_file(shared / "mesh.log")
    LogFile(str(shared / "mesh.log")).close()
    plant_file(tmp_path / "mesh.log")  # which only root can have put there
    LogFile(str(tmp_path / "mesh.log")).close()


def test_links_of_ones_own_are_followed(tmp_path: Path) -> None:
    link, target = tmp_path / "mesh.log", tmp_path / "elsewhere.log"
    link.symlink_to(target)
    for is_new in (True, False):
        descriptor, made = open_own(str(link), os.O_WRONLY | os.O_APPEND, 0o640)
        os.close(descriptor)
        assert made is is_new
    assert target.exists()
    with pytest.raises(OSError, match="Too many levels"):
        open_own(str(link), os.O_WRONLY, 0o640, may_be_link=False)
