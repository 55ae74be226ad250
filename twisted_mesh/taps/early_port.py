"""Ports that are bound at once and listened on when there is somebody to serve.

A port in use ends the start in one sentence, so it is bound first of all. Who connects before the service is
ready is refused by the kernel, as everywhere where nobody serves: not let in and hung up on.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from zope.interface import implementer

from twisted_mesh.http.prompt import send_promptly
from twisted_mesh.tls.transport import accepted_by

#: Connections that are taken in one turn of the reactor: half of those that may be leaving at once.
_AT_ONCE = 32
#: Whether sockets at one address each get a share of the callers, as Linux has it.
_SHARES_OUT = sys.platform.startswith("linux")


@implementer(IListeningPort)
@define(eq=False)
class EarlyPort:
    """A stream socket that has its address, and listens from :meth:`startListening` on.

    Meanwhile it is without SO_REUSEADDR, or another process could have the same address until one of them
    listens. It is set before that, as Twisted does: connections of ours that are closed must not keep the next
    start from binding.
    """

    _reactor: Any
    _factory: IProtocolFactory
    _socket: socket.socket
    _backlog: int
    _path: str = ""
    """Of a unix socket."""
    _place: tuple[int, int] = (0, 0)
    """Which file it is there: device and inode."""
    _port: IListeningPort | None = field(default=None, init=False)
    _address: IAddress = field(init=False)

    def __attrs_post_init__(self) -> None:
        name = self._socket.getsockname()
        if self._path:
            self._address = UNIXAddress(self._path)
        elif self._socket.family == socket.AF_INET6:
            self._address = IPv6Address("TCP", *name)
        else:
            self._address = IPv4Address("TCP", *name)

    def getHost(self) -> IAddress:
        """Where it is bound."""
        return self._address

    def for_worker(self) -> socket.socket:
        """A socket for one more process of ours that is to serve at this address. Raises :class:`OSError`.

        Of TCP one of its own, so that the kernel shares callers out evenly. This one had the address for itself before
        it lets others of its user in, and never listens: whoever asks for the address without SO_REUSEPORT, as all of
        our services do first, is refused as ever.
        """
        if self._path or not _SHARES_OUT:
            return self._socket.dup()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        member = _prepared(self._socket.family)
        try:
            for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
                member.setsockopt(socket.SOL_SOCKET, option, 1)
            member.bind(self._socket.getsockname())
        except OSError:
            member.close()
            raise
        return member

    def startListening(self) -> None:
        """Listen. Raises :class:`CannotListenError` where the address is another's by now. May be said again."""
        if self._port is not None:
            return
        try:
            if self._path:
                if self._place != _place(self._path):
                    raise FileExistsError("it is another program's by now")
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.listen(self._backlog)
        except OSError as error:
            raise CannotListenError(None, self._path or self._address, error) from None
        self._port = self._reactor.adoptStreamPort(
            self._socket.fileno(), self._socket.family, self._factory
        )
        if getattr(self._factory, "answers_promptly", False):
            send_promptly(self._port)
        _take_few_at_once(accepted_by(self._port, self._factory))
        self._socket.listen(self._backlog)  # Twisted has a word in it where it is a unix socket
        self._socket.close()

    def pauseProducing(self) -> None:
        """Take no connections for a while: they wait in the kernel's queue."""
        if self._port is not None:
            self._port.pauseProducing()  # type: ignore[attr-defined]

    def resumeProducing(self) -> None:
        """Take them again."""
        if self._port is not None:
            self._port.resumeProducing()  # type: ignore[attr-defined]

    def stopListening(self) -> "Deferred[None]":
        """Give the address back."""
        if self._port is not None:
            stopping: object = self._port.stopListening()
            return stopping if isinstance(stopping, Deferred) else succeed(None)
        self._socket.close()
        if self._path and self._place == _place(self._path):
            os.unlink(self._path)
        return succeed(None)


@define(eq=False)
class EarlyReactor:
    """A reactor for server endpoints: what they listen on is an :class:`EarlyPort` where that can be."""

    _reactor: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """As of ``IReactorTCP``; bound, and not listening yet. Raises :class:`CannotListenError`."""
        try:
            bound = _bound(port, interface)
        except OSError as error:
            raise CannotListenError(interface, port, error) from None
        return EarlyPort(self._reactor, factory, bound, backlog)

    def listenUNIX(
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """As of ``IReactorUNIX``. With a lock file, or a mode of its own, Twisted does it, and listens at once."""
        if wantPID or mode != 0o666:
            port: IListeningPort = self._reactor.listenUNIX(
                address, factory, backlog, mode, wantPID
            )
            return port
        bound = _prepared(socket.AF_UNIX)
        try:
            bound.bind(address)
        except OSError as error:
            bound.close()
            raise CannotListenError(None, address, error) from None
        return EarlyPort(self._reactor, factory, bound, backlog, address, _place(address))


def _take_few_at_once(port: Any) -> None:
    """Have it take no more connections in one turn than may be hung up on in one, to make room.

    Twisted takes more with each turn that brings more, and in a flood an honest newcomer would be refused for that.
    """
    take = getattr(port, "doRead", None)
    if take is None:  # it is one in memory
        return

    def take_few() -> object:
        port.numberAccepts = min(port.numberAccepts, _AT_ONCE)
        taken: object = take()
        return taken

    port.doRead = take_few


def is_answered(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _bound(port: int, interface: str) -> socket.socket:
    """A TCP socket that has the address for itself. Raises :class:`OSError`."""
    family, address = socket.AF_INET, (interface, port)
    if ":" in interface:
        family = socket.AF_INET6
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        address = socket.getaddrinfo(interface, port, family, flags=flags)[0][4]  # type: ignore[assignment]
    bound = _prepared(family)
    try:
        try:
            bound.bind(address)
        except OSError:
            # Perhaps by connections of an earlier life that are closed: with SO_REUSEADDR they do not matter.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        bound.close()
        raise
    return bound


def _prepared(family: socket.AddressFamily) -> socket.socket:
    """A stream socket as Twisted makes it: it does not block, and no child inherits it."""
    prepared = socket.socket(family)
    prepared.setblocking(False)
    return prepared


def _place(path: str) -> tuple[int, int]:
    """Which file is there; nothing that is one where there is none."""
    try:
        there = os.lstat(path)
    except OSError:
        return (0, 0)
    return (there.st_dev, there.st_ino)
