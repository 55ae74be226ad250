"""How a target is reached: on this machine by TCP or a unix socket, elsewhere by mutual TLS."""

from functools import partial

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure

from twisted_mesh.http.address import server_name
from twisted_mesh.interfaces import IReactor
from twisted_mesh.proxy.listener import Bounds, Target
from twisted_mesh.runtime.names import HostEndpoint
from twisted_mesh.runtime.reach import Reach
from twisted_mesh.tls.alerts import as_error
from twisted_mesh.tls.endpoints import MeshClientEndpoint
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.verify import LeafCheck


def endpoint_of(reactor: IReactor, target: Target, seconds: float) -> IStreamClientEndpoint:
    """What leads to a target."""
    if target.path:
        return UNIXClientEndpoint(reactor, target.path, timeout=seconds)
    return HostEndpoint(reactor, target.host, target.port, seconds)


@frozen
class Dialer:
    """Connects to one target."""

    reactor: IReactor
    target: Target
    bounds: Bounds
    security: Security | None = None
    """What the connection is secured by; None where it is plain."""
    leaf_checks: tuple[LeafCheck, ...] = ()
    """What the certificate of who answers must satisfy besides."""

    def dial(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """Fires with the protocol once it is connected, and who answers is judged; fails with a :class:`PkiError`."""
        seconds = self.bounds.connect
        reach = Reach(
            str(self.target),
            host=self.target.host,
            path=self.target.path,
            who="target",
            start="start it, or correct --target",
            seconds=seconds,
        )
        endpoint = endpoint_of(self.reactor, self.target, seconds)
        if self.security is not None:
            seconds += self.security.handshake_timeout
            endpoint = MeshClientEndpoint(
                endpoint,
                self.security,
                server_name(self.target.host) if self.target.host else None,
                self.leaf_checks,
                reach,
            )
        connecting: Deferred[IProtocol] = endpoint.connect(factory)
        _ = connecting.addTimeout(seconds, self.reactor, _too_late)
        return connecting.addErrback(partial(_explain, reach))


def _too_late(outcome: object, seconds: float) -> object:
    """A name may take longer to look up than a connection to come about."""
    if isinstance(outcome, Failure):
        raise TimeoutError(string=f"not done within {seconds:g} s")
    return outcome


def _explain(reach: Reach, failure: Failure) -> IProtocol:
    if failure.check(CancelledError):  # whoever asked is gone
        failure.raiseException()
    raise as_error(failure, reach) from None
