"""Permissive mode: callers with TLS and without it at one port, told apart by what they say first.

It is looked at and left where it is: whoever takes the connection then reads it from the start.
"""

import socket
from typing import Any

from attrs import define
from twisted.internet import error, main
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mesh.limits.connection_limit import ConnectionLimit, Place
from twisted_mesh.limits.rate_limit import address_key
from twisted_mesh.proxy.first_bytes import ENOUGH, speaks_tls
from twisted_mesh.proxy.front import Front

#: Seconds until a caller whose first byte does not tell is looked at again: readiness would tell of the same byte.
#: Twice as many each time, up to the second: a thousand who say no more must not keep us busy.
_AGAIN, _AGAIN_AT_MOST = 0.01, 0.32


@implementer(IStreamServerEndpoint)
@define(eq=False)
class GreetingEndpoint:
    """Serves what is to be served to whoever speaks TLS, and the listener's plain callers to whoever does not."""

    endpoint: IStreamServerEndpoint
    front: Front
    limit: ConnectionLimit
    """Of those who have not said enough yet."""

    def listen(self, factory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """See :class:`IStreamServerEndpoint`; ``factory`` is TLS's."""
        return self.endpoint.listen(_Greeters(self, factory))


class _Greeters(Factory):
    """Makes what waits for a first word; TLS itself, while the listener is strict."""

    noisy = False

    def __init__(self, of: GreetingEndpoint, tls: Any) -> None:
        self.of = of
        self.tls = tls

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See :class:`IProtocolFactory`."""
        if not self.of.front.listener.permissive:
            return self.tls.buildProtocol(addr)
        place = self.of.limit.admit(address_key(addr))
        return None if place is None else _Greeter(self, addr, place)


class _Greeter(Protocol):
    """One caller that has not said enough."""

    transport: Any

    def __init__(self, factory: _Greeters, addr: Any, place: Place) -> None:
        self._factory = factory
        self._addr = addr
        self._place = place
        self._clock = factory.of.front.clock
        self._timers: list[IDelayedCall] = []
        self._again = _AGAIN

    def connectionMade(self) -> None:
        """Wait for its first word, for as long as a handshake may take."""
        transport = self.transport
        self._place.hang_up = transport.abortConnection
        transport.doRead = self._look
        seconds = self._factory.of.front.listener.bounds.handshake
        self._timers.append(self._clock.callLater(seconds, transport.abortConnection))

    def _look(self) -> object:
        try:
            first = self.transport.socket.recv(ENOUGH, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as problem:
            return error.ConnectionLost(problem.errno, problem.strerror)
        if not first:
            return main.CONNECTION_DONE
        is_tls = speaks_tls(first)
        if is_tls is None:
            self.transport.stopReading()
            self._timers.append(self._clock.callLater(self._again, self.transport.startReading))
            self._again = min(2 * self._again, _AGAIN_AT_MOST)
            if len(self._timers) > ENOUGH:  # the first stays
                del self._timers[1]
            return None
        self._hand_over(is_tls=is_tls)
        return None

    def _hand_over(self, *, is_tls: bool) -> None:
        self._give_back()
        transport, front = self.transport, self._factory.of.front
        del transport.doRead
        is_plain = not is_tls and front.listener.permissive  # which may have ended meanwhile
        if is_plain:
            front.take_plain(transport.getPeer())
        factory = front.callers if is_plain else self._factory.tls
        taken = factory.buildProtocol(self._addr)
        if taken is None:
            transport.abortConnection()
            return
        transport.protocol = taken
        taken.makeConnection(transport)

    def _give_back(self) -> None:
        self._place.leave()
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.active():
                timer.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It has gone without a word."""
        self._give_back()
