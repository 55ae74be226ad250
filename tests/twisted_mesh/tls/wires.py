"""Two ends of a TLS connection in one process, joined by hand: no sockets, no waiting."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.keys import MemoryKey
from pki.spiffe import SpiffePattern, TrustDomain
from pki.svid.x509svid import X509Svid
from tests.authorities import MESH, Mesh, key, mesh
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.tls.connection import MeshFactory
from twisted_mesh.tls.contexts import ContextFactory, Role
from twisted_mesh.tls.endpoints import MeshClientEndpoint
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.stapling import Staples
from twisted_mesh.tls.transport import tls_factory
from twisted_mesh.tls.turned_away import Explain
from twisted_mesh.tls.verify import LeafCheck
from twisted_mesh.trust.connections import ConnectionRegistry
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

#: OpenSSL looks at the real clock, so these certificates are of today.
TODAY = datetime.now(UTC).replace(microsecond=0)


def home(trust_domain: TrustDomain = MESH) -> Mesh:
    """The mesh of that trust domain, founded an hour ago."""
    return mesh(trust_domain, now=TODAY - timedelta(hours=1))


class Talker(Protocol):
    """An application that keeps what it hears."""

    transport: Any

    def __init__(self) -> None:
        self.heard = b""
        self.connected_times = 0
        self.lost: Failure | None = None

    def connectionMade(self) -> None:
        self.connected_times += 1

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


@define(eq=False)
class Talkers(Factory):
    """Makes talkers, and remembers them."""

    made: list[Talker] = field(factory=list)
    noisy = False

    def buildProtocol(self, addr: object) -> Talker:
        self.made.append(Talker())
        return self.made[-1]


class Wire(StringTransport):
    """One end's TCP connection; closing it is heard of at the next :meth:`Conversation.pump`."""

    protocol: Any

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.aborted = False

    def loseConnection(self) -> None:
        self.closing = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing waits here."""

    def abortConnection(self) -> None:
        self.aborted = self.closing = True
        self.clear()

    def settle(self) -> None:
        """Hear of one's own closing, as a reactor has one hear of it: later."""
        if self.closing and self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))


def svid_of(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    leaf_key: MemoryKey | None = None,
) -> X509Svid:
    """Whatever the certificate is, as what an endpoint presents."""
    return X509Svid(leaf, tuple(intermediates), leaf_key or key(9), MESH.member("x"))


def good_svid(of: Mesh | None = None, *path: str) -> X509Svid:
    """A good SVID of ``/service/backend``, or of that path."""
    ca = of or home()
    spiffe_id = ca.trust_domain.member(*(path or ("service", "backend")))
    draft = ca.issuing.draft(key(9).public_key, spiffe_id, TODAY, timedelta(hours=1))
    leaf = asyncio.run(ca.issuing.sign(draft))
    return X509Svid.assemble((leaf, *ca.issuing.intermediates), key(9))


@define(eq=False)
class End:
    """One side: what it presents, whom it believes, what it logs."""

    serves: bool
    svid: X509Svid | None = field(factory=good_svid)
    believes: Mesh = field(factory=home)
    clock: Clock = field(factory=Clock)
    demands_certificate: bool = True
    exact_alerts: bool = True
    allow: str = "spiffe://mesh.local/**"
    time: datetime = TODAY
    log: RecordingLog = field(factory=RecordingLog)
    registry: ConnectionRegistry = field(factory=ConnectionRegistry)
    requires_staple: bool = False
    looks_first: bool = False
    """Most clients here show what they know to be bad: it is the other side that is tried."""
    explain: Explain | None = None
    explains: bool = True
    leaf_checks: Sequence[LeafCheck] = ()
    requires_pq: bool = False
    staples: Staples = field(init=False)
    judge: Judge = field(init=False)
    contexts: ContextFactory = field(init=False)
    security: Security = field(init=False)

    def __attrs_post_init__(self) -> None:
        skis = [
            found.value.digest
            for cert in self.believes.issuing.intermediates
            for found in cert.extensions
            if isinstance(found.value, x509.SubjectKeyIdentifier)
        ]
        trust = Trust(
            self.believes.bundles,
            allow=(SpiffePattern.parse(self.allow),),
            known_issuers=frozenset(skis),
        )
        self.judge = Judge(lambda: self.time, trust)
        role = Role(
            self.serves,
            self.demands_certificate,
            exact_alerts=self.exact_alerts,
            requires_pq=self.requires_pq,
        )
        self.staples = Staples(lambda: self.time)
        self.contexts = ContextFactory(role, self.staples)
        self.contexts.replace(self.svid, self.believes.bundles.all_roots)
        self.security = Security(
            self.contexts,
            self.judge,
            self.clock,
            self.registry,
            self.log,
            handshake_timeout=10.0,
            requires_staple=self.requires_staple,
            looks_first=self.looks_first,
            explain=self.explain,
            explains=lambda: self.explains,
            leaf_checks=self.leaf_checks,
        )


def in_memory(factory: IProtocolFactory, security: Security) -> IProtocolFactory:
    """A server's factory, for connections that have a :class:`Wire` below them."""
    return tls_factory(MeshFactory(factory, security, None))


@implementer(IStreamClientEndpoint)
class _Held:
    """An endpoint that connects when the test says so."""

    def __init__(self) -> None:
        self.factory: IProtocolFactory | None = None
        self.outcome: Deferred[Any] = Deferred()

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        self.factory = factory
        return self.outcome


@define(eq=False, slots=False)
class Conversation:
    """A client and a server, connected; :meth:`pump` carries bytes until none are left."""

    client: End
    server: End
    demands: Sequence[Any] = ()
    served: Talkers = field(factory=Talkers)
    calling: Talkers = field(factory=Talkers)
    outcome: list[Any] = field(factory=list)
    client_wire: Wire = field(factory=Wire)
    server_wire: Wire = field(factory=Wire)

    def connect(self) -> None:
        held = _Held()
        endpoint = MeshClientEndpoint(held, self.client.security, "localhost", self.demands)
        endpoint.connect(self.calling).addBoth(self.outcome.append)
        assert held.factory is not None
        server = in_memory(self.served, self.server.security).buildProtocol(None)
        client = held.factory.buildProtocol(None)
        for protocol, wire in ((server, self.server_wire), (client, self.client_wire)):
            wire.protocol = protocol
            protocol.makeConnection(wire)
        self.pump()

    def pump(self) -> None:
        wires = (self.client_wire, self.server_wire)
        for _ in range(50):
            for end in (self.client, self.server):
                end.clock.advance(0)
            moved = [self._carry(*wires), self._carry(*reversed(wires))]
            if not any(moved):
                return
        raise AssertionError("the two ends never stop talking")

    @staticmethod
    def _carry(source: Wire, target: Wire) -> bool:
        """Whether anything happened: bytes arrived, or the end of the connection did."""
        data = source.value()
        source.clear()
        if data and target.connected:
            target.protocol.dataReceived(data)
        if data or not source.closing:
            return bool(data)
        ended = source.connected or target.connected
        source.settle()
        target.closing = True
        target.settle()
        return ended

    @property
    def client_error(self) -> Any:
        """What the client's attempt to connect failed with, or what ended its connection."""
        if isinstance(self.outcome[0], Failure):
            return self.outcome[0].value
        return self.calling.made[0].lost


def converse(client: End, server: End, demands: Sequence[Any] = ()) -> Conversation:
    conversation = Conversation(client, server, demands)
    conversation.connect()
    return conversation
