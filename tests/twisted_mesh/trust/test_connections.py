"""Live connections are found by each certificate that they rest on, and forgotten whole."""

from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve

from pki.serial import serial_pairs
from tests.authorities import BACKEND, DAY, HOUR, NOW, OTHER, forge, forge_issuing, mesh
from tests.twisted_mesh.peers import Connected, peer_of
from twisted_mesh.runtime.log import TlsFacts
from twisted_mesh.trust.connections import ConnectionRegistry, IndexKeys

CA, OTHERS = mesh(), mesh(OTHER)
ROOT_ID, ISSUING_ID = CA.root.key_id, CA.issuing.key_id


def test_a_connection_rests_on_its_leaf_and_on_every_intermediate() -> None:
    registry = ConnectionRegistry()
    one, two = (Connected(peer_of(CA.leaf())) for _ in range(2))
    registry.add(one)
    registry.add(two)
    assert registry.resting_on(ISSUING_ID, one.peer.leaf.serial_number) == (one,)
    assert registry.resting_on(ISSUING_ID, two.peer.leaf.serial_number) == (two,)
    intermediate = CA.issuing.certificate.serial_number
    assert set(registry.resting_on(ROOT_ID, intermediate)) == {one, two}


def test_a_serial_means_nothing_without_its_issuer() -> None:
    registry = ConnectionRegistry()
    connection = Connected(peer_of(CA.leaf()))
    registry.add(connection)
    serial = connection.peer.leaf.serial_number
    assert registry.resting_on(mesh(OTHER).issuing.key_id, serial) == ()
    assert registry.resting_on(ROOT_ID, serial) == ()


def test_every_connection_rests_on_its_root_which_is_its_own_issuer() -> None:
    registry = ConnectionRegistry()
    connection = Connected(peer_of(CA.leaf()))
    registry.add(connection)
    assert registry.resting_on(ROOT_ID, CA.root.certificate.serial_number) == (connection,)


def test_several_connections_may_rest_on_one_leaf() -> None:
    registry = ConnectionRegistry()
    peer = peer_of(CA.leaf())
    connections = [Connected(peer) for _ in range(3)]
    for connection in connections:
        registry.add(connection)
    registry.discard(connections[0])
    assert set(registry.resting_on(ISSUING_ID, peer.leaf.serial_number)) == set(connections[1:])


def test_nothing_is_left_of_a_connection_that_is_gone() -> None:
    registry = ConnectionRegistry()
    connections = [Connected(peer_of(CA.leaf())) for _ in range(3)] + [Connected()]
    for connection in connections:
        registry.add(connection)
        registry.add(connection)
    assert len(registry) == 4
    for connection in connections:
        registry.discard(connection)
        registry.discard(connection)
    assert len(registry) == 0
    assert registry.all() == ()
    for index in (registry._by_credential, registry._by_root, registry._by_id, registry._by_end):
        assert len(index) == 0


def test_connections_are_found_by_root_and_by_who_is_connected() -> None:
    registry = ConnectionRegistry()
    ours, others = Connected(peer_of(CA.leaf())), Connected(peer_of(OTHERS.leaf(), OTHERS))
    registry.add(ours)
    registry.add(others)
    registry.add(Connected())
    assert registry.ending_in(CA.root.certificate) == (ours,)
    assert registry.ending_in(OTHERS.root.certificate) == (others,)
    assert registry.ending_in(CA.issuing.certificate) == ()
    assert registry.of(BACKEND) == (ours,)
    assert set(registry.spiffe_ids) == {BACKEND, OTHER.member("service", "backend")}


def test_who_rests_on_what_has_ended_is_found_until_it_is_gone() -> None:
    registry = ConnectionRegistry()
    long, *short = (Connected(peer_of(CA.leaf(lifetime=HOUR / n))) for n in (1, 2, 2))
    for connection in (long, *short):
        registry.add(connection)
    end = NOW + HOUR / 2
    assert registry.ended(end) == (), "the last moment is part of a certificate's life"
    late = end + timedelta(microseconds=1)
    assert set(registry.ended(late)) == set(registry.ended(late)) == set(short)
    registry.discard(short[0])
    assert registry.ended(late) == (short[1],)
    registry.release(short[1])
    assert registry.ended(late) == ()
    assert registry.ended(NOW + 2 * HOUR) == (long,)


