"""The channel between a parent and one worker: messages with their length before them, over a pair of sockets.

It is inherited and has no name, so nobody else can speak on it. What is too long, or no message, ends it: the other
side is of this very version, and is broken.
"""

import struct
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from attrs import define, field
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from pki.errors import ANY_ERROR, Malformed, PkiError
from twisted_mesh.http.json import parse_json
from twisted_mesh.workers.messages import FromParent, FromWorker

T = TypeVar("T", FromParent, FromWorker)

_LENGTH = struct.Struct("!I")


def framed(message: msgspec.Struct, most: int) -> bytes:
    """A message as it goes over the channel. Raises :class:`Malformed` where it has over ``most`` bytes."""
    body = msgspec.json.encode(message)
    if len(body) > most:
        raise Malformed(f"a message of {len(body)} bytes is too long: at most {most} may be said")
    return _LENGTH.pack(len(body)) + body


@define(eq=False)
class Frames:
    """Takes messages out of bytes as they come."""

    most: int
    """Bytes of one."""
    _waiting: bytearray = field(factory=bytearray, init=False)

    @property
    def wanted(self) -> int:
        """Bytes until the next message is whole, as far as that is known."""
        if len(self._waiting) < _LENGTH.size:
            return _LENGTH.size - len(self._waiting)
        (size,) = _LENGTH.unpack_from(self._waiting)
        return _LENGTH.size + int(size) - len(self._waiting)

    def feed(self, data: bytes) -> list[bytes]:
        """Those that are whole now. Raises :class:`Malformed` where one is announced that is too long."""
        self._waiting += data
        found, at = [], 0
        while len(self._waiting) - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._waiting, at)
            if size > self.most:
                raise Malformed(
                    f"a message of {size} bytes is too long: at most {self.most} are read"
                )
            end = at + _LENGTH.size + size
            if len(self._waiting) < end:
                break
            found.append(bytes(self._waiting[at + _LENGTH.size : end]))
            at = end
        del self._waiting[:at]
        return found


@define(eq=False, slots=False)
class Channel(Protocol, Generic[T]):
    """One end."""

    shape: Any
    """Of what is heard: :data:`FromWorker` or :data:`FromParent`."""
    most_in: int
    most_out: int
    hear: Callable[[T], object]
    lost: Callable[[], object]
    """Called once, when the other side is gone."""
    log: Logger
    is_open: bool = field(default=False, init=False)
    _frames: Frames = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._frames = Frames(self.most_in)

    def connectionMade(self) -> None:
        """It can be spoken on."""
        self.is_open = True

    def say(self, message: msgspec.Struct) -> None:
        """Send it; to nobody, where the other side is gone. Raises :class:`Malformed` where it is too long."""
        data = framed(message, self.most_out)
        if self.is_open and self.transport is not None:
            self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        """What the other side says."""
        try:
            for body in self._frames.feed(data):
                self._take(parse_json(body, self.shape))
        except PkiError as error:
            self.log.error(
                "What came over the channel of a worker is no message: {error}",
                event="channel-broke",
                error=str(error),
            )
            self.close()

    def _take(self, message: T) -> None:
        if not self.is_open:
            return
        try:
            self.hear(message)
        except ANY_ERROR:
            self.log.failure("a message of a worker or its parent broke", event="channel-broke")
            self.close()

    def close(self) -> None:
        """Speak and hear no more."""
        self.is_open = False
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other side is gone, or was broken."""
        self.is_open = False
        self.lost()
