"""Two ends of a TLS transport on a reactor of their own, joined by real sockets: what conformance tests hold."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    TCP6ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.twisted_mesh.tls.transport.application import Application
from tests.twisted_mesh.tls.transport.by_hand import ByHand
from tests.twisted_mesh.tls.wires import End
from twisted_mesh.tls.endpoints import MeshClientEndpoint, listen

try:
    from twisted.internet.epollreactor import EPollReactor as Reactor
except ImportError:
    from twisted.internet.pollreactor import PollReactor as Reactor  # type: ignore[assignment]

NETWORKS = ("tcp4", "tcp6", "unix")


#: Seconds until what was waited for is not to be expected any more, on a busy machine.
_PATIENCE = 5.0


class Pace(Clock):
    """What is due at once is the reactor's; all else is due when the test says so."""

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self._reactor = reactor

    def callLater(self, delay: float, callable: Any, *args: object, **kw: object) -> Any:
        """See ``IReactorTime``."""
        later = super().callLater if delay else self._reactor.callLater
        return later(delay, callable, *args, **kw)


class Making(Factory):
    """Makes applications, and remembers them."""

    noisy = False

    def __init__(self, make: Callable[[], Application]) -> None:
        self._make = make
        self.made: list[Application] = []

    def buildProtocol(self, addr: object) -> Application:
        self.made.append(self._make())
        return self.made[-1]


