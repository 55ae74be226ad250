"""Files are whole or old, generations are never mixed, and one CA owns one state directory."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest

from tests.running import CHECKOUT, PATIENCE
from twisted_mesh.state.directory import (
    AlreadyRunning,
    StateDirectory,
    StateError,
    read_file,
    refuse_changeable,
    write_whole,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "a" / "state")


def failing(error: int, after: int = 0) -> Callable[..., Any]:
    """A system call that fails with ``error``, for the first time after so many calls."""
    left = [after]
    real = os.fsync

    def call(*arguments: Any, **where: int) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(error, os.strerror(error))
        return real(*arguments)

    return call


# Who may enter.


@pytest.mark.parametrize("by", ["its name", "a link"])
def test_nobody_else_may_put_another_directory_in_its_place(tmp_path: Path, by: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    root = shared / "more" / "state"
    if by == "a link":
        root.mkdir(parents=True)
        root = tmp_path / "link"
        root.symlink_to(shared / "more" / "state")
    with pytest.raises(StateError, match=f"everybody can rename what is in {shared}, and put"):
        StateDirectory(root).prepare()
    assert not (root / "ca").exists()
    shared.chmod(0o1777)
    StateDirectory(root).prepare()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_others_may_pass_through_to_the_socket_and_not_to_the_keys(
    state: StateDirectory, umask: int
) -> None:
    before = os.umask(umask)
    try:
        state.prepare()
    finally:
        os.umask(before)
    assert mode_of(state.root) == 0o711
    assert mode_of(state.ca) == 0o711
    assert mode_of(state.private) == 0o700
    assert state.socket.parent == state.root_certificate.parent == state.ca


def test_directories_that_are_too_open_are_closed(state: StateDirectory) -> None:
    state.private.mkdir(parents=True)
    for path in (state.root, state.ca, state.private):
        path.chmod(0o777)
    state.prepare()
    assert [mode_of(p) for p in (state.root, state.ca, state.private)] == [0o711, 0o711, 0o700]


@pytest.mark.parametrize("whose", ["", "ca", "ca/private"])
def test_a_directory_of_somebody_else_is_refused(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Whoever prepared it may have planted keys, and can put another socket there."""
    state.prepare()
    theirs = state.root / whose

    def found(path: Path, follow: bool) -> os.stat_result:
        fields = list(os.stat(path, follow_symlinks=follow))
        if path == theirs:
            fields[4] = 65534
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "stat", lambda path, **_: found(path, True))
    monkeypatch.setattr(Path, "lstat", lambda path: found(path, False))
    with pytest.raises(StateError, match="belongs to another user"):
        state.prepare()


def test_a_sticky_directory_is_used_and_not_changed(state: StateDirectory) -> None:
    """A tmpfs is mounted so; and to close /tmp to everybody would break the machine."""
    state.root.mkdir(parents=True)
    state.root.chmod(0o1777)
    state.prepare()
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o1777
    assert mode_of(state.ca) == 0o711


