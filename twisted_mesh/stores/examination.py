"""The rows as they stand in their tables, for whoever looks what was changed in the file by another hand.

What is read elsewhere is made of such a row what it can: a serial in capitals is a serial, and yet nobody finds it by
that. Here each value that this program would not have written is named.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from cryptography import x509
from sqlalchemy import BigInteger, Column, Connection, Integer, LargeBinary, RowMapping, Table

from pki.ct.precertificate import without_scts
from pki.errors import HOSTILE_INPUT, PkiError, printable
from pki.keys import key_id
from pki.policy.join_token import token_id
from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from pki.svid.x509svid import subject_of
from twisted_mesh.stores import indices
from twisted_mesh.stores.records import Examined, ExaminedCertificate, Oddity
from twisted_mesh.stores.schema import (
    COUNTERS,
    blocked_keys,
    certificate_of,
    certificates,
    checkpoints,
    claims,
    counters,
    crls,
    entries,
    federation,
    feed,
    intents,
    meta,
    time_of,
    tokens,
)

_SERIAL = re.compile(r"[0-9a-f]{40}", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COLUMNS = tuple(certificates.c)
_NAMES = ", ".join(f"c.{column.name}" for column in _COLUMNS)
_ROWS = f"""
SELECT {_NAMES}, f.position, i.certificate, b.der
FROM certificates c LEFT JOIN feed f ON f.certificate = c.id LEFT JOIN intents i ON i.certificate = c.id
    LEFT JOIN bodies b ON b.certificate = c.id
