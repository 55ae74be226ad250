"""A program for a test: a server and its clients over real sockets, while the path that both serve is switched.

It prints what came of so many requests, each over a handshake of its own, as JSON.
"""

import json
import sys
from collections import Counter
from datetime import timedelta
from typing import Any

from attrs import define, field
from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.keys import KeyAlgorithm
from pki.spiffe import SpiffePattern
from pki.svid.bundle import BundleSet
from pki.svid.pin import Fingerprint
from pki.svid.x509svid import X509Svid
from tests.authorities import BACKEND, key, overlap
from twisted_mesh.identity.manager import CertificateManager
from twisted_mesh.interfaces import Identity, ISource, TrustUpdate
from twisted_mesh.runtime.clock import wall_clock
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.endpoints import MeshClientEndpoint, listen
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.store import TrustStore
from twisted_mesh.trust.trust import Trust

CLIENTS, PAUSE = 4, 0.002
BOTH = overlap(wall_clock() - timedelta(hours=1))
PATHS = [(BOTH.by_new.certificate,), (BOTH.by_old.certificate,)]


@implementer(ISource)
class Source:
    """Issues once."""

    where = "this program"

    async def obtain(self, algorithm: KeyAlgorithm) -> Identity:
        now = wall_clock()
        draft = BOTH.by_old.draft(key(9).public_key, BACKEND, now, timedelta(hours=1))
        leaf = await BOTH.by_old.sign(draft)
        svid = X509Svid.assemble((leaf, BOTH.by_old.certificate), key(9))
        return Identity(svid, BundleSet.of(BOTH.bundle), now)

    async def revocations(self, wait: int = 0) -> TrustUpdate:
        return TrustUpdate()

    def renewed(self) -> None:
        """Nobody is asked."""


@define(eq=False)
class Switching:
    """Both ends under one identity, as a process has it that serves and connects."""

    requests: int
    left: int = field(init=False)
    switches: int = 0
    outcomes: "Counter[str]" = field(factory=Counter)
    roots: "Counter[str]" = field(factory=Counter)
    contexts: dict[bool, ContextFactory] = field(
        factory=lambda: {serves: ContextFactory(Role(serves)) for serves in (True, False)}
    )
    manager: CertificateManager = field(init=False)
    store: TrustStore = field(init=False)
    done: "Deferred[None]" = field(factory=Deferred)

    def __attrs_post_init__(self) -> None:
        self.left = self.requests
        log = Logger()
        judge = Judge(wall_clock, Trust(allow=(SpiffePattern.parse(str(BACKEND)),)))
        self.store = TrustStore(judge, ConnectionRegistry(), reactor, wall_clock, log)
        self.manager = CertificateManager(
            Source(), self.store, list(self.contexts.values()), reactor, wall_clock, log
        )

    def security(self, *, serves: bool) -> Security:
        store = self.store
        return Security(self.contexts[serves], store.judge, reactor, store.registry)

    def switch(self) -> None:
        path = PATHS[self.switches % 2]
        self.manager.follow(TrustUpdate(issuers={BOTH.key_id: path}))
        self.switches += 1

    async def run(self) -> None:
        self.store.startService()
        self.manager.startService()
        await self.manager.ready()
        leaf = self.leaf
        port: Any = await listen(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
            Factory.forProtocol(Echo),
            self.security(serves=True),
        )
        loop = LoopingCall(self.switch)
        loop.start(PAUSE)
        number = port.getHost().port
        await DeferredList([Deferred.fromCoroutine(self.client(number)) for _ in range(CLIENTS)])
        loop.stop()
        self.manager.stopService()
        self.store.stopService()
        await port.stopListening()
        assert self.leaf == leaf, "it is the same certificate"

    @property
    def leaf(self) -> x509.Certificate:
        assert self.manager.svid is not None
        return self.manager.svid.leaf

    async def client(self, port: int) -> None:
        endpoint = MeshClientEndpoint(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port), self.security(serves=False), None
        )
        while self.left > 0:
            self.left -= 1
            try:
                asking: Any = await endpoint.connect(Factory.forProtocol(Asking))
                self.roots[str(Fingerprint.of(asking.transport.peer.path[-1]))] += 1
                self.outcomes[await asking.answer] += 1
            except Exception as error:
                self.outcomes[f"{type(error).__name__}: {error}"] += 1


class Echo(Protocol):
    """Says what it hears."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


class Asking(Protocol):
    """Says a word, and hangs up once it hears it."""

    def __init__(self) -> None:
        self.answer: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"word")

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
        if not self.answer.called:
            self.answer.callback(data.decode())

    def connectionLost(self, reason: Failure = Failure) -> None:  # type: ignore[assignment]
        if not self.answer.called:
            self.answer.errback(reason)


def main() -> None:
    """Run, and say what came of it."""
    switching = Switching(int(sys.argv[1]))

    def over(outcome: object) -> None:
        if isinstance(outcome, Failure):
            outcome.printTraceback()
        reactor.stop()  # type: ignore[attr-defined]

    def begin() -> None:
        Deferred.fromCoroutine(switching.run()).addBoth(over)

    reactor.callWhenRunning(begin)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    told = {"outcomes": switching.outcomes, "roots": switching.roots}
    print(json.dumps({**told, "switches": switching.switches}))


if __name__ == "__main__":
    main()
