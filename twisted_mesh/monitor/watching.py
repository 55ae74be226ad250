"""A monitor at work: every log followed, the record compared, everybody told, until it is stopped; or once."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from pki.errors import ANY_ERROR
from twisted_mesh.interfaces import IReactor
from twisted_mesh.monitor.alert import STANDING
from twisted_mesh.monitor.follower import Follower
from twisted_mesh.monitor.index import Index
from twisted_mesh.monitor.record_comparison import RecordComparison
from twisted_mesh.monitor.telling import Teller
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer, sleep
from twisted_mesh.state.directory import StateError

_log = logger("ct")
#: Seconds between two looks whether somebody is to be told of something.
_TELLING = 1.0
#: Seconds between two looks whether something can be forgotten.
_FORGETTING = 600.0


@define(eq=False, repr=False)
class Watching:
    """All parts of one monitor."""

    followers: Sequence[Follower]
    comparison: RecordComparison | None
    teller: Teller
    index: Index
    in_index: Defer
    reactor: IReactor
    now: Now
    interval: float
    """Seconds between two looks at a log."""
    keep: timedelta
    """How long a certificate stays in the index after its end."""
    after_turn: Callable[[], Awaitable[None]] | None = None
    """Called after each look at a log: figures are written then."""
    _problem: str = field(default="", init=False)
    """Why the index cannot be used, as told last."""
    _read_at: dict[str, datetime] = field(factory=dict, init=False)
    """By log, when the last look began that read it to its end."""

    async def once(self) -> tuple[bool, int]:
        """Read every log to its end, once; whether all could be read, and how many alerts there are."""
        await self.teller.begin()
        before = await self.in_index(lambda: self.index.newest_alert)
        read = await _all([self._look(follower) for follower in self.followers])
        is_whole = all(read)
        if self.comparison is not None:
            is_whole = await self.comparison.turn(self.read_since) and is_whole
        await self.teller.tell(now=True)
        await self._forget()
        raised = await self.in_index(lambda: self.index.newest_alert) - before
        standing = [
            kind for _, kind in await self.in_index(self.index.standing) if kind in STANDING
        ]
        return is_whole, max(raised, len(standing))

    async def run(self) -> None:
        """Until it is cancelled."""
        await self.teller.begin()
        _log.info(
            "Watching {count} logs: {logs}",
            event="ct-watching",
            count=len(self.followers),
            logs=", ".join(follower.origin for follower in self.followers),
        )
        loops = [
            self._again(self.interval, partial(self._look, follower)) for follower in self.followers
        ]
        loops.append(self._again(_TELLING, self.teller.tell))
        loops.append(self._again(_FORGETTING, self._forget))
        if (comparison := self.comparison) is not None:
            loops.append(self._again(self.interval, lambda: comparison.turn(self.read_since)))
        await _all(loops)

    @property
    def read_since(self) -> datetime | None:
        """The moment since when every log was read to its end; None where one was not."""
        found = [self._read_at.get(follower.origin) for follower in self.followers]
        known = [at for at in found if at is not None]
        return min(known) if known and len(known) == len(found) else None

    async def _look(self, follower: Follower) -> bool:
        began = self.now()
        is_read = await follower.turn()
        if is_read:
            self._read_at[follower.origin] = began
        if self.after_turn is not None:
            await self.after_turn()
        return is_read

    async def _again(self, seconds: float, look: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await look()
                self._problem = ""
            except CancelledError:
                raise
            except StateError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error(
                        "Nothing can be remembered, so nothing is read: {reason}",
                        event="ct-index-unusable",
                        reason=self._problem,
                    )
            except ANY_ERROR:
                _log.failure("a turn of the monitor broke", event="tick-broke")
            await sleep(self.reactor, seconds)

    async def _forget(self) -> None:
        before = self.now() - self.keep
        while await self.in_index(self.index.forget_sightings, before):
            pass
        await self.in_index(self.index.forget_alerts)


async def _all(work: Sequence[Awaitable[bool] | Awaitable[None]]) -> list[object]:
    """Of all what it comes to; none is given up because another has failed."""

    async def one(awaited: Awaitable[object]) -> object:
        return await awaited

    running = [Deferred.fromCoroutine(one(part)) for part in work]
    try:
        return list(await gatherResults(running, consumeErrors=True))
    except BaseException as error:
        for part in running:
            part.cancel()
        raise getattr(getattr(error, "subFailure", None), "value", error) from None
