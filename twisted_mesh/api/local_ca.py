"""The CA of this machine: its socket, and whose the process at the other end must be before it is asked anything."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from twisted_mesh.api.ca_user import CaUser, ForeignCa


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class LocalCaEndpoint:
    """Connects to a CA's socket, and fails with :class:`ForeignCa` before a byte is sent to anybody else."""

    reactor: Any
    path: Path
    user: CaUser
    timeout: float

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once it is known whose the other end is."""
        try:
            may_be = self.user.at(self.path.parent)
        except ForeignCa as error:
            return fail(error)
        endpoint = UNIXClientEndpoint(self.reactor, str(self.path), timeout=self.timeout)
        connecting: Deferred[IProtocol] = endpoint.connect(factory)
        return connecting.addCallback(self._look, may_be)

    def _look(self, protocol: Any, may_be: Collection[int]) -> IProtocol:
        transport = protocol.transport
        try:
            self.user.look(transport.getHandle(), self.path, may_be)
        except BaseException:
            transport.abortConnection()
            raise
        connected: IProtocol = protocol
        return connected
