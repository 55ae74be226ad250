"""How a connection ends: what each side is told, what is still sent, and that it ends once."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from tests.twisted_mesh.tls.transport.application import Application, Push
from tests.twisted_mesh.tls.transport.by_hand import ByHand
from tests.twisted_mesh.tls.transport.rig import NETWORKS, Rig
from twisted_mesh.tls.farewell import CLOSE_TIMEOUT, TAKING_TIMEOUT

MIB = 1 << 20
on_each_network = pytest.mark.parametrize("network", NETWORKS, indirect=True)


@pytest.fixture(params=["server", "client"])
def role(request: pytest.FixtureRequest) -> str:
    """Which end is on the transport; the other is held by hand."""
    chosen: str = request.param
    return chosen


def met(rig: Rig, role: str, **does: Callable[[Any], object]) -> tuple[Application, ByHand]:
    """An application in that role, and its peer."""
    if role == "client":
        application = Application(**does)
        return application, rig.served_by_hand(application)
    rig.listen(lambda: Application(**does))
    peer = rig.by_hand()
    return rig.served[0], peer


def test_what_was_said_is_sent_before_the_goodbye_and_the_end(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    application.transport.write(b"x" * MIB)
    application.transport.loseConnection()
    assert application.transport.disconnecting
    application.transport.write(b"too late")
    rig.until(lambda: peer.has_goodbye)
    assert peer.heard == b"x" * MIB
    assert application.lost is None, "the peer has not said goodbye yet"
    peer.goodbye()
    rig.until(lambda: application.lost and peer.end)
    assert peer.end == "closed"
    assert application.lost.check(ConnectionDone)
    assert application.happened == ["made", "lost"]


@on_each_network
def test_both_ends_hear_that_it_is_done(rig: Rig) -> None:
    served, calling = rig.pair()
    calling.transport.write(b"bye")
    calling.transport.loseConnection()
    rig.until(lambda: served.lost and calling.lost)
    assert served.heard == b"bye"
    assert served.lost.check(ConnectionDone)
    if rig.transport == "socket":  # over a unix socket Twisted's hangs up on our answer
        assert calling.lost.check(ConnectionDone)
    assert not served.transport.connected and not calling.transport.connected


def test_both_ends_may_say_goodbye_at_once(rig: Rig) -> None:
    served, calling = rig.pair()
    for end in (served, calling):
        end.transport.write(b"bye")
        end.transport.loseConnection()
    rig.until(lambda: served.lost and calling.lost)
    assert served.heard == calling.heard == b"bye"
    assert served.lost.check(ConnectionDone) and calling.lost.check(ConnectionDone)


def test_a_peer_that_does_not_answer_the_goodbye_is_dropped(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    application.transport.loseConnection()
    rig.until(lambda: peer.has_goodbye)
    rig.clock.advance(CLOSE_TIMEOUT - 0.1)
    rig.turns()
    assert application.lost is None
    rig.clock.advance(0.2)
    rig.until(lambda: application.lost and peer.end)


def test_a_peer_that_reads_nothing_is_dropped_too(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    peer.reads = False
    application.transport.write(b"x" * 16 * MIB)
    application.transport.loseConnection()
    rig.turns()
    assert application.lost is None
    for _ in range(10):  # its system takes some of it for a while
        rig.clock.advance(CLOSE_TIMEOUT + 0.1)
        rig.turns()
    assert application.lost is not None


def test_a_peer_that_reads_slowly_hears_all_of_it(rig: Rig, role: str) -> None:
    if rig.transport == "twisted":
        pytest.skip("Twisted's has so many seconds for all of it")
    application, peer = met(rig, role)
    peer.reads = False
    application.transport.write(b"x" * 16 * MIB)
    application.transport.loseConnection()
    for _ in range(8):
        peer.reads = True
        before = len(peer.heard)
        rig.until(lambda: len(peer.heard) > before or peer.end)  # noqa: B023  # called within the loop
        peer.reads = False
        rig.clock.advance(CLOSE_TIMEOUT + 0.1)
        rig.turns()
    assert application.lost is None
    peer.reads = True
    rig.until(lambda: peer.has_goodbye)
    assert peer.heard == b"x" * 16 * MIB


def test_a_peer_that_reads_slowly_has_its_time_and_no_more(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    application.transport.loseConnection()
    for _ in range(int(TAKING_TIMEOUT / CLOSE_TIMEOUT) + 1):
        peer.say(b"still there")
        rig.turns()
        rig.clock.advance(CLOSE_TIMEOUT)
    rig.until(lambda: application.lost)


def test_who_has_paused_still_hears_the_goodbye_to_its_own(rig: Rig, role: str) -> None:
    if rig.transport == "twisted":
        pytest.skip("Twisted's reads nothing then, and waits for its time to be over")
    application, peer = met(rig, role)
    application.transport.pauseProducing()
    peer.say(b"x" * 4 * MIB)
    rig.turns()
    application.transport.write(b"that is enough")
    application.transport.loseConnection()
    rig.until(lambda: peer.has_goodbye and not peer.unsent)
    application.transport.pauseProducing()
    peer.goodbye()
    rig.until(lambda: application.lost and peer.end)
    assert (peer.heard, peer.end) == (b"that is enough", "closed")
    assert application.heard == b"", "and none of it is delivered"
    assert application.lost.check(ConnectionDone)


@on_each_network
def test_the_peers_goodbye_ends_it_once_all_is_sent(rig: Rig) -> None:
    said = b"x" * 4 * MIB
    rig.listen(lambda: Application(made=lambda me: me.transport.write(said)))
    peer = rig.by_hand()
    peer.say(b"that is all")
    peer.goodbye()
    rig.until(lambda: rig.served[0].lost and peer.end)
    assert peer.heard == said
    assert peer.has_goodbye and peer.end == "closed"
    assert rig.served[0].heard == b"that is all"
    assert rig.served[0].lost.check(ConnectionDone)


@pytest.mark.interop(
    "tests/twisted_mesh/tls/transport/test_closing.py::test_the_peers_goodbye_ends_it_once_all_is_sent"
)
def test_64_mib_are_still_sent_after_the_peers_goodbye(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    application.transport.write(b"x" * 64 * MIB)
    peer.goodbye()
    rig.until(lambda: application.lost and peer.end)
    assert peer.heard == b"x" * 64 * MIB
    assert peer.has_goodbye


def test_64_mib_may_still_come_after_our_goodbye(rig: Rig, role: str) -> None:
    """Nobody reads it any more; and the goodbye behind it is waited for, within its time."""
    application, peer = met(rig, role)
    application.transport.loseConnection()
    rig.until(lambda: peer.has_goodbye)
    for _ in range(4):
        peer.say(b"x" * MIB)
        rig.until(lambda: not peer.unsent or peer.end)
    peer.goodbye()
    rig.until(lambda: application.lost)


@on_each_network
def test_an_end_without_a_goodbye_is_told_apart(rig: Rig) -> None:
    """What was said may be cut short (RFC 8446 section 6.1)."""
    rig.listen()
    peer = rig.by_hand()
    peer.say(b"half of")
    rig.until(lambda: rig.served[0].heard)
    peer.hang_up()
    rig.until(lambda: rig.served[0].lost)
    assert rig.served[0].lost.check(ConnectionLost)
    assert rig.served[0].heard == b"half of"


def test_an_end_without_a_goodbye_is_told_apart_by_a_client(rig: Rig) -> None:
    application, peer = met(rig, "client")
    peer.say(b"half of")
    peer.hang_up()
    rig.until(lambda: application.lost)
    assert not application.lost.check(ConnectionDone)
    assert application.heard == b"half of"


def test_data_and_its_end_in_one_turn_are_both_heard(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    peer.say(b"x" * 100_000)
    peer.goodbye()
    peer.hang_up()
    rig.until(lambda: application.lost)
    assert application.heard == b"x" * 100_000
    assert application.lost.check(ConnectionDone)


@pytest.mark.parametrize("network", ["tcp4", "tcp6"], indirect=True)
def test_an_abort_resets_and_drops_what_was_not_sent(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand()
    application = rig.served[0]
    peer.reads = False
    application.transport.write(b"x" * 16 * MIB)
    rig.turns()
    application.transport.abortConnection()
    application.transport.write(b"more")
    rig.until(lambda: application.lost)
    if rig.transport == "socket":  # with Twisted's, which still sends a goodbye, it is chance
        assert application.lost.check(ConnectionAborted)
    peer.reads = True
    rig.until(lambda: peer.end)
    assert peer.end == "reset"
    assert len(peer.heard) < 16 * MIB
    assert not peer.has_goodbye


END_TWICE = {
    "lose, lose": ("loseConnection", "loseConnection"),
    "lose, abort": ("loseConnection", "abortConnection"),
    "abort, lose": ("abortConnection", "loseConnection"),
    "abort, abort": ("abortConnection", "abortConnection"),
}


@pytest.mark.parametrize("calls", END_TWICE.values(), ids=END_TWICE)
def test_it_ends_once_however_often_it_is_ended(calls: tuple[str, str], rig: Rig) -> None:
    served, calling = rig.pair()
    for call in calls:
        getattr(served.transport, call)()
    rig.until(lambda: served.lost and calling.lost)
    for call in calls:
        getattr(served.transport, call)()
        getattr(calling.transport, call)()
    served.transport.write(b"late")
    calling.transport.writeSequence([b"late"])
    rig.turns()
    assert served.happened == calling.happened == ["made", "lost"]
    assert rig.logged == []


@pytest.mark.parametrize("call", ["loseConnection", "abortConnection"])
@pytest.mark.parametrize("when", ["made", "data"])
def test_it_may_be_ended_from_within(call: str, when: str, rig: Rig) -> None:
    rig.listen(lambda: Application(**{when: lambda me: getattr(me.transport, call)()}))
    peer = rig.by_hand(shakes_hands=False)
    peer.shake_hands()
    rig.until(lambda: peer.is_secured)
    peer.say(b"x")
    rig.until(lambda: peer.end or peer.has_goodbye)
    if peer.has_goodbye:
        peer.goodbye()
    rig.until(lambda: rig.served[0].lost)
    assert rig.served[0].happened[-1] == "lost"
    assert rig.logged == []


def test_after_an_abort_nothing_more_is_delivered(rig: Rig) -> None:
    rig.listen(lambda: Application(data=lambda me: me.transport.abortConnection()))
    peer = rig.by_hand()
    for _ in range(20):
        peer.tls.send(b"x" * 4000)
    peer.step()
    rig.until(lambda: rig.served[0].lost)
    assert rig.served[0].times == 1


def test_a_last_word_in_the_last_moment_is_no_matter(rig: Rig) -> None:
    def act(me: Application) -> None:
        me.transport.write(b"too late")
        me.transport.loseConnection()
        me.transport.abortConnection()

    rig.listen(lambda: Application(lost=act))
    served, calling = rig.pair(Application(lost=act))
    calling.transport.loseConnection()
    rig.until(lambda: served.lost and calling.lost)
    rig.turns()
    assert rig.logged == []


@pytest.mark.parametrize("busy", ["sending", "receiving", "idle"])
def test_a_reset_is_a_connection_that_was_lost(busy: str, rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    if busy == "sending":
        peer.reads = False
        application.transport.write(b"x" * 16 * MIB)
    elif busy == "receiving":
        peer.say(b"x" * 4 * MIB)
    rig.turns()
    peer.reset()
    rig.until(lambda: application.lost)
    assert not application.lost.check(ConnectionDone, ConnectionAborted)
    assert application.happened[-1] == "lost" and application.happened.count("lost") == 1


def test_what_was_spoilt_on_its_way_ends_it_and_the_peer_is_told_why(rig: Rig, role: str) -> None:
    """The alert is there before the socket is closed, though much more is on its way to us."""
    application, peer = met(rig, role)
    peer.tls.send(b"good")
    record = peer.take()
    peer.put(record)
    rig.until(lambda: application.heard == b"good")
    peer.tls.send(b"spoilt")
    # On Twisted's, what is not read yet makes of the end a reset that overtakes the alert.
    more = 4 * MIB if rig.transport == "socket" else 0
    peer.put(peer.take()[:-1] + b"\0" + b"\x17\x03\x03\x40\x00" * bool(more) + bytes(more))
    rig.until(lambda: application.lost and (peer.refusal or peer.end))
    assert "bad record mac" in str(peer.refusal), (peer.end, application.lost)
    assert application.heard == b"good"
    if role == "server":
        assert application.lost.check(SSL.Error)


def test_nonsense_after_the_handshake_ends_it(rig: Rig, role: str) -> None:
    application, peer = met(rig, role)
    peer.put(b"\x00\xff" * 64)
    rig.until(lambda: application.lost and peer.end)
    assert not application.lost.check(ConnectionDone)
    assert peer.refusal is not None


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
@pytest.mark.parametrize("how", ["goodbye", "reset", "hang_up"])
def test_what_is_closed_is_gone_without_being_looked_for(how: str, rig: Rig) -> None:
    """Nothing of it knows itself in a circle: with many that come and go, looking for such would cost a tenth."""
    gone: list[weakref.ref[object]] = []

    def notice(me: Application) -> None:
        connection = me.transport
        for part in (connection, connection.transport, connection.getHandle()):
            gone.append(weakref.ref(part))

    rig.listen(lambda: Application(made=notice))
    gc.collect()
    gc.disable()
    try:
        peer = rig.by_hand()
        peer.say(b"hello")
        rig.until(lambda: rig.served and rig.served[0].heard)
        getattr(peer, how)()
        rig.until(lambda: rig.served[0].lost)
        served = rig.served.pop()
        served.transport = served.lost = None
        rig.until(lambda: not any(ref() for ref in gone), lambda: [ref() for ref in gone])
    finally:
        gc.enable()


def test_who_produces_for_ever_does_not_keep_a_peer_that_leaves(rig: Rig) -> None:
    """A channel of HTTP is a producer for as long as it lives, and is told by the end that there is nobody."""
    pushes: list[Push] = []

    def produce(me: Application) -> None:
        pushes.append(Push(me, 0))
        me.transport.registerProducer(pushes[0], True)

    rig.listen(lambda: Application(made=produce))
    peer = rig.by_hand()
    peer.goodbye()
    rig.until(lambda: peer.end)
    assert peer.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    rig.until(lambda: rig.served[0].lost)
    assert pushes[0].is_stopped
