"""A connection: between TLS below and the application above, which it joins once all is proven."""

from collections.abc import Awaitable, Sequence
from typing import Any

from attrs import define
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from twisted_mesh.limits.connection_limit import Place
from twisted_mesh.runtime import meters
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.tls import groups, verify
from twisted_mesh.tls.alerts import PeerRefused, as_error, problem_of
from twisted_mesh.tls.expectation import Expectation
from twisted_mesh.tls.farewell import Farewell
from twisted_mesh.tls.handshake_meter import HandshakeMeter
from twisted_mesh.tls.no_group import offered_in_vain, without_group
from twisted_mesh.tls.own_chain import explained
from twisted_mesh.tls.security import Security
from twisted_mesh.tls.spoken_address import spoken_address
from twisted_mesh.tls.turned_away import TurnedAway
from twisted_mesh.tls.verify import Handshake

#: The share of what is left of the time for a handshake, for finding out about a peer.
_FOR_PEER_CHECK = 0.9


@implementer(IProtocolFactory, ILoggingContext)
@define(eq=False)
class MeshFactory:
    """Makes the connections of one listener, or the one of one attempt to connect."""

    wrapped: Any
    """The application's."""
    security: Security
    client: Expectation | None

    def logPrefix(self) -> str:
        """By this Twisted tells what starts to listen."""
        named = getattr(self.wrapped, "logPrefix", None)
        return f"{named() if named else type(self.wrapped).__name__} (TLS)"

    def doStart(self) -> None:
        """See :class:`IProtocolFactory`."""
        self.wrapped.doStart()

    def doStop(self) -> None:
        """See :class:`IProtocolFactory`."""
        self.wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> "MeshConnection | None":
        """A connection around the application's protocol; None where that wants none."""
        inner = self.wrapped.buildProtocol(addr)
        return None if inner is None else MeshConnection(self, inner)


