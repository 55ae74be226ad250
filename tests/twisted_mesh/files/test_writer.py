"""One process writes to a directory of files, all at once, and whatever kills it leaves a whole generation."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.twisted_mesh.state.test_directory import failing
from twisted_mesh.files.writer import FilesWriter, InUse
from twisted_mesh.state.directory import StateError

NAMES = ("svid.pem", "svid_key.pem", "svid_bundle.pem", "crl.pem")
#: What changes something on the disk.
STEPS = ("mkdir", "open", "fchmod", "fsync", "replace", "symlink", "unlink", "rmdir")


def generation(number: int) -> dict[str, tuple[bytes, int]]:
    return {name: (b"%d" % number * 100, 0o644) for name in NAMES}


def contents(directory: Path) -> set[bytes]:
    return {(directory / name).read_bytes() for name in NAMES if (directory / name).exists()}


def taken(directory: Path) -> FilesWriter:
    writer = FilesWriter(directory)
    writer.take()
    return writer


def in_a_child(work: Callable[[], object]) -> int:
    """Its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(step: int) -> None:
    """From now on this process is killed at that call, before it does anything."""
    left = [step]

    def counted(real: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **named)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("before", [None, 1], ids=["at the first time", "at a later time"])
@pytest.mark.parametrize(
    "stride", [7, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "every"]
)
def test_a_kill_at_any_step_leaves_a_whole_generation(
    tmp_path: Path, before: int | None, stride: int
) -> None:
    for step in range(stride // 2, 200, stride):
        directory = tmp_path / f"{step}"
        if before is not None:
            writer = taken(directory)
            writer.write(generation(before))
            writer.release()

        def work(step: int = step, directory: Path = directory) -> None:
            killed_at(step)
            taken(directory).write(generation(2))

        status = in_a_child(work)
        if directory.exists():
            assert contents(directory) in (set(), {b"1" * 100}, {b"2" * 100})
            if before is not None:
                assert all((directory / name).exists() for name in NAMES)
        again = taken(directory)  # the kernel has released the lock
        again.write(generation(3))
        again.write(generation(4))
        assert contents(directory) == {b"4" * 100}
        assert len(list(directory.iterdir())) == len(NAMES) + 3
        again.release()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            assert step > 15
            return
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("it was never done")


def test_who_goes_through_current_once_never_reads_a_torn_pair(tmp_path: Path) -> None:
    writer = taken(tmp_path)
    writer.write(generation(0))
    done = Event()
    seen: set[frozenset[bytes]] = set()

    def read() -> None:
        while not done.is_set():
            home = (tmp_path / "current").resolve()
            with suppress(FileNotFoundError):  # two more were written meanwhile
                seen.add(frozenset((home / name).read_bytes() for name in NAMES))

    with ThreadPoolExecutor(2) as readers:
        reading = [readers.submit(read) for _ in range(2)]
        for number in range(1, 60):
            writer.write(generation(number))
        done.set()
        for one in reading:
            one.result()
    assert len(seen) > 1
    assert all(len(contents) == 1 for contents in seen)
    writer.release()


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    first = taken(tmp_path / "files")
    with pytest.raises(InUse, match=f"another process, PID {os.getpid()}, keeps files in"):
        taken(tmp_path / "files")
    first.release()
    first.release()
    taken(tmp_path / "files").release()


def test_a_command_that_is_run_does_not_inherit_the_lock(tmp_path: Path) -> None:
    writer = taken(tmp_path)
    assert writer._held is not None
    assert not os.get_inheritable(writer._held)
    writer.release()


def test_a_directory_that_has_vanished_is_made_again_and_owned_again(tmp_path: Path) -> None:
    directory = tmp_path / "files"
    writer = taken(directory)
    writer.write(generation(1))
    shutil.rmtree(directory)
    writer.write(generation(2))
    assert contents(directory) == {b"2" * 100}
    with pytest.raises(InUse):
        taken(directory)
    writer.release()


def test_a_directory_that_was_replaced_is_not_written_to_beside_another(tmp_path: Path) -> None:
    directory = tmp_path / "files"
    writer = taken(directory)
    directory.rename(tmp_path / "old")
    other = taken(directory)
    with pytest.raises(InUse):
        writer.write(generation(1))
    assert contents(directory) == set()
    other.release()
    writer.write(generation(2))
    assert contents(directory) == {b"2" * 100}
    writer.release()


def test_below_a_mount_point_that_is_empty_nothing_is_made(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    writer = taken(volume / "files")
    shutil.rmtree(volume)
    with pytest.raises(StateError, match=f"there is no directory {volume}: correct the name"):
        writer.write(generation(1))
    assert not volume.exists()
    volume.mkdir()
    writer.write(generation(2))
    assert contents(volume / "files") == {b"2" * 100}
    writer.release()


def test_a_disk_that_is_full_leaves_the_last_generation_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = taken(tmp_path)
    writer.write(generation(1))
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", failing(ENOSPC, 3))
        with pytest.raises(StateError, match=r"No space left on device\): free some space there"):
            writer.write(generation(2))
    assert contents(tmp_path) == {b"1" * 100}
    writer.write(generation(3))
    assert contents(tmp_path) == {b"3" * 100}
    writer.release()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few generations."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", "size=128k,mode=755", "none", str(place))
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(words).returncode:
        pytest.skip("nothing can be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_real_disk_that_fills_keeps_what_is_there_until_there_is_room(small_disk: Path) -> None:
    writer = taken(small_disk / "files")
    writer.write(generation(1))
    with suppress(OSError), (small_disk / "log").open("wb", buffering=0) as log:
        while log.write(b"x" * 4096):
            pass
    for number in (2, 3):
        with pytest.raises(StateError, match=r"No space left on device\): free some space there"):
            writer.write(generation(number))
        assert contents(small_disk / "files") == {b"1" * 100}
        assert all((small_disk / "files" / name).exists() for name in NAMES)
    (small_disk / "log").unlink()
    writer.write(generation(4))
    assert contents(small_disk / "files") == {b"4" * 100}
    writer.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_a_directory_of_somebody_else_is_refused_now_and_later(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateError, match="belongs to another user"):
        taken(tmp_path)
    os.chown(tmp_path, 0, 0)
    writer = taken(tmp_path)
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateError, match="belongs to another user"):
        writer.write(generation(1))
    writer.release()


def test_a_directory_that_everybody_writes_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StateError, match=f"chmod go-w {tmp_path}"):
        taken(tmp_path)
