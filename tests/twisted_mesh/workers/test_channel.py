"""What goes over a channel is whole messages of known shape, and nothing else goes on."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport

from pki.codes import Code
from pki.errors import Malformed, PkiError, Problem
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.workers.channel import Channel, Frames, framed
from twisted_mesh.workers.messages import (
    MOST_TO_PARENT,
    Alive,
    Answered,
    Asked,
    Assignment,
    FromParent,
    FromWorker,
    Listening,
    Question,
    Reread,
    Stop,
    Told,
)

MESSAGES = [
    (FromWorker, Asked(1, "POST", "/api/v1/sign", b"\x00\xff", "key", 45)),
    (FromWorker, Told(2, 200, b"page")),
    (FromWorker, Listening()),
    (FromWorker, Alive()),
    (FromParent, Assignment("mesh-server", 1, 2, 3, ["--a=b"], {"config": b"\xff"}, 1, "unix:/ca")),
    (FromParent, Answered(1, 200, b"\x00", clocks="the same")),
    (FromParent, Answered(1, 422, problems=[Problem(Code.EXPIRED, "a", "b", "c", "d")])),
    (FromParent, Question(1, "/metrics")),
    (FromParent, Reread({"config": b"x"}, "debug")),
    (FromParent, Stop(at_once=True)),
]


class Transport(StringTransport):
    """One that may be cut."""

    def abortConnection(self) -> None:
        self.aborting = True


def channel(shape: Any = FromWorker, most: int = 1000) -> tuple[Channel[Any], list[Any], list[int]]:
    heard: list[Any] = []
    lost: list[int] = []
    found: Channel[Any] = Channel(
        shape, most, most, heard.append, lambda: lost.append(1), RecordingLog()
    )
    found.makeConnection(Transport())
    return found, heard, lost


@pytest.mark.parametrize(("shape", "message"), MESSAGES, ids=lambda one: type(one).__name__)
def test_a_message_comes_as_it_was_said(shape: Any, message: Any) -> None:
    one, heard, _ = channel(shape)
    said = framed(message, 1000)
    for at in range(len(said)):
        one.dataReceived(said[at : at + 1])
    assert heard == [message]


def test_many_come_together() -> None:
    one, heard, _ = channel()
    one.dataReceived(framed(Alive(), 99) * 3 + framed(Listening(), 99)[:5])
    assert heard == [Alive()] * 3


def body(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("!I", len(data)) + data


def test_a_member_that_is_not_known_is_passed_over() -> None:
    one, heard, _ = channel()
    one.dataReceived(body('{"kind":"alive","later":1}'))
    assert heard == [Alive()]


@pytest.mark.parametrize(
    "said",
    [
        body('{"kind":"alive","kind":"listening"}'),
        body('{"kind":"told","number":1,"number":2,"status":200,"body":""}'),
        body('{"kind":"unheard of"}'),
        body('{"kind":"told"}'),
        body("[]"),
        body("\xff"),
        body(b"\xff\xfe"),
        body('{"kind":"alive","x":' + "[" * 100 + "]" * 100 + "}"),
        struct.pack("!I", 1001),
        struct.pack("!I", 0),
    ],
    ids=range(10),
)
def test_what_is_no_message_ends_the_channel(said: bytes) -> None:
    one, heard, _ = channel()
    one.dataReceived(said + framed(Alive(), 99))
    assert heard == []
    assert not one.is_open and one.transport.aborting
    one.say(Alive())
    assert one.transport.value() == b""


def test_what_breaks_over_a_message_ends_the_channel() -> None:
    one, _, lost = channel()
    one.hear = lambda message: 1 / 0
    one.dataReceived(framed(Alive(), 99))
    assert not one.is_open
    one.connectionLost()
    assert lost == [1]


def test_a_message_that_is_too_long_is_not_said() -> None:
    with pytest.raises(Malformed, match="is too long"):
        framed(Told(1, 200, b"x" * 1000), 1000)


@given(st.lists(st.binary(max_size=64)), st.integers(1, 200))
def test_bytes_are_taken_apart_or_refused(parts: list[bytes], most: int) -> None:
    frames = Frames(most)
    try:
        for part in parts:
            assert all(len(found) <= most for found in frames.feed(part))
    except PkiError:
        pass


def test_an_announcement_alone_costs_no_memory() -> None:
    frames = Frames(MOST_TO_PARENT)
    frames.feed(struct.pack("!I", MOST_TO_PARENT))
    assert len(frames._waiting) == 4
    assert frames.wanted == MOST_TO_PARENT


def test_messages_are_json() -> None:
    assert json.loads(framed(Question(1, "/x"), 99)[4:]) == {
        "kind": "question",
        "number": 1,
        "path": "/x",
    }
