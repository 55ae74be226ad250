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
#: So much is sooner copied than lent.
SHORT = 2048
#: What becomes records at once.
PIECE = 64 * 1024
#: What one call takes out at most, of either side.
MOST = 256 * 1024


class RecordLayer(Protocol):
    """One connection's, once its handshake is done; the handshake is done on the connection itself."""

    def put(self, data: Octets) -> object:
        """The wire has brought this."""

    def lend(self, data: Octets) -> None:
        """As :meth:`put`, of what may be overwritten once :meth:`keep` was called. Not before the handshake is done."""

    def keep(self) -> None:
        """Copy what was lent and is still to be read."""

    def settle(self) -> None:
        """Keep no room that is not needed now: the handshake is done, or much was carried."""

    is_drained: bool
    """Whether :meth:`read` would say nothing more, as far as it has looked."""

    def read(self) -> Octets:
        """What the peer says, of at most :data:`MOST` bytes; empty where there is nothing more.

        The next call, of any connection, may overwrite it.

        Raises ``SSL.ZeroReturnError`` behind the peer's close_notify, and ``SSL.Error`` where TLS is broken: once what
        came before it is read.
        """

    def write(self, data: Octets) -> None:
        """Say all of it. Raises ``SSL.Error``."""

    def seal(self, data: memoryview) -> Octets:
        """:meth:`write` at most :data:`MOST` bytes and :meth:`take` all of it, where nothing waits to be taken."""

    def take(self) -> Octets:
        """What the wire is to have, of at most :data:`MOST` bytes: with fewer that is all there is.

        The next call, of any connection, may overwrite it.
        """

    def relax(self) -> None:
        """Keep no room for much, where nothing waits to be taken."""

    @property
    def has_taken_all(self) -> bool:
        """Whether :meth:`take` would surely find nothing."""


class PublicRecordLayer:
    """By pyOpenSSL's public methods."""

    is_drained = False
    has_taken_all = False

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def put(self, data: Octets) -> object:
        """See :class:`RecordLayer`."""
        return self._connection.bio_write(data)

    def lend(self, data: Octets) -> None:
        """See :class:`RecordLayer`. It is copied."""
        self.put(data)

    def keep(self) -> None:
        """See :class:`RecordLayer`."""

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

    def seal(self, data: memoryview) -> Octets:
        """See :class:`RecordLayer`."""
        self.write(data)
        return b"".join(iter(self.take, b""))

    def relax(self) -> None:
        """See :class:`RecordLayer`. There is no public way."""

    def take(self) -> Octets:
        """See :class:`RecordLayer`."""
        try:
            return self._connection.bio_read(MOST)
        except SSL.WantReadError:
            return b""


