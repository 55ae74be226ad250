"""The seam: the only way in which the mesh listens and connects over TLS.

An application's protocol is connected only after its peer has been judged, so it can never see a
byte from somebody whose identity is not proven. Underneath is Twisted's TLS over memory BIOs.
"""

from collections.abc import Sequence
from typing import Any

from attrs import define
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from pki.svid.x509svid import Purpose
from twisted_mesh.limits.rate_limit import address_key
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.tls import verify
from twisted_mesh.tls.alerts import as_error
from twisted_mesh.tls.connection import Expectation, MeshFactory, spoken_address
from twisted_mesh.tls.handshake_meter import HandshakeMeter
from twisted_mesh.tls.own_chain import refused_beforehand
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.verify import Handshake, LeafCheck


def listen(
    endpoint: IStreamServerEndpoint, factory: IProtocolFactory, security: Security
) -> Deferred[IListeningPort]:
    """Serve ``factory`` to peers that prove who they are."""
    return endpoint.listen(_tls_factory(factory, security, client=None))


@implementer(IStreamClientEndpoint)
@define(eq=False)
class MeshClientEndpoint:
    """Connects to a server that proves who it is; ``connect`` fires once it has.

    In TLS 1.3 that is before the server has judged *us*: its refusal arrives at the first read.
    """

    endpoint: IStreamClientEndpoint
    security: Security
    server_name: str | None
    """For SNI: the host name; None for an IP address."""
    leaf_checks: Sequence[LeafCheck] = ()
    """What the server's certificate must satisfy besides."""
    reach: Reach | None = None
    """Where it leads. It watches ``endpoint``."""

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and prove each other. Fires with the protocol; fails with a :class:`PkiError`."""
        if (ours := refused_beforehand(self.security)) is not None:
            return fail(ours)
        expectation = Expectation(self.server_name, self.leaf_checks, self.reach)
        endpoint = self.endpoint if self.reach is None else self.reach.watch(self.endpoint)
        attempt = endpoint.connect(_tls_factory(factory, self.security, expectation))
        expectation.attempt = attempt
        _ = attempt.addErrback(lambda failure: expectation.failed(as_error(failure, self.reach)))
        return expectation.outcome


def _tls_factory(
    factory: IProtocolFactory, security: Security, client: Expectation | None
) -> TLSMemoryBIOFactory:
    mesh = MeshFactory(factory, security, client)
    creator = _ConnectionCreator(security, client)
    return _GuardedFactory(creator, client is not None, mesh, security.clock)


class _GuardedFactory(TLSMemoryBIOFactory):
    """Hangs up at once while there is no identity to show."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        mesh = self.wrappedFactory
        if mesh.security.contexts.current() is None:
            mesh.security.log.warn(
                "Connection from {address} refused: this service has no valid certificate at the moment",
                event="no-identity",
                address=spoken_address(addr),
            )
            return None
        connection_limit, place = mesh.security.connection_limit, None
        if connection_limit is not None and mesh.client is None:
            place = connection_limit.admit(address_key(addr))
            if place is None:
                return None
        protocol: Any = super().buildProtocol(addr)
        connection = protocol.wrappedProtocol
        if place is not None:
            connection.place, place.hang_up = place, connection.abortConnection
        budget = mesh.security.handshake_budget if mesh.client is None else None
        connection.meter = HandshakeMeter(
            protocol, connection, budget, address_key(addr), place, serves=mesh.client is None
        )
        return protocol


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
@define(eq=False)
class _ConnectionCreator:
    security: Security
    client: Expectation | None

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        return self._connection(Purpose.CLIENT)

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        connection = self._connection(Purpose.SERVER)
        if self.client and self.client.server_name:
            connection.set_tlsext_host_name(self.client.server_name.encode("ascii"))
        connection.request_ocsp()
        return connection

    def _connection(self, peers_purpose: Purpose) -> SSL.Connection:
        current = self.security.contexts.current()
        if current is None:  # withdrawn since buildProtocol asked
            raise RuntimeError("there is no identity")
        connection = SSL.Connection(current[0], None)
        security, client = self.security, self.client
        leaf_checks = client.leaf_checks if client else security.leaf_checks
        must_staple = security.requires_staple and client is not None
        explains = security.explain is not None and client is None
        handshake = Handshake(security.judge, peers_purpose, leaf_checks, must_staple, explains)
        verify.begin(connection, handshake)
        return connection
