"""Applications that keep what happens to them, and do what a test wants of them then."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


class Application(Protocol):
    """``does`` has by the name of a happening what is done then: ``made``, ``data``, ``lost`` and others."""

    transport: Any

    def __init__(self, **does: Callable[[Any], object]) -> None:
        self.does = does
        self.heard = bytearray()
        self.times = 0
        """How often it was given data."""
        self.made = False
        self.lost: Failure | None = None
        self.happened: list[str] = []
        """All of it, in order; data that follows data once."""

    def _happen(self, name: str) -> None:
        if name != "data" or self.happened[-1:] != ["data"]:
            self.happened.append(name)
        if (act := self.does.get(name)) is not None:
            act(self)

    def connectionMade(self) -> None:
        self.made = True
        self._happen("made")

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self.times += 1
        self._happen("data")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._happen("lost")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Application):
    """One that stays when the peer says no more."""

    def readConnectionLost(self) -> None:
        self._happen("read lost")

    def writeConnectionLost(self) -> None:
        self._happen("write lost")


@implementer(IPushProducer)
class Push:
    """Produces pieces as long as it is let, once a turn; ``rest`` is how many there are to come."""

    def __init__(self, application: Application, rest: int, size: int = 16 * 1024) -> None:
        self.application = application
        self.rest = rest
        self.said = 0
        self.size = size
        self.is_paused = self.is_stopped = False
        self.pauses = 0

    def start(self, reactor: Any) -> None:
        self.application.transport.registerProducer(self, True)
        self._reactor = reactor
        reactor.callLater(0, self._produce)

    def _produce(self) -> None:
        if self.is_stopped or self.is_paused:
            return
        for _ in range(16):
            if self.rest and not self.is_paused:
                self.rest -= 1
                self.said += self.size
                self.application.transport.write(bytes([self.rest % 251]) * self.size)
        if not self.rest:
            self.application.transport.unregisterProducer()
            self.is_stopped = True
        else:
            self._reactor.callLater(0, self._produce)

    def pauseProducing(self) -> None:
        self.is_paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self._reactor.callLater(0, self._produce)

    def stopProducing(self) -> None:
        self.is_stopped = True


@implementer(IPullProducer)
class Pull:
    """Produces a piece whenever it is asked to."""

    def __init__(self, application: Application, rest: int, size: int = 16 * 1024) -> None:
        self.application = application
        self.rest = rest
        self.size = size
        self.is_stopped = False
        self.asked = 0

    def start(self) -> None:
        self.application.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.asked += 1
        self.rest -= 1
        self.application.transport.write(bytes([self.rest % 251]) * self.size)
        if not self.rest:
            self.application.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.is_stopped = True


def pieces(rest: int, size: int = 16 * 1024) -> bytes:
    """All that a producer of so many says."""
    return b"".join(bytes([n % 251]) * size for n in reversed(range(rest)))