WHERE c.id >= ? ORDER BY c.id LIMIT ?
"""  # noqa: S608
#: Tables whose every value is looked at; the log's own are held against what was signed.
_SMALL = (
    counters,
    crls,
    meta,
    entries,
    tokens,
    claims,
    blocked_keys,
    federation,
    feed,
    intents,
    checkpoints,
)
#: So many rows are named for each thing that is wrong.
_NAMED = 20
#: What is no row of ours, or no certificate, raises.
_UNREADABLE: tuple[type[BaseException], ...] = (PkiError, AttributeError, *HOSTILE_INPUT)
#: A counter, and the largest number that it must have counted.
_COUNTED = (
    ("certificate", "SELECT max(id) FROM certificates"),
    ("feed", "SELECT max(position) FROM feed"),
    ("audit", "SELECT max(position) + 1 FROM audit"),
)


def examine(connection: Connection, start: int, limit: int) -> Examined:
    """At most ``limit`` certificates from the row ``start`` on, the oldest first."""
    rows = connection.exec_driver_sql(_ROWS, (start, limit + 1)).all()
    following = rows[limit][0] if len(rows) > limit else None
    hidden = indices.unfound(connection, start, rows[:limit][-1][0] + 1) if rows else {}
    found = (_examined(tuple(row), hidden.get(row[0], ())) for row in rows[:limit])
    return Examined(tuple(found), following)


def _examined(row: tuple[Any, ...], hidden: Sequence[str]) -> ExaminedCertificate:
    *values, position, intent, der = row
    told = dict(zip((column.name for column in _COLUMNS), values, strict=True))
    oddities = [*_of_wrong_kind_in(told), *_odd_forms(told), *_not_found(hidden)]
    serial = told["serial"]
    name = printable(serial if isinstance(serial, str) else repr(serial), 80)
    try:
        known = certificate_of(cast("RowMapping", {**told, "intent": intent}))
        name = serial_hex(known.serial)
    except _UNREADABLE:
        oddities = oddities or ["cannot be read"]
        return ExaminedCertificate(
            name, None, None, None, is_without_body=False, oddities=tuple(oddities)
        )
    if known.issued_at > known.expires_at:
        oddities.append("begins after its end")
    if (known.revoked_at is None) != (known.reason is None):
        oddities.append("has a time of revocation or a reason, and not both")
    if position is not None and known.revoked_at is None:
        oddities.append("is told to endpoints as revoked, and is not")
    if intent is not None and der is not None:
        oddities.append("is there, and as yet to be signed too")
    tbs = None
    if der is not None:
        tbs, problems = _of_body(der, told, known.serial)
        oddities += problems
    return ExaminedCertificate(
        name,
        known,
        tbs,
        position if isinstance(position, int) else None,
        is_without_body=der is None and intent is None,
        oddities=tuple(oddities),
    )


def _not_found(hidden: Sequence[str]) -> Iterator[str]:
    if hidden:
        yield (
            f"is not found by {', '.join(hidden)}, so that it may not be revoked, or listed where it is looked for: "
            "the file's pages were changed"
        )


def _of_body(der: object, told: dict[str, Any], serial: int) -> tuple[str | None, list[str]]:
    """The digest of what was drafted, which is without SCTs, and what the row says differently of the certificate."""
    try:
        if not isinstance(der, bytes):
            raise TypeError
        certificate = x509.load_der_x509_certificate(der)
        found = {
            "key": key_id(certificate.public_key()),
            "subject": subject_of(certificate),
        }
        signed = certificate.serial_number, certificate.not_valid_after_utc
        drafted = without_scts(certificate.tbs_certificate_bytes)
    except _UNREADABLE:
        return None, ["is kept as something that is no certificate"]
    problems = [
        f"has the {name} {_shown(told[name])} by its row, and is of {_shown(value)}"
        for name, value in found.items()
        if told[name] != value
    ]
    if signed != (serial, time_of(told["expires_at"]).replace(microsecond=0)):
        problems.append(
            "is kept as another certificate: its serial or its end is not that of the row"
        )
    return hashlib.sha256(drafted).hexdigest(), problems


def _of_wrong_kind_in(told: dict[str, Any]) -> Iterator[str]:
    for column in _COLUMNS:
        if not _is_of_kind(told[column.name], column):
            yield f"has as its {column.name} what is no {_kind(column)}"


def _odd_forms(told: dict[str, Any]) -> Iterator[str]:
    serial, reason = told["serial"], told["reason"]
    if isinstance(serial, str) and not _SERIAL.fullmatch(serial):
        yield (
            f"has its serial written as {_shown(serial)}: it is not found by it, and cannot be revoked until a backup "
            "is restored"
        )
    for name in ("issuer", "key"):
        if isinstance(told[name], str) and not _KEY_ID.fullmatch(told[name]):
            yield f"has the {name} {_shown(told[name])}, which is none"
    if isinstance(reason, str) and reason not in {str(known) for known in Reason}:
        yield f"has the reason {_shown(reason)}, which is none"


def oddities(connection: Connection) -> tuple[Oddity, ...]:
    """What is odd about the record as a whole, and in its smaller tables; some of each kind by name."""
    return (
        *(found for table in _SMALL for found in _of_wrong_kind(connection, table)),
        *_of_counters(connection),
        *_of_orphans(connection),
        *_of_tokens(connection),
        *(Oddity(table, "indices", told) for table, told in indices.damaged(connection)),
    )


def _of_wrong_kind(connection: Connection, table: Table) -> Iterator[Oddity]:
    for column in table.columns:
        kinds = [_kind(column)] + (["null"] if column.nullable else [])
        marks = ", ".join("?" * len(kinds))
        key = next(iter(table.primary_key.columns)).name
        statement = f"SELECT {key} FROM {table.name} WHERE typeof({column.name}) NOT IN ({marks}) LIMIT {_NAMED}"  # noqa: S608
        for (name,) in connection.exec_driver_sql(statement, tuple(kinds)).all():
            yield Oddity(str(table.name), _shown(name), f"its {column.name} is no {_kind(column)}")


def _of_counters(connection: Connection) -> Iterator[Oddity]:
    rows = connection.exec_driver_sql("SELECT name, value FROM counters").all()
    found = {name: value for name, value in rows if isinstance(value, int)}
    for name in sorted(set(COUNTERS) ^ {row[0] for row in rows}, key=str):
        yield Oddity("counters", _shown(name), "it is missing, or none of the record's")
    for name, statement in _COUNTED:
        last = connection.exec_driver_sql(statement).scalar() or 0
        if isinstance(last, int) and found.get(name, last) < last:
            yield Oddity(
                "counters", name, f"it is {found[name]}, and {last} has been counted already"
            )
    if found.get("tree", 0) > found.get("audit", 0):
        yield Oddity("counters", "tree", "more acts are in the tree than there are")
    (early,) = connection.exec_driver_sql("SELECT count(*) FROM certificates WHERE id < 1").one()
    if early:
        yield Oddity("certificates", "id", f"{early} have a number that was never given out")


def _of_orphans(connection: Connection) -> Iterator[Oddity]:
    for table in ("feed", "intents", "bodies"):
        statement = (
            f"SELECT certificate FROM {table} "  # noqa: S608
            f"WHERE certificate NOT IN (SELECT id FROM certificates) LIMIT {_NAMED}"
        )
        for (name,) in connection.exec_driver_sql(statement).all():
            yield Oddity(table, _shown(name), "there is no certificate of that number")


def _of_tokens(connection: Connection) -> Iterator[Oddity]:
    for name, digest in connection.exec_driver_sql("SELECT id, digest FROM tokens").all():
        if isinstance(digest, bytes) and token_id(digest) != name:
            yield Oddity("tokens", _shown(name), "its digest is that of another token")


def _is_of_kind(value: object, column: "Column[Any]") -> bool:
    if value is None:
        return bool(column.nullable)
    return type(value) is {"integer": int, "blob": bytes, "text": str}[_kind(column)]


def _kind(column: "Column[Any]") -> str:
    if isinstance(column.type, Integer | BigInteger):
        return "integer"
    return "blob" if isinstance(column.type, LargeBinary) else "text"


def _shown(value: object) -> str:
    return printable(value if isinstance(value, str) else repr(value), 80)


def lost_checkpoints(connection: Connection, sizes: Sequence[int]) -> tuple[int, ...]:
    """Those of the sizes of which no checkpoint is kept."""
    ask = connection.exec_driver_sql
    return tuple(
        size
        for size in sizes
        if size > 0 and ask("SELECT 1 FROM checkpoints WHERE size = ?", (size,)).first() is None
    )
