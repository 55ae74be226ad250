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
class FairQueue:
    """``async with queue.enter(caller):`` does a piece of work when it is its turn.

    Callers take turns, however much each of them brings. When the line is full, a caller who has less
    in it than another takes the place of that one's newest piece. Raises :class:`Busy`.
    """

    most: int = AT_ONCE
    waiting: int = IN_LINE
    per_caller: int = OF_ONE_CALLER
    _held: "Counter[str]" = field(factory=Counter, init=False)
    """Pieces of each caller, at work and in line."""
    _line: "OrderedDict[str, deque[Deferred[None]]]" = field(factory=OrderedDict, init=False)
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

    def enter(self, caller: str) -> "Turn":
        """An async context, in which ``caller`` has its turn."""
        return Turn(self, caller)

    async def acquire(self, caller: str) -> None:
        """Wait for a turn; each must be given back by :meth:`release`. Raises :class:`Busy`."""
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
            self._evict(caller)
        turn: Deferred[None] = Deferred(lambda deferred: self._give_up(caller, deferred))
        self._line.setdefault(caller, deque()).append(turn)
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
        caller, pieces = self._line.popitem(last=False)
        turn = pieces.popleft()
        if pieces:
            self._line[caller] = pieces
        self._waiting -= 1
        self._inside += 1
        return turn

    def _evict(self, newcomer: str) -> None:
        """Make room in a full line. Raises :class:`Busy` where the newcomer has as much in it as anybody."""
        busy = Busy(
            f"{self.waiting} requests are in line here: ask again in {RETRY_AFTER:g} s", RETRY_AFTER
        )
        caller = max(self._line, key=lambda c: len(self._line[c]), default=newcomer)
        if len(self._line.get(caller, ())) <= len(self._line.get(newcomer, ())) + 1:
            raise busy
        newest = self._line[caller][-1]
        self._forget(caller, newest)
        newest.errback(busy)

    def _give_up(self, caller: str, turn: "Deferred[None]") -> None:
        """Whoever waited does not any more."""
        if turn in self._line.get(caller, ()):
            self._forget(caller, turn)

    def _forget(self, caller: str, turn: "Deferred[None]") -> None:
        pieces = self._line[caller]
        pieces.remove(turn)
        if not pieces:
            del self._line[caller]
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

    async def __aenter__(self) -> None:
        await self.fair_queue.acquire(self.caller)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.fair_queue.release(self.caller)
