"""What one connection has to send: the application's bytes, and the records that TLS has made of some of them."""

import socket
from collections.abc import Callable

from OpenSSL import SSL

from twisted_mesh.tls.record_layer import MOST, Octets, RecordLayer

#: What becomes records at once.
_PIECE = 64 * 1024
#: What is sent before others have their turn.
_TURN = 1024 * 1024


class Outgoing:
    """A socket's, in the order in which it was said."""

    def __init__(self, layer: RecordLayer, sock: socket.socket) -> None:
        self._layer = layer
        self._socket = sock
        self._said: list[Octets] = []
        self._records: Octets = b""
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._size + len(self._records)

    def add(self, data: bytes) -> None:
        """The application says this."""
        self._said.append(data)
        self._size += len(data)

    def send(self, *, is_secured: bool, at_end: Callable[[], object] | None = None) -> bool:
        """Send what the socket takes; True where nothing is left. Before the handshake is done it sends that alone.

        ``at_end`` is called behind the last that was said, and what TLS says then goes along: each send wakes the peer.
        Raises ``OSError`` where the socket is broken, ``SSL.Error`` where TLS is.
        """
        sent, is_all = 0, False
        while sent < _TURN:
            if not self._records:
                if self._said and is_secured:
                    self._seal()
                if at_end is not None and not self._said:
                    at_end()
                    at_end = None
                self._records = self._layer.take()
                is_all = len(self._records) < MOST and not self._said
                if not self._records:
                    return not (self._said and is_secured)
            try:
                taken = self._socket.send(self._records)
            except BlockingIOError:
                return False
            sent += taken
            if taken < len(self._records):
                self._records = memoryview(self._records)[taken:]
                continue
            self._records = b""
            if is_all:
                return True
        return False

    def _seal(self) -> None:
        """Make records of some of what was said: of many small pieces together, of a large one in parts."""
        said, size, count = self._said, 0, 0
        while count < len(said) and size < _PIECE:
            size += len(said[count])
            count += 1
        pieces = said[:count]
        said[:count] = []
        if (over := size - _PIECE) > 0:
            last = memoryview(pieces[-1])
            pieces[-1], rest = last[:-over], last[-over:]
            said.insert(0, rest)
            size = _PIECE
        self._size -= size
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
        self._records, self._size = b"", 0
