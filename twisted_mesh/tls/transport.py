"""Where TLS meets the socket: who is admitted to a handshake, and which of two transports it runs on.

Our own takes the socket over. Twisted's, over memory BIOs, is there too: for connections that have no socket below
them, and for a while for everybody who sets :data:`TRANSPORT`.
"""

import os
from collections.abc import Callable
from typing import Any

from attrs import define
from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.interfaces import (
    IAddress,
    ILoggingContext,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.svid.x509svid import Purpose
from twisted_mesh.limits.connection_limit import Place
from twisted_mesh.limits.rate_limit import address_key
from twisted_mesh.state.environment import BadEnvironment
from twisted_mesh.tls import verify
from twisted_mesh.tls.accepted_socket import AcceptedSocket
from twisted_mesh.tls.connection import MeshConnection, MeshFactory
from twisted_mesh.tls.expectation import Expectation
from twisted_mesh.tls.handshake_meter import HandshakeMeter
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.socket_transport import SocketTransport
from twisted_mesh.tls.spoken_address import spoken_address
from twisted_mesh.tls.verify import Handshake

#: The variable of the environment that says which transport is taken: ``socket``, which is usual, or ``twisted``.
TRANSPORT = "MESH_TLS_TRANSPORT"


def tls_factory(mesh: MeshFactory) -> IProtocolFactory:
    """What is given to an endpoint of the transport below. Raises :class:`BadEnvironment`."""
    chosen = os.environ.get(TRANSPORT) or "socket"
    if chosen not in ("socket", "twisted"):
        raise BadEnvironment(f"{TRANSPORT} is socket or twisted")
    memory = _MemoryFactory(mesh)
    return memory if chosen == "twisted" else _SocketFactory(mesh, memory)


def accepted_by(port: Any, factory: IProtocolFactory) -> Any:
    """``port``, on which ``factory`` listens. One of TCP makes no more of each connection than is needed here."""
    # Behind an endpoint that wraps another, the port's own factory is the wrapper's.
    own = getattr(port, "factory", None) is factory
    if own and isinstance(factory, _SocketFactory) and type(port) is tcp.Port:
        port.transport = AcceptedSocket  # type: ignore[assignment]
    return port


def _admit(mesh: MeshFactory, addr: IAddress | None) -> tuple[bool, Place | None]:
    """Whether there is a handshake at all, and the place that a connection to a server takes."""
    security = mesh.security
    if security.contexts.current() is None:
        security.log.warn(
            "Connection from {address} refused: this service has no valid certificate at the moment",
            event="no-identity",
            address=spoken_address(addr),
        )
        return False, None
    if security.connection_limit is None or mesh.client is not None:
        return True, None
    place = security.connection_limit.admit(address_key(addr))
    return place is not None, place


def _bind(
    connection: MeshConnection, below: Any, addr: IAddress | None, place: Place | None
) -> None:
    """Count ``connection``, whose bytes come by ``below``."""
    mesh = connection.factory
    if place is not None:
        connection.place, place.hang_up = place, connection.abortConnection
    serves = mesh.client is None
    budget = mesh.security.handshake_budget if serves else None
    connection.meter = HandshakeMeter(
        below,
        connection,
        budget,
        address_key(addr),
        place,
        serves=serves,
        keeps_hello=serves and mesh.security.contexts.role.requires_pq,
    )


class _TakenOver(Protocol):
    """What the transport below has for a protocol, until it is known what stands there in truth.

    Where that is a :class:`SocketTransport` it is given no data, and hears of the end; else it passes all on.
    """

    taken: Any = None
    """To whom what comes is given."""

    def __init__(self, take: Callable[[Any], Any]) -> None:
        self._take = take

    def makeConnection(self, transport: Any) -> None:
        """It is connected."""
        self.taken = self._take(transport)

    def dataReceived(self, data: bytes) -> None:
        """By a transport that is no socket."""
        if self.taken is not None:
            self.taken.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is closed."""
        if self.taken is not None:
            self.taken.connectionLost(reason)


@implementer(IProtocolFactory, ILoggingContext)
@define(eq=False)
class _SocketFactory:
    """Takes sockets over."""

    mesh: MeshFactory
    memory: "_MemoryFactory"
    """For what is no socket."""

    def logPrefix(self) -> str:
        """See :class:`ILoggingContext`: Twisted tells by it what starts to listen."""
        return self.mesh.logPrefix()

    def doStart(self) -> None:
        """See :class:`IProtocolFactory`."""
        self.mesh.doStart()

    def doStop(self) -> None:
        """See :class:`IProtocolFactory`."""
        self.mesh.doStop()

    def buildProtocol(self, addr: IAddress | None) -> _TakenOver | None:
        """See :class:`IProtocolFactory`."""
        admitted, place = _admit(self.mesh, addr)
        return _TakenOver(lambda below: self._take(below, addr, place)) if admitted else None

    def _take(self, below: Any, addr: IAddress | None, place: Place | None) -> Any:
        # Whatever stands between (the PROXY protocol, a tunnel) knows its socket too, and is not to be passed by.
        if not isinstance(below, AcceptedSocket | tcp.Connection) or getattr(below, "TLS", False):
            memory = self.memory.build(addr, place)
            memory.makeConnection(below)
            return memory
        connection = self.mesh.buildProtocol(addr)
        if connection is None:
            below.abortConnection()
            return None
        creator = self.memory.creator
        taken = SocketTransport(below, creator.connection(), self.mesh.security.clock)
        _bind(connection, taken, addr, place)
        connection.makeConnection(taken)
        taken.begin(connection, is_server=self.mesh.client is None)
        return taken


class _MemoryFactory(TLSMemoryBIOFactory):
    """Twisted's transport."""

    def __init__(self, mesh: MeshFactory) -> None:
        self.creator = _ConnectionCreator(mesh.security, mesh.client)
        super().__init__(self.creator, mesh.client is not None, mesh, mesh.security.clock)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See :class:`IProtocolFactory`."""
        admitted, place = _admit(self.wrappedFactory, addr)
        return self.build(addr, place) if admitted else None

    def build(self, addr: IAddress | None, place: Place | None) -> Any:
        """A protocol for who is admitted."""
        protocol: Any = super().buildProtocol(addr)
        _bind(protocol.wrappedProtocol, protocol, addr, place)
        return protocol


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
@define(eq=False)
class _ConnectionCreator:
    """OpenSSL's end of a connection, with the context of the moment."""

    security: Security
    client: Expectation | None

    def connection(self) -> SSL.Connection:
        """For our own transport, which end it is included."""
        if self.client is None:
            connection = self.serverConnectionForTLS(None)
            connection.set_accept_state()
        else:
            connection = self.clientConnectionForTLS(None)
            connection.set_connect_state()
        return connection

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """See :class:`IOpenSSLServerConnectionCreator`."""
        return self._begin(Purpose.CLIENT)

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """See :class:`IOpenSSLClientConnectionCreator`."""
        connection = self._begin(Purpose.SERVER)
        if self.client and self.client.server_name:
            connection.set_tlsext_host_name(self.client.server_name.encode("ascii"))
        connection.request_ocsp()
        return connection

    def _begin(self, peers_purpose: Purpose) -> SSL.Connection:
        current = self.security.contexts.current()
        if current is None:  # withdrawn since it was asked
            raise RuntimeError("there is no identity")
        connection = SSL.Connection(current[0], None)
        security, client = self.security, self.client
        leaf_checks = client.leaf_checks if client else security.leaf_checks
        must_staple = security.requires_staple and client is not None
        explains = security.explain is not None and client is None and security.explains()
        handshake = Handshake(
            security.judge,
            peers_purpose,
            leaf_checks,
            must_staple,
            explains,
            security.contexts.role.requires_pq,
        )
        verify.begin(connection, handshake)
        return connection
