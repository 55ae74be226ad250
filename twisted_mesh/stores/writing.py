"""What commands do to the tables: many at once where nothing stands in the way, else one by one."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, delete, insert, select, update
from sqlalchemy.exc import DatabaseError, InternalError, OperationalError

from pki.audit import Entry
from pki.revocation import Reason
from pki.serial import serial_pairs
from twisted_mesh.stores import log
from twisted_mesh.stores.reading import ROW
from twisted_mesh.stores.records import (
    Command,
    Conflict,
    ExtendLog,
    IssuedCertificate,
    LogHead,
    Probe,
    Prune,
    RecordAct,
    RecordCertificate,
    RecordIntent,
    Revoke,
    Revoked,
    SaveCheckpoint,
    StoreError,
    Unknown,
    WriteOff,
)
from twisted_mesh.stores.schema import (
    audit,
    bodies,
    certificate_of,
    certificates,
    checkpoints,
    feed,
    intents,
    meta,
    microseconds,
    next_numbers,
    row_of,
    serial_text,
)

Outcome = IssuedCertificate | LogHead | int | None | Exception

_c = certificates.c

_REVOKE = (
    update(certificates)
    .where(_c.id == bindparam("id_"))
    .values(revoked_at=bindparam("at_"), reason=bindparam("reason_"))
)
_CLOSE = delete(intents).where(intents.c.certificate == bindparam("id_"))


class _NotAtOnce(Exception):
    """Some command's precondition does not hold: only one by one shows whose."""


def is_outage(error: Exception) -> bool:
    """Whether the database failed by itself (a full disk, a damaged file), whatever it was asked."""
    return type(error) in (OperationalError, DatabaseError, InternalError)


def apply_all(engine: Engine, commands: Sequence[Command]) -> list[Outcome]:
    """Apply ``commands`` in one transaction; what each came to, its own error included.

    Raises what makes the whole transaction fail: then nothing was kept.
    """
    # Where each is about something else, the order among them makes no difference.
    subjects = [subject for command in commands if (subject := _subject(command)) is not None]
    if len(set(subjects)) == len(subjects):
        try:
            with engine.begin() as connection:
                return _at_once(connection, commands)
        except Exception as error:
            if is_outage(error):
                raise
    with engine.begin() as connection:
        return [_outcome(connection, command) for command in commands]


def _subject(command: Command) -> tuple[str, int | str] | None:
    """What no other command of the same transaction may be about."""
    match command:
        case RecordIntent():
            return "serial", command.certificate.serial
        case Revoke():
            return "serial", command.serial
        case RecordCertificate() | WriteOff():
            return "intent", command.intent
    return None


# Many at once. Each call into SQLite gives up the interpreter's lock, and getting it back from a
# busy reactor takes time: what counts is how few statements there are.


def _at_once(connection: Connection, commands: Sequence[Command]) -> list[Outcome]:
    planned = [c for c in commands if isinstance(c, RecordIntent)]
    signed = [c for c in commands if isinstance(c, RecordCertificate)]
    numbers = iter(_record_intents(connection, planned)) if planned else iter(())
    if signed:
        _record_certificates(connection, signed)
    outcomes: list[Outcome] = []
    for command in commands:
        match command:
            case RecordIntent():
                outcomes.append(next(numbers))
            case RecordCertificate():
                outcomes.append(None)
            case _:
                outcomes.append(_outcome(connection, command))
    return outcomes


def _record_intents(connection: Connection, commands: Sequence[RecordIntent]) -> range:
    """The numbers of the new intents."""
    presented = [serial_text(c.renews) for c in commands if c.renews is not None]
    if (
        presented
        and connection.execute(
            select(_c.id).where(_c.serial.in_(presented), _c.revoked_at.is_not(None)).limit(1)
        ).first()
    ):
        raise _NotAtOnce
    count = len(commands)
    last = next_numbers(connection, certificate=count, audit=count)
    ids = range(last["certificate"] - count + 1, last["certificate"] + 1)
    rows: list[Any] = []
    digests: list[Any] = []
    acts: list[Any] = []
    for number, position, command in zip(
        ids, range(last["audit"] - count, last["audit"]), commands, strict=True
    ):
        row = row_of(command.certificate, command.request_key)
        row["id"] = number
        rows += map(row.__getitem__, _c.keys())
        digests += (number, command.digest)
        acts += (position, microseconds(command.entry.at), command.entry.to_bytes())
    _insert_all(connection, certificates, rows)
    _insert_all(connection, intents, digests)
    _insert_all(connection, audit, acts)
    return ids


def _record_certificates(connection: Connection, commands: Sequence[RecordCertificate]) -> None:
    numbers = tuple(command.intent for command in commands)
    closed = connection.exec_driver_sql(
        _close_many(_mark(connection), len(numbers)), numbers
    ).rowcount
    if closed != len(numbers):
        raise _NotAtOnce
    rows: list[Any] = []
    for command in commands:
        rows += (command.intent, command.der)
    _insert_all(connection, bodies, rows)


def _insert_all(connection: Connection, table: Table, values: list[Any]) -> None:
    """Insert rows given as one flat list of values, in the table's order of columns."""
    count = len(values) // len(table.c)
    connection.exec_driver_sql(_insert_many(table, _mark(connection), count), tuple(values))


# Written by hand: SQLAlchemy compiles a VALUES of 64 rows for 9 ms, and anew for each other number.


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


