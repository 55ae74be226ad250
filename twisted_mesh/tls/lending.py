"""The short way through a transport, for whoever passes on at once what it hears: little is called, nothing copied.

What is unusual goes the other way, which is :class:`~twisted_mesh.tls.socket_transport.SocketTransport`'s.
"""

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from OpenSSL import SSL
from twisted.internet import error
from twisted.python.failure import Failure

from twisted_mesh.tls.accepted_socket import AcceptedSocket
from twisted_mesh.tls.flush import Flush
from twisted_mesh.tls.outgoing import Outgoing
from twisted_mesh.tls.read_poll import read_poll_of
from twisted_mesh.tls.record_layer import SHORT, Octets, RecordLayer

#: What a descriptor answers the reactor with: why it is to be closed, or None.
Lost = BaseException | Failure | None

#: What is read from a socket at once, and so what one connection may bring before others have their turn.
READ = 256 * 1024
#: Where it is read to: all connections of the reactor's thread share it.
room = memoryview(bytearray(READ))
#: So much is sent when it is written, and not at the end of a turn.
LARGE = 16 * 1024

_T = TypeVar("_T")


class IMeter(Protocol):
    """Whoever weighs what a peer says to TLS against what it says to the application."""

    def is_fair(self, came: int, heard: int) -> bool:
        """Whether ``heard`` bytes of the application in ``came`` of the wire's need no closer look."""

    def weigh(self, came: int, heard: int) -> None:
        """So much has come past it, and the application has heard so much of that."""


class Lending:
    """One connection whose protocol may be lent what it hears."""

    protocol: Any
    disconnecting: bool
    is_over: bool
    lends = False
    """Whether the protocol is given what is overwritten once it has heard it."""
    meter: IMeter | None = None
    """Of what comes behind the handshake."""

    _below: Any
    _socket: socket.socket
    _layer: RecordLayer
    _outgoing: Outgoing
    _flush: Flush
    _is_secured: bool
    _is_broken: bool
    _is_paused: bool
    _is_resumed: bool
    _is_half_closing: bool
    _is_waited_for: bool
    _has_heard_end: bool
    _has_turn_later: bool
    _waits_to_write: bool
    _in_turn: bool

    _on_readable: Callable[[], Lost]
    _come: Callable[[int], Lost]
    _deliver: Callable[[], None]
    _now: Callable[[], None]
    _later_turn: Callable[[], None]
    _turn: Callable[..., Lost]
    _outside: Callable[[Callable[[], object]], bool]
    _fail: Callable[[SSL.Error], None]
    _break: Callable[[BaseException | None], None]
    _wait_to_write: Callable[[bool], None]
    _press: Callable[[], None]
    write: Callable[[bytes], None]

    @property
    def _is_at_rest(self) -> bool:
        """Whether nothing waits to be sent, but for what TLS holds, and nobody waits for that."""
        return not (
            self._outgoing.size
            or self.disconnecting
            or self._waits_to_write
            or self._is_half_closing
            or self._is_waited_for
            or self._is_broken
            or self.is_over
            or self._has_heard_end
        )

    def lend(self) -> None:
        """Give the protocol, from now on, what is overwritten once it has heard it."""
        self.lends = True
        if self.meter is not None and not self.is_over:
            self._below.doRead = self._relay
            below = self._below
            name = "_reactor" if isinstance(below, AcceptedSocket) else "reactor"
            poll = read_poll_of(getattr(below, name))
            if poll is not None:
                poll.take(below, name)

    def _relay(self) -> Lost:
        """As :meth:`_on_readable`, of little that is all said to the application."""
        meter = self.meter
        if self._is_paused or self._is_resumed or not self._is_at_rest or meter is None:
            return self._on_readable()
        try:
            size = self._socket.recv_into(room)
        except OSError:
            return self._on_readable()  # which is told it once more
        if not 0 < size <= SHORT:
            return self._come(size)
        layer = self._layer
        layer.put(room[:size])
        try:
            data: Octets = layer.read()
        except SSL.Error:
            data = b""  # as it is told once more
        heard = len(data)
        self._in_turn = True
        try:
            if heard:
                self.protocol.dataReceived(data)
            if not meter.is_fair(size, heard):
                meter.weigh(size, heard)
        finally:
            self._in_turn = False
        if not layer.is_drained or self._is_broken or self.is_over:
            return self._turn(self._deliver, is_sent_later=True)
        if not (layer.has_taken_all and self._is_at_rest):
            self._later_turn()
        return None

    def say(self, data: memoryview) -> None:
        """Send what may be overwritten afterwards: as :meth:`write`, and nothing is copied but what has to wait."""
        if (
            self._has_turn_later
            or self._in_turn
            or not self._is_secured
            or not self._is_at_rest
            or not self._layer.has_taken_all
        ):
            self.write(bytes(data))
        elif len(data) < LARGE:
            self._attempt(self._layer.write, data)
            self._later_turn()
        elif self._attempt(self._outgoing.say, data) is False:
            self._wait_to_write(True)
            self._press()

    def _is_pushed(self) -> bool:
        """Whether there was nothing but records to send, and they are sent."""
        if self._is_resumed or not self._is_secured or not self._is_at_rest:
            return False
        return self._attempt(self._outgoing.push) is not False

    def _attempt(self, send: Callable[..., _T], *arguments: Any) -> _T | None:
        """None where that has broken the connection."""
        try:
            return send(*arguments)
        except SSL.Error as problem:
            fault: Callable[[], object] = partial(self._fail, problem)
        except OSError as problem:
            lost = error.ConnectionLost(problem.errno, problem.strerror)
            fault = partial(self._break, lost)
        if self._outside(fault):
            self._below.loseConnection()
        return None
