"""A transaction of many commands: at once where nothing stands in the way, else one by one."""

from collections.abc import Sequence
from itertools import groupby

from sqlalchemy import Connection, Engine

from twisted_mesh.stores import bulk, rules
from twisted_mesh.stores.commands import Command, Outcome, RecordCertificate, RecordIntent

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
    for is_plain, run in groupby(commands, _is_plain):
        if is_plain:
            outcomes += _issue(connection, list(run))
        else:
            outcomes += [_alone(connection, command) for command in run]
    return outcomes


def _is_plain(command: Command) -> bool:
    """Whether it can be done together with its neighbours: the order among these makes no difference."""
    if isinstance(command, RecordIntent):
        return command.token is None
    return isinstance(command, RecordCertificate)


def _issue(connection: Connection, commands: Sequence[Command]) -> list[Outcome | Exception]:
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
