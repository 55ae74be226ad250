"""A socket's path is free again once the process that had it was killed, and not before."""

import os
import socket
from pathlib import Path

import pytest

from twisted_mesh.taps.status_port import clear_way


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_lock_of_our_own_number_is_of_a_start_before_this_one(
    tmp_path: Path, is_ours: bool
) -> None:
    path, lock = tmp_path / "s", tmp_path / "s.lock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    lock.symlink_to(str(os.getpid() if is_ours else os.getppid()))
    clear_way(f"unix:{path}", "--listen")
    assert not path.exists()
    assert lock.is_symlink() is not is_ours


def test_who_is_answered_keeps_socket_and_lock(tmp_path: Path) -> None:
    path, lock = tmp_path / "s", tmp_path / "s.lock"
    lock.symlink_to(str(os.getpid()))
    with socket.socket(socket.AF_UNIX) as serving:
        serving.bind(str(path))
        serving.listen()
        clear_way(f"unix:{path}:mode=600", "--listen")
    assert path.is_socket()
    assert lock.is_symlink()
