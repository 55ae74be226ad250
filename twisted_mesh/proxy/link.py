"""One carried connection: from its caller to its target, with what it is told first and how it ends."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol
from twisted.python.failure import Failure

from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem
from twisted_mesh.proxy.link_front import IFront
from twisted_mesh.proxy.link_log import LinkLog, spoken_place
from twisted_mesh.proxy.listener import OnCut
from twisted_mesh.proxy.pump import OfSide, Side
from twisted_mesh.proxy.seam import (
    Caller,
    Close,
    EndCaller,
    EndTarget,
    IFilter,
    PauseCaller,
    ResumeCaller,
    Step,
    ToCaller,
    ToTarget,
)
from twisted_mesh.proxy.tally import NOBODY, OfPeer
from twisted_mesh.proxy.watch import Watch
from twisted_mesh.tls.alerts import HungUp, RefusedByPeer
from twisted_mesh.tls.connection import MeshConnection
from twisted_mesh.trust.connections import Peer

#: Seconds from the end of a handshake in which whoever is let in has said what it came for.
_JUST_COME = 1.0


class Link:
    """A connection and the one that it is carried by."""

    peer: Peer | None = None
    """Who is at the far side: it has proven that."""
    has_begun = False
    """Whether it has taken room."""

    def __init__(self, front: IFront) -> None:
        self.front = front
        self.caller = Side(self)
        self.target: Side | None = None
        self.began = front.clock.seconds()
        self.address: Any = None
        self._listener = front.listener
        self._log = LinkLog(front.listener, front.log, front.warnings)
        self._filter: IFilter | None = None
        self._dialing: Deferred[IProtocol] | None = None
        self._reason = ""
        self._watch = Watch(self, front.listener.bounds, front.clock)
        self._of_peer: OfPeer | None = None
        self._is_draining = False
        self._drain_later: IDelayedCall | None = None
        self._is_over = False

    # its life

    def connected(self, side: Side) -> None:
        """See :class:`ILink`."""
        if side is self.caller:
            self.address = side.transport.getPeer()
            self._meet(side)
            self.front.opened(self)

    def begin(self) -> None:
        """There is room: reach the target."""
        self.has_begun = True
        self._watch.look_later()
        target = Side(self)
        dialing = self.front.dial(OfSide(target))
        self._dialing = dialing
        _ = dialing.addCallbacks(self._join, self._unreached).addErrback(self._broke)

    def _meet(self, side: Side) -> None:
        """Who is at the far side, if this is it."""
        if isinstance(side.transport, MeshConnection):
            self.peer = side.transport.peer
        if self._of_peer is None and (side is not self.caller or self._listener.serves):
            name = NOBODY if self.peer is None else str(self.peer.spiffe_id)
            self._of_peer = self.front.tally.peer(name)
            self._of_peer.connections += 1
            self._of_peer.open += 1

    @property
    def who(self) -> str:
        """The far side, in words."""
        return NOBODY if self.peer is None else str(self.peer.spiffe_id)

    @property
    def where(self) -> str:
        """Where the caller is, in words."""
        return spoken_place(self.address)

    def facts(self) -> Caller:
        """What may be told of the caller."""
        transport = self.caller.transport
        where = (self._listener, self.address, transport.getHost())
        if not isinstance(transport, MeshConnection):
            return Caller(*where)
        judge = transport.factory.security.judge
        return Caller(
            *where,
            transport.peer,
            transport.getHandle(),
            transport.objections,
            lambda: judge.now,
        )

    def _join(self, protocol: Any) -> None:
        """The target is there, and judged: carry."""
        self._dialing = None
        caller, target = self.caller, protocol
        self.target = target
        self._meet(target)
        if caller.is_lost or self._reason:
            self.abort(self._reason or "caller-reset")
            return
        self._log.carried(self.who, self.address)
        protocols = self.front.protocols
        try:
            facts = self.facts()
            if protocols.opening is not None:
                target.write(protocols.opening(facts))
            if protocols.filter is not None:
                self._filter = protocols.filter(facts)
        except ANY_ERROR:
            self._break()
            return
        caller.join(target)
        target.join(caller)
        target.begin()
        caller.begin()
        if self._is_draining:
            self.drain()

    def _unreached(self, failure: Failure) -> None:
        """There is no target: the caller learns it by a reset, and the log has the reason."""
        self._dialing = None
        if failure.check(CancelledError) or self._reason:
            self.abort(self._reason or "broken")
            return
        error = failure.value
        if not isinstance(error, PkiError):
            failure.raiseException()
        problem = error.problems[0]
        if problem.code in (Code.UNREACHABLE, Code.INTERRUPTED):
            self._reason = "target-unreachable"
            self._say_why(error, event="proxy-target-unreachable")
        else:
            self._reason = "target-refused"
            self._say_why(error, event="proxy-target-refused")
        protocols = self.front.protocols
        if protocols.filter is not None and not self.caller.is_lost:
            self._filter = protocols.filter(self.facts())
            self._take(self._filter.unreachable(problem))
            self.caller.close()
        else:
            self.abort(self._reason)

    def _say_why(self, error: PkiError, *, event: str) -> None:
        self._log.not_carried(self.who, self.address, error, event)
        self.front.tally.refused[error.problems[0].code] += 1

    def _broke(self, failure: Failure) -> None:
        self.front.log.failure("a link broke", failure=failure, event="proxy-broke")
        self.abort("broken")

    def _break(self) -> None:
        self.front.log.failure("a link broke", event="proxy-broke")
        self.abort("broken")

    # what is said

    @property
    def is_filtered(self) -> bool:
        """See :class:`ILink`."""
        return self._filter is not None

    def heard(self, side: Side, data: bytes) -> None:
        """See :class:`ILink`."""
        if self._filter is None:
            other = side.other
            if other is not None:
                other.write(data)
            return
        try:
            if side is self.caller:
                self._take(self._filter.from_caller(data))
                if self._filter is not None:  # it may be over
                    self._watch.wait_for_the_rest(self._filter.half_told)
            else:
                self._take(self._filter.from_target(data))
        except ANY_ERROR:
            self._break()

    def ended(self, side: Side) -> None:
        """See :class:`ILink`."""
        if self._filter is not None:
            try:
                is_caller = side is self.caller
                self._take(
                    self._filter.caller_ended() if is_caller else self._filter.target_ended()
                )
            except ANY_ERROR:
                self._break()
        elif side.other is not None:
            side.other.shut()
        self._watch.begin_anew()

    def _take(self, steps: Sequence[Step]) -> None:
        """Do what a filter says."""
        caller, target = self.caller, self.target
        for step in steps:
            if isinstance(step, ToTarget):
                if target is not None and not target.is_lost:
                    target.write(step.data)
            elif isinstance(step, ToCaller):
                if not caller.is_lost:
                    caller.write(step.data)
            elif isinstance(step, EndTarget):
                if target is not None:
                    target.shut()
            elif isinstance(step, EndCaller):
                caller.shut()
            elif isinstance(step, PauseCaller):
                caller.hold()
            elif isinstance(step, ResumeCaller):
                caller.release()
            elif isinstance(step, Close):
                self.close(step.reason)

    # how it ends

    def lost(self, side: Side, reason: Failure, *, is_clean: bool) -> None:
        """See :class:`ILink`."""
        other = self.target if side is self.caller else self.caller
        if side is self.target and not self._reason and not side.bytes_heard:
            self._hear_of_refusal(reason)
        if not self._reason and not is_clean:
            # Of what has said all, a reset says only that it listens no more.
            both = other is not None and other.has_ended and side.has_ended
            self._reason = (
                "done" if both else "caller-reset" if side is self.caller else "target-reset"
            )
        if other is not None and not other.is_lost:
            if is_clean:
                other.close()
            elif self._filter is None and self._ends_softly and reason.check(HungUp):
                other.close()
                self._watch.close_soon()
            elif side is self.caller or not self._is_told_of_loss():
                other.abort()
        if self._dialing is not None:
            self._reason = self._reason or "done"
            self._dialing.cancel()
        self._over()

    @property
    def _ends_softly(self) -> bool:
        return self._listener.on_cut is OnCut.END and self.target is not None

    def cut(self, reason: str) -> None:
        """See :class:`~twisted_mesh.proxy.watch.IWatched`."""
        if self._watch.is_closing or not self._ends_softly:
            self.abort(reason)
        else:
            self._watch.close_soon()
            self.close(reason)

    def give_up(self) -> None:
        """See :class:`~twisted_mesh.proxy.watch.IWatched`."""
        self.abort(self._reason)

    def too_slow(self) -> None:
        """See :class:`~twisted_mesh.proxy.watch.IWatched`."""
        if self._filter is not None:
            try:
                self._take(self._filter.too_slow())
            except ANY_ERROR:
                self._break()

    def _is_told_of_loss(self) -> bool:
        """Whether the caller has been told in its own language that its target is lost, or will be."""
        if self._filter is None or self._reason != "target-reset":
            return False
        try:
            steps = self._filter.target_lost()
            if steps is None:
                return False
            self._take(steps)
        except ANY_ERROR:
            self._break()
            return False
        self._watch.begin_anew()
        return True

    def _hear_of_refusal(self, reason: Failure) -> None:
        """Whether the target has refused us: in TLS 1.3 it says so once our own handshake is over."""
        if isinstance(reason.value, RefusedByPeer):
            self._reason = "target-refused"
            self._say_why(reason.value, event="proxy-target-refused")

    def refused(self, side: Side, problem: Problem) -> None:
        """See :class:`ILink`."""
        # By a reset at both sides: after a goodbye what was said would be taken for all of it.
        self.abort("severed")

    def close(self, reason: str) -> None:
        """Send what is still to be sent, and close both sides."""
        self._reason = self._reason or reason
        for side in (self.caller, self.target):
            if side is not None:
                side.close()
        self._watch.look_later()

    def abort(self, reason: str) -> None:
        """Close both sides at once."""
        self._reason = self._reason or reason
        if self._dialing is not None:
            self._dialing.cancel()
        for side in (self.caller, self.target):
            if side is not None:
                side.abort()
        self._over()

    def drain(self) -> None:
        """Begin nothing new, where what is carried has beginnings; who has just come may still ask."""
        self._is_draining = True
        if self._filter is None or self._drain_later is not None:
            return
        if (left := _JUST_COME - self.age) > 0:
            self._drain_later = self.front.clock.callLater(left, self._finish)
        else:
            self._finish()

    def _finish(self) -> None:
        self._drain_later = None
        if self._filter is not None:
            try:
                self._take(self._filter.finish())
            except ANY_ERROR:
                self._break()

    @property
    def bytes_heard(self) -> tuple[int, int]:
        """From the caller, and from the target."""
        return self.caller.bytes_heard, 0 if self.target is None else self.target.bytes_heard

    @property
    def age(self) -> float:
        """Seconds since its caller was let in."""
        return self.front.clock.seconds() - self.began

    @property
    def is_half_over(self) -> bool:
        """See :class:`~twisted_mesh.proxy.watch.IWatched`."""
        target = self.target
        if target is None:
            return False
        return bool(self._reason or self.caller.has_ended or target.has_ended)

    def _over(self) -> None:
        """Give everything back, once both sides are gone."""
        target = self.target
        is_target_gone = self._dialing is None if target is None else target.is_lost
        if self._is_over or not self.caller.is_lost or not is_target_gone:
            return
        self._is_over = True
        self._watch.stop()
        if self._drain_later is not None:
            self._drain_later.cancel()
            self._drain_later = None
        self.front.closed(self)
        self._filter = None
        if not self.has_begun:
            return
        tally, (there, back) = self.front.tally, self.bytes_heard
        self.has_begun = False
        tally.end(self._reason or "done")
        if self._of_peer is not None:
            self._of_peer.open -= 1
            self._of_peer.from_caller += there
            self._of_peer.from_target += back
            self._of_peer = None
        if target is not None:
            self._log.ended(self.who, self.address, self._reason or "done", self.age, there, back)
