"""HTTP by hand: a wire that the test holds the other end of, and the answers that come over it."""

import json
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_mesh.http.server import BoundedSite


class Wire(StringTransport):
    """A connection that ends in the next turn of the reactor, as real ones do.

    ``stubborn``: the peer does not answer a goodbye, so that only ``abortConnection`` ends it, and
    goes on sending, as one over TLS can.
    """

    def __init__(self, clock: Clock, *, stubborn: bool = False) -> None:
        super().__init__(lenient=True)
        self.clock = clock
        self.stubborn = stubborn
        self.aborted = False
        self.written: Deferred[None] | None = None
        self.protocol: IProtocol | None = None

    def join(self, protocol: IProtocol) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        if self.connected:
            super().write(data)
            written, self.written = self.written, None
            if written is not None:
                written.callback(None)

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def unregisterProducer(self) -> None:
        self.producer = None  # real ones do not mind a second time

    def loseConnection(self) -> None:
        if not self.disconnecting:
            self.disconnecting = True
            if not self.stubborn:
                self.clock.callLater(0, self.lose, ConnectionDone())

    def loseWriteConnection(self) -> None:
        self.loseConnection()  # the peer hangs up when it has read our last word

    def abortConnection(self) -> None:
        self.disconnecting = self.aborted = True
        self.clock.callLater(0, self.lose, ConnectionAborted())

    def lose(self, error: Exception) -> None:
        """The connection is gone, because of ``error``."""
        if self.connected and self.protocol is not None:
            self.connected = False
            self.protocol.connectionLost(Failure(error))


@frozen
class Answer:
    """One answer, as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def read_answers(data: bytes, *, to_head: bool = False) -> list[Answer]:
    """Every answer in ``data``, each as long as it says. Those to HEAD end with their headers."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, f"an answer that is cut short: {head!r}"
        first, *lines = head.decode("ascii").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(headers) == len(lines), f"a header twice: {lines}"
        size = 0 if to_head else int(headers.get("content-length", "0"))
        assert len(data) >= size
        found.append(Answer(int(status), headers, data[:size]))
        data = data[size:]
    return found


@define(eq=False)
class Talk:
    """One connection to a site."""

    site: BoundedSite
    clock: Clock
    stubborn: bool = False
    wire: Wire = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wire = Wire(self.clock, stubborn=self.stubborn)
        self.wire.join(self.site.buildProtocol(None))

    def say(self, data: bytes, size: int | None = None) -> None:
        """Send it, in pieces of ``size`` bytes, for as long as somebody reads."""
        protocol: Any = self.wire.protocol
        size = size or max(1, len(data))
        for start in range(0, len(data), size):
            if self.wire.connected and (self.stubborn or not self.wire.disconnecting):
                protocol.dataReceived(data[start : start + size])
        self.clock.advance(0)

    def pass_time(self, seconds: float, step: float = 0.25) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))

    @property
    def answers(self) -> list[Answer]:
        """All that have come so far, but for 100 Continue."""
        return [a for a in read_answers(self.wire.value()) if a.status != 100]

    @property
    def statuses(self) -> list[int]:
        """Of all that have come so far."""
        return [answer.status for answer in read_answers(self.wire.value())]

    @property
    def open(self) -> bool:
        return self.wire.connected and not self.wire.disconnecting
