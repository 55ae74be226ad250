"""What is written: many commands to a transaction, what of them waits while the disk is full, and the thread.

:func:`apply_all` is the transaction, :class:`Writer` lives through what the disk does, and
:class:`Worker` keeps both away from the reactor.
"""

import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from queue import SimpleQueue
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from pki.audit.log import Act
from twisted_mesh.stores import bulk, rules
from twisted_mesh.stores.commands import (
    Command,
    CreateEntry,
    CreateToken,
    Federate,
    Outcome,
    Probe,
    RecordAct,
    RecordCertificate,
    RecordIntent,
    RecordIssue,
)
from twisted_mesh.stores.records import Full, StoreError
from twisted_mesh.stores.sqlite import Sqlite

T = TypeVar("T")

_log = Logger(namespace="mesh.store")

#: PEP 249's names for what the database did by itself (a full disk, a damaged file), whatever it was asked.
_OUTAGES = frozenset({"OperationalError", "DatabaseError", "InternalError"})


def apply_all(engine: Engine, commands: Sequence[Command]) -> list[Outcome | Exception]:
    """Apply ``commands`` in one transaction, in their order; what each came to, its own error included.

    Raises what makes the whole transaction fail: then nothing was kept.
    """
    try:
        with engine.begin() as connection:
            return _at_once(connection, commands)
    except Exception as error:
        if _is_outage(error):
            raise
    # Some command's precondition does not hold, and only one by one shows whose.
    with engine.begin() as connection:
        return [_alone(connection, command) for command in commands]


def _at_once(connection: Connection, commands: Sequence[Command]) -> list[Outcome | Exception]:
    outcomes: list[Outcome | Exception] = []
    for does, run in groupby(commands, _together):
        outcomes += does(connection, list(run))
    return outcomes


def _together(
    command: Command,
) -> Callable[[Connection, Sequence[Command]], list[Outcome | Exception]]:
    """What does it together with its neighbours: the order among these makes no difference."""
    match command:
        case RecordIssue(intent=intent) if intent.is_simple:
            return _issue
        case RecordCertificate():
            return _intend_and_sign
        case RecordIntent() if command.is_simple:
            return _intend_and_sign
        case _:
            return _each


def _each(connection: Connection, commands: Sequence[Command]) -> list[Outcome | Exception]:
    return [_alone(connection, command) for command in commands]


def _issue(connection: Connection, commands: Sequence[Command]) -> list[Outcome | Exception]:
    bulk.record_issues(connection, [c for c in commands if isinstance(c, RecordIssue)])
    return [None for _ in commands]


def _intend_and_sign(
    connection: Connection, commands: Sequence[Command]
) -> list[Outcome | Exception]:
    planned = [c for c in commands if isinstance(c, RecordIntent)]
    signed = [c for c in commands if isinstance(c, RecordCertificate)]
    numbers = iter(bulk.record_intents(connection, planned) if planned else ())
    if signed:
        bulk.record_certificates(connection, signed)
    return [next(numbers) if isinstance(c, RecordIntent) else None for c in commands]


def _alone(connection: Connection, command: Command) -> Outcome | Exception:
    # By hand: after an outage there may be no savepoint left, and saying so would hide the outage.
    connection.exec_driver_sql("SAVEPOINT command")
    try:
        outcome: Outcome | Exception = rules.apply(connection, command)
    except Exception as error:
        if _is_outage(error):
            raise
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT command")
        outcome = error
    connection.exec_driver_sql("RELEASE SAVEPOINT command")
    return outcome


def _is_outage(error: Exception) -> bool:
    return type(error).__name__ in _OUTAGES