def test_a_chain_ends_with_the_first_of_its_certificates() -> None:
    registry = ConnectionRegistry()
    soon = forge_issuing(CA.root, end=NOW + HOUR / 4)
    path = (forge(soon), soon.certificate, CA.root.certificate)
    connection = Connected(evolve(peer_of(CA.leaf()), path=path))
    registry.add(connection)
    assert registry.ended(NOW + HOUR / 2) == (connection,)


def test_a_connection_that_was_released_is_open_and_rests_on_nothing() -> None:
    registry = ConnectionRegistry()
    connection = Connected(peer_of(CA.leaf()))
    registry.add(connection)
    registry.release(connection)
    registry.release(connection)
    assert connection in registry
    assert len(registry) == 1
    assert registry.credentials == registry.spiffe_ids == ()
    assert registry.ended(NOW + DAY) == ()
    registry.discard(connection)
    assert connection not in registry


def test_what_a_connection_rests_on_may_change() -> None:
    registry = ConnectionRegistry()
    connection = Connected(peer_of(CA.leaf()))
    registry.add(connection)
    connection.peer = peer_of(OTHERS.leaf(), OTHERS)
    registry.add(connection)
    assert len(registry) == 1
    assert registry.ending_in(CA.root.certificate) == ()
    assert registry.ending_in(OTHERS.root.certificate) == (connection,)
    registry.discard(connection)
    assert registry.credential_count == 0


def test_ten_thousand_that_come_and_go_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each with a certificate of its own that ends at another moment, long after it has left."""
    registry = ConnectionRegistry()
    keys = IndexKeys.of(peer_of(CA.leaf()))
    waiting: list[Connected] = []

    def made(peer: Any) -> IndexKeys:
        ends_at = NOW + timedelta(seconds=peer % 3000)
        return evolve(keys, ends_at=ends_at, credentials=((ISSUING_ID, peer),))

    monkeypatch.setattr(IndexKeys, "of", made)
    for number in range(1, 10_001):
        connection = Connected(number)  # type: ignore[arg-type]
        registry.add(connection)
        waiting.append(connection)
        if len(waiting) > 100:
            registry.discard(waiting.pop(0))
    assert len(registry) == 100
    assert len(registry._ends) <= 2 * 100 + 64 + 1
    assert registry.resting_on(ISSUING_ID, 10_000) == (waiting[-1],)
    assert registry.resting_on(ISSUING_ID, 1) == ()
    assert len(registry.ended(NOW + HOUR)) == 100
    for connection in waiting:
        registry.discard(connection)
    assert registry.ended(NOW + DAY) == ()
    assert registry._ends == []


def test_what_is_found_may_be_closed_while_it_is_gone_through() -> None:
    registry = ConnectionRegistry()
    for _ in range(3):
        registry.add(Connected(peer_of(CA.leaf())))
    for connection in registry.all():
        registry.discard(connection)
    assert len(registry) == 0


def test_who_waits_for_the_last_to_leave_is_called_once() -> None:
    registry = ConnectionRegistry()
    calls: list[str] = []
    registry.when_empty(lambda: calls.append("at once"))
    first, second = Connected(), Connected()
    registry.add(first)
    registry.add(second)
    registry.when_empty(lambda: calls.append("later"))
    registry.discard(first)
    assert calls == ["at once"]
    registry.discard(second)
    registry.add(first)
    registry.discard(first)
    assert calls == ["at once", "later"]


def test_the_facts_of_a_chain_are_told_leaf_first() -> None:
    leaf = CA.leaf()
    subjects, serials = TlsFacts.chain_of((leaf, CA.issuing.certificate))
    assert subjects[0] == "CN=backend"
    assert serials == tuple(serial_pairs(c.serial_number) for c in (leaf, CA.issuing.certificate))
