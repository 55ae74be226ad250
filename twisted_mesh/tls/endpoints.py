"""The seam: the only way in which the mesh listens and connects over TLS.

An application's protocol is connected only after its peer has been judged, so it can never see a
byte from somebody whose identity is not proven. What is underneath is chosen in :mod:`twisted_mesh.tls.transport`.
"""

from collections.abc import Sequence

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from twisted_mesh.runtime.reach import Reach
from twisted_mesh.tls.alerts import as_error
from twisted_mesh.tls.connection import MeshFactory
from twisted_mesh.tls.expectation import Expectation
from twisted_mesh.tls.own_chain import refused_beforehand
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.transport import accepted_by, tls_factory
from twisted_mesh.tls.verify import LeafCheck


def listen(
    endpoint: IStreamServerEndpoint, factory: IProtocolFactory, security: Security
) -> Deferred[IListeningPort]:
    """Serve ``factory`` to peers that prove who they are."""
    factory = tls_factory(MeshFactory(factory, security, None))
    return endpoint.listen(factory).addCallback(accepted_by, factory)


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
        attempt = endpoint.connect(tls_factory(MeshFactory(factory, self.security, expectation)))
        expectation.attempt = attempt
        _ = attempt.addErrback(lambda failure: expectation.failed(as_error(failure, self.reach)))
        return expectation.outcome
