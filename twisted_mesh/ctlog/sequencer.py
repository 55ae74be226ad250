"""Submissions, gathered into batches: one commit and one set of files for all that came meanwhile.

All of it happens on a thread of its own: a slow disk holds up receipts, and nobody who reads.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from pki.errors import ANY_ERROR, PkiError
from twisted_mesh.ctlog.admission import Admitted
from twisted_mesh.ctlog.errors import ContradictsItself, CtLogStateError
from twisted_mesh.ctlog.ledger import Ledger, Sequenced
from twisted_mesh.ctlog.store import Head
from twisted_mesh.limits.rate_limit import Busy
from twisted_mesh.runtime.tasks import Defer, Ticker, sleep, spawn

T = TypeVar("T")

#: Added at a time: more would let the first wait for the last.
_MOST = 512
#: Of what waits; whoever comes then is told to come later.
_MOST_WAITING = 4096
#: Seconds between the beginnings of two batches: each writes the last tiles anew, however few have come.
PACE = 0.02
#: Seconds between two looks at whether the head is to be signed again, and milliseconds after which it is.
_LOOK, _STALE = 5.0, 60_000


@define(eq=False)
class _Waiting:
    admitted: Admitted
    done: "Deferred[Sequenced]" = field(factory=Deferred)


@define(eq=False, repr=False)
class Sequencer:
    """What reactor and log have between them."""

    ledger: Ledger
    clock: IReactorTime
    defer: Defer
    """On a thread of which there is one."""
    log: Logger
    on_head: Callable[[Head], object]
    """Told of each head that is published."""
    took: Callable[[float, int], object] = lambda seconds, entries: None
    """Told how long a batch took, and how many entries were new in it."""
    problem: PkiError | None = field(default=None, init=False)
    """Why nothing is added; None while it is."""
    _queue: "deque[_Waiting]" = field(factory=deque, init=False)
    _is_working: bool = field(default=False, init=False)
    _began: float = field(default=0.0, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, _LOOK, self._look, "the log's head", self.log)

    def start(self) -> None:
        """Keep the head fresh from now on."""
        self._ticker.start(now=False)

    def stop(self) -> None:
        """Sign no more heads by itself."""
        self._ticker.stop()

    @property
    def waiting(self) -> int:
        """How many have not been added yet."""
        return len(self._queue)

    def halt(self, error: ContradictsItself) -> None:
        """Add nothing any more, in this life: something that was signed is contradicted."""
        if not isinstance(self.problem, ContradictsItself):
            self.problem = error
            self.log.critical(
                "Nothing is added any more: {error}", event="ctlog-halted", error=str(error)
            )

    async def add(self, admitted: Admitted) -> Sequenced:
        """Where it is, once everybody can see it there. Raises :class:`PkiError`."""
        if isinstance(self.problem, ContradictsItself):
            raise self.problem
        if len(self._queue) >= _MOST_WAITING:
            raise Busy("too much is waiting to be added to the log: ask again in a moment", 1.0)
        waiting = _Waiting(admitted)
        self._queue.append(waiting)
        self._work()
        return await waiting.done

    async def settled(self) -> None:
        """Once nothing waits."""
        while self._queue or self._is_working:
            await sleep(self.clock, PACE)

    def _work(self) -> None:
        if not self._is_working:
            self._is_working = True
            _ = spawn(self._batches(), "adding to the log", self.log)

    def _look(self) -> None:
        if not self._is_working and not isinstance(self.problem, ContradictsItself):
            self._is_working = True
            _ = spawn(self._refresh(), "signing the log's head", self.log)

    async def _refresh(self) -> None:
        try:
            if await self._tried(lambda: self.ledger.refresh(_STALE)):
                self.on_head(self.ledger.published)
        finally:
            self._is_working = False
        if self._queue:
            self._work()

    async def _batches(self) -> None:
        try:
            while self._queue:
                early = self._began + PACE - self.clock.seconds()
                if early > 0:
                    await sleep(self.clock, early)
                self._began = self.clock.seconds()
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST))]
                await self._one(batch)
        finally:
            self._is_working = False

    async def _one(self, batch: Sequence[_Waiting]) -> None:
        admitted = [waiting.admitted for waiting in batch]
        found = await self._tried(lambda: self.ledger.extend(admitted))
        if found is None:
            error = self.problem or CtLogStateError("the log cannot be written")
            for waiting in batch:
                waiting.done.errback(Failure(error))
            return
        new = sum(one.is_new for one in found)
        self.took(self.clock.seconds() - self._began, new)
        if new:
            self.on_head(self.ledger.published)
        for waiting, one in zip(batch, found, strict=True):
            waiting.done.callback(one)

    async def _tried(self, work: Callable[[], T]) -> T | None:
        """What ``work`` comes to, on its thread; None where that is a problem, which is known then."""
        try:
            found = await self.defer(work)
        except ContradictsItself as error:
            self.halt(error)
        except PkiError as error:
            if self.problem is None or str(self.problem) != str(error):
                self.log.error(
                    "Nothing can be added to the log: {error}. It is tried again by itself",
                    event="ctlog-unwritable",
                    error=str(error),
                )
            self.problem = error
        except ANY_ERROR:
            self.log.failure("adding to the log broke", event="ctlog-broke")
            self.problem = CtLogStateError(
                "the log has met a bug of its own; its own log has the details"
            )
        else:
            if self.problem is not None:
                self.problem = None
                self.log.info("Entries are added to the log again", event="ctlog-writable")
            return found
        return None
