"""Live connections are found by each certificate that they rest on, and forgotten whole."""

from pki.serial import serial_pairs
from tests.authorities import OTHER, mesh
from tests.twisted_mesh.peers import Connected, peer_of
from twisted_mesh.connections import ConnectionRegistry
from twisted_mesh.events import TlsFacts

CA = mesh()
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


def test_no_connection_rests_on_the_roots_own_serial() -> None:
    registry = ConnectionRegistry()
    registry.add(Connected(peer_of(CA.leaf())))
    assert registry.resting_on(ROOT_ID, CA.root.certificate.serial_number) == ()


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
    assert registry._by_credential == {}


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
