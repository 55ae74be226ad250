"""A listener that is running: who waits for room, who is carried, and what becomes of them when it is changed."""

import select
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from pki.errors import Problem
from pki.spiffe import TrustDomain
from pki.svid.x509svid import spiffe_id_of
from twisted_mesh.interfaces import IReactor
from twisted_mesh.limits.rate_limit import LimitedLog, Rate
from twisted_mesh.proxy.dialer import Dialer
from twisted_mesh.proxy.health import Health
from twisted_mesh.proxy.link import Link
from twisted_mesh.proxy.listener import Listener
from twisted_mesh.proxy.protocols import protocols_of
from twisted_mesh.proxy.pump import Side
from twisted_mesh.proxy.seam import Protocols
from twisted_mesh.proxy.tally import Tally
from twisted_mesh.runtime.tasks import sleep
from twisted_mesh.tls.security import Security
from twisted_mesh.trust.judge import Judge

#: Lines of the log for connections that are not carried: callers must not be able to fill the disk. All are counted.
_LOGGED = Rate(20, 100)
#: Seconds between two looks whether all is over.
_LOOK = 0.05


class Callers(Factory):
    """Makes the side of each caller."""

    noisy = False

    def __init__(self, front: "Front") -> None:
        self._front = front

    def buildProtocol(self, addr: IAddress | None) -> Side:
        """See :class:`IProtocolFactory`."""
        return Link(self._front).caller


