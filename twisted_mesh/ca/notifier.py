"""The notifier: who waits for news of what is to be believed, and is told when there is some.

Each issue of it wakes all who wait. What happens soon after an issue is told with the next one, so
that a thousand revocations in a second cost a few dozen issues, and the more are told the rarer.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import islice
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from pki.svid.revocation_set import Revocation
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.limits.holder_queue import HolderQueue
from twisted_mesh.runtime.tasks import spawn
from twisted_mesh.runtime.turns import Turns

T = TypeVar("T")

#: Seconds between two issues at least.
PAUSE = 0.02
#: Seconds more for each who was told by the last one: answering a thousand takes a third of a second.
_FOR_EACH = 0.0005
#: So many are told in one turn of the reactor.
_A_TURN = 50
#: So many answers are kept for others who ask the same.
_MOST_KEPT = 64
#: So many are made at once; whoever asks for others waits for a turn, and the store is not overrun.
_AT_ONCE = 32


@define(eq=False, repr=False)
class _Waiter:
    who: str
    holder: str
    woken: "Deferred[None]" = field(factory=Deferred)
    timer: IDelayedCall | None = None


@define(eq=False, repr=False)
class _Kept:
    """An answer that is being made, or was."""

    value: Any = None
    """Whatever the key stands for."""
    is_made: bool = False
    waiting: "list[Deferred[None]]" = field(factory=list)


@implementer(IRevocationListener)
@define(eq=False, repr=False)
class Notifier:
    """Counts its issues and holds who waits for the next one, ``most`` at most, ``most_of_one`` of one caller.

    Where as many wait as may, a newcomer takes the place of whoever of the largest holder has waited longest,
    unless its own holder has as many: what let several IDs in is one.
    """

    clock: IReactorTime
    most: int = 512
    most_of_one: int = 128
    number: int = field(default=0, init=False)
    """Of the latest issue."""
    is_closed: bool = field(default=False, init=False)
    _waiting: dict[_Waiter, None] = field(factory=dict, init=False)
    _by_one: "Counter[str]" = field(factory=Counter, init=False)
    _by_holder: HolderQueue[_Waiter] = field(factory=HolderQueue, init=False)
    _kept: dict[Hashable, _Kept] = field(factory=dict, init=False)
    _under_way: "dict[Hashable, list[Deferred[Any]]]" = field(factory=dict, init=False)
    """Who has asked for something new while one was being made, by what they ask for."""
    _recent: dict[Hashable, tuple[Any, float]] = field(factory=dict, init=False)
    """What was made last, and when that was begun."""
    _announced: int = field(default=0, init=False)
    _turns: Turns = field(factory=lambda: Turns(_AT_ONCE), init=False)
    _issue: IDelayedCall | None = field(default=None, init=False)
    """Of what has been announced and not told yet."""
    _not_before: float = field(default=0.0, init=False)
    _waking: list[_Waiter] = field(factory=list, init=False)
    _turn: IDelayedCall | None = field(default=None, init=False)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def has_news(self) -> bool:
        """Whether something has been announced that the next issue will tell, in a moment."""
        return self._issue is not None

    def has_room(self, who: str, holder: str | None = None) -> bool:
        """Whether ``who`` may wait too. A connection that waits is one that nobody else can have."""
        if self.is_closed or self._by_one[who] >= self.most_of_one:
            return False
        queue = self._by_holder
        return len(self._waiting) < self.most or queue.largest > queue.size_of(holder or who) + 1

    def announce(self) -> None:
        """There is something to tell; what is asked for from now on has it."""
        self._kept.clear()
        self._recent.clear()
        self._announced += 1
        if self._issue is None and not self.is_closed:
            pause = max(0.0, self._not_before - self.clock.seconds())
            self._issue = self.clock.callLater(pause, self._come_out)

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """Whoever waits is told with the next issue."""
        self.announce()

    async def wait(
        self,
        seen: int,
        who: str,
        seconds: float,
        gone: "Deferred[None] | None" = None,
        holder: str | None = None,
    ) -> bool:
        """Until there is an issue after the one ``seen``; False after so many seconds without any.

        Once ``gone`` has fired nobody waits any more; one such may see several waits to their end.
        """
        if self.number != seen or self.is_closed:
            return True
        if seconds <= 0:
            return False
        waiter = _Waiter(who, holder or who)
        if len(self._waiting) >= self.most and self._waiting:
            self._wake(self._by_holder.first_of_largest())
        self._waiting[waiter] = None
        self._by_holder.add(waiter.holder, waiter)
        self._by_one[who] += 1
        waiter.timer = self.clock.callLater(seconds, self._wake, waiter)
        if gone is not None:
            _ = gone.addCallback(lambda _: self._wake(waiter))
        await waiter.woken
        return self.number != seen or self.is_closed

    async def shared(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """What ``make`` comes to: made once for all who ask for ``key`` until the next issue."""
        kept = self._kept.get(key)
        if kept is None:
            while len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[key] = _Kept()
            try:
                kept.value = await self._made(make)
                kept.is_made = True
            finally:
                if not kept.is_made and self._kept.get(key) is kept:
                    del self._kept[key]
                waiting, kept.waiting = kept.waiting, []
                for deferred in waiting:
                    deferred.callback(None)
        elif not kept.is_made:
            turn: Deferred[None] = Deferred()
            kept.waiting.append(turn)
            await turn
        if not kept.is_made:
            return await self._made(make)
        value: T = kept.value
        return value

    async def fresh(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """What ``make`` comes to, begun after this was asked for: once for all who ask while another is being made."""
        line = self._under_way.get(key)
        if line is not None:
            turn: Deferred[T] = Deferred()
            line.append(turn)
            return await turn
        self._under_way[key] = []
        try:
            return await self._made(make)
        finally:
            self._go_on(key, make)

    async def recent(
        self, key: Hashable, make: Callable[[], Awaitable[T]], seconds: float
    ) -> tuple[T, float]:
        """What ``make`` comes to, begun so many seconds ago at most; and when it was, on the clock.

        Nothing has been announced since then.
        """
        known = self._recent.get(key)
        if known is not None and self.clock.seconds() - known[1] <= seconds:
            return known

        async def timed() -> tuple[T, float]:
            began, announced = self.clock.seconds(), self._announced
            made = await make(), began
            if announced == self._announced:
                while len(self._recent) >= _MOST_KEPT:
                    del self._recent[next(iter(self._recent))]
                self._recent[key] = made
            return made

        return await self.fresh(("recent", key), timed)

    def _go_on(self, key: Hashable, make: Callable[[], Awaitable[Any]]) -> None:
        if line := self._under_way.pop(key):
            self._under_way[key] = []
            _ = spawn(self._make_for(line, key, make), "making an answer for many")

    async def _make_for(
        self, line: "list[Deferred[Any]]", key: Hashable, make: Callable[[], Awaitable[Any]]
    ) -> None:
        try:
            outcome: object = await self._made(make)
        except Exception as error:
            outcome = Failure(error)
        finally:
            self._go_on(key, make)
        for turn in line:
            if not turn.called:  # it may have been called off
                turn.callback(outcome)

    async def _made(self, make: Callable[[], Awaitable[T]]) -> T:
        await self._turns.acquire()
        try:
            return await make()
        finally:
            self._turns.release()

    def close(self) -> None:
        """Let everybody go, and from now on nobody wait."""
        self.is_closed = True
        for call in (self._issue, self._turn):
            if call is not None and call.active():
                call.cancel()
        self._issue = self._turn = None
        self._kept.clear()
        self._waking.clear()
        for waiter in tuple(self._waiting):
            self._wake(waiter)

    def _come_out(self) -> None:
        self._issue = None
        self.number += 1
        self._kept.clear()
        self._waking.extend(self._waiting)
        pause = max(PAUSE, _FOR_EACH * len(self._waking))
        self._not_before = self.clock.seconds() + pause
        if self._turn is None:
            self._tell_some()

    def _tell_some(self) -> None:
        """Wake the first of them, and others in further turns."""
        self._turn = None
        some = tuple(islice(self._waking, _A_TURN))
        del self._waking[: len(some)]
        for waiter in some:
            self._wake(waiter)
        if self._waking:
            self._turn = self.clock.callLater(0, self._tell_some)

    def _wake(self, waiter: _Waiter) -> None:
        if waiter not in self._waiting:
            return  # it has been
        del self._waiting[waiter]
        self._by_holder.remove(waiter.holder, waiter)
        self._by_one[waiter.who] -= 1
        if not self._by_one[waiter.who]:
            del self._by_one[waiter.who]
        if waiter.timer is not None and waiter.timer.active():
            waiter.timer.cancel()
        waiter.woken.callback(None)
