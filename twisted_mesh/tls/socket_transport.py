"""TLS on a socket: one object between the reactor's descriptor and the protocol above, where Twisted's own has three.

A descriptor of Twisted's is taken over with its socket: it stays what the reactor knows, and whoever made it is told
of its end; what becomes of its readiness is decided here. What is read goes to OpenSSL through memory, in pieces that
are counted before they are looked at: OpenSSL by itself would read on from a socket for as long as a peer only keeps
TLS busy.
"""

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from OpenSSL import SSL
from twisted.internet import error, main
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IReactorTime,
)
from twisted.python.failure import Failure

from pki.errors import ANY_ERROR
from twisted_mesh.runtime.log import logger
from twisted_mesh.tls.alerts import HungUp
from twisted_mesh.tls.dregs import take_dregs
from twisted_mesh.tls.flush import flush_of
from twisted_mesh.tls.lending import LARGE, Lending, Lost, room
from twisted_mesh.tls.on_socket import OnSocket
from twisted_mesh.tls.outgoing import Outgoing
from twisted_mesh.tls.producing import Producing
from twisted_mesh.tls.record_layer import Octets, record_layer
from twisted_mesh.tls.wire import Wire

_log = logger("tls")


class SocketTransport(Lending, Producing, OnSocket):
    """One connection, for the protocol above it and for whoever closes it."""

    connected = True
    disconnecting = False
    """Whether :meth:`loseConnection` was called, or the peer has left and we follow."""
    is_over = False
    """Whether nothing is read or written any more."""
    protocol: Any = None
    """What is above."""

    _is_secured = False
    _has_heard_end = False
    """The peer's close_notify: it says no more."""
    _is_following = False
    """Whether the peer has left, and nobody here stays for what a producer might still say."""
    _is_half_closing = False
    _has_said_end = False
    """Our close_notify."""
    _reason: Failure | None = None
    """What the protocol is told, where that is not what the descriptor says."""
    _is_aborted = False
    _is_broken = False
    """Whether it is to be closed at the end of this turn."""
    _in_turn = False
    _is_paused = False
    _is_dropping = False
    """Whether what is read is for nobody."""
    bytes_dropped = 0
    _is_resumed = False
    """Whether something may wait in OpenSSL to be delivered."""
    _is_delivering = False
    _has_turn_later = False
    _waits_to_write = False

    def __init__(self, below: Any, connection: SSL.Connection, clock: IReactorTime) -> None:
        self._below = below
        self._connection = connection
        self._flush = flush_of(clock)
        self._socket: socket.socket = below.socket
        self._layer = record_layer(connection)
        self._outgoing = Outgoing(self._layer, self._socket)
        self.transport: Wire | None = Wire(self, below)
        # What is looked at for each message is its own, which is found sooner than its class's.
        self.disconnecting = self.is_over = self._is_broken = self._has_heard_end = False
        self._is_half_closing = self._is_waited_for = self._waits_to_write = False
        self._is_paused = self._is_resumed = self._in_turn = self._has_turn_later = False

    def begin(self, protocol: Any, *, is_server: bool) -> None:
        """Shake hands for ``protocol``, which has been connected to this; a server waits for the first word."""
        self.protocol = protocol
        below = self._below
        below.doRead, below.doWrite = self._on_readable, self._on_writable
        if self._socket.family != socket.AF_UNIX:
            below.setTcpNoDelay(True)
        if not is_server and self._outside(self._shake):
            self._below.loseConnection()

    # turns: what is written within one that reads is sent at the end of the reactor's round, else at the turn's

    def _on_readable(self) -> Lost:
        if self.is_over:
            return main.CONNECTION_DONE
        try:
            size = self._socket.recv_into(room)
        except BlockingIOError:
            return None
        except OSError as problem:
            return self._turn(self._break, error.ConnectionLost(problem.errno, problem.strerror))
        return self._come(size)

    def _come(self, size: int) -> Lost:
        """So much has come from the socket."""
        if not size:
            return self._turn(self._end_of_file)
        # By its name: whoever meters what comes has put itself there.
        if not self._is_secured:
            return self._turn(self.dataReceived, bytes(room[:size]), is_sent_later=True)
        # It is not copied: whoever keeps some of it copies that.
        return self._turn(self.dataReceived, room[:size], is_sent_later=True)

    def _on_writable(self) -> Lost:
        return self._turn(_nothing)

    def _turn(
        self, work: Callable[..., object], *arguments: Any, is_sent_later: bool = False
    ) -> Lost:
        if self.is_over:
            return None if self._is_aborted else main.CONNECTION_DONE
        self._in_turn = True
        try:
            work(*arguments)
            if not self._is_broken and not self.is_over:
                if is_sent_later and not self._has_heard_end:
                    if not (self._is_at_rest and self._layer.has_taken_all):
                        self._later_turn()
                else:
                    self._settle()
        finally:
            self._in_turn = False
        if self._is_broken:
            self.is_over = True
        # An abort has the descriptor closed by itself, with a reset.
        return main.CONNECTION_DONE if self.is_over and not self._is_aborted else None

    def _outside(self, work: Callable[[], object]) -> bool:
        """A turn that the reactor knows nothing of; whether it is to be closed for it."""
        if self.is_over:
            return False
        try:
            lost = self._turn(work)
        except ANY_ERROR:
            # In its own turn the reactor would log it and close this connection.
            self._reason = Failure()
            _log.failure("the protocol of a connection broke", event="protocol-broke")
            self.abortConnection()
            return False
        return lost is not None

    def _soon(self) -> None:
        """Have a turn, where this is none."""
        if self._in_turn:
            return
        self._later_turn()

    def _later_turn(self) -> None:
        if not self._has_turn_later and not self.is_over:
            self._has_turn_later = True
            self._flush.at_the_end(self._now)

    def _now(self) -> None:
        self._has_turn_later = False
        if self._is_pushed():
            return
        is_resumed, self._is_resumed = self._is_resumed, False
        if self._outside(self._deliver if is_resumed else _nothing):
            self._below.connectionLost(Failure(main.CONNECTION_DONE))

    # reading

    def dataReceived(self, data: Octets) -> None:
        """What has come from the socket."""
        if self.is_over or self._is_broken:
            return
        if self._is_secured:
            self._layer.lend(data)
            try:
                self._deliver()
            finally:
                self._layer.keep()
        else:
            self._layer.put(data)
            self._shake()

    def _shake(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except SSL.Error as problem:
            self._fail(problem)
            return
        self._is_secured = True
        self._layer.settle()
        if IHandshakeListener.providedBy(self.protocol):
            self.protocol.handshakeCompleted()
        self._deliver()

    def _deliver(self) -> None:
        """Hand on what OpenSSL makes of what has come."""
        self._is_delivering = True
        try:
            while self._is_secured and not (self._is_paused or self._has_heard_end or self.is_over):
                data = self._read()
                if not data:
                    break
                if self._is_dropping:
                    self.bytes_dropped += len(data)
                else:
                    self.protocol.dataReceived(data if self.lends else bytes(data))
                if self._layer.is_drained:
                    break
        finally:
            self._is_delivering = False

    def _read(self) -> Octets:
        """What the peer has said, or nothing more."""
        try:
            return self._layer.read()
        except SSL.ZeroReturnError:
            self._hear_end()
        except SSL.Error as problem:
            self._fail(problem)
        return b""

    def _end_of_file(self) -> None:
        """The peer has hung up; without a goodbye before, what it said may be cut short."""
        is_over = self._has_heard_end or self.disconnecting
        self._break(None if is_over else HungUp())

    def _hear_end(self) -> None:
        """The peer says no more. What is still to be said to it is said: it may be waiting for that."""
        self._has_heard_end = True
        self._below.stopReading()
        if self.disconnecting:
            return
        above: Any = IHalfCloseableProtocol(self.application, None)
        if above is None:
            self.disconnecting = self._is_following = True
        else:
            above.readConnectionLost()

    @property
    def application(self) -> Any:
        """The protocol of whoever uses the connection."""
        return getattr(self.protocol, "wrappedProtocol", self.protocol)

    def _fail(self, problem: SSL.Error) -> None:
        """TLS is broken. OpenSSL has something to say about it to the peer."""
        self._break(problem)
        self._outgoing.send_last()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        take_dregs(self._socket)

    def _break(self, problem: BaseException | None) -> None:
        """Close at the end of this turn; for what, if it is not what the descriptor says."""
        self._is_broken = True
        if self._reason is None and problem is not None:
            self._reason = Failure(problem)

    # writing

    def _settle(self) -> None:
        """Send what waits, then see who waited for that."""
        is_leaving = self._is_secured and (self.disconnecting or self._is_half_closing)
        may_leave = is_leaving and (self._producer is None or self._is_following)
        if not self._send(self._say_end if may_leave and not self._has_said_end else None):
            return
        if self._is_broken:
            return
        if self._producer is not None and self._is_secured and not self._is_following:
            self._go_on()
            return
        self._wait_to_write(False)
        if self._has_said_end and self._has_heard_end and self.disconnecting:
            self._is_broken = True
        elif self._is_paused and self._has_said_all:
            self._drop()

    def _wait_to_write(self, wants: bool) -> None:
        """Have a turn when the socket takes more, or none for that."""
        if wants is not self._waits_to_write:
            self._waits_to_write = wants
            if wants:
                self._below.startWriting()
            else:
                self._below.stopWriting()

    def _send(self, at_end: Callable[[], object] | None) -> bool:
        """Send what waits, and what ``at_end`` says behind it; True where that is all."""
        try:
            if self._outgoing.send(is_secured=self._is_secured, at_end=at_end):
                return True
        except SSL.Error as problem:
            self._fail(problem)
        except OSError as problem:
            self._break(error.ConnectionLost(problem.errno, problem.strerror))
        else:
            self._wait_to_write(True)
            self._press()
        return False

    def _say_end(self) -> None:
        """Goodbye: nothing comes behind it."""
        self._has_said_end = True
        with suppress(SSL.Error):
            self._connection.shutdown()
        above = None if self.disconnecting else IHalfCloseableProtocol(self.application, None)
        if above is not None:
            above.writeConnectionLost()

    # what is asked from above

    def write(self, data: bytes) -> None:
        """Send it; after :meth:`loseConnection` only what a producer still has to say."""
        is_late = (self.disconnecting or self._is_half_closing) and self._producer is None
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # the caller may change it afterwards
        if not data or is_late or self.is_over or self._has_said_end:
            return
        self._outgoing.add(data)
        if self._in_turn or len(data) < LARGE:
            self._press()
            self._soon()
        elif self._outside(_nothing):
            self._below.loseConnection()  # who writes hears of it in another turn

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of it."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Say goodbye once all is sent, and close when the peer has said it too."""
        if self.disconnecting or self.is_over:
            return
        if not self._is_secured and not self._outgoing.size:
            self.abortConnection()
            return
        self.disconnecting = True
        self._soon()

    def loseWriteConnection(self) -> None:
        """Say once all is sent that nothing more comes from here; the peer may go on (RFC 8446 section 6.1)."""
        if not self.disconnecting and not self.is_over:
            self._is_half_closing = True
            self._soon()

    @property
    def unsent(self) -> int:
        """See :attr:`~twisted_mesh.tls.outgoing.Outgoing.unsent`."""
        return self._outgoing.unsent

    def hang_up(self) -> None:
        """Close, though the peer has not said goodbye: what the kernel has is still sent. What waits here is not.

        Where that is something, it is closed by a reset, so that nobody takes what came for all of it.
        """
        if self._outgoing.size or self._in_turn:
            self.abortConnection()
        elif not self.is_over:
            self.is_over = True
            take_dregs(self._socket)
            self._below.connectionLost(Failure(main.CONNECTION_DONE))

    def abortConnection(self) -> None:
        """Close at once, without a goodbye."""
        if self.connected:
            self.disconnecting = self.is_over = self._is_aborted = True
            self._below.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The socket is closed: the protocol is told, once."""
        self.is_over = True
        self.connected = False
        self._outgoing.clear()
        producer, self._producer = self._producer, None
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            self.protocol.connectionLost(self._reason or reason)
            # Nothing is left that knows what knows it, so that all of it is gone at once.
            self.protocol = self.transport = None

    def getHandle(self) -> SSL.Connection:
        """OpenSSL's end: to be asked, and never to read or write."""
        return self._connection


def _nothing() -> None:
    pass
