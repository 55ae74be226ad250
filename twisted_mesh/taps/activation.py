"""``systemd:NAME``: a socket that the service manager listens on, and has given to this process (sd_listen_fds(3)).

Whoever connects while the service is away, or is not ready yet, waits in that socket's queue.
"""

import os
import socket
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from pki.errors import printable
from twisted_mesh.taps.service_options import StartError

_PREFIX = "systemd:"


def is_activated(address: str) -> bool:
    """Whether ``address`` is ``systemd:NAME``; with ``=`` in it, it is a string of Twisted's."""
    return address.startswith(_PREFIX) and "=" not in address


@implementer(IStreamServerEndpoint)
@define(eq=False)
class ActivatedEndpoint:
    """Listens on the socket of that name, once :meth:`ActivatedPort.startListening` is said."""

    reactor: Any
    address: str

    def listen(self, factory: IProtocolFactory) -> "Deferred[IListeningPort]":
        """Fires with the port; fails with a :class:`StartError` where nothing of that name was given."""
        return execute(self._listen, factory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        return ActivatedPort(self.reactor, factory, given(self.address))


@implementer(IListeningPort)
@define(eq=False)
class ActivatedPort:
    """A socket that is somebody else's: it is never closed by us while we run, nor its path removed."""

    _reactor: Any
    _factory: IProtocolFactory
    _socket: socket.socket
    _port: Any = field(default=None, init=False)

    def getHost(self) -> IAddress:
        """Where it listens."""
        name = self._socket.getsockname()
        if self._socket.family == socket.AF_UNIX:
            return UNIXAddress(name)
        return (IPv6Address if self._socket.family == socket.AF_INET6 else IPv4Address)(
            "TCP", *name
        )

    def for_worker(self) -> socket.socket:
        """The same socket, for one more process of ours that takes connections there. Raises :class:`OSError`."""
        return self._socket.dup()

    def startListening(self) -> None:
        """Take connections. May be said again."""
        if self._port is None:
            self._socket.setblocking(False)
            self._port = self._reactor.adoptStreamPort(
                self._socket.fileno(), self._socket.family, self._factory
            )

    def pauseProducing(self) -> None:
        """Take none for a while."""
        if self._port is not None:
            self._port.pauseProducing()

    def resumeProducing(self) -> None:
        """Take them again."""
        if self._port is not None:
            self._port.resumeProducing()

    def stopListening(self) -> "Deferred[None]":
        """Take none any more: who comes now waits for the next start."""
        self.pauseProducing()
        return succeed(None)


def given(address: str) -> socket.socket:
    """The socket of the name in ``address``; the first, where it has none. Raises :class:`StartError`."""
    name, shown = address.removeprefix(_PREFIX), printable(address, 80)
    which = f"name={quoteStringArgument(name)}" if name else "index=0"
    try:
        # Twisted has read the environment when it was imported, and deleted what it said.
        found: Any = serverFromString(None, f"{_PREFIX}domain=UNIX:{which}")
    except LookupError:
        raise StartError(
            f"{shown}: systemd has given this process no socket of that name: start it by its socket unit (systemctl "
            "start NAME.socket), and look at FileDescriptorName= there"
        ) from None
    try:
        taken = socket.socket(fileno=os.dup(found.fileno))
        listens = taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise StartError(f"{shown} cannot be taken ({error.strerror}): look at its unit") from None
    if taken.type != socket.SOCK_STREAM or not listens:
        raise StartError(
            f"{shown} takes no connections: it needs ListenStream= and Accept=no in its unit"
        )
    return taken
