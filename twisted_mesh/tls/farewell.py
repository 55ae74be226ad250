"""How a connection ends: by a goodbye, within bounds, or at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall

from pki.errors import Problem
from twisted_mesh.interfaces import IFinishing
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.tls.application_side import ApplicationSide
from twisted_mesh.tls.spoken_address import spoken_address
from twisted_mesh.tls.turned_away import TurnedAway
from twisted_mesh.trust.connections import Peer

if TYPE_CHECKING:
    from twisted_mesh.tls.connection import MeshFactory

#: Seconds that a peer has to answer our goodbye; and in all, as long as it still takes what was said before that.
CLOSE_TIMEOUT, TAKING_TIMEOUT = 2.0, 60.0
#: Seconds that a severed connection has to finish what it has begun, and then to answer our goodbye:
#: all is over within a second.
SEVER_GRACE, SEVER_CLOSE_TIMEOUT = 0.5, 0.4


class Farewell(ApplicationSide):
    """The end of a connection that TLS is below of. What it knows of itself besides is the connection's."""

    factory: "MeshFactory"
    wrappedProtocol: Any
    """The application's."""
    connected = 0
    disconnecting = False
    peer: Peer | None = None
    """None where a server took no certificate, and before the handshake."""
    turned_away: TurnedAway | None = None
    """The peer, where it is good and may not connect; then the application is never connected."""
    bytes_heard = 0
    """What TLS has delivered."""
    _timer: IDelayedCall | None = None
    """Of the handshake, and of the end."""
    _severed: Sequence[Problem] = ()
    _is_leaving = False

    def hear_no_more(self, problems: Sequence[Problem]) -> None:
        """Drop what the peer says from now on: what its right rested on is gone. :meth:`sever` closes."""
        self._severed = self._severed or tuple(problems)

    def sever(self, problems: Sequence[Problem]) -> None:
        """Hear no more, and close: what the peer's right rested on is gone.

        A protocol that is :class:`IFinishing` may finish what it has begun, within
        :data:`SEVER_GRACE`. The peer is told nothing but goodbye: an alert with the reason cannot be
        sent on an established connection through pyOpenSSL's public API.
        """
        self.hear_no_more(problems)
        if self._is_leaving or not self.connected:
            return
        self._is_leaving = True
        peer, address = self.peer, self.getPeer()
        if self.disconnecting:
            self._abort_after(SEVER_CLOSE_TIMEOUT)
        elif IFinishing.providedBy(self.wrappedProtocol):
            self._abort_after(SEVER_GRACE)
            try:
                self.wrappedProtocol.finish(problems[0])
            except Exception:
                self.factory.security.log.failure("a protocol broke", event="finish-broke")
                self.abortConnection()
        else:
            self.loseConnection()
        self.factory.security.log.info(
            "Connection of {peer} from {address} closed: {reasons}",
            event="connection-severed",
            peer=str(peer.spiffe_id) if peer else "",
            address=spoken_address(address),
            codes=codes(problems),
            reasons=reasons(problems),
        )

    def loseConnection(self) -> None:
        """Say goodbye; a peer that does not answer is dropped after :data:`CLOSE_TIMEOUT`.

        One that still takes what was said before that, or talks on, has :data:`TAKING_TIMEOUT`.
        """
        if not self.disconnecting:
            self.disconnecting = True
            self.transport.loseConnection()
            if self._severed:
                self._abort_after(SEVER_CLOSE_TIMEOUT)
            elif self.turned_away is not None:
                self._abort_after(CLOSE_TIMEOUT)
            elif self.connected:
                until = self.factory.security.clock.seconds() + TAKING_TIMEOUT
                self._await_goodbye(until, self._pace)

    @property
    def _pace(self) -> tuple[int, int]:
        """By what it is seen that a peer is still busy: what is still to be sent to it, and what was heard of it."""
        below = self.transport
        dropped, unsent = getattr(below, "bytes_dropped", 0), getattr(below, "unsent", 0)
        return unsent, self.bytes_heard + dropped

    def _await_goodbye(self, until: float, before: tuple[int, int]) -> None:
        self._stop_timer()
        if self.connected:
            clock = self.factory.security.clock
            self._timer = clock.callLater(CLOSE_TIMEOUT, self._look_for_goodbye, until, before)

    def _look_for_goodbye(self, until: float, before: tuple[int, int]) -> None:
        self._timer = None
        now = self._pace
        (unsent, heard), (was_unsent, was_heard) = now, before
        is_busy = heard != was_heard or 0 < unsent < was_unsent
        if is_busy and self.factory.security.clock.seconds() < until:
            self._await_goodbye(until, now)
        elif self.connected:
            getattr(self.transport, "hang_up", self.transport.abortConnection)()

    def _abort_after(self, seconds: float) -> None:
        self._stop_timer()
        if self.connected:
            self._timer = self.factory.security.clock.callLater(seconds, self.abortConnection)

    def abortConnection(self) -> None:
        """Close at once, without a goodbye."""
        if self.connected:
            self.transport.abortConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