@lru_cache(maxsize=1024)
def _insert_many(table: Table, mark: str, count: int) -> str:
    row = f"({', '.join([mark] * len(table.c))})"
    return (
        f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) VALUES {', '.join([row] * count)}"  # noqa: S608
    )


@lru_cache(maxsize=256)
def _close_many(mark: str, count: int) -> str:
    return f"DELETE FROM intents WHERE certificate IN ({', '.join([mark] * count)})"  # noqa: S608


# One by one: the rules.


def _outcome(connection: Connection, command: Command) -> Outcome:
    try:
        match command:
            case RecordIntent():
                return _record_intent(connection, command)
            case RecordCertificate():
                _record_certificate(connection, command)
            case WriteOff():
                return _write_off(connection, command)
            case Revoke():
                return _revoke(connection, command)
            case RecordAct():
                _record_act(connection, command.entry)
            case ExtendLog():
                return log.extend(connection)
            case SaveCheckpoint():
                _save_checkpoint(connection, command)
            case Prune():
                return _prune(connection, command)
            case Probe():
                _probe(connection, command)
        return None
    except Exception as error:
        if is_outage(error):
            raise
        return error


def _record_intent(connection: Connection, command: RecordIntent) -> int:
    serial = serial_text(command.certificate.serial)
    if _known(connection, _c.serial == serial):
        raise Conflict(
            f"serial {serial_pairs(command.certificate.serial)} has been given out already: draw another"
        )
    if command.request_key is not None and _known(
        connection, _c.request_key == command.request_key
    ):
        raise Conflict("this request has been recorded already: ask for its certificate again")
    if command.renews is not None:
        presented = _known(connection, _c.serial == serial_text(command.renews))
        if presented is not None and presented["revoked_at"] is not None:
            raise Revoked(
                f"the certificate that was presented, {serial_pairs(command.renews)}, has been revoked meanwhile"
            )
    return _record_intents(connection, [command])[0]


def _record_certificate(connection: Connection, command: RecordCertificate) -> None:
    if connection.execute(_CLOSE, {"id_": command.intent}).rowcount != 1:
        raise Unknown("this intent is not open: it was written off, or has its certificate")
    connection.execute(insert(bodies), {"certificate": command.intent, "der": command.der})


def _write_off(connection: Connection, command: WriteOff) -> IssuedCertificate:
    if connection.execute(_CLOSE, {"id_": command.intent}).rowcount != 1:
        raise Unknown("this intent is not open: it was written off, or has its certificate")
    # A request that is repeated now buys a certificate of its own.
    free = update(certificates).where(_c.id == command.intent).values(request_key=None)
    connection.execute(free)
    row = _one(connection, _c.id == command.intent)
    if row["revoked_at"] is not None:
        _record_act(connection, command.entry)
        return certificate_of(row)
    return _mark_revoked(
        connection, row["id"], microseconds(command.at), Reason.UNSPECIFIED, command.entry
    )


def _revoke(connection: Connection, command: Revoke) -> IssuedCertificate:
    row = _known(connection, _c.serial == serial_text(command.serial))
    if row is None or command.issuer not in (None, row["issuer"]):
        raise Unknown(
            f"no certificate with serial {serial_pairs(command.serial)} was issued here: "
            "compare the serial with the list of certificates"
        )
    if row["revoked_at"] is not None:
        return certificate_of(row)
    return _mark_revoked(
        connection, row["id"], microseconds(command.at), command.reason, command.entry
    )


def _mark_revoked(
    connection: Connection, number: int, at: int, reason: Reason, entry: Entry
) -> IssuedCertificate:
    connection.execute(_REVOKE, {"id_": number, "at_": at, "reason_": reason})
    position = next_numbers(connection, feed=1)["feed"]
    connection.execute(insert(feed), {"position": position, "certificate": number})
    _record_act(connection, entry)
    return certificate_of(_one(connection, _c.id == number))


def _record_act(connection: Connection, entry: Entry) -> None:
    position = next_numbers(connection, audit=1)["audit"] - 1
    row = {"position": position, "at": microseconds(entry.at), "entry": entry.to_bytes()}
    connection.execute(insert(audit), row)


def _save_checkpoint(connection: Connection, command: SaveCheckpoint) -> None:
    connection.execute(delete(checkpoints).where(checkpoints.c.size == command.size))
    row = {"size": command.size, "at": microseconds(command.at), "note": command.note}
    connection.execute(insert(checkpoints), row)


def _prune(connection: Connection, command: Prune) -> int:
    expired = (
        select(_c.id)
        .where(
            _c.expires_at < microseconds(command.expired_before),
            _c.id.not_in(select(intents.c.certificate)),
        )
        .order_by(_c.expires_at)
        .limit(command.limit)
    )
    gone = connection.execute(delete(certificates).where(_c.id.in_(expired))).rowcount
    return gone + log.prune(connection, microseconds(command.acts_before), command.limit)


def _probe(connection: Connection, command: Probe) -> None:
    connection.execute(delete(meta).where(meta.c.name == "probe"))
    value = str(microseconds(command.at))
    connection.execute(insert(meta), {"name": "probe", "value": value})
    if connection.execute(select(meta.c.value).where(meta.c.name == "probe")).scalar() != value:
        raise StoreError("the store does not give back what was written to it")


def _known(connection: Connection, condition: Any) -> Any:
    return connection.execute(ROW.where(condition)).mappings().first()


def _one(connection: Connection, condition: Any) -> Any:
    return connection.execute(ROW.where(condition)).mappings().one()
