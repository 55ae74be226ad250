"""A fair queue: so much work at once, so much in line, and each caller in turn."""

from collections import Counter, OrderedDict, deque
from types import TracebackType

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from twisted_mesh.limits.rate_limit import Busy

#: Pieces of work at once. More would only make larger commits, and a longer wait for who comes next.
AT_ONCE = 64
#: Pieces in line.
IN_LINE = 1024
#: Of one caller, at work and in line: a hundred clients that start at once, each with a repetition.
OF_ONE_CALLER = 256
#: Seconds until whoever was turned away is to come again.
RETRY_AFTER = 1.0


@define(eq=False)
class _Waiting:
    """What one holder's callers have in line."""

    callers: "OrderedDict[str, deque[Deferred[None]]]" = field(factory=OrderedDict)
    size: int = 0

    def of(self, caller: str) -> int:
        """Pieces of one of them."""
        return len(self.callers.get(caller, ()))

    def busiest(self) -> str:
        """Who has most."""
        return max(self.callers, key=self.of)


@define(eq=False)
class FairQueue:
    """``async with queue.enter(caller):`` does a piece of work when it is its turn.

    Callers take turns, however much each of them brings; and those who are of one holder share the
    turns of one. When the line is full, whoever has less in it than another takes the place of that
    one's newest piece. Raises :class:`Busy`.
    """

    most: int = AT_ONCE
    waiting: int = IN_LINE
    per_caller: int = OF_ONE_CALLER
    _held: "Counter[str]" = field(factory=Counter, init=False)
    """Pieces of each caller, at work and in line."""
    _line: "OrderedDict[str, _Waiting]" = field(factory=OrderedDict, init=False)
    """By holder; whose turn is next is the first."""
    _inside: int = field(default=0, init=False)
    _waiting: int = field(default=0, init=False)
    _is_letting_in: bool = field(default=False, init=False)

    @property
    def at_work(self) -> int:
        """Pieces of work that are being done."""
        return self._inside

    @property
    def in_line(self) -> int:
        """Pieces of work that wait."""
        return self._waiting

    def enter(self, caller: str, holder: str | None = None) -> "Turn":
        """An async context, in which ``caller`` has its turn; a ``holder`` has several callers, else it is one."""
        return Turn(self, caller, holder)

    async def acquire(self, caller: str, holder: str | None = None) -> None:
        """Wait for a turn; each must be given back by :meth:`release`. Raises :class:`Busy`."""
        holder = holder or caller
        if self._held[caller] >= self.per_caller:
            raise Busy(
                f"you have {self.per_caller} requests under way here: wait for some of them",
                RETRY_AFTER,
            )
        if self._inside < self.most and not self._waiting:
            self._inside += 1
            self._held[caller] += 1
            return
        if self._waiting >= self.waiting:
            self._evict(caller, holder)
        turn: Deferred[None] = Deferred(lambda deferred: self._give_up(caller, holder, deferred))
        waiting = self._line.setdefault(holder, _Waiting())
        waiting.callers.setdefault(caller, deque()).append(turn)
        waiting.size += 1
        self._waiting += 1
        self._held[caller] += 1
        await turn

    def release(self, caller: str) -> None:
        """A piece of work is done."""
        self._inside -= 1
        self._uncount(caller)
        if self._is_letting_in:
            return  # a piece that was done at once: who let it in lets in the next, without recursion
        self._is_letting_in = True
        try:
            while self._waiting and self._inside < self.most:
                self._next().callback(None)
        finally:
            self._is_letting_in = False

    def _next(self) -> "Deferred[None]":
        """The oldest piece of whoever has waited longest for a turn, now counted as inside."""
        holder, waiting = self._line.popitem(last=False)
        caller, pieces = waiting.callers.popitem(last=False)
        turn = pieces.popleft()
        waiting.size -= 1
        if pieces:
            waiting.callers[caller] = pieces
        if waiting.callers:
            self._line[holder] = waiting
        self._waiting -= 1
        self._inside += 1
        return turn

    def _evict(self, newcomer: str, holder: str) -> None:
        """Make room in a full line. Raises :class:`Busy` where the newcomer has as much in it as anybody."""
        busy = Busy(
            f"{self.waiting} requests are in line here: ask again in {RETRY_AFTER:g} s", RETRY_AFTER
        )
        ours = self._line.get(holder, _Waiting())
        largest = max(self._line, key=lambda name: self._line[name].size, default=holder)
        if largest == holder or self._line[largest].size <= ours.size + 1:
            # No other has more: then whoever has more of our own holder.
            largest = holder
            if not ours.size or ours.of(ours.busiest()) <= ours.of(newcomer) + 1:
                raise busy
        caller = self._line[largest].busiest()
        newest = self._line[largest].callers[caller][-1]
        self._forget(caller, largest, newest)
        newest.errback(busy)

    def _give_up(self, caller: str, holder: str, turn: "Deferred[None]") -> None:
        """Whoever waited does not any more."""
        if holder in self._line and turn in self._line[holder].callers.get(caller, ()):
            self._forget(caller, holder, turn)

    def _forget(self, caller: str, holder: str, turn: "Deferred[None]") -> None:
        waiting = self._line[holder]
        pieces = waiting.callers[caller]
        pieces.remove(turn)
        waiting.size -= 1
        if not pieces:
            del waiting.callers[caller]
        if not waiting.callers:
            del self._line[holder]
        self._waiting -= 1
        self._uncount(caller)

    def _uncount(self, caller: str) -> None:
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]


@frozen(eq=False)
class Turn:
    """One piece of work at a :class:`FairQueue`."""

    fair_queue: FairQueue
    caller: str
    holder: str | None = None

    async def __aenter__(self) -> None:
        await self.fair_queue.acquire(self.caller, self.holder)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.fair_queue.release(self.caller)
