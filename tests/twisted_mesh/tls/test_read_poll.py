"""Descriptors behind one of the reactor's: with real sockets, and a reactor that only notes what it is told."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet import error, main
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mesh.tls.flush import Flush
from twisted_mesh.tls.read_poll import ReadPoll, read_poll_of


@define(eq=False)
class Noted:
    """A reactor's part."""

    callLater: Callable[..., object]
    readers: list[Any] = field(factory=list)
    answer: int = 42

    def addReader(self, selectable: Any) -> None:
        self.readers.append(selectable)

    def removeReader(self, selectable: Any) -> None:
        if selectable in self.readers:
            self.readers.remove(selectable)

    def addWriter(self, selectable: Any) -> None:
        pass

    def removeWriter(self, selectable: Any) -> None:
        pass


@implementer(IHalfCloseableDescriptor)
class End:
    """One end of a pair of sockets."""

    reactor: Any = None

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.heard: list[object] = []
        self.on_read: Callable[[], object] = lambda: None

    def fileno(self) -> int:
        return self.socket.fileno()

    def doRead(self) -> object:
        said = self.socket.recv(100)
        self.heard.append(said)
        return self.on_read() if said else main.CONNECTION_DONE

    def readConnectionLost(self, reason: Failure) -> None:
        self.heard.append("end")

    def writeConnectionLost(self, reason: Failure) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        self.heard.append(reason.type)


@define(eq=False)
class Rig:
    clock: Clock = field(factory=Clock)
    reactor: Noted = field(init=False)
    pairs: list[tuple[End, socket.socket]] = field(factory=list)
    poll: ReadPoll = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.reactor = Noted(self.clock.callLater)
        self.poll = ReadPoll(self.reactor, Flush(self.clock))
        for _ in range(3):
            ours, theirs = socket.socketpair()
            end = End(ours)
            self.reactor.addReader(end)
            self.poll.take(end)
            self.pairs.append((end, theirs))
            end.reactor.addReader(end)


@pytest.fixture
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    for end, theirs in found.pairs:
        end.socket.close()
        theirs.close()


def test_the_reactor_knows_of_one_and_those_who_are_ready_are_called(rig: Rig) -> None:
    assert rig.reactor.readers == [rig.poll]
    assert rig.pairs[0][0].reactor.answer == 42
    rig.pairs[0][1].send(b"a")
    rig.pairs[2][1].send(b"c")
    rig.poll.doRead()
    assert [end.heard for end, _ in rig.pairs] == [[b"a"], [], [b"c"]]


def test_who_wants_to_be_read_no_more_is_not(rig: Rig) -> None:
    end, theirs = rig.pairs[0]
    theirs.send(b"a")
    end.reactor.removeReader(end)
    end.reactor.removeReader(end)
    rig.poll.doRead()
    assert not end.heard
    end.reactor.addReader(end)
    end.reactor.addReader(end)
    rig.poll.doRead()
    assert end.heard == [b"a"]


def test_an_end_of_one_direction_is_told_and_a_fault_closes_that_one_alone(rig: Rig) -> None:
    (first, theirs), (second, others), (third, last) = rig.pairs
    theirs.shutdown(socket.SHUT_WR)
    second.on_read = lambda: 1 // 0
    third.on_read = error.ConnectionLost
    for other in (others, last):
        other.send(b"x")
    rig.poll.doRead()
    assert first.heard == [b"", "end"]
    assert second.heard == [b"x", ZeroDivisionError]
    assert third.heard == [b"x", error.ConnectionLost]
    for other in (others, last):
        other.send(b"y")
    rig.poll.doRead()
    assert len(second.heard) == len(third.heard) == 2


def test_one_that_has_broken_is_lost_once_the_reactors_round_is_over(rig: Rig) -> None:
    """In that round its descriptor must not become somebody's whom the reactor would then take for it."""
    for end, theirs in rig.pairs[:2]:
        end.on_read = error.ConnectionLost
        end.reactor.addWriter(end)
        theirs.send(b"a")
        theirs.close()
    (first, _), (second, _), (third, last) = rig.pairs
    third.on_read = error.ConnectionLost
    third.reactor.addWriter(third)
    third.reactor.removeWriter(third)
    last.send(b"c")
    last.close()
    rig.poll.doRead()
    assert first.heard == second.heard == [b"a"]
    assert third.heard == [b"c", error.ConnectionLost]
    second.socket.close()  # by the reactor, which has heard of it as well
    rig.poll.doRead()
    rig.clock.advance(0)
    assert first.heard == [b"a", error.ConnectionLost]
    assert second.heard == [b"a"]


def test_who_is_closed_by_another_in_the_same_round_is_not_called(rig: Rig) -> None:
    (first, theirs), (second, others), _ = rig.pairs
    first.on_read = lambda: rig.poll.removeReader(second)
    second.on_read = lambda: rig.poll.removeReader(first)
    theirs.send(b"a")
    others.send(b"b")
    rig.poll.doRead()
    assert len(first.heard) + len(second.heard) == 1


def test_what_is_to_be_sent_at_the_end_is_sent_at_the_end_of_the_round(rig: Rig) -> None:
    sent: list[str] = []
    flush = rig.poll._flush
    end, theirs = rig.pairs[0]
    end.on_read = lambda: flush.at_the_end(lambda: sent.append("in the round"))
    theirs.send(b"a")
    rig.poll.doRead()
    assert sent == ["in the round"]
    assert not rig.clock.getDelayedCalls()
    flush.at_the_end(lambda: sent.append("between"))
    rig.poll.doRead()
    assert sent == ["in the round"]
    rig.clock.advance(0)
    assert sent == ["in the round", "between"]


def test_when_the_reactor_stops_everybody_hears_of_it(rig: Rig) -> None:
    rig.poll.connectionLost(Failure(main.CONNECTION_LOST))
    assert [end.heard for end, _ in rig.pairs] == [[error.ConnectionLost]] * 3


def test_a_reactor_without_epoll_has_none() -> None:
    assert read_poll_of(Clock()) is None
