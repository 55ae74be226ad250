"""OpenSSL's record layer between two memories: what the wire brings goes in, what the wire is to have comes out.

There are two ways to it that do the same. pyOpenSSL's public one makes an object for each record and copies it; the
other calls the same functions of OpenSSL through pyOpenSSL's own binding, into one memory that all connections of the
reactor's thread share. Where that binding is not as it is known here, the public one is taken.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

from OpenSSL import SSL

#: What need not be copied to be passed on.
Octets = bytes | memoryview
#: No record holds more (RFC 8446 section 5.1).
RECORD = 16 * 1024
#: What one call takes out at most, of either side.
MOST = 256 * 1024


class RecordLayer(Protocol):
    """One connection's, once its handshake is done; the handshake is done on the connection itself."""

    def put(self, data: Octets) -> object:
        """The wire has brought this."""

    def settle(self) -> None:
        """The handshake is done: keep no room that only it needed."""

    is_drained: bool
    """Whether :meth:`read` would say nothing more, as far as it has looked."""

    def read(self) -> bytes:
        """What the peer says, of at most :data:`MOST` bytes; empty where there is nothing more.

        Raises ``SSL.ZeroReturnError`` behind the peer's close_notify, and ``SSL.Error`` where TLS is broken: once what
        came before it is read.
        """

    def write(self, data: Octets) -> None:
        """Say all of it. Raises ``SSL.Error``."""

    def take(self) -> bytes:
        """What the wire is to have, of at most :data:`MOST` bytes: with fewer that is all there is."""


class PublicRecordLayer:
    """By pyOpenSSL's public methods."""

    is_drained = False

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def put(self, data: Octets) -> object:
        """See :class:`RecordLayer`."""
        return self._connection.bio_write(data)

    def settle(self) -> None:
        """See :class:`RecordLayer`. There is no public way."""

    def read(self) -> bytes:
        """See :class:`RecordLayer`. One record a call."""
        try:
            return self._connection.recv(RECORD)
        except SSL.WantReadError:
            return b""

    def write(self, data: Octets) -> None:
        """See :class:`RecordLayer`."""
        send, rest = self._connection.send, memoryview(data)
        while rest:
            rest = rest[send(rest[:RECORD]) :]

    def take(self) -> bytes:
        """See :class:`RecordLayer`."""
        try:
            return self._connection.bio_read(MOST)
        except SSL.WantReadError:
            return b""


class DirectRecordLayer:
    """By OpenSSL's functions. They are the reactor's thread's alone: its connections share one memory."""

    is_drained = False
    _room: Any = None
    _start: Any = None
    """Where OpenSSL tells where a memory begins."""

    def __init__(self, connection: SSL.Connection) -> None:
        handle: Any = connection
        self._handle = handle
        self._ssl, self._to_wire = handle._ssl, handle._from_ssl
        self._raise = handle._raise_ssl_error
        self._ended: tuple[type[SSL.Error], tuple[Any, ...]] | None = None
        """What is raised once what came before it is read. Not as it was raised: that would know who has called."""
        self._from_wire = handle._into_ssl
        if DirectRecordLayer._room is None:
            DirectRecordLayer._room = _ffi.new("char[]", MOST)
            DirectRecordLayer._start = _ffi.new("char **")

    def put(self, data: Octets) -> None:
        """See :class:`RecordLayer`."""
        octets = data if type(data) is bytes else _ffi.from_buffer(data)
        if _lib.BIO_write(self._from_wire, octets, len(data)) != len(data):
            raise MemoryError("OpenSSL has no memory")

    def settle(self) -> None:
        """See :class:`RecordLayer`. OpenSSL's memories never shrink, and keep the room of a whole chain."""
        handle = self._handle
        from_wire, to_wire = _memory(), _memory()
        for old, new in ((handle._into_ssl, from_wire), (handle._from_ssl, to_wire)):
            while (got := _lib.BIO_read(old, self._room, MOST)) > 0:
                _lib.BIO_write(new, self._room, got)
        _lib.SSL_set_bio(self._ssl, from_wire, to_wire)
        handle._into_ssl, handle._from_ssl = from_wire, to_wire
        self._from_wire, self._to_wire = from_wire, to_wire

    def read(self) -> bytes:
        """See :class:`RecordLayer`."""
        if self._ended is not None:
            kind, said = self._ended
            raise kind(*said)
        ssl, room, size = self._ssl, self._room, 0
        self.is_drained = False
        # What another connection has left there would be taken for this one's.
        _lib.ERR_clear_error()
        while size <= MOST - RECORD:
            got = _lib.SSL_read(ssl, room + size, RECORD)
            if got <= 0:
                if _lib.SSL_get_error(ssl, got) == _lib.SSL_ERROR_WANT_READ:
                    self.is_drained = True
                else:
                    self._end(got, raises=not size)
                break
            size += got
            # With all of it read, asking once more would only have OpenSSL find out that there is nothing.
            if not (_lib.SSL_pending(ssl) or _lib.BIO_get_mem_data(self._from_wire, self._start)):
                self.is_drained = True
                break
        return bytes(_ffi.buffer(room, size))

    def _end(self, result: int, *, raises: bool) -> None:
        try:
            self._raise(self._ssl, result)
        except SSL.Error as ended:
            self._ended = type(ended), ended.args
            if raises:
                raise

    def write(self, data: Octets) -> None:
        """See :class:`RecordLayer`."""
        _lib.ERR_clear_error()
        with _ffi.from_buffer(data) as start:
            at, size = 0, len(data)
            while at < size:
                sent = _lib.SSL_write(self._ssl, start + at, size - at)
                if sent <= 0:
                    self._raise(self._ssl, sent)
                at += sent

    def take(self) -> bytes:
        """See :class:`RecordLayer`."""
        got = _lib.BIO_read(self._to_wire, self._room, MOST)
        return bytes(_ffi.buffer(self._room, got)) if got > 0 else b""


_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)


def _memory() -> Any:
    memory = _lib.BIO_new(_lib.BIO_s_mem())
    if memory == _ffi.NULL:
        raise MemoryError("OpenSSL has no memory")
    return memory


def _is_known() -> bool:
    """Whether pyOpenSSL's binding is as it is known here: tried on a connection that never goes anywhere."""
    try:
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
        connection.set_connect_state()
        layer = DirectRecordLayer(connection)
        layer.settle()
        return layer.take() == b"" and layer.read() == b"" and layer.take()[:1] == b"\x16"
    except (AttributeError, TypeError, SSL.Error):
        return False


@cache
def _quicker() -> "Callable[[SSL.Connection], RecordLayer]":
    return DirectRecordLayer if _is_known() else PublicRecordLayer


def record_layer(connection: SSL.Connection) -> RecordLayer:
    """The quicker of the two that work here."""
    return _quicker()(connection)
