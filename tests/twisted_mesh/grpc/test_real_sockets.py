"""Hostile callers at real sockets: who does not read, who sends without end, who goes without a word."""

import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamReset, TrailersReceived
from h2.settings import SettingCodes, Settings

from tests.twisted_mesh.grpc.raw import ECHO, FOLLOW, Served
from tests.twisted_mesh.grpc.sockets import own_reactor, served, turn_until
from twisted_mesh.grpc.framing import MessageReader, frame

HUGE = 2**31 - 1


@define(eq=False)
class Rude:
    """A caller that lets everything be sent to it, and reads when the test says so."""

    socket: socket.socket
    h2: H2Connection = field(init=False)
    events: list[Event] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.local_settings = Settings(
            client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: HUGE}
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(HUGE - 65535)

    def open(self, path: str, data: bytes, *, end: bool = True) -> None:
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a")]
        self.h2.send_headers(1, [*headers, ("content-type", "application/grpc")])
        self.h2.send_data(1, data, end_stream=end)
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def read(self) -> None:
        """All that is there."""
        self.socket.setblocking(False)
        try:
            while data := self.socket.recv(65536):
                self.events += self.h2.receive_data(data)
        except BlockingIOError:
            pass
        finally:
            self.socket.setblocking(True)

    def has(self, kind: type[Event]) -> bool:
        self.read()
        return any(isinstance(event, kind) for event in self.events)

    @property
    def messages(self) -> list[bytes]:
        data = b"".join(event.data for event in self.events if isinstance(event, DataReceived))
        return list(MessageReader(2**24).feed(data))


@contextmanager
def rude(path: Path) -> Iterator[Rude]:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))
        yield Rude(connected)


def test_who_does_not_read_its_socket_is_kept_the_newest_answer_and_little_else() -> None:
    ours = Served(clock=own_reactor())
    with served(ours.server) as path, rude(path) as caller:
        caller.open(FOLLOW, frame(b""))
        turn_until(lambda: ours.followed)
        tracemalloc.start()
        try:
            for number in range(2000):
                ours.followed[0].replace(b"%06d" % number * 1000)
                if number % 100 == 0:
                    own_reactor().iterate(0)
            assert tracemalloc.get_traced_memory()[0] < 1_000_000
        finally:
            tracemalloc.stop()
        turn_until(lambda: _last(caller) == b"001999")
        assert len(caller.messages) < 500


def _last(caller: Rude) -> bytes:
    caller.read()
    return caller.messages[-1][:6] if caller.messages else b""


def test_100_megabytes_are_refused_while_they_are_sent() -> None:
    ours = Served(clock=own_reactor())
    with served(ours.server) as path, rude(path) as caller:
        caller.open(ECHO, b"\0" + (100_000_000).to_bytes(4, "big"), end=False)
        turn_until(lambda: caller.has(ResponseReceived))
        assert caller.has(StreamReset)
        headers = next(e for e in caller.events if isinstance(e, ResponseReceived)).headers
        assert (b"grpc-status", b"8") in headers
        assert ours.server.open_calls == 0


def test_who_goes_without_a_word_leaves_nothing_behind() -> None:
    ours = Served(clock=own_reactor())
    with served(ours.server) as path:
        with rude(path) as caller:
            caller.open(FOLLOW, frame(b""))
            turn_until(lambda: ours.followed)
        turn_until(lambda: ours.ended)
        turn_until(lambda: not ours.server.connections)
        assert ours.server.open_calls == 0


def test_an_answer_of_megabytes_comes_whole_through_a_small_socket() -> None:
    ours = Served(clock=own_reactor())
    large = bytes(range(256)) * 20_000
    with served(ours.server) as path, rude(path) as caller:
        caller.open(FOLLOW, frame(b""))
        turn_until(lambda: ours.followed)
        ours.followed[0].send(large)
        ours.followed[0].finish()
        turn_until(lambda: caller.has(TrailersReceived))
        assert caller.messages == [large]
