"""Who produces what a transport sends, and whom the transport produces for: each pauses while the other is behind."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer, IPushProducer

from twisted_mesh.tls.outgoing import Outgoing

#: Bytes that wait to be sent, from which on a producer is asked to pause.
_HIGH = 64 * 1024


class Producing:
    """The part of a transport that paces it."""

    disconnecting: bool
    is_over: bool

    _below: Any
    _outgoing: Outgoing
    _has_heard_end: bool
    """The peer's close_notify: it says no more."""
    _has_said_end: bool
    """Our close_notify."""
    _is_delivering: bool
    _is_paused: bool
    _is_resumed: bool
    """Whether something may wait in OpenSSL to be delivered."""
    _is_dropping: bool
    """Whether what is read is for nobody."""
    _producer: Any = None
    _is_streaming = False
    _is_waited_for = False
    """Whether who produces is to be told to go on once all is sent."""

    _later_turn: Callable[[], None]
    _soon: Callable[[], None]
    _wait_to_write: Callable[[bool], None]
    loseConnection: Callable[[], None]

    def _go_on(self) -> None:
        """All is sent: who produces may produce more, and what that is goes in another turn."""
        if self._is_waited_for:
            self._is_waited_for = not self._is_streaming
            self._producer.resumeProducing()
        if self._outgoing.size or self._producer is None:
            self._wait_to_write(True)
        else:
            self._wait_to_write(False)

    def _press(self) -> None:
        """Have a producer pause while much is waiting."""
        if self._producer is not None and not self._is_waited_for and self._outgoing.size >= _HIGH:
            self._is_waited_for = True
            self._producer.pauseProducing()

    @property
    def _has_said_all(self) -> bool:
        """Whether nothing is left but the peer's goodbye."""
        return self.disconnecting and self._has_said_end and not self._has_heard_end

    def _drop(self) -> None:
        """Read what nobody here listens to, since the peer's goodbye comes behind it."""
        self._is_dropping = True
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Hand on nothing that is read."""
        if self._has_said_all:
            self._is_dropping = True
            return
        self._is_paused = True
        self._below.stopReading()

    def resumeProducing(self) -> None:
        """Read on."""
        self._is_paused = False
        if not self.is_over and not self._has_heard_end:
            self._below.startReading()
            if not self._is_delivering:  # which goes on by itself
                self._is_resumed = True
                self._later_turn()

    def stopProducing(self) -> None:
        """As :meth:`loseConnection`."""
        self.loseConnection()

    def registerProducer(self, producer: IPushProducer | IPullProducer, streaming: bool) -> None:
        """Have it produce as fast as the peer reads."""
        if self._producer is not None:
            raise RuntimeError("another producer is registered already")
        if self.is_over:
            producer.stopProducing()
            return
        self._producer, self._is_streaming, self._is_waited_for = producer, streaming, not streaming
        if not streaming:
            producer.resumeProducing()
        else:
            self._press()

    def unregisterProducer(self) -> None:
        """It has produced all."""
        self._producer, self._is_waited_for = None, False
        self._soon()
