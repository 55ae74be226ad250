"""Who a server on this machine is, by the kernel's tables: not whoever has let it take the port for a moment."""

import socket
from pathlib import Path

import pytest

from tests.twisted_mesh.attest.processes import only_linux
from twisted_mesh.runtime.socket_owner import users_at

HERE, THERE = ("127.0.0.1", 40000), ("127.0.0.1", 10250)
_LISTENS, _CONNECTED = "0A", "01"
_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LOOPBACK, ANY, NOBODY = "0100007F", "00000000", "00000000:0000"
MAPPED = "0000000000000000FFFF00000100007F"


def row(local: str, remote: str, state: str, uid: int) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 123 1 0 100 0 0 10 0\n"


def at(address: str, port: int) -> str:
    return f"{address}:{port:04X}"


def users(tmp_path: Path, tcp: list[str], tcp6: list[str] | None = None) -> frozenset[int]:
    tables = tmp_path / "self" / "net"
    tables.mkdir(parents=True)
    (tables / "tcp").write_text(_HEAD + "".join(tcp))
    if tcp6 is not None:
        (tables / "tcp6").write_text(_HEAD + "".join(tcp6))
    return users_at(THERE, HERE, tmp_path)


def listens(uid: int, address: str = LOOPBACK, port: int = 10250) -> str:
    return row(at(address, port), NOBODY, _LISTENS, uid)


def taken(uid: int, address: str = LOOPBACK) -> str:
    return row(at(address, 10250), at(address, 40000), _CONNECTED, uid)


ours = row(at(LOOPBACK, 40000), at(LOOPBACK, 10250), _CONNECTED, 7)


def test_it_is_whoever_listens_and_has_taken_the_connection(tmp_path: Path) -> None:
    assert users(tmp_path, [listens(0), taken(0), ours, listens(9, port=80)]) == {0}


def test_a_connection_that_nobody_has_taken_yet_is_roots_and_its_listener_is_not(
    tmp_path: Path,
) -> None:
    assert users(tmp_path, [listens(1000), taken(0), ours]) == {0, 1000}


def test_one_that_was_taken_by_who_listens_no_more_is_his(tmp_path: Path) -> None:
    assert users(tmp_path, [listens(0), taken(1000), ours]) == {0, 1000}


@pytest.mark.parametrize("address", [ANY, LOOPBACK])
def test_who_listens_on_all_addresses_counts_beside_who_listens_on_this(
    address: str, tmp_path: Path
) -> None:
    assert users(tmp_path, [listens(0), listens(1000, address), taken(0)]) == {0, 1000}


def test_one_that_listens_by_ipv6_for_both_is_seen(tmp_path: Path) -> None:
    assert users(tmp_path, [ours], [listens(0, "0" * 32), taken(0, MAPPED)]) == {0}


def test_where_no_listener_or_no_connection_is_seen_it_is_nobody(tmp_path: Path) -> None:
    assert users(tmp_path / "a", [taken(0), ours]) == frozenset()
    assert users(tmp_path / "b", [listens(0), ours]) == frozenset()
    assert users_at(THERE, HERE, tmp_path / "none") == frozenset()


@only_linux
def test_the_kernel_shows_a_connection_that_nobody_has_taken(tmp_path: Path) -> None:
    import os

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        found = users_at(client.getpeername(), client.getsockname())
        assert os.geteuid() in found
        accepted, _ = server.accept()
        with accepted:
            assert users_at(client.getpeername(), client.getsockname()) == {os.geteuid()}
