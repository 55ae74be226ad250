"""Host names, looked up on a thread, for whoever connects by them.

What cannot be asked for at all, for want of a descriptor say, is told to whoever connects: Twisted's own resolver hears
of nothing but name servers' answers, and lets wait for ever who asks it then.
"""

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IProtocolFactory,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from pki.errors import printable
from twisted_mesh.interfaces import IReactor

Addresses = Sequence[IPv4Address | IPv6Address]
_KINDS = {socket.AF_INET: IPv4Address, socket.AF_INET6: IPv6Address}
#: The resolver that a reactor has where nobody has installed another.
_USUAL = "GAIResolver"


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class HostEndpoint:
    """A port of a host, by its name or its address: as Twisted's ``HostnameEndpoint``, which does the connecting.

    Fails with :class:`DNSLookupError` where nobody has the name, and with the :class:`OSError` of whatever kept us
    from asking. A resolver that was installed in the reactor is asked in its own way.
    """

    reactor: IReactor
    host: str
    port: int
    timeout: float
    """Seconds, for each address; looking the name up is not among them."""

    def connect(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """See :class:`IStreamClientEndpoint`."""
        return Deferred.fromCoroutine(self._connect(factory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        return await (await self._way()).connect(factory)

    async def _way(self) -> IStreamClientEndpoint:
        if (kind := _kind(self.host)) is not None:
            return kind(self.reactor, self.host, self.port, self.timeout)
        if type(self.reactor.nameResolver).__name__ != _USUAL:
            return HostnameEndpoint(self.reactor, self.host, self.port, self.timeout)
        found = await _lookups(self.reactor).ask(self.host, self.port)
        known: Any = _Knowing(self.reactor, found)
        return HostnameEndpoint(known, self.host, self.port, self.timeout)


def _kind(host: str) -> "type[TCP4ClientEndpoint] | type[TCP6ClientEndpoint] | None":
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint


@define(eq=False, repr=False)
class _Lookups:
    """Those of one reactor. Who asks for what is being asked for already waits for the same answer.

    Threads are few, and a name server may be slow: callers who come and give up meanwhile must not leave a thread's
    work behind each.
    """

    reactor: IReactor
    _waiting: dict[tuple[str, int], list["Deferred[Addresses]"]] = field(factory=dict, init=False)

    def ask(self, host: str, port: int) -> "Deferred[Addresses]":
        asked: Deferred[Addresses] = Deferred()
        waiting = self._waiting.setdefault((host, port), [])
        waiting.append(asked)
        if len(waiting) == 1:
            pool = self.reactor.getThreadPool()
            looking = deferToThreadPool(self.reactor, pool, _look_up, host, port)
            _ = looking.addBoth(self._found, (host, port))
        return asked

    def _found(self, outcome: Any, key: tuple[str, int]) -> None:
        for asked in self._waiting.pop(key):
            if not asked.called:
                asked.callback(outcome)  # a Failure is its errback


def _look_up(host: str, port: int) -> Addresses:
    """On a thread. Raises :class:`DNSLookupError`, and :class:`OSError` where nobody could be asked."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise DNSLookupError(f"{printable(host, 100)}: {error}") from None
    return [
        _KINDS[family]("TCP", *address) for family, _, _, _, address in found if family in _KINDS
    ]


_of: "WeakKeyDictionary[IReactor, _Lookups]" = WeakKeyDictionary()


def _lookups(reactor: IReactor) -> _Lookups:
    found = _of.get(reactor)
    if found is None:
        found = _of[reactor] = _Lookups(reactor)
    return found


@implementer(IReactorPluggableNameResolver, IHostnameResolver, IHostResolution)
class _Knowing:
    """A reactor that knows the addresses of the one name that it will be asked for."""

    def __init__(self, reactor: IReactor, addresses: Addresses) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self.name = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    @property
    def nameResolver(self) -> "_Knowing":
        """See :class:`IReactorPluggableNameResolver`."""
        return self

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """See :class:`IReactorPluggableNameResolver`."""
        raise NotImplementedError

    def resolveHostName(
        self, resolutionReceiver: IResolutionReceiver, hostName: str, *_: Any, **__: Any
    ) -> "_Knowing":
        """See :class:`IHostnameResolver`."""
        resolutionReceiver.resolutionBegan(self)
        for address in self._addresses:
            resolutionReceiver.addressResolved(address)
        resolutionReceiver.resolutionComplete()
        return self

    def cancel(self) -> None:
        """See :class:`IHostResolution`."""