@define(eq=False)
class Rig:
    """A server, its clients, and peers by hand. :meth:`over` sees that nothing of them is left in the reactor."""

    transport: str
    network: str
    directory: Path
    reactor: Any = field(factory=Reactor)
    clock: Pace = field(init=False)
    server: End = field(init=False)
    client: End = field(init=False)
    served: list[Application] = field(factory=list)
    """Applications of the server, in the order in which their peers came."""
    port: Any = None
    logged: list[str] = field(factory=list)
    """What went wrong, as the log has it."""
    _by_hand: list[ByHand] = field(factory=list)
    _applications: list[Application] = field(factory=list)
    _standing: int = 0

    def __attrs_post_init__(self) -> None:
        self.clock = Pace(self.reactor)
        self.server = End(True, clock=self.clock)
        self.client = End(False, clock=self.clock)
        self._standing = len(self.reactor.getReaders())
        globalLogPublisher.addObserver(self._look)

    def _look(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if isinstance(failure, Failure):
            self.logged.append(f"{failure.type.__name__}: {failure.value}")

    # time

    def turn(self) -> None:
        """One turn of the reactor, as it takes them itself, and of who is held by hand."""
        self.reactor.runUntilCurrent()
        due = self.reactor.timeout()
        most = 0.001 if self._by_hand else 0.02
        self.reactor.doIteration(most if due is None else min(due, most))
        for peer in self._by_hand:
            peer.step()

    def turns(self, count: int = 5) -> None:
        """So many: for what is not to happen."""
        for _ in range(count):
            self.turn()

    def until(self, is_so: Callable[[], object], otherwise: Callable[[], object] = str) -> None:
        """Take turns until it is so; ``otherwise`` says what is there instead."""
        deadline = time.monotonic() + _PATIENCE
        while not is_so():
            assert time.monotonic() < deadline, f"it never came to that: {otherwise()}"
            self.turn()

    # who takes part

    def _endpoint(self, *, serves: bool) -> Any:
        if self.network == "unix":
            path = str(self.directory / "s")
            made = UNIXServerEndpoint if serves else UNIXClientEndpoint
            return made(self.reactor, path)
        host = "127.0.0.1" if self.network == "tcp4" else "::1"
        if serves:
            kind = TCP4ServerEndpoint if self.network == "tcp4" else TCP6ServerEndpoint
            return kind(self.reactor, 0, interface=host)
        called = TCP4ClientEndpoint if self.network == "tcp4" else TCP6ClientEndpoint
        return called(self.reactor, host, self.port.getHost().port)

    def listen(
        self, make: Callable[[], Application] = Application, wrap: Any = None, **security: Any
    ) -> None:
        """Serve applications made so; ``wrap`` makes another endpoint of the usual one."""
        making = Making(make)
        self.served = making.made
        secured = evolve(self.server.security, **security)
        endpoint = self._endpoint(serves=True)
        listen(wrap(endpoint) if wrap else endpoint, making, secured).addCallback(self._listens)
        self.until(lambda: self.port is not None)

    def _listens(self, port: Any) -> None:
        self.port = port

    def call(self, application: Application, wrap: Any = None) -> "Deferred[Any]":
        """Connect; what comes of it."""
        self._applications.append(application)
        endpoint = self._endpoint(serves=False)
        below = wrap(endpoint) if wrap else endpoint
        caller = MeshClientEndpoint(below, self.client.security, None)
        return caller.connect(Making(lambda: application))

    def pair(
        self, caller: Application | None = None, make: Callable[[], Application] = Application
    ) -> tuple[Application, Application]:
        """The server's application and the client's, both connected."""
        calling = caller or Application()
        if self.port is None:
            self.listen(make)
        before, outcome = len(self.served), []
        self.call(calling).addBoth(outcome.append)
        self.until(lambda: outcome and self.served[before:] and self.served[before].made)
        assert outcome == [calling], outcome
        return self.served[before], calling

    def wire(self) -> socket.socket:
        """A connection to the server with nothing on it yet."""
        family = {"tcp4": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}
        wire = socket.socket(family[self.network])
        where = self.port.getHost()
        wire.connect(
            str(self.directory / "s") if self.network == "unix" else (where.host, where.port)
        )
        return wire

    def by_hand(self, *, shakes_hands: bool = True, **options: Any) -> ByHand:
        """A client by hand, connected to the server, and admitted unless it is not to shake hands."""
        peer = self.hold(ByHand(self.wire(), **options))
        if shakes_hands:
            before = self._made
            peer.shake_hands()
            self.until(lambda: peer.is_secured and self._made > before)
        return peer

    @property
    def _made(self) -> int:
        return sum(application.made for application in self.served)

    def called(
        self, application: Application, wrap: Any = None
    ) -> "tuple[Deferred[Any], socket.socket]":
        """What comes of an attempt to connect, and the other end of it with nothing on it yet."""
        self._applications.append(application)
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            below = TCP4ClientEndpoint(self.reactor, "127.0.0.1", listening.getsockname()[1])
            endpoint = wrap(below) if wrap else below
            caller = MeshClientEndpoint(endpoint, self.client.security, None)
            attempt = caller.connect(Making(lambda: application))
            self.turn()
            wire, _ = listening.accept()
            wire.settimeout(_PATIENCE)
        return attempt, wire

    def served_by_hand(self, application: Application) -> ByHand:
        """A server by hand that ``application`` has connected to; handshake done."""
        attempt, wire = self.called(application)
        attempt.addErrback(lambda _: None)
        peer = self.hold(ByHand(wire, serves=True))
        peer.shake_hands()
        self.until(lambda: peer.is_secured and application.made)
        return peer

    def hold(self, peer: ByHand) -> ByHand:
        """Have it take its turns."""
        self._by_hand.append(peer)
        return peer

    # the end

    def over(self) -> None:
        """Close all, and see that nothing is left."""
        try:
            for peer in self._by_hand:
                peer.close()
            self._by_hand.clear()
            if self.port is not None:
                self.port.stopListening()
            for application in (*self.served, *self._applications):
                application.does.clear()
                if application.made and application.lost is None:
                    application.transport.abortConnection()
            self.until(self._is_idle, self._left)
            assert not self.clock.getDelayedCalls()
        finally:
            globalLogPublisher.removeObserver(self._look)
            for left in self.reactor.removeAll():  # of a test that has failed
                left.socket.close()
            self.reactor.waker.connectionLost(None)
            if hasattr(self.reactor._poller, "close"):
                self.reactor._poller.close()

    def _is_idle(self) -> bool:
        reactor = self.reactor
        busy = reactor.getWriters() or reactor.getDelayedCalls()
        return not busy and len(reactor.getReaders()) <= self._standing

    def _left(self) -> object:
        reactor = self.reactor
        return reactor.getReaders(), reactor.getWriters(), reactor.getDelayedCalls()
