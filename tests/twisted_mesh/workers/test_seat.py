"""What a worker does when its parent says so, and that it does nothing any more without one."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.http.status_site import LIVENESS
from twisted_mesh.state.directory import StateError
from twisted_mesh.workers.channel import Frames, framed
from twisted_mesh.workers.messages import (
    MOST_TO_PARENT,
    MOST_TO_WORKER,
    SIGN_OF_LIFE,
    Assignment,
    Question,
    Reread,
    Stop,
)
from twisted_mesh.workers.seat import Seat


class Reactor(Clock):
    channel: Any = None

    def adoptStreamConnection(self, number: int, family: int, factory: Any) -> None:
        self.channel = factory.buildProtocol(None)
        self.channel.makeConnection(StringTransport())


async def broken() -> Any:
    raise KeyError("a bug")


@define(eq=False)
class Service:
    """One that notes what it is told."""

    told: list[Any] = field(factory=list)
    questions: Mapping[str, Any] = field(factory=lambda: {"/livez": LIVENESS, "/broken": broken})

    def take_up(self, texts: Mapping[str, bytes], level: str) -> None:
        self.told.append((texts, level))

    def stop_now(self, *, at_once: bool) -> None:
        self.told.append(at_once)


@define(eq=False)
class Rig:
    reactor: Reactor = field(factory=Reactor)
    service: Service = field(factory=Service)
    lost: list[int] = field(factory=list)
    seat: Seat = field(init=False)

    def __attrs_post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        self.seat = seat(1, 1, ours, lambda: self.lost.append(1))
        self.seat.speak(self.reactor, self.service, RecordingLog())

    def hear(self, message: Any) -> None:
        self.reactor.channel.dataReceived(framed(message, MOST_TO_WORKER))

    @property
    def said(self) -> list[bytes]:
        transport = self.reactor.channel.transport
        found = Frames(MOST_TO_PARENT).feed(transport.value())
        transport.clear()
        return found


def seat(number: int, count: int, channel: Any = None, lost: Any = None) -> Seat:
    told = Assignment("mesh-server", number, count, 1, [], {}, 0, "unix:/ca")
    return Seat(told, channel, [], lost)


def test_it_does_what_the_parent_says() -> None:
    rig = Rig()
    rig.hear(Reread({"config": b"x"}, "debug"))
    rig.hear(Stop())
    rig.hear(Stop(at_once=True))
    assert rig.service.told == [({"config": b"x"}, "debug"), False, True]


def test_pages_are_told_and_a_broken_one_too() -> None:
    rig = Rig()
    assert rig.said == [b'{"kind":"alive"}']
    for number, path in enumerate(("/livez", "/broken", "/none")):
        rig.hear(Question(number, path))
    first, *others = rig.said
    assert b'"number":0,"status":200' in first
    assert [b'"status":500' in one for one in others] == [True, True]


def test_it_gives_signs_of_life_until_it_ends() -> None:
    rig = Rig()
    rig.reactor.advance(SIGN_OF_LIFE)
    assert len(rig.said) == 2
    rig.seat.leave()
    rig.reactor.advance(10 * SIGN_OF_LIFE)
    assert rig.said == []


@pytest.mark.parametrize("is_over", [True, False])
def test_without_a_parent_it_stops_at_once(is_over: bool) -> None:
    rig = Rig()
    if is_over:
        rig.seat.leave()
    rig.reactor.channel.connectionLost()
    assert rig.lost == ([] if is_over else [1])


@pytest.mark.parametrize(("most", "count"), [(2, 2), (7, 3), (1000, 64), (65, 64)])
def test_what_is_shared_out_is_the_whole(most: int, count: int) -> None:
    shares = [seat(number, count).share(most) for number in range(1, count + 1)]
    assert sum(shares) == most
    assert max(shares) - min(shares) <= 1 and min(shares) >= 1


def test_no_two_remember_in_one_place(tmp_path: Path) -> None:
    places = [seat(number, 3).memory_dir(tmp_path) for number in (1, 2, 3)]
    assert len(set(places)) == 3
    assert all(place.stat().st_mode & 0o777 == 0o700 for place in places)
    assert seat(1, 3).memory_dir(tmp_path) == places[0]
    places[1].chmod(0o755)
    with pytest.raises(StateError, match="open to others"):
        seat(2, 3).memory_dir(tmp_path)
    assert seat(1, 3).memory_dir(tmp_path / "not there").name == "worker-1"