@define(eq=False)
class Front:
    """One listener of the proxy, while it runs."""

    listener: Listener
    reactor: IReactor
    judge: Judge
    """Of the far side."""
    room: int
    """How many connections are carried at once."""
    log: Logger
    trust_domain: TrustDomain | None = None
    """Ours, whose CA is believed about DNS names."""
    port: Any = field(default=None, init=False)
    """Where callers come from; None before it is bound."""
    security: Security | None = field(default=None, init=False)
    """What connections to the target are secured by; None where they are plain."""
    protocols: Protocols = field(init=False)
    tally: Tally = field(factory=Tally, init=False)
    health: Health = field(init=False)
    warnings: LimitedLog = field(init=False)
    is_draining: bool = field(default=False, init=False)
    _dialer: Dialer = field(init=False)
    _links: dict[Link, None] = field(factory=dict, init=False)
    """Those that are carried."""
    _plain: set[Link] = field(factory=set, init=False)
    """Those of them that have proven nothing, where others prove who they are."""
    _waiting: dict[Link, None] = field(factory=dict, init=False)
    """Those who wait for room, the first first."""
    _is_paused: bool = field(default=False, init=False)
    _unproven: Callable[[], int] = field(default=lambda: 0, init=False)

    def __attrs_post_init__(self) -> None:
        self.protocols = protocols_of(self.listener)
        self.warnings = LimitedLog(self.log, _LOGGED, self.reactor.seconds)
        self.health = Health(self.reactor, self._probe)
        self._dialer = self._made()

    @property
    def clock(self) -> IReactor:
        """See :class:`IFront`."""
        return self.reactor

    def secure(self, security: Security) -> None:
        """Have connections to the target secured by that."""
        self.security = security
        self._dialer = self._made()

    def watch(self, port: Any, unproven: Callable[[], int] = lambda: 0) -> None:
        """Callers come by ``port``; ``unproven`` counts those whose handshake is under way."""
        self.port, self._unproven = port, unproven

    @property
    def callers(self) -> Factory:
        """What is served at the port."""
        return Callers(self)

    def _made(self) -> Dialer:
        checks = () if self.security is None else (self.objection,)
        return Dialer(
            self.reactor, self.listener.target, self.listener.bounds, self.security, checks
        )

    def replace(self, listener: Listener, room: int) -> None:
        """Take another one's rules, target and bounds from now on. Who is carried is for the reviewer to judge."""
        if listener.target != self.listener.target:
            self.health.forget()
        is_strict_now = self.listener.permissive and not listener.permissive
        self.listener, self.room = listener, room
        if is_strict_now:
            for link in (*self._links, *self._waiting):
                if link.peer is None:
                    link.abort("severed")
        self.protocols = protocols_of(listener)
        self._dialer = self._made()
        self._let_in()

    def take_plain(self, address: object) -> None:
        """A caller of a permissive listener speaks no TLS: count who it is, and say so."""
        host = str(getattr(address, "host", "a local process"))
        self.tally.plain_caller(host)
        self.warnings.warn(
            "{listener} is permissive: the caller at {address} speaks no TLS, and is carried without proof",
            event="proxy-plaintext",
            listener=self.listener.name,
            address=host,
        )

    def objection(self, leaf: x509.Certificate) -> Problem | None:
        """Why whoever holds ``leaf`` may not be at the far side, where all rules together would let it."""
        spiffe_id = spiffe_id_of(leaf)
        allow = self.judge.trust.allow
        if spiffe_id is None or not any(pattern.matches(spiffe_id) for pattern in allow):
            return None  # it is refused by these already
        return self.listener.objection(leaf, self.trust_domain)

    # callers

    def dial(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        """See :class:`IFront`; how it ends is told of the target's health."""
        return self.health.hear(self._dialer.dial(factory))

    def _probe(self, factory: IProtocolFactory) -> "Deferred[IProtocol]":
        return self._dialer.dial(factory)

    def opened(self, link: Link) -> None:
        """See :class:`IFront`."""
        if self.is_draining and not self.listener.serves:
            link.abort("drain")
            return
        if self._has_room(link):
            self._begin(link)
        elif len(self._links) < self.room and len(self._waiting) >= self.room - self._plain_room:
            self.warnings.warn(
                "{listener} hangs up on the caller at {address}: callers without TLS have taken their share of room",
                event="proxy-full",
                listener=self.listener.name,
                address=link.where,
            )
            link.abort("full")
        else:
            self._waiting[link] = None
            if len(self._links) >= self.room:
                self._pause()

    def _has_room(self, link: Link) -> bool:
        if len(self._links) >= self.room:
            return False
        is_known = link.peer is not None or not self.listener.serves
        return is_known or len(self._plain) < self._plain_room

    @property
    def _plain_room(self) -> int:
        """How many of a permissive listener's may be without proof: the others would never get in beside a crowd."""
        return max(1, self.room * 3 // 4)

    def _begin(self, link: Link) -> None:
        self._links[link] = None
        if link.peer is None and self.listener.serves:
            self._plain.add(link)
        if len(self._links) >= self.room:
            self._pause()
        link.begin()
        if self.is_draining:
            link.drain()

    def closed(self, link: Link) -> None:
        """See :class:`IFront`."""
        self._links.pop(link, None)
        self._waiting.pop(link, None)
        self._plain.discard(link)
        if self._waiting or self._is_paused:
            # In a turn of its own: a begin that fails at once comes back here.
            self.reactor.callLater(0, self._let_in)

    def _let_in(self) -> None:
        """Those who wait, the first first, while there is room."""
        for link in tuple(self._waiting):
            if self._has_room(link):
                del self._waiting[link]
                self._begin(link)
        if self._is_paused and len(self._links) < self.room:
            self._is_paused = False
            if self.port is not None and not self.is_draining:
                self.port.resumeProducing()

    def _pause(self) -> None:
        """Take no more connections: who comes now waits in the kernel's queue."""
        if not self._is_paused and self.port is not None and not self.is_draining:
            self._is_paused = True
            self.port.pauseProducing()
            self.warnings.warn(
                "{listener} carries {room} connections, as many as it may: who comes now waits. Raise max-connections, "
                "or look who keeps them open",
                event="proxy-full",
                listener=self.listener.name,
                room=self.room,
            )

    @property
    def links(self) -> Sequence[Link]:
        """Who is carried."""
        return tuple(self._links)

    @property
    def waiting(self) -> int:
        """How many have come, and wait for room."""
        return len(self._waiting)

    # the end

    def look(self) -> None:
        """Hang up for those who broke off while nobody reads what they say: the reactor does not watch these."""
        paused = {
            descriptor: link
            for link in (*self._links, *self._waiting)
            for side in (link.caller, link.target)
            if side is not None and side.is_unread and (descriptor := side.descriptor) is not None
        }
        if not paused:
            return
        poll = select.poll()
        for descriptor in paused:
            poll.register(descriptor, 0)
        for descriptor, event in poll.poll(0):
            link = paused[descriptor]
            if event & select.POLLERR:
                is_caller = link.caller.descriptor == descriptor
                link.abort("caller-reset" if is_caller else "target-reset")

    def take_no_more(self) -> None:
        """Let what is carried finish."""
        if not self.is_draining:
            self.is_draining = True
            for link in self.links:
                link.drain()

    async def drain(self, seconds: float, is_hurried: Callable[[], bool]) -> int:
        """Let what is carried, and handshakes that are under way, finish; how many had to be cut off.

        Without waiting any longer once ``is_hurried``.
        """
        self.take_no_more()
        until = self.reactor.seconds() + seconds
        while self._is_busy and self.reactor.seconds() < until and not is_hurried():
            await sleep(self.reactor, _LOOK)
        return self.cut("drain")

    @property
    def _is_busy(self) -> bool:
        return bool(self._links or self._waiting or self._unproven())

    def cut(self, reason: str) -> int:
        """Hang up on everybody; how many that were."""
        late = (*self._links, *self._waiting)
        self._waiting.clear()
        for link in late:
            link.abort(reason)
        return len(late)