class Writer:
    """Applies commands to ``database``, and lives through what its disk does.

    Once the disk was found full nothing new is given out until there is room again; whatever makes
    safer, makes room or finishes what was begun is written on, from the reserve if it must.
    """

    def __init__(self, database: Sqlite, engine: Engine) -> None:
        self._database = database
        self._engine = engine.execution_options(writes=True)
        self._is_full = False

    def apply(self, commands: Sequence[Command]) -> Sequence[Outcome | Exception]:
        """What each came to, its own error included."""
        if self._database.damage is not None:
            return [StoreError(self._database.damage) for _ in commands]
        reserve = self._database.reserve
        if reserve is not None and not reserve.hold():
            self._is_full = True
        if self._is_full and reserve is not None and not reserve.has_room():
            full = f"store {self._database}: the disk is full: free some space; what is kept back serves to revoke"
            return self._apply_pressing(commands, Full(full))
        try:
            outcomes = apply_all(self._engine, commands)
        except Exception as error:
            why = self._database.explain(error)
        else:
            self._is_full = False
            return [self._spoken(outcome) for outcome in outcomes]
        if not isinstance(why, Full):
            return [_again(why) for _ in commands]
        self._is_full = True
        return self._apply_pressing(commands, why)

    def _spoken(self, outcome: Outcome | Exception) -> Outcome | Exception:
        """What the database itself says no to, in words."""
        if isinstance(outcome, Exception) and isinstance(outcome, self._database.errors):
            return self._database.explain(outcome)
        return outcome

    def _apply_pressing(
        self, commands: Sequence[Command], why: StoreError
    ) -> Sequence[Outcome | Exception]:
        """Refuse what can wait because of ``why``, and do the rest."""
        pressing = [command for command in commands if not _can_wait(command)]
        try:
            outcomes = iter(self._apply_from_reserve(pressing) if pressing else ())
        except Exception as error:
            why = self._database.explain(error)
            return [_again(why) for _ in commands]
        return [_again(why) if _can_wait(command) else next(outcomes) for command in commands]

    def _apply_from_reserve(self, commands: Sequence[Command]) -> Sequence[Outcome | Exception]:
        try:
            return self._apply_tidily(commands)
        except Exception as error:
            reserve = self._database.reserve
            full = isinstance(self._database.explain(error), Full)
            if not full or reserve is None or not reserve.release():
                raise
        return self._apply_tidily(commands)

    def _apply_tidily(self, commands: Sequence[Command]) -> Sequence[Outcome | Exception]:
        # Each time: what is left of the disk is not for the write-ahead log to fill.
        self._database.tidy(self._engine)
        return apply_all(self._engine, commands)


def _can_wait(command: Command) -> bool:
    """What gives out certificates or the right to them, what asks whether it could, and what only tells of strangers.

    The default entry is settled nevertheless: once in the life of a store, and no CA starts without.
    """
    if isinstance(command, RecordAct):
        return command.entry.act is Act.REFUSE
    return isinstance(
        command, RecordIntent | RecordIssue | CreateEntry | CreateToken | Federate | Probe
    )


def _again(error: StoreError) -> StoreError:
    """An exception of its own for each caller: those who get one add their traceback to it."""
    return type(error)(str(error))


class Worker(Generic[T]):
    """Runs ``work`` on a thread of its own, and ``done`` with its outcomes on the reactor's.

    ``work`` gives an outcome for each of a batch. Should it raise instead, that is a bug, and each
    gets a :class:`StoreError`: whoever waits is never left waiting.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        work: Callable[[Sequence[T]], Sequence[object]],
        done: Callable[[Sequence[T], Sequence[object]], None],
        close: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._work = work
        self._done = done
        self._close = close
        self._given: SimpleQueue[Sequence[T] | None] = SimpleQueue()
        self._ended: Deferred[None] = Deferred()
        self._thread = threading.Thread(target=self._run, name="mesh-store", daemon=True)
        self._thread.start()

    def give(self, batch: Sequence[T]) -> None:
        """Have the thread work on a batch, after those that it was given before. Does not wait."""
        self._given.put(batch)

    def end(self) -> Deferred[None]:
        """Once all that it was given is done, and the thread is gone."""
        self._given.put(None)
        return self._ended

    def _run(self) -> None:
        while (batch := self._given.get()) is not None:
            self._reactor.callFromThread(self._done, batch, self._outcomes(batch))
        try:
            self._close()
        except Exception:
            _log.failure("the store did not close cleanly")
        finally:
            self._reactor.callFromThread(self._end)

    def _outcomes(self, batch: Sequence[T]) -> Sequence[object]:
        try:
            return self._work(batch)
        except BaseException:  # a thread that ends by itself would leave everybody waiting
            _log.failure("the store broke")
            return [StoreError("the store broke, its log says how: ask again") for _ in batch]

    def _end(self) -> None:
        self._thread.join()
        self._ended.callback(None)
