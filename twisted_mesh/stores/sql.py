"""The store on SQL: one thread does its work, many commands to a commit, and the reactor never waits."""

import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

from attrs import frozen
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_mesh.interfaces import IStore
from twisted_mesh.stores import reading, schema
from twisted_mesh.stores.records import (
    Command,
    Feed,
    IssuedCertificate,
    Page,
    Query,
    StoreError,
)
from twisted_mesh.stores.sqlite import Sqlite
from twisted_mesh.stores.writing import Outcome, apply_all

T = TypeVar("T")

#: At most so many commands to a transaction: the first of them waits for the last.
_BATCH = 128

_log = Logger(namespace="mesh.store")


@frozen(eq=False)
class _Write:
    command: Command
    deferred: Deferred[Any]


@frozen(eq=False)
class _Read:
    query: Callable[[Connection], Any]
    deferred: Deferred[Any]


@implementer(IStore)
class SqlStore:
    """Keeps certificates in ``database``; see :class:`IStore`.

    The thread is given one batch at a time: what one turn of the reactor brings, then what has come
    while the last batch was written, so that a slow disk makes larger commits instead of a longer
    queue. (A thread that helped itself would be woken for each command, and find that one alone.)
    Reads see every command that was given before them. A commit that fails keeps nothing and tells
    each of its callers; the next one tries again. Cancelling an answer stops nothing: what was told
    is done.
    """

    def __init__(self, database: Sqlite, reactor: IReactorFromThreads) -> None:
        self._database = database
        self._reactor = reactor
        self._queue: SimpleQueue[Sequence[_Write | _Read] | None] = SimpleQueue()
        self._waiting: list[_Write | _Read] = []
        self._busy = False
        """Whether a batch is with the thread, or about to be."""
        self._thread: threading.Thread | None = None
        self._stopping: list[Deferred[None]] = []
        self._id = ""
        self.is_new = False
        """Whether :meth:`start` found nothing and made it."""

    def start(self) -> None:
        """Open the database, make its tables if it is new, start the thread (twistd has forked by now)."""
        if self._thread is not None:
            raise StoreError(f"store {self._database}: it is open already")
        engine = self._database.engine()
        try:
            with engine.execution_options(writes=True).begin() as connection:
                self._id = self._prepare(connection)
        except Exception as error:
            engine.dispose()
            raise self._explain(error) from None
        self._thread = threading.Thread(
            target=self._work, args=(engine,), name="mesh-store", daemon=True
        )
        self._thread.start()

    def stop(self) -> Deferred[None]:
        if self._thread is None:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        if len(self._stopping) == 1 and not self._busy:
            self._hand_over()
        return done

    def apply(self, command: Command) -> Deferred[Any]:
        return self._ask(lambda deferred: _Write(command, deferred))

    def find(self, serial: int) -> Deferred[IssuedCertificate | None]:
        return self._read(lambda connection: reading.find(connection, serial))

    def list(self, query: Query) -> Deferred[Page]:
        return self._read(lambda connection: reading.page(connection, query))

    def feed(self, after: int) -> Deferred[Feed]:
        return self._read(lambda connection: reading.revocations(connection, self._id, after))

    def _read(self, query: Callable[[Connection], T]) -> Deferred[T]:
        return self._ask(lambda deferred: _Read(query, deferred))

    def _ask(self, work: Callable[[Deferred[Any]], _Write | _Read]) -> Deferred[Any]:
        if self._thread is None or self._stopping:
            return fail(
                StoreError(f"store {self._database}: it is closed: ask again once it is open")
            )
        deferred: Deferred[Any] = Deferred()
        self._waiting.append(work(deferred))
        if not self._busy:
            self._busy = True
            # Not at once: first let this turn of the reactor bring what else it has.
            self._reactor.callFromThread(self._hand_over)
        return deferred

    def _hand_over(self) -> None:
        """Give the thread its next batch; where there is none and all is over, tell it to end."""
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self._busy = bool(batch)
        if batch:
            self._queue.put(batch)
        elif self._stopping:
            self._queue.put(None)

    def _answered(self, answers: Iterable[tuple[Deferred[Any], Any]]) -> None:
        for deferred, answer in answers:
            if isinstance(answer, Exception):
                deferred.errback(answer)
            else:
                deferred.callback(answer)
        self._hand_over()

    # On the thread.

    def _work(self, engine: Engine) -> None:
        writer = engine.execution_options(writes=True)
        while (batch := self._queue.get()) is not None:
            answers: list[tuple[Deferred[Any], Any]] = []
            if writes := [work for work in batch if isinstance(work, _Write)]:
                outcomes = self._write(writer, [write.command for write in writes])
                answers += ((w.deferred, o) for w, o in zip(writes, outcomes, strict=True))
            for read in batch:
                if isinstance(read, _Read):
                    answers.append((read.deferred, self._run(engine, read.query)))
            self._reactor.callFromThread(self._answered, answers)
        try:
            engine.dispose()
        finally:
            self._reactor.callFromThread(self._stopped)

    def _write(self, engine: Engine, commands: Sequence[Command]) -> Sequence[Outcome]:
        try:
            return apply_all(engine, commands)
        except Exception as error:
            # An exception each: those who get one add their own traceback to it.
            why = self._explain(error)
            return [type(why)(str(why)) for _ in commands]

    def _run(self, engine: Engine, query: Callable[[Connection], Any]) -> Any:
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

    # On the reactor again.

    def _stopped(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        stopping, self._stopping = self._stopping, []
        for done in stopping:
            done.callback(None)

    def _prepare(self, connection: Connection) -> str:
        """Make the tables or check them; the store's id. Raises :class:`StoreError`."""
        tables = inspect(connection).get_table_names()
        if not tables:
            self.is_new = True
            return schema.create(connection)
        if not {table.name for table in schema.metadata.sorted_tables} <= set(tables):
            raise StoreError(
                f"store {self._database}: its tables are not those of this program: name another file"
            )
        facts = schema.facts(connection)
        if (version := int(facts["schema"])) > schema.VERSION:
            raise StoreError(
                f"store {self._database}: it was written by a later version of this program "
                f"(tables {version}, here {schema.VERSION}): upgrade twisted-mesh"
            )
        return facts["store"]
