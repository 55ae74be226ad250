"""The store on SQL: a thread writes, many commands to a commit, another reads; the reactor never waits."""

import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from attrs import frozen
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mesh.interfaces import IStore
from twisted_mesh.stores import log, reading, schema
from twisted_mesh.stores.migrations import migrate
from twisted_mesh.stores.records import (
    Command,
    Feed,
    Full,
    IssuedCertificate,
    LoggedEntry,
    LogHead,
    OpenIntent,
    Page,
    Prune,
    Query,
    RecordCertificate,
    Revoke,
    StoreError,
    WriteOff,
)
from twisted_mesh.stores.sqlite import Sqlite
from twisted_mesh.stores.writing import Outcome, apply_all

T = TypeVar("T")

#: At most so many commands to a transaction: the first of them waits for the last.
_BATCH = 128
#: So many may wait for the disk, and so many for an answer; whoever comes then is told to come later.
_WAITING = 4096
_ASKING = 256
#: What is still done when the disk is full, from the reserve. It makes safer, or makes room.
_ESSENTIAL = (Revoke, WriteOff, RecordCertificate, Prune)

_log = Logger(namespace="mesh.store")


@frozen(eq=False)
class _Write:
    command: Command
    deferred: Deferred[Any]


@frozen(eq=False)
class _Read:
    query: Callable[[Connection], Any]
    deferred: Deferred[Any]


Batch = Sequence[_Write | _Read]


@implementer(IStore)
class SqlStore:
    """Keeps certificates in ``database``; see :class:`IStore`.

    The writer is given one batch at a time: what one turn of the reactor brings, then what has come
    while the last batch was written, so that a slow disk makes larger commits instead of a longer
    queue. (A thread that helped itself would be woken for each command, and find that one alone.)
    A read sees every command that was answered before it. What is in memory has one thread for both.
    A commit that fails keeps nothing and tells each of its callers; the next one tries again.
    Cancelling an answer stops nothing: what was told is done.
    """

    def __init__(self, database: Sqlite, reactor: IReactorFromThreads) -> None:
        self._database = database
        self._reactor = reactor
        self._writer: _Worker | None = None
        self._reader: _Worker | None = None
        self._waiting: list[_Write | _Read] = []
        self._asking = 0
        self._busy = False
        """Whether a batch is with the writer, or about to be."""
        self._stopping: list[Deferred[None]] = []
        self._id = ""
        self.is_new = False
        """Whether :meth:`start` found nothing and made it."""

    def start(self) -> None:
        """Open the database, bring its tables up to date, start the threads (twistd has forked by now)."""
        if self._writer is not None:
            raise StoreError(f"store {self._database}: it is open already")
        self._database.make()
        engine = self._database.engine()
        try:
            with engine.execution_options(writes=True).begin() as connection:
                self._id = self._prepare(connection)
        except Exception as error:
            engine.dispose()
            raise self._explain(error) from None
        if self._database.reserve is not None:
            self._database.reserve.hold()
        self._writer = _Worker(self, engine)
        self._reader = (
            self._writer if self._database.path is None else _Worker(self, self._database.engine())
        )

    def stop(self) -> Deferred[None]:
        if self._writer is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        if len(self._stopping) == 1 and not self._busy:
            self._hand_over()
        return done

    @property
    def id(self) -> str:
        """Identifies this store for good."""
        return self._id

    def apply(self, command: Command) -> Deferred[Any]:
        if self._writer is None or self._stopping:
            return self._closed()
        if len(self._waiting) >= _WAITING:
            return self._overrun("its disk does not keep up")
        return self._queue(_Write(command, Deferred()))

    def find(self, serial: int) -> Deferred[IssuedCertificate | None]:
        return self._read(lambda connection: reading.find(connection, serial))

    def find_request(self, request_key: str) -> Deferred[IssuedCertificate | None]:
        return self._read(lambda connection: reading.find_request(connection, request_key))

    def list(self, query: Query) -> Deferred[Page]:
        return self._read(lambda connection: reading.page(connection, query))

    def feed(self, after: int) -> Deferred[Feed]:
        return self._read(lambda connection: reading.revocations(connection, self._id, after))

    def open_intents(self, limit: int = 1000) -> "Deferred[tuple[OpenIntent, ...]]":
        return self._read(lambda connection: reading.open_intents(connection, limit))

    def log_head(self) -> Deferred[LogHead]:
        return self._read(log.head)

    def log_entries(self, start: int, limit: int) -> "Deferred[tuple[Sequence[LoggedEntry], int]]":
        return self._read(lambda connection: log.entries(connection, start, limit))

    def last_act(self) -> "Deferred[tuple[int, int | None]]":
        return self._read(log.recorded)

    def checkpoints(self, start: int, limit: int) -> "Deferred[Sequence[tuple[int, str]]]":
        return self._read(lambda connection: log.notes(connection, start, limit))

    def last_checkpoint(self) -> "Deferred[tuple[int, str] | None]":
        return self._read(log.latest)

    def inclusion_proof(self, position: int, size: int) -> "Deferred[tuple[bytes, ...]]":
        return self._read(lambda connection: log.inclusion(connection, position, size))

    def consistency_proof(self, first: int, second: int) -> "Deferred[tuple[bytes, ...]]":
        return self._read(lambda connection: log.consistency(connection, first, second))

    def _read(self, query: Callable[[Connection], T]) -> Deferred[T]:
        if self._reader is None or self._stopping:
            return self._closed()
        if self._asking >= _ASKING:
            return self._overrun("too much is asked of it at once")
        self._asking += 1
        work = _Read(query, Deferred())
        if self._reader is self._writer:
            return self._queue(work)
        self._reader.give((work,))
        return work.deferred

    def _queue(self, work: _Write | _Read) -> Deferred[Any]:
        self._waiting.append(work)
        if not self._busy:
            self._busy = True
            # Not at once: first let this turn of the reactor bring what else it has.
            self._reactor.callFromThread(self._hand_over)
        return work.deferred

    def _hand_over(self) -> None:
        """Give the writer its next batch; where there is none and all is over, tell both to end."""
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self._busy = bool(batch)
        if self._writer is None or self._reader is None:
            return
        if batch:
            self._writer.give(batch)
        elif self._stopping:
            workers = {self._writer, self._reader}
            self._writer = self._reader = None
            _ = gatherResults([worker.end() for worker in workers]).addCallback(self._stopped)

    def answered(self, answers: Iterable[tuple[_Write | _Read, Any]], *, by: "_Worker") -> None:
        for work, answer in answers:
            if isinstance(work, _Read):
                self._asking -= 1
            if isinstance(answer, Exception):
                work.deferred.errback(answer)
            else:
                work.deferred.callback(answer)
        if by is self._writer:
            self._hand_over()

    def _closed(self) -> Deferred[Any]:
        return fail(StoreError(f"store {self._database}: it is closed: ask again once it is open"))

    def _overrun(self, why: str) -> Deferred[Any]:
        return fail(StoreError(f"store {self._database}: {why}: ask again later"))

    def _stopped(self, _: object) -> None:
        stopping, self._stopping = self._stopping, []
        for done in stopping:
            done.callback(None)

    # On a worker's thread.

    def write(self, engine: Engine, commands: Sequence[Command]) -> Sequence[Outcome]:
        reserve = self._database.reserve
        if reserve is not None and not reserve.is_held and not reserve.hold():
            full = f"store {self._database}: the disk is full but for what is kept to revoke: free some space"
            return self._write_essentials(engine, commands, Full(full))
        try:
            return apply_all(engine, commands)
        except Exception as error:
            why = self._explain(error)
        if isinstance(why, Full) and reserve is not None:
            reserve.release()
            return self._write_essentials(engine, commands, why)
        return [_again(why) for _ in commands]

    def _write_essentials(
        self, engine: Engine, commands: Sequence[Command], why: StoreError
    ) -> Sequence[Outcome]:
        essential = [command for command in commands if isinstance(command, _ESSENTIAL)]
        try:
            outcomes = iter(apply_all(engine, essential)) if essential else iter(())
        except Exception as error:
            why = self._explain(error)
            return [_again(why) for _ in commands]
        return [
            next(outcomes) if isinstance(command, _ESSENTIAL) else _again(why)
            for command in commands
        ]

    def read(self, engine: Engine, query: Callable[[Connection], Any]) -> Any:
        try:
            with engine.connect() as connection:
                return query(connection)
        except Exception as error:
            return self._explain(error)

    def _explain(self, error: Exception) -> StoreError:
        if isinstance(error, StoreError):
            return error
        if not isinstance(error, DBAPIError):
            _log.failure("the store broke", failure=Failure(error))
        return self._database.explain(error)

    def _prepare(self, connection: Connection) -> str:
        """Make the tables or check them; the store's id. Raises :class:`StoreError`."""
        tables = inspect(connection).get_table_names()
        if not tables:
            self.is_new = True
            return schema.create(connection)
        facts = schema.facts(connection) if "meta" in tables else {}
        version = int(facts.get("schema", "0"))
        if version > schema.VERSION:
            raise StoreError(
                f"store {self._database}: it was written by a later version of this program "
                f"(tables {version}, here {schema.VERSION}): upgrade twisted-mesh"
            )
        if 0 < version < schema.VERSION:
            migrate(connection, version)
            _log.info(
                "Store {store} brought from tables {old} to {new}",
                event="store-migrated",
                store=str(self._database),
                old=version,
                new=schema.VERSION,
            )
            tables = inspect(connection).get_table_names()
        if not version or not {table.name for table in schema.metadata.sorted_tables} <= set(
            tables
        ):
            raise StoreError(
                f"store {self._database}: its tables are not those of this program: name another file"
            )
        return facts["store"]