@implementer(IHandshakeListener, IProtocol)
class MeshConnection(Farewell):
    """One TLS connection: between TLS below and the application above, which it joins once all is proven.

    To the one it is a protocol, to the other a transport.
    """

    place: Place | None = None
    """Among the connections of a server that bounds them."""
    meter: HandshakeMeter | None = None
    """What the handshake costs."""
    is_secured = False
    has_answered = True
    """Whether the TLS handshake is done, whatever became of it."""

    def __init__(self, factory: MeshFactory, wrapped: IProtocol) -> None:
        self.factory = factory
        self.wrappedProtocol: Any = wrapped
        self._established = False
        self._began = factory.security.clock.seconds()
        self._timer: IDelayedCall | None = None
        self._severed: Sequence[Problem] = ()
        self._is_leaving = False
        self._too_slow = False
        self._one_too_many = False
        self._held: list[bytes] | None = None
        """What the peer says while something is still to be found out about it."""

    def connectionMade(self) -> None:
        """See :class:`IProtocol`: all of it is in :meth:`makeConnection`."""

    def makeConnection(self, transport: Any) -> None:
        """TCP is connected: the time for the handshake begins."""
        self.connected, self.transport = 1, transport
        security = self.factory.security
        self._timer = security.clock.callLater(security.handshake_timeout, self._out_of_time)
        if self.factory.client is not None:
            self.factory.client.connection = self

    def handshakeCompleted(self) -> None:
        """Let the peer in, or find out about it first. Whatever breaks here closes the connection."""
        self.is_secured = True
        try:
            self._establish()
        except PeerRefused:
            self.transport.abortConnection()
        except ANY_ERROR as error:
            # What this raises would otherwise leave a connection that delivers unproven data.
            self._drop(error)

    def _drop(self, error: BaseException) -> None:
        self.factory.security.log.failure(
            "a connection was dropped: {error}", event="establish-broke", error=str(error)
        )
        self._established = False
        self._held = None
        self.factory.security.registry.discard(self)
        self.transport.abortConnection()

    def _establish(self) -> None:
        connection: SSL.Connection = self.transport.getHandle()
        handshake = verify.handshake_of(connection)
        # First of all, and also of a peer without a certificate, of whom the callback has not heard.
        if self.factory.security.contexts.role.requires_pq and handshake.is_classical(connection):
            raise PeerRefused(handshake.problems)
        handshake.renew()
        # What the callback has judged was presented; OpenSSL is asked where it was not called.
        presented = bool(handshake.presented) or connection.get_peer_certificate() is not None
        demanded = self.factory.security.contexts.role.demands_certificate
        if (presented or demanded) and not handshake.accepted:
            if presented and self._turn_away(connection, handshake):
                return
            if handshake.problems:
                raise PeerRefused(handshake.problems)
            raise RuntimeError("the handshake ended without a verdict on the peer")
        if presented and (crowd := verify.refuse_crowd(connection)) is not None:
            raise PeerRefused((crowd,))
        if handshake.requires_staple and not handshake.is_stapled:
            raise RuntimeError("the handshake ended without a verdict on the staple")
        peer_check = self.factory.security.peer_check
        if peer_check is None or not presented or handshake.verdict is None:
            self._admit(connection, handshake, presented=presented)
            return
        self._held = []
        left = self._timer.getTime() - self.factory.security.clock.seconds() if self._timer else 0.0
        asking = peer_check.objections(handshake.verdict.path, left * _FOR_PEER_CHECK)
        task = spawn(self._check_peer(asking), "asking about a peer", self.factory.security.log)
        if not task.called:
            self.pauseProducing()

    def _turn_away(self, connection: SSL.Connection, handshake: Handshake) -> bool:
        """Tell a peer that is merely not allowed so, and nothing else; False where it is not one, or not told here."""
        explain = self.factory.security.explain
        if explain is None or not handshake.turn_away():
            return False
        if verify.refuse_crowd(connection) is not None:
            return False
        peer = verify.peer_of(connection, handshake)
        self.turned_away = TurnedAway(peer, explain(peer, handshake.problems[0]), self)
        self.factory.security.registry.turned_away.add(self.turned_away)
        self._log_refusal(handshake.problems)
        return True

    async def _check_peer(self, asking: Awaitable[Sequence[Problem]]) -> None:
        """Let the peer in, or drop it, once it is known what there is to object."""
        try:
            problems = await asking
            if not self.connected or self._too_slow:
                return
            connection: SSL.Connection = self.transport.getHandle()
            handshake = verify.handshake_of(connection)
            if problems:
                handshake.problems = tuple(problems)
            # Nobody reviews who is not established: what has changed meanwhile counts too.
            handshake.renew()
            if not handshake.accepted:
                self.transport.abortConnection()
                return
            self._admit(connection, handshake, presented=True)
            held, self._held = self._held or (), None
            if self.is_paused and self._established:
                # Before the application hears anything: it may want to pause the peer itself.
                self.resumeProducing()
            for data in held:
                if self.connected:
                    self.dataReceived(data)
        except ANY_ERROR as error:
            self._drop(error)

    def _admit(self, connection: SSL.Connection, handshake: Handshake, *, presented: bool) -> None:
        self._stop_timer()
        if presented and handshake.verdict is not None:
            self.peer = peer = verify.peer_of(connection, handshake)
            place, security = self.place, self.factory.security
            if place is not None and security.judge.only_renews(peer):
                place = (
                    None  # whoever has the stolen key of a CA must not take the places of others
                )
            if place is not None and not place.prove(str(peer.spiffe_id)):
                self._one_too_many = True
                self.abortConnection()
                return
            if place is not None and security.holder_of is not None:
                finding = self._find_holder(place, security.holder_of(peer))
                _ = spawn(finding, "asking who holds a connection", security.log)
        self._established = True
        meters.exchanged(groups.group_of(connection))
        meters.ACCEPTED(self.factory.security.clock.seconds() - self._began)
        self.factory.security.registry.add(self)
        self.wrappedProtocol.makeConnection(self)
        if self.factory.client is not None:
            self.factory.client.established(self.wrappedProtocol)

    async def _find_holder(self, place: Place, asking: Awaitable[str | None]) -> None:
        """Count it with the other connections of whoever answers for them all."""
        if (holder := await asking) is not None:
            place.belong(holder)

    def still_good(self) -> bool:
        """Whether the peer would be let in again now: not expired, not revoked, still allowed."""
        if not self.connected or self._severed:
            return False
        # Asked for each request: who is judged anew is who has a reason.
        return verify.handshake_of(self.transport.getHandle()).holds or not self.objections()

    def objections(self) -> Sequence[Problem]:
        """Judge the peer again, if anything has changed: every reason why it would not be let in now."""
        if not self.connected:
            return ()
        connection: SSL.Connection = self.transport.getHandle()
        if verify.handshake_of(connection).holds:  # asked for each request
            return ()
        handshake = verify.judge_again(connection)
        verdict = handshake.verdict
        if self.peer and verdict and handshake.accepted and verdict.path != self.peer.path:
            self.peer = verify.peer_of(
                connection, handshake
            )  # a root went, another vouches for it too
        return handshake.problems

    @property
    def only_renews(self) -> bool:
        """Whether the peer may have its certificate renewed, and nothing else."""
        return self.peer is not None and self.factory.security.judge.only_renews(self.peer)

    def objections_besides(self) -> Sequence[Problem]:
        """The same of a peer that is turned away: every reason but that it is not among those that may."""
        if not self.connected:
            return ()
        handshake = verify.judge_again(self.transport.getHandle())
        return () if handshake.is_merely_not_allowed else handshake.problems

    def dataReceived(self, data: bytes) -> None:
        """Pass on what an admitted peer says; keep it while the peer is checked; drop all else."""
        self.bytes_heard += len(data)
        if self.turned_away is not None:
            self._tell(data)
        elif self._held is not None:
            self._held.append(data)
        elif self._established and not self._severed:
            self.wrappedProtocol.dataReceived(data)

    def _tell(self, data: bytes) -> None:
        try:
            if self.turned_away is not None:
                self.turned_away.hear(data)
        except ANY_ERROR as error:
            self._drop(error)

    def drop_for(self, problem: Problem) -> None:
        """Close at once, and log why."""
        if self.connected:
            self._log_refusal((problem,))
            self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give everything back, tell the application if it was connected, and log who was refused."""
        self._stop_timer()
        self.connected = 0
        if self.meter is not None:
            self.meter.over(succeeded=self._established)
        made_room = self.place is not None and self.place.made_room
        if self.place is not None:
            self.place.leave()
        if self._established:
            self.factory.security.registry.discard(self)
            if self._severed:
                reason = Failure(PeerRefused(self._severed))
            elif self.factory.client is not None:
                reason = explained(reason, self.factory.security)
            self.wrappedProtocol.connectionLost(reason)
        elif self.turned_away is not None:  # which was logged when it was
            self.factory.security.registry.turned_away.discard(self.turned_away)
        elif not made_room:  # of those one line tells in total
            meters.REFUSED(self.factory.security.clock.seconds() - self._began)
            self._refused(reason)
        self.wrappedProtocol = self.meter = None

    def _refused(self, reason: Failure) -> None:
        problems = self._why(reason)
        client = self.factory.client
        if client is not None:
            ours = verify.handshake_of(self.transport.getHandle()).problems
            if self.meter is not None and self.meter.problem is not None:
                ours = (self.meter.problem,)
            told = explained(reason, self.factory.security)
            error = PeerRefused(ours) if ours else as_error(told, client.reach)
            is_strict = self.factory.security.contexts.role.requires_pq
            client.failed(offered_in_vain(error) if is_strict else error)
            return
        self._log_refusal(problems)

    def _log_refusal(self, problems: Sequence[Problem]) -> None:
        self.factory.security.refusals.warn(
            "Connection from {address} refused: {reasons}",
            event="peer-refused",
            address=spoken_address(self.getPeer()),
            codes=codes(problems),
            reasons=reasons(problems),
        )

    def _why(self, reason: Failure) -> Sequence[Problem]:
        if self.meter is not None and (problem := self.meter.problem) is not None:
            return (problem,)
        if self._too_slow:
            seconds = self.factory.security.handshake_timeout
            detail = f"the TLS handshake was not done within {seconds:g} s"
            return (Problem(Code.HANDSHAKE_TIMEOUT, detail, "look at the network, or at the peer"),)
        if self._one_too_many and self.peer is not None:
            detail = f"{self.peer.spiffe_id} has as many connections as one peer may have"
            return (Problem(Code.TOO_MANY_CONNECTIONS, detail, "look why it opens so many"),)
        handshake = verify.handshake_of(self.transport.getHandle())
        return handshake.problems or (without_group(reason, self.meter) or problem_of(reason),)

    def _out_of_time(self) -> None:
        self._timer = None
        if self.turned_away is not None and self.turned_away.out_of_time():
            return
        self._too_slow = True
        self.abortConnection()