class DirectRecordLayer:
    """By OpenSSL's functions. They are the reactor's thread's alone: its connections share what they read and write in.

    What is lent is read where it is, by a memory of OpenSSL's that only points there. OpenSSL takes in all that it has
    asked for, so that nothing is left to be copied but where reading stops early.
    """

    is_drained = False
    _heard: Any = None
    _heard_view: memoryview
    _wire: Any = None
    _wire_view: memoryview
    _lent: Octets | None = None
    """Keeps alive what OpenSSL reads."""
    _is_copied = True
    """Whether what the wire brings is copied into a memory of OpenSSL's own."""
    _is_wide = False
    """Whether OpenSSL's memory of what the wire is to have has grown, which does not shrink."""

    def __init__(self, connection: SSL.Connection) -> None:
        handle: Any = connection
        self._handle = handle
        self._ssl, self._from_wire, self._to_wire = handle._ssl, handle._into_ssl, handle._from_ssl
        self._ended: tuple[type[SSL.Error], tuple[Any, ...]] | None = None
        """What is raised once what came before it is read. Not as it was raised: that would know who has called."""
        kind = DirectRecordLayer
        if kind._heard is None:
            kind._heard = _ffi.new("char[]", MOST)
            kind._wire = _ffi.new("char[]", MOST + RECORD)
            kind._heard_view = memoryview(_ffi.buffer(kind._heard))
            kind._wire_view = memoryview(_ffi.buffer(kind._wire))

    def put(self, data: Octets) -> None:
        """See :class:`RecordLayer`."""
        if not self._is_copied:
            self._read_from(_memory())
        octets = data if type(data) is bytes else _ffi.from_buffer(data)
        if _lib.BIO_write(self._from_wire, octets, len(data)) != len(data):
            raise MemoryError("OpenSSL has no memory")

    def lend(self, data: Octets) -> None:
        """See :class:`RecordLayer`."""
        if len(data) <= SHORT or (
            self._is_copied and _lib.BIO_get_mem_data(self._from_wire, _ffi.NULL)
        ):
            self.put(data)
            return
        pointing = _lib.BIO_new_mem_buf(_ffi.from_buffer(data), len(data))
        self._read_from(pointing)
        _lib.BIO_set_mem_eof_return(pointing, -1)  # its end is not the connection's
        self._is_copied, self._lent = False, data

    def keep(self) -> None:
        """See :class:`RecordLayer`."""
        lent, self._lent = self._lent, None
        if lent is not None and (left := _lib.BIO_get_mem_data(self._from_wire, _ffi.NULL)):
            self.put(lent[-left:])

    def _read_from(self, memory: Any) -> None:
        if memory == _ffi.NULL:
            raise MemoryError("OpenSSL has no memory")
        _lib.SSL_set_bio(self._ssl, memory, self._to_wire)
        self._from_wire = self._handle._into_ssl = memory
        self._is_copied, self._lent = True, None

    def settle(self) -> None:
        """See :class:`RecordLayer`. OpenSSL's memories never shrink, and keep the room of a whole chain."""
        handle = self._handle
        from_wire, to_wire = _memory(), _memory()
        for old, new in ((self._from_wire, from_wire), (self._to_wire, to_wire)):
            while (got := _lib.BIO_read(old, self._wire, MOST)) > 0:
                _lib.BIO_write(new, self._wire, got)
        _lib.SSL_set_bio(self._ssl, from_wire, to_wire)
        self._from_wire = handle._into_ssl = from_wire
        self._to_wire = handle._from_ssl = to_wire
        self._is_copied, self._lent = True, None

    def read(self) -> Octets:
        """See :class:`RecordLayer`."""
        if self._ended is not None:
            kind, said = self._ended
            raise kind(*said)
        ssl, room, size = self._ssl, self._heard, 0
        self.is_drained = False
        # What another connection has left there would be taken for this one's.
        _lib.ERR_clear_error()
        while size <= MOST - RECORD:
            got = _lib.SSL_read(ssl, room + size if size else room, RECORD)
            if got <= 0:
                if _lib.SSL_get_error(ssl, got) == _lib.SSL_ERROR_WANT_READ:
                    self.is_drained = True
                else:
                    self._end(got, raises=not size)
                break
            size += got
            # With all of it read, asking once more would only have OpenSSL find out that there is nothing.
            if not (_lib.SSL_pending(ssl) or _lib.BIO_get_mem_data(self._from_wire, _ffi.NULL)):
                self.is_drained = True
                break
        return self._heard_view[:size]

    def _end(self, result: int, *, raises: bool) -> None:
        try:
            self._handle._raise_ssl_error(self._ssl, result)
        except SSL.Error as ended:
            self._ended = type(ended), ended.args
            if raises:
                raise

    def write(self, data: Octets) -> None:
        """See :class:`RecordLayer`."""
        _lib.ERR_clear_error()
        start, at, size = _ffi.from_buffer(data), 0, len(data)
        self._is_wide = self._is_wide or size > SHORT
        while at < size:
            sent = _lib.SSL_write(self._ssl, start + at if at else start, size - at)
            if sent <= 0:
                self._handle._raise_ssl_error(self._ssl, sent)
            at += sent

    def seal(self, data: memoryview) -> Octets:
        """See :class:`RecordLayer`. Record by record: OpenSSL's memory stays as small as one."""
        size = 0
        for at in range(0, len(data), RECORD):
            self.write(data[at : at + RECORD])
            size += _lib.BIO_read(self._to_wire, self._wire + size, MOST + RECORD - size)
        return self._wire_view[:size]

    def relax(self) -> None:
        """See :class:`RecordLayer`."""
        if self._is_wide and self.has_taken_all:
            self._is_wide = False
            memory = _memory()
            _lib.SSL_set_bio(self._ssl, self._from_wire, memory)
            self._to_wire = self._handle._from_ssl = memory

    def take(self) -> Octets:
        """See :class:`RecordLayer`."""
        got = _lib.BIO_read(self._to_wire, self._wire, MOST)
        return self._wire_view[:got] if got > 0 else b""

    @property
    def has_taken_all(self) -> bool:
        """See :class:`RecordLayer`."""
        return not _lib.BIO_get_mem_data(self._to_wire, _ffi.NULL)


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
        is_new = layer.has_taken_all and layer.take() == b"" and layer.read() == b""
        layer.lend(b"\x16")
        layer.keep()
        is_new = is_new and layer.read() == b"" and layer.take()[:1] == b"\x16"
        layer._is_wide = True
        layer.relax()
        return is_new and layer.has_taken_all
    except (AttributeError, TypeError, SSL.Error):
        return False


@cache
def _quicker() -> "Callable[[SSL.Connection], RecordLayer]":
    return DirectRecordLayer if _is_known() else PublicRecordLayer


def record_layer(connection: SSL.Connection) -> RecordLayer:
    """The quicker of the two that work here."""
    return _quicker()(connection)
