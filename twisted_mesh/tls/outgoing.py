"""What one connection has to send: the application's bytes, and the records that TLS has made of some of them."""

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress

from OpenSSL import SSL

from twisted_mesh.tls.record_layer import MOST, PIECE, Octets, RecordLayer

#: What is sent before others have their turn.
_TURN = 1024 * 1024
_INT = struct.Struct("i")


class Outgoing:
    """A socket's, in the order in which it was said."""

    def __init__(self, layer: RecordLayer, sock: socket.socket) -> None:
        self._layer = layer
        self._socket = sock
        self._said: list[Octets] = []
        self._records: Octets = b""
        self.size = 0
        """Bytes that wait, but for those that TLS still holds."""

    @property
    def unsent(self) -> int:
        """Bytes that wait here, and those before them that the peer's system has not taken (see tcp(7)).

        No bytes where nothing waits here: the kernel by itself sends what it has.
        """
        if not (size := self.size):
            return 0
        with suppress(OSError):
            answer = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(_INT.size))
            size += _INT.unpack(answer)[0]
        return size

    def add(self, data: bytes) -> None:
        """The application says this."""
        self._said.append(data)
        self.size += len(data)

    def send(self, *, is_secured: bool, at_end: Callable[[], object] | None = None) -> bool:
        """Send what the socket takes; True where nothing is left. Before the handshake is done it sends that alone.

        ``at_end`` is called behind the last that was said, and what TLS says then goes along: each send wakes the peer.
        Raises ``OSError`` where the socket is broken, ``SSL.Error`` where TLS is.
        """
        sent, is_all = 0, False
        while sent < _TURN:
            records = self._records
            if not records:
                if self._said and is_secured:
                    self._seal()
                if at_end is not None and not self._said:
                    at_end()
                    at_end = None
                records = self._layer.take()
                is_all = len(records) < MOST and not self._said
                if not records:
                    self._layer.relax()
                    return not (self._said and is_secured)
            taken = self._send_some(records)
            if not taken:
                return False
            sent += taken
            if is_all and not self._records:
                self._layer.relax()
                return True
        return False

    def _send_some(self, records: Octets) -> int:
        """Send some of them, and keep the rest; how many bytes the socket took."""
        try:
            taken = self._socket.send(records)
        except BlockingIOError:
            taken = 0
        waited = len(self._records)
        if taken == len(records):
            self._records = b""
        else:
            # What a layer has given is its own to overwrite.
            rest = records if waited else bytes(records)
            self._records = memoryview(rest)[taken:]
        self.size += len(self._records) - waited
        return taken

    def push(self) -> bool:
        """Send what TLS has sealed, if nothing else waits; True where that was all. Raises ``OSError``."""
        if self.size:
            return False
        records = self._layer.take()
        size = len(records)
        self._layer.relax()
        return size < MOST and (not size or self._send_some(records) == size)

    def say(self, data: memoryview) -> bool:
        """Send what may be overwritten afterwards, past what waits: nothing does. True where nothing is left.

        Raises as :meth:`send`.
        """
        for at in range(0, len(data), PIECE):
            records = self._layer.seal(data[at : at + PIECE])
            if self._send_some(records) < len(records):
                self.add(bytes(data[at + PIECE :]))
                break
        self._layer.relax()
        return not self.size

    def _seal(self) -> None:
        """Make records of some of what was said: of many small pieces together, of a large one in parts."""
        said, size, count = self._said, 0, 0
        while count < len(said) and size < PIECE:
            size += len(said[count])
            count += 1
        pieces = said[:count]
        said[:count] = []
        if (over := size - PIECE) > 0:
            last = memoryview(pieces[-1])
            pieces[-1], rest = last[:-over], last[-over:]
            said.insert(0, rest)
            size = PIECE
        self.size -= size
        self._layer.write(pieces[0] if count == 1 else b"".join(pieces))

    def send_last(self) -> None:
        """What TLS says to the peer at its end, as far as the socket takes it."""
        try:
            self._records = b"".join((self._records, self._layer.take()))
            if self._records:
                self._socket.send(self._records)
        except (OSError, SSL.Error):
            pass
        self.clear()

    def clear(self) -> None:
        """Nothing more is sent."""
        self._said.clear()
        self._records, self.size = b"", 0
