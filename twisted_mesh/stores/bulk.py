"""Certificates by the dozen, revocations by the thousand: a handful of statements, however many there are.

Each call into SQLite gives up the interpreter's lock, and getting it back from a busy reactor takes
time: what counts is how few statements there are. They are written by hand, since SQLAlchemy compiles
a VALUES of 64 rows for 9 ms, and anew for each other number.
"""

from collections.abc import Sequence
from functools import lru_cache

from attrs import evolve
from sqlalchemy import Connection

from pki.svid.revocation_set import Reason
from twisted_mesh.stores.blocked_keys import block_compromised
from twisted_mesh.stores.commands import (
    RecordCertificate,
    RecordIntent,
    RecordIssue,
    RevokeAll,
)
from twisted_mesh.stores.reading import rows_of
from twisted_mesh.stores.records import IssuedCertificate
from twisted_mesh.stores.schema import (
    INTENDED,
    Value,
    certificate_of,
    mark,
    microseconds,
    next_numbers,
    row_of,
    run,
    serial_text,
    time_of,
)


class NotAtOnce(Exception):
    """Some command's precondition does not hold."""


def record_intents(connection: Connection, commands: Sequence[RecordIntent]) -> range:
    """The numbers of the new intents. Raises :class:`NotAtOnce`, or what the database says of a double."""
    ids = _record(connection, commands)
    digests: list[Value] = []
    for number, command in zip(ids, commands, strict=True):
        digests += (number, command.digest)
    _insert(connection, "intents (certificate, digest)", len(ids), digests)
    return ids


def record_issues(connection: Connection, commands: Sequence[RecordIssue]) -> None:
    """Raises as :func:`record_intents`."""
    ids = _record(connection, [command.intent for command in commands])
    _record_bodies(connection, ids, [command.der for command in commands])


def _record(connection: Connection, commands: Sequence[RecordIntent]) -> range:
    """Rows and acts of new certificates, and what must hold for these; their numbers."""
    presented = {serial_text(c.renews) for c in commands if c.renews is not None}
    if presented and _any_revoked(connection, tuple(presented)):
        raise NotAtOnce
    count = len(commands)
    last_id, last_act = next_numbers(connection, certificate=count, audit=count)
    # Asked now that the audit log is ours: whoever deletes an entry has written that, or has to wait.
    required = {c.requires for c in commands if c.requires is not None}
    required.update(*(c.rests_on for c in commands))
    keys = {c.certificate.key for c in commands}
    if not _may_be(connection, tuple(required), tuple(keys)):
        raise NotAtOnce
    ids = range(last_id - count + 1, last_id + 1)
    rows: list[Value] = []
    acts: list[Value] = []
    for number, position, command in zip(
        ids, range(last_act - count, last_act), commands, strict=True
    ):
        rows += row_of(number, command.certificate, command.request_key)
        acts += (position, microseconds(command.entry.at), command.entry.to_bytes())
    _insert(connection, f"certificates ({INTENDED})", count, rows)
    _insert(connection, "audit (position, at, entry)", count, acts)
    return ids


def record_certificates(connection: Connection, commands: Sequence[RecordCertificate]) -> None:
    """Raises :class:`NotAtOnce`."""
    numbers = tuple(command.intent for command in commands)
    statement = f"DELETE FROM intents WHERE certificate IN {_row(mark(connection), len(numbers))}"  # noqa: S608
    if run(connection, statement, numbers).rowcount != len(numbers):
        raise NotAtOnce
    _record_bodies(connection, numbers, [command.der for command in commands])


def _record_bodies(connection: Connection, numbers: Sequence[int], bodies: Sequence[bytes]) -> None:
    rows: list[Value] = []
    for number, der in zip(numbers, bodies, strict=True):
        rows += (number, der)
    _insert(connection, "bodies (certificate, der)", len(numbers), rows)


def revoke_all(connection: Connection, command: RevokeAll) -> tuple[IssuedCertificate, ...]:
    """Those that there are, in the order of the command."""
    acts = {serial_text(serial): entry for serial, entry in command.acts}
    found = {row["serial"]: row for row in rows_of(connection, tuple(acts))}
    at = microseconds(command.at)
    new = [serial for serial in acts if serial in found and found[serial]["revoked_at"] is None]
    if new:
        count = len(new)
        numbers = [found[serial]["id"] for serial in new]
        last_position, last_act = next_numbers(connection, feed=count, audit=count)
        # The number of the first is that of the last, less the others.
        positions = range(last_position - count + 1, last_position + 1)
        places = range(last_act - count, last_act)
        placed = mark(connection)
        statement = (
            f"UPDATE certificates SET revoked_at = {placed}, reason = {placed} "  # noqa: S608
            f"WHERE id IN {_row(placed, count)}"
        )
        connection.exec_driver_sql(statement, (at, str(command.reason), *numbers))
        feed: list[Value] = []
        audit: list[Value] = []
        for serial, number, position, place in zip(new, numbers, positions, places, strict=True):
            feed += (position, number)
            audit += (place, microseconds(acts[serial].at), acts[serial].to_bytes())
        _insert(connection, "feed (position, certificate)", count, feed)
        _insert(connection, "audit (position, at, entry)", count, audit)
        if command.reason is Reason.KEY_COMPROMISE:
            block_compromised(connection, numbers)
    revoked = frozenset(new)
    return tuple(
        evolve(certificate_of(found[serial]), revoked_at=time_of(at), reason=command.reason)
        if serial in revoked
        else certificate_of(found[serial])
        for serial in acts
        if serial in found
    )


def _any_revoked(connection: Connection, serials: tuple[str, ...]) -> bool:
    statement = (
        "SELECT 1 FROM certificates WHERE revoked_at IS NOT NULL "  # noqa: S608
        f"AND serial IN {_row(mark(connection), len(serials))} LIMIT 1"
    )
    return run(connection, statement, serials).fetchone() is not None


def _may_be(connection: Connection, entries: tuple[str, ...], keys: tuple[str, ...]) -> bool:
    """Whether all of the entries are there, and none of the keys is blocked."""
    marks = mark(connection)
    there = f"(SELECT count(*) FROM entries WHERE id IN {_row(marks, len(entries))})"  # noqa: S608
    blocked = f"SELECT 1 FROM blocked_keys WHERE spki IN {_row(marks, len(keys))}"  # noqa: S608
    statement = f"SELECT {there}, EXISTS ({blocked})"
    found = run(connection, statement, (*entries, *keys)).fetchone()
    return found is not None and tuple(found) == (len(entries), 0)


def _insert(connection: Connection, into: str, count: int, values: list[Value]) -> None:
    """Insert ``count`` rows, given as one flat list of values."""
    statement = _insert_many(into, mark(connection), count, len(values) // count)
    run(connection, statement, values)


@lru_cache(maxsize=512)
def _insert_many(into: str, mark: str, count: int, width: int) -> str:
    return f"INSERT INTO {into} VALUES {', '.join([_row(mark, width)] * count)}"  # noqa: S608


@lru_cache(maxsize=512)
def _row(mark: str, width: int) -> str:
    return f"({', '.join([mark] * width)})"
