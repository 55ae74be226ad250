"""What one request is sent by, and its answer read from, without a reactor: each call blocks, until one deadline."""

import socket
import time
from typing import Protocol

from attrs import define

_CHUNK = 256 * 1024
#: Of what comes first, so much tells which protocol it is.
_FIRST = 16


class Cut(Exception):
    """The other side ended in the middle."""


class Wire(Protocol):
    """What a request is sent by. Each call ends by the deadline it was made with, or raises ``TimeoutError``."""

    def send(self, data: bytes) -> None:
        """All of it."""

    def receive(self) -> bytes:
        """Some bytes; none where the other side has ended."""

    def close(self) -> None:
        """Never raises."""


@define(eq=False, repr=False)
class Attempt:
    """One request's way to the CA: until when, and how far it came."""

    ends: float
    """By ``time.monotonic``."""
    is_connected: bool = False
    heard: bytes = b""
    """The first bytes that came back."""

    @property
    def left(self) -> float:
        """Seconds. Raises ``TimeoutError`` where there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


@define(eq=False, repr=False)
class PlainWire:
    """A socket, and the deadline for all that is done with it."""

    sock: socket.socket
    attempt: Attempt

    def send(self, data: bytes) -> None:
        """See :class:`Wire`."""
        self.sock.settimeout(self.attempt.left)
        self.sock.sendall(data)

    def receive(self) -> bytes:
        """See :class:`Wire`."""
        self.sock.settimeout(self.attempt.left)
        data = self.sock.recv(_CHUNK)
        self.attempt.heard = self.attempt.heard or data[:_FIRST]
        return data

    def close(self) -> None:
        """See :class:`Wire`."""
        self.sock.close()
