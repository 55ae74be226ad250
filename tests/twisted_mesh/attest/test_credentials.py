"""What the kernel recorded of who connected, in each layout that it comes in."""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.policy.policy import NoProof
from tests.twisted_mesh.attest.processes import only_linux
from twisted_mesh.attest import credentials
from twisted_mesh.attest.credentials import Credentials, peer_uid

#: A user whose number needs all 32 bits.
HIGH = 4_000_000_000


@pytest.fixture
def connected() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours


def xucred(uid: int, *groups: int, version: int = 0, count: int | None = None) -> bytes:
    """As macOS hands it out: 76 bytes."""
    head = struct.pack("=IIh2x", version, uid, len(groups) if count is None else count)
    return (head + struct.pack(f"={len(groups)}I", *groups)).ljust(76, b"\0")


def test_our_own(connected: socket.socket) -> None:
    found = Credentials.of_peer(connected)
    assert found.uid == peer_uid(connected) == os.geteuid()
    assert found.gids == {os.getegid(), *os.getgroups()}


@only_linux
def test_the_pid_comes_along(connected: socket.socket) -> None:
    assert Credentials.of_peer(connected).pid == os.getpid()


def test_of_a_socket_that_nobody_is_connected_to_there_are_none() -> None:
    with socket.socket(socket.AF_UNIX) as alone, pytest.raises(NoProof):
        Credentials.of_peer(alone)
    with pytest.raises(NoProof, match="connection ended"):
        Credentials.of_peer(alone)


@only_linux
def test_an_old_linux_tells_the_effective_group_only(
    connected: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "SO_PEERGROUPS", 9999)
    assert Credentials.of_peer(connected).gids == {os.getegid()}


def test_as_macos_and_the_bsds_tell_it() -> None:
    assert Credentials.parse_xucred(xucred(501, 20, 12, 80)) == Credentials(
        501, frozenset({20, 12, 80})
    )
    assert Credentials.parse_xucred(xucred(HIGH, HIGH)).uid == HIGH
    full = xucred(501, *range(16))
    assert Credentials.parse_xucred(full).gids == frozenset(range(16))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        xucred(501, 20)[:11],
        xucred(501, 20, version=1),
        xucred(501),
        xucred(501, 20, count=17),
        xucred(501, 20, count=-1),
        xucred(501, 20, 12)[:16],
    ],
)
def test_a_layout_that_is_not_known_proves_nothing(data: bytes) -> None:
    with pytest.raises(NoProof):
        Credentials.parse_xucred(data)


@only_linux
def test_as_proc_tells_it() -> None:
    status = Path("/proc/self/status").read_bytes()
    assert Credentials.parse_status(status) == Credentials(
        os.geteuid(), frozenset({os.getegid(), *os.getgroups()})
    )


def test_of_a_program_with_set_uid_the_effective_user_counts() -> None:
    status = b"Name:\tx: y\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n"
    assert Credentials.parse_status(status) == Credentials(2, frozenset({6, 9, 10}))


@pytest.mark.parametrize(
    "status", [b"", b"Uid:\t1\nGid:\t1\t1\nGroups:\n", b"Uid:\ta\tb\nGid:\t1\t1\nGroups:\n"]
)
def test_a_status_that_says_too_little_is_refused(status: bytes) -> None:
    with pytest.raises(Malformed):
        Credentials.parse_status(status)


@given(st.binary())
def test_arbitrary_bytes_raise_nothing_but_our_errors(data: bytes) -> None:
    for parse in (Credentials.parse_xucred, Credentials.parse_status):
        try:
            parse(data)
        except PkiError as error:
            assert str(error)
