"""Who is at the other end, by what the caller cannot choose: the kernel's word, or a handshake's."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import frozen

from pki.policy import Kind
from tests.authorities import BACKEND, mesh
from tests.twisted_mesh.peers import peer_of
from twisted_mesh.attest import (
    attest_plaintext,
    attest_process,
    attest_tls,
    peer_uid,
)
from twisted_mesh.tls.transport import MeshConnection


@frozen
class Transport:
    """What Twisted hands out for a connection on a unix socket."""

    socket: socket.socket


@pytest.fixture
def connected() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours


def test_the_kernel_says_whose_process_connected(connected: socket.socket) -> None:
    assert peer_uid(connected) == os.geteuid()


def test_the_cas_own_user_is_its_administrator(connected: socket.socket) -> None:
    principal = attest_process(Transport(connected))
    assert principal.kind is Kind.ADMINISTRATOR
    assert principal.proof == f"unix:uid:{os.geteuid()}"


def test_root_is_an_administrator_of_everybodys_ca(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_mesh.attest.peer_uid", lambda connected: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert attest_process(Transport(None)).kind is Kind.ADMINISTRATOR  # type: ignore[arg-type]


def test_any_other_user_is_nobody_yet_but_has_a_name_for_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("twisted_mesh.attest.peer_uid", lambda connected: 1001)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    principal = attest_process(Transport(None))  # type: ignore[arg-type]
    assert principal.kind is Kind.ANONYMOUS
    assert principal.proof == "unix:uid:1001"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_real_process_of_another_user_is_nobody_to_root() -> None:
    os.seteuid(65534)
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    finally:
        os.seteuid(0)
    with ours, theirs:
        assert attest_process(Transport(ours)).kind is Kind.ANONYMOUS


class Connection(MeshConnection):
    """One whose handshake is over; whether its peer would be let in again is the test's to say."""

    def __init__(self, peer: Any, good: bool) -> None:
        self.peer = peer
        self.good = good

    def still_good(self) -> bool:
        return self.good


def connection_of(peer: Any, good: bool = True) -> MeshConnection:
    return Connection(peer, good)


def test_over_tls_the_svid_says_who_it_is() -> None:
    leaf = mesh().leaf()
    principal = attest_tls(connection_of(peer_of(leaf)))
    assert principal.kind is Kind.WORKLOAD
    assert principal.spiffe_id == BACKEND
    assert principal.serial == leaf.serial_number
    assert principal.proof == f"x509:{BACKEND}"


def test_over_tls_a_certificate_that_has_ended_since_the_handshake_proves_nothing() -> None:
    peer = peer_of(mesh().leaf())
    assert attest_tls(connection_of(peer, good=False)).kind is Kind.ANONYMOUS


def test_over_tls_without_a_certificate_it_is_nobody() -> None:
    assert attest_tls(connection_of(None)).kind is Kind.ANONYMOUS


def test_what_only_looks_like_a_proven_connection_is_nobody() -> None:
    @frozen
    class Pretender:
        peer: Any

    assert attest_tls(Pretender(peer_of(mesh().leaf()))).kind is Kind.ANONYMOUS


def test_on_the_plaintext_port_everybody_administers() -> None:
    principal = attest_plaintext(None)
    assert principal.kind is Kind.ADMINISTRATOR
    assert principal.proof == "insecure-http"
