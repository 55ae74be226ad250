"""A log file is rotated by logrotate, in both its ways, or by itself, and no line goes astray."""

import os
import stat
from pathlib import Path

import pytest

from twisted_mesh.runtime.log_file import LogFile


class Hours:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hours() -> Hours:
    return Hours()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.log"


def say(file: LogFile, hours: Hours, text: str) -> None:
    """A second later."""
    hours.now += 1
    os.write(file.ready(), text.encode())


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_its_mode_is_0640_whatever_the_umask(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        LogFile(str(path)).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_mode_of_a_file_that_is_there_is_whoevers_made_it(path: Path) -> None:
    path.touch(0o600)
    LogFile(str(path)).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_copytruncate_leaves_no_hole(path: Path, hours: Hours) -> None:
    file = LogFile(str(path), now=hours)
    say(file, hours, "before\n")
    os.truncate(path, 0)
    say(file, hours, "after\n")
    assert path.read_bytes() == b"after\n"


def test_a_rename_is_noticed_without_a_signal(path: Path, hours: Hours) -> None:
    file = LogFile(str(path), now=hours)
    say(file, hours, "before\n")
    path.rename(path.with_suffix(".old"))
    path.touch()
    say(file, hours, "after\n")
    assert path.read_text() == "after\n"


def test_a_file_that_is_gone_is_made_again_once_nobody_else_has(path: Path, hours: Hours) -> None:
    file = LogFile(str(path), now=hours)
    path.unlink()
    say(file, hours, "lost\n")
    assert not path.exists(), "logrotate makes its own, a moment after the rename"
    say(file, hours, "after\n")
    assert path.read_text() == "after\n"


def test_a_directory_that_is_gone_changes_nothing(tmp_path: Path, hours: Hours) -> None:
    (tmp_path / "logs").mkdir()
    file = LogFile(str(tmp_path / "logs" / "mesh.log"), now=hours)
    (tmp_path / "logs" / "mesh.log").rename(tmp_path / "elsewhere")
    (tmp_path / "logs").rmdir()
    for text in ("a\n", "b\n", "c\n"):
        say(file, hours, text)
    assert (tmp_path / "elsewhere").read_text() == "a\nb\nc\n"
    with pytest.raises(FileNotFoundError):
        file.reopen()
    say(file, hours, "d\n")
    assert (tmp_path / "elsewhere").read_text().endswith("d\n")


def test_files_are_bounded_in_size_and_number(path: Path, hours: Hours) -> None:
    path.with_name("mesh.log.notes").touch()
    path.with_name("mesh.log.12").write_text("of an earlier version, which kept all\n")
    file = LogFile(str(path), most=4, kept=2, now=hours)
    for number in range(6):
        say(file, hours, f"line {number}\n")
    found = {p.name: p.read_text() for p in path.parent.iterdir()}
    assert found == {
        "mesh.log": "line 5\n",
        "mesh.log.1": "line 4\n",
        "mesh.log.2": "line 3\n",
        "mesh.log.notes": "",
    }


def test_two_processes_may_share_a_file(path: Path, hours: Hours) -> None:
    first, second = (LogFile(str(path), most=10, now=hours) for _ in range(2))
    say(first, hours, "a long line\n")
    say(first, hours, "first\n")
    say(second, hours, "second\n")
    assert path.read_text() == "first\nsecond\n"


def test_devices_are_not_rotated(hours: Hours) -> None:
    file = LogFile("/dev/null", most=1, now=hours)
    say(file, hours, "x\n")
    say(file, hours, "x\n")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_fifo_that_nobody_reads_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device or address"):
        LogFile(str(tmp_path / "fifo"))
