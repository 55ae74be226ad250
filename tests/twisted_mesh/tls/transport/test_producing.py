"""Who produces is told when to pause, and who reads may pause: what waits in between is bounded."""

from collections.abc import Callable

import pytest

from tests.twisted_mesh.tls.transport.application import Application, Pull, Push, pieces
from tests.twisted_mesh.tls.transport.by_hand import ByHand
from tests.twisted_mesh.tls.transport.rig import Rig

MIB = 1 << 20
#: What the kernel's buffers of one connection on this machine may take, and what one of ours may have besides.
_KERNEL, _OURS = 12 * MIB, 2 * MIB


def _producing(rig: Rig, rest: int, when: str = "later") -> tuple[Push, ByHand]:
    """A server's application that produces: registered when it is connected, or later."""
    made: list[Push] = []

    def produce(me: Application) -> None:
        made.append(Push(me, rest))
        made[0].start(rig.reactor)

    rig.listen(lambda: Application(**({"made": produce} if when == "at once" else {})))
    peer = rig.by_hand()
    if when == "later":
        produce(rig.served[0])
    return made[0], peer


@pytest.mark.parametrize("when", ["at once", "later"])
def test_all_that_is_produced_arrives(when: str, rig: Rig) -> None:
    push, peer = _producing(rig, 256, when)
    rig.until(lambda: len(peer.heard) == 256 * 16 * 1024)
    assert peer.heard == pieces(256)
    rig.served[0].transport.write(b"and on")
    rig.until(lambda: peer.heard.endswith(b"and on"))
    assert push.is_stopped and rig.served[0].lost is None


