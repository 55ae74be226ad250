"""Bytes from one connection to another and back: as fast as they are read, half-closed, and aborted as they come."""

from typing import Any, Protocol

from attrs import define
from twisted.internet import main, protocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.errors import Problem
from twisted_mesh.interfaces import IFinishing
from twisted_mesh.tls.read_poll import read_poll_of
from twisted_mesh.tls.record_layer import Octets
from twisted_mesh.tls.socket_transport import SocketTransport

#: What is read from a plain socket at once, and what may wait for it before its source is paused.
_BULK = 256 * 1024
#: Where it is read to: all connections of the reactor's thread share it.
_room = memoryview(bytearray(_BULK))


class ILink(Protocol):
    """What two sides belong to."""

    def connected(self, side: "Side") -> None:
        """It has a transport now, and is paused."""

    @property
    def is_filtered(self) -> bool:
        """Whether what is said is looked at on its way."""

    def heard(self, side: "Side", data: bytes) -> None:
        """It says this."""

    def ended(self, side: "Side") -> None:
        """It says no more, and may still listen."""

    def lost(self, side: "Side", reason: Failure, *, is_clean: bool) -> None:
        """It is gone; not ``is_clean`` where what it said may be cut short."""

    def refused(self, side: "Side", problem: Problem) -> None:
        """It would not be let in any more."""


@implementer(IHalfCloseableProtocol, IPushProducer, IFinishing)
class Side(protocol.Protocol):
    """One of the two ends of a link, over whichever transport. It produces for the other one."""

    transport: Any
    _plain: Any = None
    """The transport, where it is Twisted's own and speaks no TLS."""
    _secured: SocketTransport | None = None
    """What is below the transport, where that is our own and speaks TLS."""
    other: "Side | None" = None
    """Where what is heard goes, once both are connected."""
    bytes_heard = 0
    has_ended = False
    """It says no more."""
    is_shut = False
    """It was told that nothing more comes."""
    is_lost = False
    is_paused = False
    """It is not read, and so its end is not heard of."""

    def __init__(self, link: ILink) -> None:
        self._link = link
        self._early: list[bytes] = []
        self._is_held = True
        """Whether there is nobody yet for what it says."""
        self._end_is_early = False
        self._is_told = False
        self._straight: Side | None = None
        """Where what it says goes as it is."""

    def connectionMade(self) -> None:
        """Nothing is read before there is somebody who takes it."""
        transport = self.transport
        if isinstance(transport, Connection):
            self._plain = transport
            transport.bufferSize = _BULK
            if ITCPTransport.providedBy(transport):
                transport.setTcpNoDelay(True)
        else:
            below = getattr(transport, "transport", None)
            self._secured = below if isinstance(below, SocketTransport) else None
        transport.pauseProducing()
        self._link.connected(self)

    def dataReceived(self, data: Octets) -> None:
        """Pass it on; it may be overwritten afterwards once this has begun."""
        self.bytes_heard += len(data)
        if self._straight is not None:
            self._straight.write(data)
            return
        if self._is_held:
            # A transport may deliver what it has read already.
            self._early.append(bytes(data))
            self.transport.pauseProducing()
            return
        self._link.heard(self, bytes(data))

    def _read(self) -> object:
        """What Twisted's own does, without a copy."""
        try:
            size = self._plain.socket.recv_into(_room)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not size:
            return main.CONNECTION_DONE
        self.dataReceived(_room[:size])
        return None

    def join(self, other: "Side") -> None:
        """Have the transport of ``other`` say how fast this one may be read."""
        self.other = other
        other.transport.registerProducer(self, True)

    def begin(self) -> None:
        """Pass on what it has said, and what it says from now on."""
        self._is_held = False
        if self._secured is not None:
            self._secured.lend()
        if self._plain is not None:
            self._plain.doRead = self._read
            poll = read_poll_of(self._plain.reactor)
            if poll is not None and not self.is_lost:
                poll.take(self._plain)
        self._pass_on()
        self._straight = None if self._link.is_filtered else self.other

    def _pass_on(self) -> None:
        """What has come while nothing was passed on, and what comes from now on."""
        early, self._early = self._early, []
        for data in early:
            self._link.heard(self, data)
        if self._end_is_early:
            self.readConnectionLost()
        self._go_on()

    # what it produces

    def pauseProducing(self) -> None:
        """The other side has enough."""
        if not self.is_lost:
            self.is_paused = True
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The other side takes more."""
        self.is_paused = False
        self._go_on()

    def _go_on(self) -> None:
        if not (self.is_lost or self.has_ended or self.is_unread):
            self.transport.resumeProducing()

    def hold(self) -> None:
        """Read no more of it, whatever the other side takes, before :meth:`release`."""
        self._is_held = True
        if not self.is_lost:
            self.transport.pauseProducing()

    def release(self) -> None:
        """Read on, and hand on what came meanwhile."""
        if self._is_held:
            self._is_held = False
            self._pass_on()

    def stopProducing(self) -> None:
        """The other side is gone, and says so by itself."""

    @property
    def is_unread(self) -> bool:
        """Whether nobody hears of its end for as long as that stays so."""
        return self.is_paused or self._is_held

    @property
    def descriptor(self) -> int | None:
        """Of its socket, where that can be told."""
        if self.is_lost:
            return None
        for transport in (self.transport, getattr(self.transport, "transport", None)):
            if (fileno := getattr(transport, "fileno", None)) is not None:
                return int(fileno())
        return None

    # how it ends

    def readConnectionLost(self) -> None:
        """It says no more."""
        if self._is_held:
            self._end_is_early = True
            return
        if not self.has_ended:
            self.has_ended = True
            self._link.ended(self)
            self._close_if_over()

    def writeConnectionLost(self) -> None:
        """All is sent to it, and that nothing more comes."""
        self._is_told = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        # Not before all is sent: a close has a bound of its own.
        if self.has_ended and self._is_told and not self.is_lost:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """It is gone."""
        self.is_lost = True
        self._early = []
        if self._plain is not None:
            vars(self._plain).pop("doRead", None)  # which knows what knows it
        self._link.lost(self, reason, is_clean=bool(reason.check(ConnectionDone)))

    def finish(self, refusal: Problem | None = None) -> None:
        """See :class:`IFinishing`: its right is gone, and so is what is under way."""
        if refusal is not None:
            self._link.refused(self, refusal)

    # what it is told

    def write(self, data: Octets) -> None:
        """Send it; it may be overwritten afterwards."""
        plain, secured = self._plain, self._secured
        if plain is not None:
            if not (plain.dataBuffer or plain._tempDataBuffer or self.is_shut or self.is_lost):
                # Past Twisted's buffer, which would send it in another turn of the reactor and be copied for it.
                try:
                    sent = plain.socket.send(data)
                except OSError:  # the reactor will hear of it too
                    sent = 0
                if sent == len(data):
                    return
                data = data[sent:]
            plain.write(bytes(data))
        elif secured is None or self.is_lost:
            self.transport.write(bytes(data))
        else:
            secured.say(memoryview(data))

    def shut(self) -> None:
        """Say that nothing more comes."""
        if not self.is_shut and not self.is_lost:
            self.is_shut = True
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close once what was written is sent."""
        if not self.is_lost:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once, by a reset."""
        if not self.is_lost:
            self.transport.unregisterProducer()
            self.transport.abortConnection()


@define(eq=False)
class OfSide(protocol.Factory):
    """Makes that side, once."""

    side: Side
    noisy = False

    def buildProtocol(self, addr: object) -> Side:
        return self.side
