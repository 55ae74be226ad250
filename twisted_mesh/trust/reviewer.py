"""The review of open connections: whenever what is believed changes, those that rest on it are judged again.

A verdict is given in the handshake, and a connection may outlive all that it rested on: a
certificate is revoked or expires, a root is removed, a rule is changed. The reviewer is the only one
who swaps a judge's trust, so that no change can pass open connections by. What it costs depends on
what changed, not on how many are connected.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from attrs import define, evolve, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import ANY_ERROR, Problem
from pki.svid.revocation_set import Revocation
from twisted_mesh.runtime import meters
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.trust.connections import ConnectionIndex, ConnectionRegistry, LiveConnection, Peer
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust

#: Seconds of one turn of the reactor at least that go to the review; more where others have had more since the last.
#: Counted in time: what is counted in connections comes to nothing beside those who are cut and come back.
A_TURN = 0.005
#: Of the reactor's time the review has three quarters while there is much to do: about a second for thousands.
_TIMES_THE_OTHERS = 3

_BROKEN = Problem(
    Code.INTERNAL,
    "it could not be judged again because of a bug",
    "the log has a traceback: report it",
)


@define(eq=False, repr=False)
class Reviewer:
    """Swaps what a judge believes, and severs the connections that would not be let in any more."""

    judge: Judge
    registry: ConnectionRegistry
    clock: IReactorTime
    log: Logger
    now: Now = wall_clock
    _waiting: dict[LiveConnection, None] = field(factory=dict, init=False)
    """To be judged, in that order, each once."""
    _leaving: dict[LiveConnection, Sequence[Problem]] = field(factory=dict, init=False)
    """Heard no more, and to be closed, because of these."""
    _turn: IDelayedCall | None = field(default=None, init=False)
    _left_at: float = field(default=0.0, init=False)
    """When the last turn was over, on the clock."""
    _was_stale: bool = field(default=False, init=False)
    _was_pinned: bool = field(default=False, init=False)
    """Whether pins were enforced at the last look."""

    def believe(self, trust: Trust, news: Sequence[Revocation] | None = None) -> None:
        """Believe ``trust`` from now on, as the next generation.

        ``news`` are the revocations that it holds and the present trust does not; without them
        every certificate that somebody rests on is looked up.
        """
        old = self.judge.trust
        self.judge.trust = evolve(trust, generation=old.generation + 1)
        self._review(self._concerned(old, trust, news))

    def look_at_the_clock(self, now: datetime) -> None:
        """Review whoever rests on a certificate that has ended; everybody once revocations are too old.

        And everybody once pins are enforced, or are not any more: a clock can also be put back.
        """
        for index in self._indexes:
            self._review(iter(index.ended(now)))
        was_stale, self._was_stale = self._was_stale, self.judge.freshness.refuses
        was_pinned, self._was_pinned = self._was_pinned, self.judge.trust.pins.enforced_at(now)
        if (self._was_stale and not was_stale) or self._was_pinned is not was_pinned:
            # As another generation, so that those are judged again too whose handshake is under way.
            self.review()

    def review(self) -> None:
        """Judge everybody again, those too whose handshake is under way: what they must satisfy has changed."""
        self.believe(self.judge.trust)
        for index in self._indexes:
            self._review(iter(index.all()))

    @property
    def _indexes(self) -> Sequence[ConnectionIndex]:
        return self.registry, self.registry.turned_away

    def _concerned(
        self, old: Trust, new: Trust, news: Sequence[Revocation] | None
    ) -> Iterator[LiveConnection]:
        for index in self._indexes:
            yield from _concerned(index, old, new, news)

    def _review(self, connections: Iterator[LiveConnection]) -> None:
        """Judge them again: the first at once, many of them in turns, so that others are served meanwhile."""
        self._waiting.update(dict.fromkeys(connections))
        if self._turn is None and self._waiting:
            self._left_at = self.clock.seconds()
            self._take_a_turn()

    def _take_a_turn(self) -> None:
        """Judge, and then close: nobody who has to go is heard while others are said goodbye to.

        Its length is by what others have had since the last turn, which grows with those who are cut and come back.
        """
        self._turn = None
        now = self.clock.seconds()
        until = now + max(A_TURN, _TIMES_THE_OTHERS * (now - self._left_at))
        while self._waiting or self._leaving:
            if self._waiting:
                connection = next(iter(self._waiting))
                del self._waiting[connection]
                for index in self._indexes:
                    if connection in index:
                        self._judge(connection, index)
            else:
                connection = next(iter(self._leaving))
                self._sever(connection, self._leaving.pop(connection))
            if self.clock.seconds() >= until:
                break
        self._left_at = self.clock.seconds()
        if self._waiting or self._leaving:
            self._turn = self.clock.callLater(0, self._take_a_turn)

    def _judge(self, connection: LiveConnection, index: ConnectionIndex) -> None:
        try:
            problems = connection.objections()
        except ANY_ERROR:  # a bug shuts the door
            self.log.failure("a connection could not be judged again", event="review-broke")
            problems = (_BROKEN,)
        if problems:
            index.release(connection)
            connection.hear_no_more(problems)
            self._leaving[connection] = problems
        else:
            index.add(connection)  # its path may be another one now

    def _sever(self, connection: LiveConnection, problems: Sequence[Problem]) -> None:
        try:
            connection.sever(problems)
        except Exception:  # the others are closed all the same
            self.log.failure("a connection could not be closed", event="review-broke")
        if connection.peer is not None and any(
            problem.code == Code.REVOKED for problem in problems
        ):
            self._measure(connection.peer)

    def _measure(self, peer: Peer) -> None:
        """How long it took from the revocation to here."""
        revocations = self.judge.trust.revocations
        for issuer, serial in peer.credentials():
            revoked = revocations.find(issuer, serial)
            if revoked is not None:
                meters.cut(revoked.revoked_at, self.now())
                return


def _concerned(
    registry: ConnectionIndex, old: Trust, new: Trust, news: Sequence[Revocation] | None
) -> Iterator[LiveConnection]:
    """Those whose right to be connected may rest on what is in ``old`` and not in ``new``."""
    if new.policy is not old.policy or new.demand is not old.demand:
        yield from registry.all()
        return
    if new.revocations is not old.revocations:
        if news is not None and len(news) <= registry.credential_count:
            for revocation in news:
                yield from registry.resting_on(revocation.issuer, revocation.serial)
        else:
            for issuer, serial in registry.credentials:
                if new.revocations.find(issuer, serial):
                    yield from registry.resting_on(issuer, serial)
    if new.bundles is not old.bundles:
        held = {(bundle.trust_domain, root) for bundle in new.bundles for root in bundle.roots}
        for bundle in old.bundles:
            for root in bundle.roots:
                if (bundle.trust_domain, root) not in held:
                    yield from registry.ending_in(root)
    if withdrawn := set(old.allow) - set(new.allow):
        for spiffe_id in registry.spiffe_ids:
            if any(pattern.matches(spiffe_id) for pattern in withdrawn) and not any(
                pattern.matches(spiffe_id) for pattern in new.allow
            ):
                yield from registry.of(spiffe_id)
    if new.pins and new.pins is not old.pins:
        for spiffe_id in registry.spiffe_ids:
            for connection in registry.of(spiffe_id):
                peer = connection.peer
                if peer is not None and new.pins.are_broken_by(spiffe_id, peer.path):
                    yield connection