def test_a_peer_that_does_not_read_pauses_the_producer_and_reading_resumes_it(rig: Rig) -> None:
    push, peer = _producing(rig, 4096)
    peer.reads = False
    said = -1
    while said != push.said:  # the kernel's buffers grow meanwhile
        said = push.said
        rig.turns(50)
    assert push.is_paused and push.rest
    assert push.said < _KERNEL + _OURS, "a peer that stops reading for ever costs no more than this"
    said = push.said
    peer.reads = True
    rig.until(lambda: push.said > said)
    rig.served[0].transport.abortConnection()
    rig.until(lambda: push.is_stopped)


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_a_large_write_pauses_a_producer_at_once(rig: Rig) -> None:
    rig.listen()
    rig.by_hand().reads = False
    push = Push(rig.served[0], 10)
    rig.served[0].transport.registerProducer(push, True)
    rig.served[0].transport.write(b"x" * 16 * MIB)
    assert push.is_paused
    assert push.pauses == 1
    rig.turns()
    assert push.pauses == 1


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_who_is_registered_behind_a_large_write_is_paused(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand()
    peer.reads = False
    rig.served[0].transport.write(b"x" * 16 * MIB)
    push = Push(rig.served[0], 1)
    push.start(rig.reactor)
    assert push.is_paused
    peer.reads = True
    rig.until(lambda: push.is_stopped)
    rig.until(lambda: len(peer.heard) == 16 * MIB + push.size)


@pytest.mark.parametrize("when", ["at once", "later"])
def test_who_is_asked_for_each_piece_says_all_of_them(when: str, rig: Rig) -> None:
    made: list[Pull] = []

    def produce(me: Application) -> None:
        made.append(Pull(me, 300))
        made[0].start()

    rig.listen(lambda: Application(**({"made": produce} if when == "at once" else {})))
    peer = rig.by_hand()
    if when == "later":
        produce(rig.served[0])
    rig.until(lambda: len(peer.heard) == 300 * 16 * 1024)
    assert peer.heard == pieces(300)
    assert made[0].asked == 300


def test_who_is_asked_for_each_piece_is_not_asked_while_the_peer_does_not_read(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand()
    peer.reads = False
    pull = Pull(rig.served[0], 4096)
    pull.start()
    asked = -1
    while asked != pull.asked:
        asked = pull.asked
        rig.turns(50)
    assert pull.asked * pull.size < _KERNEL + _OURS
    rig.served[0].transport.abortConnection()
    rig.until(lambda: rig.served[0].lost)
    assert pull.is_stopped


@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
def test_there_is_one_producer_at_a_time(streaming: bool, rig: Rig) -> None:
    served, _ = rig.pair()
    first, second = Push(served, 1), Push(served, 1)
    served.transport.registerProducer(first, True)
    with pytest.raises(RuntimeError):
        served.transport.registerProducer(second, streaming)
    served.transport.unregisterProducer()
    served.transport.unregisterProducer()
    served.transport.registerProducer(second, True)
    served.transport.unregisterProducer()
    assert rig.logged == []


@pytest.mark.parametrize("call", ["abortConnection", "hang up"])
@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
def test_a_producer_is_stopped_once_the_connection_is_lost(
    call: str, streaming: bool, rig: Rig
) -> None:
    rig.listen()
    peer = rig.by_hand()
    served = rig.served[0]
    peer.reads = False
    producer: Push | Pull = Push(served, 4096) if streaming else Pull(served, 4096)
    producer.start(*([rig.reactor] if streaming else []))  # type: ignore[call-arg, arg-type]
    rig.turns()
    if call == "hang up":
        peer.reset()
    else:
        served.transport.abortConnection()
    rig.until(lambda: served.lost and producer.is_stopped)
    late = Push(served, 1)
    served.transport.registerProducer(late, True)
    assert late.is_stopped
    if rig.transport == "socket":  # Twisted's breaks
        served.transport.unregisterProducer()


def test_who_says_goodbye_waits_for_its_producer(rig: Rig) -> None:
    push, peer = _producing(rig, 200)
    rig.served[0].transport.loseConnection()
    rig.until(lambda: peer.has_goodbye)
    assert push.is_stopped
    assert peer.heard == pieces(200)


def test_a_producer_may_end_the_connection_from_within(rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand()
    served = rig.served[0]

    class Ending(Pull):
        def resumeProducing(self) -> None:
            served.transport.write(b"x" * 100)
            served.transport.abortConnection()
            served.transport.write(b"y" * 100)

    Ending(served, 1).start()
    rig.until(lambda: served.lost and peer.end)
    assert b"y" not in peer.heard
    assert rig.logged == []


@pytest.mark.parametrize("call", ["abortConnection", "unregisterProducer", "loseConnection"])
def test_who_is_asked_to_pause_within_its_own_write_may_do_anything(call: str, rig: Rig) -> None:
    rig.listen()
    peer = rig.by_hand()
    peer.reads = False
    served = rig.served[0]

    class Sudden(Push):
        def pauseProducing(self) -> None:
            super().pauseProducing()
            getattr(served.transport, call)()

    push = Sudden(served, 4096)
    push.start(rig.reactor)
    rig.until(lambda: push.pauses)
    if call != "abortConnection":
        peer.reads = True
        rig.until(lambda: len(peer.heard) >= push.said)
        served.transport.unregisterProducer()
        served.transport.loseConnection()
        rig.until(lambda: peer.has_goodbye)
        peer.goodbye()
    rig.until(lambda: served.lost)
    assert served.happened == ["made", "lost"]
    assert rig.logged == []


def test_what_is_answered_to_much_while_nobody_reads_is_kept_in_order(rig: Rig) -> None:
    """Each piece is echoed at once: written within what delivers it."""

    def echo(me: Application) -> None:
        me.transport.write(bytes(me.heard))
        me.heard.clear()

    rig.listen(lambda: Application(data=echo))
    peer = rig.by_hand()
    said = b"".join(number.to_bytes(4, "big") for number in range(500_000))
    peer.say(said)
    rig.until(lambda: len(peer.heard) == len(said))
    assert peer.heard == said


# reading


def test_who_has_paused_hears_nothing_and_later_all(rig: Rig) -> None:
    rig.listen(lambda: Application(made=lambda me: me.transport.pauseProducing()))
    peer = rig.by_hand()
    served = rig.served[0]
    peer.say(b"x" * 64 * MIB if rig.transport == "socket" else b"x" * 16 * MIB)
    unsent = -1
    while unsent != peer.unsent:
        unsent = peer.unsent
        rig.turns(50)
    assert served.heard == b""
    assert peer.sent < _KERNEL + _OURS, "a peer that goes on sending is not read from"
    served.transport.resumeProducing()
    rig.until(lambda: len(served.heard) > MIB)


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
@pytest.mark.parametrize("size", [1, 4000, 16 * 1024])
def test_who_pauses_at_each_piece_gets_none_meanwhile_and_loses_none(size: int, rig: Rig) -> None:
    """Records that have come with it wait. Twisted's transport delivers those."""
    paused: list[bool] = []

    def pause(me: Application) -> None:
        assert not paused
        paused.append(True)
        me.transport.pauseProducing()

    rig.listen(lambda: Application(data=pause))
    peer = rig.by_hand()
    said = bytes(range(250)) * (40 if size == 1 else 4 * size)
    for at in range(0, len(said), size):
        peer.tls.send(said[at : at + size])
    peer.step()
    served = rig.served[0]
    while len(served.heard) < len(said):
        rig.until(lambda: paused)
        rig.turns(2)
        paused.clear()
        served.transport.resumeProducing()
    assert served.heard == said
    assert served.lost is None


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_who_pauses_and_resumes_at_once_misses_nothing(rig: Rig) -> None:
    def both(me: Application) -> None:
        me.transport.pauseProducing()
        me.transport.resumeProducing()

    rig.listen(lambda: Application(data=both))
    peer = rig.by_hand()
    said = bytes(range(250)) * 4000
    peer.say(said)
    rig.until(lambda: len(rig.served[0].heard) == len(said))
    assert rig.served[0].heard == said


@pytest.mark.parametrize("how", ["goodbye", "hang up"])
def test_what_came_before_the_end_is_heard_by_who_had_paused(how: str, rig: Rig) -> None:
    rig.listen(lambda: Application(made=lambda me: me.transport.pauseProducing()))
    peer = rig.by_hand()
    served = rig.served[0]
    peer.say(b"x" * 100_000)
    if how == "goodbye":
        peer.goodbye()
    peer.hang_up()
    rig.turns(20)
    assert served.happened == ["made"]
    served.transport.resumeProducing()
    rig.until(lambda: served.lost)
    assert served.heard == b"x" * 100_000


@pytest.mark.parametrize("transport", ["socket"], indirect=True)
def test_who_resumes_while_it_writes_is_given_what_waits(rig: Rig) -> None:
    """A proxy: what it has sent on lets it read on, and nothing more comes from the wire."""

    class Proxying(Pull):
        def resumeProducing(self) -> None:
            if self.asked:
                served.transport.unregisterProducer()
                served.transport.resumeProducing()
            self.asked += 1

    rig.listen(lambda: Application(data=lambda me: me.times > 1 or me.transport.pauseProducing()))
    peer = rig.by_hand()
    served = rig.served[0]
    for _ in range(50):  # is read at once, and looked at in pieces
        peer.tls.send(b"x" * 1000)
    peer.step()
    rig.until(lambda: served.times)
    rig.turns()
    assert len(served.heard) < 50_000
    served.transport.write(b"sent on")
    served.transport.registerProducer(Proxying(served, 1), False)
    rig.until(lambda: len(served.heard) == 50_000)


def test_pausing_twice_is_pausing_once(rig: Rig) -> None:
    served, calling = rig.pair()
    served.transport.pauseProducing()
    served.transport.pauseProducing()
    calling.transport.write(b"x")
    rig.turns()
    assert served.heard == b""
    served.transport.resumeProducing()
    served.transport.resumeProducing()
    rig.until(lambda: served.heard == b"x")


def test_stop_producing_is_goodbye(rig: Rig) -> None:
    served, calling = rig.pair()
    served.transport.write(b"last")
    served.transport.stopProducing()
    rig.until(lambda: served.lost and calling.lost)
    assert calling.heard == b"last"


@pytest.mark.parametrize("call", ["pauseProducing", "resumeProducing", "stopProducing"])
def test_after_the_end_there_is_nothing_to_pause(call: str, rig: Rig) -> None:
    served, calling = rig.pair()
    calling.transport.abortConnection()
    rig.until(lambda: served.lost and calling.lost)
    for end in (served, calling):
        getattr(end.transport, call)()
    rig.turns()
    assert rig.logged == []
    assert served.happened == calling.happened == ["made", "lost"]


def _chain(rig: Rig) -> Callable[[], int]:
    """One end feeds the other through the mesh's own flow control, as proxies do."""
    served, calling = rig.pair()
    push = Push(calling, 2000)
    push.start(rig.reactor)
    served.transport.pauseProducing()
    said = -1
    while said != push.said:
        said = push.said
        rig.turns(50)
    assert push.said < _KERNEL + _OURS
    served.transport.resumeProducing()
    rig.until(lambda: push.is_stopped)
    return lambda: len(served.heard)


def test_back_pressure_reaches_from_one_end_to_the_other(rig: Rig) -> None:
    heard = _chain(rig)
    rig.until(lambda: heard() == 2000 * 16 * 1024)


def test_who_pauses_at_each_piece_is_given_all_and_takes_nobody_for_silent(rig: Rig) -> None:
    """What waits for it in OpenSSL is neither lost, nor held to be TLS that says nothing."""

    def take_a_breath(me: Application) -> None:
        me.transport.pauseProducing()
        rig.reactor.callLater(0, me.transport.resumeProducing)

    rig.listen(lambda: Application(data=take_a_breath))
    peer = rig.by_hand()
    said = pieces(256)
    peer.say(said)
    rig.until(lambda: len(rig.served[0].heard) == len(said), lambda: len(rig.served[0].heard))
    assert rig.served[0].heard == said
    assert rig.served[0].lost is None
