"""One direction may end before the other (RFC 8446 section 6.1), where the application knows of it.

Twisted's transport has no such thing: to it the peer's goodbye is the end.
"""

import pytest
from twisted.internet.error import ConnectionDone

from tests.twisted_mesh.tls.transport.application import Application, HalfCloseable, Push, pieces
from tests.twisted_mesh.tls.transport.rig import NETWORKS, Rig

MIB = 1 << 20
pytestmark = pytest.mark.parametrize("transport", ["socket"], indirect=True)
on_each_network = pytest.mark.parametrize("network", NETWORKS, indirect=True)


def _answers(me: Application) -> None:
    me.transport.write(b"x" * 2 * MIB)
    me.transport.loseConnection()


@on_each_network
def test_who_has_heard_all_may_still_answer(rig: Rig) -> None:
    rig.listen(lambda: HalfCloseable(**{"read lost": _answers}))
    peer = rig.by_hand()
    peer.say(b"that is all")
    peer.goodbye()
    rig.until(lambda: rig.served[0].lost and peer.end)
    assert peer.heard == b"x" * 2 * MIB
    assert peer.has_goodbye
    assert rig.served[0].happened == ["made", "data", "read lost", "lost"]
    assert rig.served[0].lost.check(ConnectionDone)


def test_who_answers_later_is_waited_for(rig: Rig) -> None:
    rig.listen(HalfCloseable)
    peer = rig.by_hand()
    peer.goodbye()
    rig.until(lambda: "read lost" in rig.served[0].happened)
    rig.clock.advance(3600.0)
    rig.turns()
    assert rig.served[0].lost is None
    rig.served[0].transport.write(b"at last")
    rig.until(lambda: peer.heard == b"at last")
    rig.served[0].transport.loseConnection()
    rig.until(lambda: rig.served[0].lost)
    assert rig.served[0].happened == ["made", "read lost", "lost"]


@on_each_network
def test_who_has_said_all_may_still_listen(rig: Rig) -> None:
    rig.listen(HalfCloseable)
    peer = rig.by_hand()
    served = rig.served[0]
    served.transport.write(b"x" * MIB)
    served.transport.loseWriteConnection()
    served.transport.write(b"too late")
    rig.until(lambda: peer.has_goodbye and "write lost" in served.happened)
    assert peer.heard == b"x" * MIB
    peer.say(b"y" * 2 * MIB)
    rig.until(lambda: len(served.heard) == 2 * MIB)
    peer.goodbye()
    rig.until(lambda: "read lost" in served.happened)
    served.transport.loseConnection()
    rig.until(lambda: served.lost)
    assert served.happened == ["made", "write lost", "data", "read lost", "lost"]
    assert served.lost.check(ConnectionDone)


@pytest.mark.interop(
    "tests/twisted_mesh/tls/transport/test_half_close.py::test_who_has_said_all_may_still_listen"
)
@pytest.mark.parametrize("first", ["we", "the peer"])
def test_64_mib_go_the_other_way_after_a_goodbye(first: str, rig: Rig) -> None:
    rig.listen(HalfCloseable)
    peer = rig.by_hand()
    served = rig.served[0]
    if first == "we":
        served.transport.loseWriteConnection()
        rig.until(lambda: peer.has_goodbye)
        for _ in range(64):
            peer.say(b"y" * MIB)
            rig.until(lambda: not peer.unsent)
        rig.until(lambda: len(served.heard) == 64 * MIB)
        peer.goodbye()
    else:
        peer.goodbye()
        rig.until(lambda: "read lost" in served.happened)
        served.transport.write(b"x" * 64 * MIB)
        served.transport.loseWriteConnection()
        rig.until(lambda: peer.has_goodbye)
        assert len(peer.heard) == 64 * MIB
    served.transport.loseConnection()
    rig.until(lambda: served.lost)


def test_both_ends_say_that_that_was_all(rig: Rig) -> None:
    rig.listen(lambda: HalfCloseable(**{"read lost": lambda me: me.transport.loseConnection()}))
    served, calling = rig.pair(HalfCloseable())
    calling.transport.write(b"all")
    calling.transport.loseWriteConnection()
    rig.until(lambda: served.lost and "read lost" in calling.happened)
    assert served.heard == b"all"
    calling.transport.loseConnection()
    rig.until(lambda: calling.lost)
    assert calling.happened == ["made", "write lost", "read lost", "lost"]


@pytest.mark.parametrize("repeated", ["loseWriteConnection", "loseConnection"])
def test_it_may_be_said_again(repeated: str, rig: Rig) -> None:
    rig.listen(HalfCloseable)
    peer = rig.by_hand()
    served = rig.served[0]
    served.transport.loseWriteConnection()
    getattr(served.transport, repeated)()
    served.transport.loseConnection()
    served.transport.loseWriteConnection()
    rig.until(lambda: peer.has_goodbye)
    peer.goodbye()
    rig.until(lambda: served.lost)
    assert served.happened[-1] == "lost"
    assert served.happened.count("write lost") <= 1


def test_what_a_producer_has_still_to_say_comes_before_the_goodbye(rig: Rig) -> None:
    rig.listen(HalfCloseable)
    peer = rig.by_hand()
    served = rig.served[0]
    Push(served, 100).start(rig.reactor)
    served.transport.loseWriteConnection()
    rig.until(lambda: peer.has_goodbye)
    assert peer.heard == pieces(100)


def test_a_peer_that_is_gone_after_its_goodbye_is_noticed(rig: Rig) -> None:
    """Nothing is read any more: that it is gone, what is written finds out, or the socket's own end."""
    rig.listen(HalfCloseable)
    peer = rig.by_hand()
    peer.goodbye()
    rig.until(lambda: "read lost" in rig.served[0].happened)
    peer.reset()
    rig.served[0].transport.write(b"x" * MIB)
    rig.until(lambda: rig.served[0].lost)


def test_an_application_that_knows_nothing_of_it_is_closed_as_a_whole(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand()
    rig.served[0].transport.loseWriteConnection()
    rig.until(lambda: peer.has_goodbye)
    peer.say(b"still heard")
    rig.until(lambda: rig.served[0].heard == b"still heard")
    peer.goodbye()
    rig.until(lambda: rig.served[0].lost)
    assert rig.served[0].happened == ["made", "data", "lost"]
