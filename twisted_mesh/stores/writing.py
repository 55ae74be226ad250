"""What commands do to the tables: many at once where nothing stands in the way, else one by one."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, insert, select, update
from sqlalchemy.exc import DatabaseError, InternalError, OperationalError

from pki.serial import serial_pairs
from twisted_mesh.stores.records import (
    Command,
    Conflict,
    IssuedCertificate,
    RecordCertificate,
    RecordIntent,
    Revoke,
    Unknown,
)
from twisted_mesh.stores.schema import (
    certificate_of,
    certificates,
    counters,
    feed,
    microseconds,
    row_of,
    serial_text,
)

Outcome = IssuedCertificate | None | Exception

_c = certificates.c
_COLUMNS = tuple(_c.keys())

_ROW = select(certificates).where(_c.serial == bindparam("serial_"))
_IS_KNOWN = select(_c.serial).where(_c.serial == bindparam("serial_"))
_INSERT = insert(certificates)
_SIGN = update(certificates).where(_c.serial == bindparam("serial_")).values(der=bindparam("der_"))
_REVOKE = (
    update(certificates)
    .where(_c.serial == bindparam("serial_"))
    .values(revoked_at=bindparam("at_"), reason=bindparam("reason_"))
    .returning(certificates)
)
_NEXT_POSITION = (
    update(counters)
    .where(counters.c.name == "feed")
    .values(value=counters.c.value + 1)
    .returning(counters.c.value)
)
_PUBLISH = insert(feed)


class _NotAtOnce(Exception):
    """Some command's precondition does not hold: only one by one shows whose."""


def is_outage(error: Exception) -> bool:
    """Whether the database failed by itself (a full disk, a damaged file), whatever it was asked."""
    return type(error) in (OperationalError, DatabaseError, InternalError)


def apply_all(engine: Engine, commands: Sequence[Command]) -> list[Outcome]:
    """Apply ``commands`` in one transaction; what each came to, its own error included.

    Raises what makes the whole transaction fail: then nothing was kept.
    """
    # With a serial each, the order among them makes no difference.
    if len({_serial(command) for command in commands}) == len(commands):
        try:
            with engine.begin() as connection:
                return _at_once(connection, commands)
        except Exception as error:
            if is_outage(error):
                raise
    with engine.begin() as connection:
        return [_outcome(connection, command) for command in commands]


def _serial(command: Command) -> int:
    return command.certificate.serial if isinstance(command, RecordIntent) else command.serial


# Many at once. Each call into SQLite gives up the interpreter's lock, and getting it back from a
# busy reactor takes milliseconds: what counts is how few statements there are.


def _at_once(connection: Connection, commands: Sequence[Command]) -> list[Outcome]:
    intents = [c for c in commands if isinstance(c, RecordIntent)]
    signed = [c for c in commands if isinstance(c, RecordCertificate)]
    if intents:
        rows: list[Any] = []
        for intent in intents:
            rows += map(row_of(intent.certificate).__getitem__, _COLUMNS)
        _execute_for_all(connection, _insert_many(len(intents)), len(intents), rows)
    if signed:
        rows = []
        for command in signed:
            rows += (serial_text(command.serial), command.issuer, command.der)
        _execute_for_all(connection, _sign_many(len(signed)), len(signed), rows)
    return [_outcome(connection, c) if isinstance(c, Revoke) else None for c in commands]


def _execute_for_all(
    connection: Connection, statement: str, count: int, parameters: list[Any]
) -> None:
    if connection.exec_driver_sql(statement, tuple(parameters)).rowcount != count:
        raise _NotAtOnce


# Written by hand: SQLAlchemy compiles a VALUES of 64 rows for 9 ms, and anew for each other number.


@lru_cache(maxsize=256)
def _insert_many(count: int) -> str:
    return f"INSERT INTO certificates ({', '.join(_COLUMNS)}) VALUES {_rows(count, len(_COLUMNS))}"  # noqa: S608


@lru_cache(maxsize=256)
def _sign_many(count: int) -> str:
    return (
        f"UPDATE certificates SET der = given.column3 FROM (VALUES {_rows(count, 3)}) AS given "  # noqa: S608
        "WHERE serial = given.column1 AND issuer = given.column2 AND der IS NULL"
    )


def _rows(count: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return ", ".join([row] * count)


# One by one: the rules.


def _outcome(connection: Connection, command: Command) -> Outcome:
    try:
        match command:
            case RecordIntent():
                _record_intent(connection, command)
            case RecordCertificate():
                _record_certificate(connection, command)
            case Revoke():
                return _revoke(connection, command)
        return None
    except Exception as error:
        if is_outage(error):
            raise
        return error


def _record_intent(connection: Connection, command: RecordIntent) -> None:
    row = row_of(command.certificate)
    if connection.execute(_IS_KNOWN, {"serial_": row["serial"]}).first():
        raise Conflict(
            f"serial {serial_pairs(command.certificate.serial)} has been given out already: draw another"
        )
    connection.execute(_INSERT, row)


def _record_certificate(connection: Connection, command: RecordCertificate) -> None:
    known = _known(connection, command.serial, command.issuer)
    if known.der not in (None, command.der):
        raise Conflict(
            f"serial {serial_pairs(command.serial)} has a certificate already, and it is another one"
        )
    connection.execute(_SIGN, {"serial_": serial_text(command.serial), "der_": command.der})


def _revoke(connection: Connection, command: Revoke) -> IssuedCertificate:
    known = _known(connection, command.serial, command.issuer)
    if known.revoked_at is not None:
        return known
    serial = serial_text(command.serial)
    change = {"serial_": serial, "at_": microseconds(command.at), "reason_": command.reason}
    row = connection.execute(_REVOKE, change).mappings().one()
    position = connection.execute(_NEXT_POSITION).scalar_one()
    connection.execute(_PUBLISH, {"position": position, "serial": serial})
    return certificate_of(row)


def _known(connection: Connection, serial: int, issuer: str | None) -> IssuedCertificate:
    row = connection.execute(_ROW, {"serial_": serial_text(serial)}).mappings().first()
    if row is None or issuer not in (None, row["issuer"]):
        raise Unknown(
            f"no certificate with serial {serial_pairs(serial)} was issued here: "
            "compare the serial with the list of certificates"
        )
    return certificate_of(row)