class _Worker:
    """A thread with an engine of its own, which does what it is given and hands the answers back."""

    def __init__(self, store: SqlStore, engine: Engine) -> None:
        self._store = store
        self._engine = engine
        self._given: SimpleQueue[Batch | None] = SimpleQueue()
        self._ended: Deferred[None] = Deferred()
        self._thread = threading.Thread(target=self._work, name="mesh-store", daemon=True)
        self._thread.start()

    def give(self, batch: Batch) -> None:
        self._given.put(batch)

    def end(self) -> Deferred[None]:
        """Once all that it was given is done."""
        self._given.put(None)
        return self._ended

    def _work(self) -> None:
        store, reactor = self._store, self._store._reactor
        writing = self._engine.execution_options(writes=True)
        while (batch := self._given.get()) is not None:
            answers: list[tuple[_Write | _Read, Any]] = []
            if writes := [work for work in batch if isinstance(work, _Write)]:
                outcomes = store.write(writing, [write.command for write in writes])
                answers += zip(writes, outcomes, strict=True)
            for work in batch:
                if isinstance(work, _Read):
                    answers.append((work, store.read(self._engine, work.query)))
            reactor.callFromThread(lambda answers=answers: store.answered(answers, by=self))
        try:
            self._engine.dispose()
        finally:
            reactor.callFromThread(self._end)

    def _end(self) -> None:
        self._thread.join()
        self._ended.callback(None)


def _again(error: StoreError) -> StoreError:
    """An exception of its own for each caller: those who get one add their traceback to it."""
    return type(error)(str(error))
