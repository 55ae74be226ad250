"""A socket that a port has accepted, for the reactor: no more of a descriptor than TLS on it needs."""

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

#: Closed so, a connection is reset: the peer learns at once that nothing more is to come.
_RESET = struct.pack("ii", 1, 0)


@implementer(IReadWriteDescriptor)
class AcceptedSocket:
    """Made by a port. What becomes of its readiness is decided by whoever takes it over."""

    __slots__ = (
        "_client",
        "_has_no_delay",
        "_is_closing",
        "_protocol",
        "_reactor",
        "doRead",
        "doWrite",
        "socket",
    )

    doRead: Callable[[], Any]
    doWrite: Callable[[], Any]

    def __init__(  # noqa: PLR0917  # a port calls it so
        self, sock: socket.socket, protocol: Any, client: Any, port: Any, number: int, reactor: Any
    ) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._protocol = protocol
        self._client = client
        self._reactor = reactor
        self._is_closing = False
        self._has_no_delay: bool | None = None
        """What it was told last, by one layer after the other."""
        self.doRead = self.doWrite = _nothing
        self.startReading()

    def fileno(self) -> int:
        """See :class:`IReadWriteDescriptor`."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """See :class:`IReadWriteDescriptor`."""
        return "TLS"

    def startReading(self) -> None:
        """Be told when there is something to read."""
        self._reactor.addReader(self)

    def stopReading(self) -> None:
        """Be told no more."""
        self._reactor.removeReader(self)

    def startWriting(self) -> None:
        """Be told when there is room to write."""
        self._reactor.addWriter(self)

    def stopWriting(self) -> None:
        """Be told no more."""
        self._reactor.removeWriter(self)

    def loseConnection(self) -> None:
        """Close in a turn of the reactor's."""
        self._close_soon(error.ConnectionDone())

    def abortConnection(self) -> None:
        """Close in a turn of the reactor's, with a reset."""
        self._close_soon(error.ConnectionAborted())

    def _close_soon(self, reason: Exception) -> None:
        if not self._is_closing:
            self._is_closing = True
            self.stopReading()
            self.stopWriting()
            self.doRead = self.doWrite = _nothing
            self._reactor.callLater(0, self.connectionLost, Failure(reason))

    def connectionLost(self, reason: Failure) -> None:
        """Close now, and tell who has taken it over, once."""
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        self._is_closing = True
        self.stopReading()
        self.stopWriting()
        with suppress(OSError):
            if reason.check(error.ConnectionAborted):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            else:
                self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.doRead = self.doWrite = _nothing  # which knew who was above
        protocol.connectionLost(reason)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Our address."""
        return self._address(self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        """The peer's address."""
        return self._address(self._client)

    @staticmethod
    def _address(parts: Any) -> IPv4Address | IPv6Address:
        return IPv4Address("TCP", *parts) if len(parts) == 2 else IPv6Address("TCP", *parts)

    def getTcpNoDelay(self) -> bool:
        """Whether small pieces are sent at once."""
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See tcp(7)."""
        if enabled is not self._has_no_delay:
            with suppress(OSError):  # it is gone already
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)
                self._has_no_delay = enabled

    def getTcpKeepAlive(self) -> bool:
        """Whether a silent connection is probed."""
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See tcp(7)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)


def _nothing() -> None:
    """It is not taken over, or not any more."""