@pytest.mark.parametrize("link", ["ca", "ca/private"])
def test_a_link_that_leads_elsewhere_is_refused_and_nothing_there_is_touched(
    state: StateDirectory, tmp_path: Path, link: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    path = state.root / link
    path.parent.mkdir(parents=True)
    path.symlink_to(victim)
    with pytest.raises(StateError, match="no directory of its own"):
        state.prepare()
    assert mode_of(victim) == 0o700


@pytest.mark.parametrize("in_the_way", ["", "ca", "ca/private"])
def test_a_file_where_a_directory_should_be_is_named(
    state: StateDirectory, in_the_way: str
) -> None:
    path = state.root / in_the_way
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    with pytest.raises(StateError, match="--state-dir") as refused:
        state.prepare()
    assert f"{path} cannot be used" in str(refused.value)


# One owner.

OWNER = """
import sys
from pathlib import Path
from twisted_mesh.state.directory import StateDirectory, StateError
state = StateDirectory(Path(sys.argv[1]))
try:
    state.lock()
except StateError as error:
    print(error, flush=True)
else:
    print("owned", flush=True)
    sys.stdin.read()
"""


def owner(state: StateDirectory) -> "subprocess.Popen[str]":
    """A process that owns the state until its input ends, or prints why it does not."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state.root)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_second_owner_is_told_the_firsts_pid_and_kill_9_makes_room(state: StateDirectory) -> None:
    state.prepare()
    with owner(state) as first:
        assert said(first) == "owned"
        with pytest.raises(AlreadyRunning, match=f"PID {first.pid}, owns {state.root}: stop it"):
            state.lock()
        first.send_signal(signal.SIGKILL)
        first.wait(PATIENCE)
    state.lock()
    with owner(state) as second:
        assert f"PID {os.getpid()}, owns" in said(second)
    state.unlock()
    with owner(state) as third:
        assert said(third) == "owned"


def test_a_short_pid_is_told_right_after_a_long_one(state: StateDirectory) -> None:
    state.prepare()
    (state.ca / "lock").write_text("4194304999\n")
    state.lock()
    assert (state.ca / "lock").read_text() == f"{os.getpid()}\n"
    state.unlock()
    state.unlock()


def test_a_lock_that_cannot_be_opened_is_named(state: StateDirectory) -> None:
    with pytest.raises(StateError, match="ca/lock cannot be opened"):
        state.lock()


def test_a_file_system_without_locks_is_named(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.prepare()
    monkeypatch.setattr(fcntl, "lockf", failing(EIO))
    with pytest.raises(StateError, match="ca/lock cannot be locked") as refused:
        state.lock()
    assert not isinstance(refused.value, AlreadyRunning)


# Whole files.


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"the key .*/gone cannot be read \(No such file"):
        read_file(tmp_path / "gone", "the key")


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_written_with_its_mode_whatever_stood_there(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_whole(path, b"new", mode)
    assert path.read_bytes() == b"new"
    assert mode_of(path) == mode
    assert os.listdir(tmp_path) == ["file"]


def test_a_secret_is_never_readable_by_others_not_even_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    before = os.umask(0)
    try:
        write_whole(tmp_path / "key", b"secret", 0o600)
    finally:
        os.umask(before)
    assert modes[0] == 0o600


def test_the_bytes_are_on_the_disk_before_the_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        order.append(f"fsync {kind}")
        fsync(descriptor)

    def noting_replace(source: str, target: str, **where: int) -> None:
        order.append("rename")
        replace(source, target, **where)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write_whole(tmp_path / "file", b"new", 0o644)
    assert order == ["fsync file", "rename", "fsync directory"]


@pytest.mark.parametrize("call", ["fsync", "replace", "fchmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, failing(ENOSPC))
    with pytest.raises(StateError, match=f"{path} cannot be written .No space left on device"):
        write_whole(path, b"new", 0o644)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="gone/file cannot be written"):
        write_whole(tmp_path / "gone" / "file", b"new", 0o644)


# Files that others may change.


def test_a_record_that_others_may_change_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "mesh.db"
    refuse_changeable(record)  # it is not there
    record.touch()
    for mode in (0o600, 0o640, 0o644):
        record.chmod(mode)
        refuse_changeable(record)
    for mode in (0o620, 0o602, 0o666):
        record.chmod(mode)
        with pytest.raises(StateError, match=f"chmod go-w {record}"):
            refuse_changeable(record)


def test_a_record_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "mesh.db"
    record.touch()
    fields = list(record.stat())
    fields[4] = 65534
    monkeypatch.setattr(Path, "stat", lambda path, **_: os.stat_result(fields))
    with pytest.raises(StateError, match="belongs to another user"):
        refuse_changeable(record)


def test_what_is_no_file_may_be_anybodys() -> None:
    refuse_changeable(Path(os.devnull))


# What a kill leaves.


def test_what_a_kill_left_of_a_write_is_removed_and_nothing_else(state: StateDirectory) -> None:
    state.prepare()
    left = [".root.key.c4tjpe3j", ".issuing-2.key.k6zih3yl", ".audit.key.________"]
    stay = ["root.key", ".hidden", ".root.key.backup-of-mine", "issuing-2.key"]
    for name in (*left, *stay):
        (state.private / name).touch()
    for name in (".issuing.crt.ee8g0bi1", ".unfinished.abcdefgh", "mesh.db", "mesh.db-wal"):
        (state.ca / name).touch()
    state.sweep()
    assert sorted(path.name for path in state.private.iterdir()) == sorted(stay)
    found = sorted(path.name for path in state.ca.iterdir())
    assert found == ["mesh.db", "mesh.db-wal", "private"]


def test_what_a_restore_unpacked_and_never_used_does_not_stay(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    (state.restoring / "new").mkdir(parents=True)
    (state.restoring / "new" / "root.key").write_bytes(b"a key")
    state.refuse_half_restored()
    assert not state.restoring.exists()
    state.restoring.mkdir()
    (state.restoring / "plan.json").write_bytes(b"{}")
    with pytest.raises(StateError, match="half in place"):
        state.refuse_half_restored()
    assert state.restoring.exists()
