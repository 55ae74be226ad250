"""A carried connection on wires in memory, at a time that the test says."""

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from tests.twisted_mesh.proxy.test_http_filter import GET, OK
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.limits.rate_limit import LimitedLog, Rate
from twisted_mesh.proxy.link import Link
from twisted_mesh.proxy.listener import Bounds, Listener, Mode, OnCut, Target
from twisted_mesh.proxy.protocols import protocols_of
from twisted_mesh.proxy.seam import Protocols
from twisted_mesh.proxy.tally import Tally


class Wire(StringTransport):
    """As a socket takes it: one direction may end, and what ends may be ended again."""

    was_reset = False

    def abortConnection(self) -> None:
        self.was_reset = True

    def loseWriteConnection(self) -> None:
        pass

    def unregisterProducer(self) -> None:
        self.producer = None


@define(eq=False)
class Front:
    """A listener whose target answers at once, and which has room for everybody."""

    listener: Listener
    clock: Clock = field(factory=Clock)
    log: Any = field(factory=RecordingLog)
    tally: Tally = field(factory=Tally)
    to_target: Wire = field(factory=Wire)
    gone: list[Link] = field(factory=list)

    @property
    def protocols(self) -> Protocols:
        return protocols_of(self.listener)

    @property
    def warnings(self) -> LimitedLog:
        return LimitedLog(self.log, Rate(1, 1), self.clock.seconds)

    def dial(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        protocol: Any = factory.buildProtocol(None)
        protocol.makeConnection(self.to_target)
        return succeed(protocol)

    def opened(self, link: Link) -> None:
        link.begin()

    def closed(self, link: Link) -> None:
        self.gone.append(link)


@pytest.fixture
def front() -> Front:
    target = Target("127.0.0.1", 1)
    return Front(Listener("in", Mode.SERVER, "127.0.0.1:0", target, http=True))


def called(front: Front) -> tuple[Link, Wire]:
    link, to_caller = Link(front), Wire()
    link.caller.makeConnection(to_caller)
    return link, to_caller


@pytest.mark.parametrize("is_first", [True, False], ids=["as it comes", "before"])
def test_who_has_just_come_when_it_stops_is_answered(front: Front, is_first: bool) -> None:
    link, to_caller = called(front)
    if is_first:
        link.caller.dataReceived(GET[:9])
    link.drain()
    front.clock.advance(0.5)
    link.caller.dataReceived(GET[9:] if is_first else GET)
    front.clock.advance(0.6)
    assert front.to_target.value() == GET
    assert not to_caller.disconnecting
    assert link.target is not None
    link.target.dataReceived(OK)
    assert b"Connection: close" in to_caller.value()
    assert to_caller.disconnecting


def test_who_asks_for_nothing_is_hung_up_on_a_second_after_it_came(front: Front) -> None:
    link, to_caller = called(front)
    front.clock.advance(0.3)
    link.drain()
    link.drain()
    front.clock.advance(0.6)
    assert not to_caller.disconnecting
    front.clock.advance(0.2)
    assert to_caller.disconnecting


def test_who_came_long_ago_is_hung_up_on_at_once(front: Front) -> None:
    link, to_caller = called(front)
    front.clock.advance(1)
    link.drain()
    assert to_caller.disconnecting


def test_who_leaves_meanwhile_leaves_nothing_behind(front: Front) -> None:
    link, _ = called(front)
    link.drain()
    assert link.target is not None
    for side in (link.caller, link.target):
        side.connectionLost()
    assert front.gone == [link]
    assert front.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        (Bounds(idle=7), "idle"),
        (Bounds(lifetime=7), "lifetime"),
        (Bounds(close=7), "close-timeout"),
        (Bounds(close=0), "close-timeout"),
    ],
)
@pytest.mark.parametrize("on_cut", OnCut)
def test_a_bound_ends_both_sides_by_a_reset_or_as_is_told(
    bounds: Bounds, reason: str, on_cut: OnCut
) -> None:
    target = Target("127.0.0.1", 1)
    front = Front(Listener("in", Mode.SERVER, "127.0.0.1:0", target, bounds=bounds, on_cut=on_cut))
    link, to_caller = called(front)
    wires = (to_caller, front.to_target)
    if reason == "close-timeout":
        link.caller.readConnectionLost()
    front.clock.advance(7)
    if on_cut is OnCut.END:
        assert all(wire.disconnecting and not wire.was_reset for wire in wires)
        front.clock.advance(5)  # who takes nothing does not stay for that
    assert all(wire.was_reset for wire in wires)
    for side in (link.caller, link.target):
        assert side is not None
        side.connectionLost()
    assert front.gone == [link]
    assert front.tally.ended[reason] == 1
    assert front.clock.getDelayedCalls() == []


def test_once_one_side_has_said_all_silence_has_the_bound_of_that() -> None:
    bounds = Bounds(idle=1, close=5)
    front = Front(Listener("in", Mode.SERVER, "127.0.0.1:0", Target("127.0.0.1", 1), bounds=bounds))
    link, to_caller = called(front)
    link.caller.readConnectionLost()
    front.clock.pump([1, 1, 1, 1])
    assert not to_caller.was_reset
    front.clock.advance(1)
    assert to_caller.was_reset
    for side in (link.caller, link.target):
        assert side is not None
        side.connectionLost()
    assert front.tally.ended["close-timeout"] == 1


def test_who_never_ends_a_head_is_told_so_after_ten_seconds(front: Front) -> None:
    link, to_caller = called(front)
    for _ in range(19):
        link.caller.dataReceived(b"G" if not to_caller.value() else b"")
        front.clock.advance(0.5)
    assert to_caller.value() == b""
    front.clock.advance(0.5)
    assert to_caller.value().startswith(b"HTTP/1.1 408 ")
    assert to_caller.disconnecting
    assert front.to_target.value() == b""


def test_who_always_has_the_next_head_half_said_is_served_on(front: Front) -> None:
    link, to_caller = called(front)
    link.caller.dataReceived(GET[:9])
    assert link.target is not None
    for _ in range(30):
        link.caller.dataReceived(GET[9:] + GET[:9])
        link.target.dataReceived(OK)
        front.clock.advance(1)
    assert to_caller.value().count(b" 200 ") == 30
    assert not to_caller.disconnecting
    front.clock.advance(10)
    assert b" 408 " in to_caller.value()


def test_a_slow_body_and_a_slow_answer_have_no_such_bound(front: Front) -> None:
    link, to_caller = called(front)
    link.caller.dataReceived(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
    front.clock.advance(60)
    link.caller.dataReceived(b"bc")
    front.clock.advance(60)
    assert link.target is not None
    link.target.dataReceived(OK)
    assert b" 200 " in to_caller.value()
    assert not to_caller.disconnecting
