"""The writer's part of a store: what is written, and what not, while the disk is full."""

from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pki.audit.log import Act
from twisted_mesh.stores.commands import (
    Command,
    CreateEntry,
    CreateToken,
    Outcome,
    Probe,
    RecordAct,
    RecordIntent,
)
from twisted_mesh.stores.records import Full, StoreError
from twisted_mesh.stores.sqlite import Sqlite
from twisted_mesh.stores.writing import apply_all


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
        return self._database.explain(outcome) if isinstance(outcome, DBAPIError) else outcome

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
    return isinstance(command, RecordIntent | CreateEntry | CreateToken | Probe)


def _again(error: StoreError) -> StoreError:
    """An exception of its own for each caller: those who get one add their traceback to it."""
    return type(error)(str(error))
