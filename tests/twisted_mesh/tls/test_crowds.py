"""How many may be connected over TLS: a flood that proves nothing pushes itself out."""

from attrs import evolve

from tests.authorities import OTHER
from tests.twisted_mesh.tls.wires import End, Talkers, Wire, converse, good_svid, home, in_memory
from twisted_mesh.limits.connection_limit import Capacity, ConnectionLimit


def crowded(server: End, most: int = 8) -> ConnectionLimit:
    connection_limit = ConnectionLimit(
        Capacity(most, most // 2, 2, most // 2), server.clock, "TLS", server.log
    )
    server.security = evolve(server.security, connection_limit=connection_limit)
    return connection_limit


def test_a_peer_that_proves_who_it_is_counts_as_itself() -> None:
    server = End(True)
    connection_limit = crowded(server)
    conversation = converse(End(False), server)
    assert (len(connection_limit), connection_limit.unproven) == (1, 0)
    conversation.client_wire.loseConnection()
    conversation.pump()
    assert len(connection_limit) == 0


def test_a_peer_without_a_certificate_stays_a_stranger() -> None:
    server = End(True, demands_certificate=False)
    connection_limit = crowded(server)
    converse(End(False, None), server)
    assert connection_limit.unproven == 1


def test_a_peer_that_is_refused_gives_its_place_back() -> None:
    server = End(True)
    connection_limit = crowded(server)
    conversation = converse(End(False, good_svid(home(OTHER))), server)
    assert conversation.served.made[0].connected_times == 0
    assert server.log.count("peer-refused") == 1
    assert len(connection_limit) == 0


def test_one_peer_has_only_so_many_connections() -> None:
    server = End(True)
    connection_limit = crowded(server)
    kept = [converse(End(False), server) for _ in range(2)]
    one_more = converse(End(False), server)
    assert one_more.served.made[0].connected_times == 0
    (event,) = [e for e in server.log.events if e.get("event") == "peer-refused"]
    assert event["codes"] == "too-many-connections"
    assert len(connection_limit) == len(server.registry) == 2
    assert all(conversation.server_wire.connected for conversation in kept)
    another = converse(End(False, good_svid(None, "service", "other")), server)
    assert another.served.made[0].connected_times == 1


def test_silent_connections_make_room_for_a_peer_and_fill_no_log() -> None:
    server = End(True)
    connection_limit = crowded(server)
    silent = []
    for _ in range(10):
        wire = Wire()
        wire.protocol = in_memory(Talkers(), server.security).buildProtocol(None)
        wire.protocol.makeConnection(wire)
        silent.append(wire)
        for other in silent:
            other.settle()
    assert [wire.connected for wire in silent] == [False] * 6 + [True] * 4
    assert converse(End(False), server).served.made[0].connected_times == 1
    assert server.log.count("peer-refused") == 0
    assert server.log.count("connections-full") == 1
    for wire in silent:
        wire.abortConnection()
        wire.settle()
    assert len(connection_limit) == 1
    assert len(server.clock.getDelayedCalls()) == 0


def test_where_everybody_has_proven_who_it_is_a_newcomer_is_hung_up_on() -> None:
    server = End(True)
    connection_limit = crowded(server, 8)
    for number in range(8):
        converse(End(False, good_svid(None, "service", f"x{number}")), server)
    assert in_memory(Talkers(), server.security).buildProtocol(None) is None
    assert (len(connection_limit), connection_limit.refused) == (8, 1)


def test_a_flood_of_nonsense_has_a_bounded_number_of_lines_and_is_counted() -> None:
    server = End(True)
    for _ in range(500):
        wire = Wire()
        wire.protocol = in_memory(Talkers(), server.security).buildProtocol(None)
        wire.protocol.makeConnection(wire)
        wire.protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wire.settle()
    assert server.log.count("peer-refused") == 500
    told = [e for e in server.log.events if e["log_level"].name == "warn"]
    assert len(told) == 100
