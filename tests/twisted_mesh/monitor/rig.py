"""A monitor without a reactor: everything is done at once, and the clock is moved by hand."""

from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred

from tests.authorities import NOW
from tests.written_log import WrittenLog
from twisted_mesh.monitor.alert import Alert, AlertKind
from twisted_mesh.monitor.database import Database
from twisted_mesh.monitor.follower import Follower, Patience
from twisted_mesh.monitor.index import Index
from twisted_mesh.monitor.search import Found, Query, search
from twisted_mesh.monitor.source import Directory
from twisted_mesh.monitor.watch_list import WatchList

T = TypeVar("T")


def here(call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Deferred[T]:
    """In the place of a thread."""
    return maybeDeferred(call, *args, **kwargs)


def now_done(work: Coroutine[Any, Any, T]) -> T:
    """What comes of it, which waits for nothing."""
    outcome: list[Any] = []
    failed: list[Any] = []
    Deferred.fromCoroutine(work).addCallbacks(outcome.append, failed.append)
    if failed:
        failed[0].raiseException()
    return outcome[0]  # type: ignore[no-any-return]


@define(eq=False)
class Rig:
    """One log, and who follows it."""

    path: Path
    watch: WatchList = field(factory=WatchList)
    compares: bool = False
    patience: Patience = field(factory=Patience)
    now: datetime = NOW
    log: WrittenLog = field(init=False)
    database: Database = field(init=False)
    index: Index = field(init=False)
    follower: Follower = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.log = WrittenLog(self.path / "log")
        self.open()

    def open(self) -> None:
        """As a new process would."""
        self.database = Database(self.path / "ct-watch" / "index.db")
        self.database.own()
        self.index = Index(self.database, self.compares)
        self.follower = self.follow(self.log)

    def follow(self, log: WrittenLog) -> Follower:
        return Follower(
            Directory(log.log, log.path),
            self.index,
            here,
            self.watch,
            lambda: self.now,
            self.patience,
        )

    def again(self) -> None:
        """As after a restart."""
        self.database.close()
        self.open()

    def turn(self) -> bool:
        return now_done(self.follower.turn())

    def alerts(self) -> list[Alert]:
        rows = self.database.rows("SELECT body FROM alerts ORDER BY number")
        return [Alert.parse(body) for (body,) in rows]

    def kinds(self) -> list[AlertKind]:
        return [alert.kind for alert in self.alerts()]

    def found(self, query: Query | None = None) -> list[Found]:
        return list(search(self.database, query or Query(limit=None)))
