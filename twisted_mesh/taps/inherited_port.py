"""Sockets that a worker has of its parent: at most bound, where that can be, before there is somebody to serve."""

import socket
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from twisted_mesh.taps.activation import ActivatedPort
from twisted_mesh.taps.early_port import EarlyPort

#: Connections that wait until they are taken.
_BACKLOG = 1024


@implementer(IStreamServerEndpoint)
@define(eq=False)
class InheritedEndpoint:
    """Listens on that socket, once its port is told to."""

    reactor: Any
    given: socket.socket

    def listen(self, factory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """Fires with the port."""
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        given = self.given
        given.setblocking(False)
        if given.family != socket.AF_UNIX and given.getsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEPORT
        ):
            return EarlyPort(self.reactor, factory, given, _BACKLOG)
        return SharedPort(self.reactor, factory, given)


@define(eq=False)
class HeldPort:
    """A parent's port at a unix socket, with its lock: it listens, and takes no connections itself."""

    _port: Any

    def __attrs_post_init__(self) -> None:
        self._port.pauseProducing()

    def getHost(self) -> IAddress:
        """Where it listens."""
        address: IAddress = self._port.getHost()
        return address

    def for_worker(self) -> socket.socket:
        """The same socket, for one more worker. Raises :class:`OSError`."""
        duplicate: socket.socket = self._port.socket.dup()
        return duplicate


class SharedPort(ActivatedPort):
    """A socket that other workers take connections from too: the parent closes it."""

    def startListening(self) -> None:
        """Take connections, after others or the first to. Raises :class:`CannotListenError`."""
        try:
            if not self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                self._socket.listen(_BACKLOG)
        except OSError as error:
            raise CannotListenError(None, self.getHost(), error) from None
        super().startListening()
