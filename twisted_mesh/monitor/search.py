"""Questions to the index: which certificates have a name, a serial, an issuer, a key, or are of some time."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from attrs import frozen

from pki.validity import rfc3339
from twisted_mesh.monitor.certificate_facts import serial_bytes, shown_serial
from twisted_mesh.monitor.database import Database
from twisted_mesh.monitor.index import NOT_COMPARED, NOT_ON_RECORD, ON_RECORD, OPEN, moment
from twisted_mesh.monitor.name_pattern import NamePattern, shown_name

#: What ``recorded`` means, in JSON and in a table.
RECORDED = {OPEN: "not yet", ON_RECORD: "yes", NOT_ON_RECORD: "no", NOT_COMPARED: None}


@frozen
class Query:
    """All that is given must fit."""

    name: NamePattern | None = None
    serial: int | None = None
    issuer: bytes | None = None
    """SHA-256 of its SubjectPublicKeyInfo, as ``key``."""
    key: bytes | None = None
    after: datetime | None = None
    """Logged then or later."""
    before: datetime | None = None
    origin: str | None = None
    limit: int | None = 100


@frozen
class Found:
    """One certificate in a log."""

    origin: str
    position: int
    at: datetime
    is_precertificate: bool
    issuer: bytes
    serial: int
    key: bytes
    not_before: datetime
    not_after: datetime
    names: tuple[str, ...]
    recorded: int = NOT_COMPARED

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "log": self.origin,
            "position": self.position,
            "logged_at": rfc3339(self.at),
            "precertificate": self.is_precertificate,
            "names": list(self.names),
            "serial": shown_serial(self.serial),
            "issuer": self.issuer.hex(),
            "key": self.key.hex(),
            "not_before": rfc3339(self.not_before),
            "not_after": rfc3339(self.not_after),
            "on_record": RECORDED[self.recorded],
        }


def matches(query: Query, found: Found) -> bool:
    """Whether it fits, wherever it was found."""
    return (
        (query.name is None or any(map(query.name.matches, found.names)))
        and query.serial in (None, found.serial)
        and query.issuer in (None, found.issuer)
        and query.key in (None, found.key)
        and (query.after is None or found.at >= query.after)
        and (query.before is None or found.at < query.before)
        and query.origin in (None, found.origin)
    )


def search(database: Database, query: Query) -> Iterator[Found]:
    """What fits, the newest first; at most ``query.limit``."""
    sql, values = _statement(query)
    left = query.limit
    for row in database.each(sql, *values):
        found = _found(row)
        if not matches(query, found):
            continue  # what a range of the index has besides
        yield found
        if left is not None:
            left -= 1
            if left <= 0:
                return


def _statement(query: Query) -> tuple[str, list[object]]:
    terms: list[str] = []
    values: list[object] = []
    if query.name is not None:
        ranges = query.name.ranges
        within = " OR ".join(["name >= ? AND name < ?"] * len(ranges))
        # Each certificate once, however many of its names are in there.
        terms.append(f"(s.log, s.position) IN (SELECT log, position FROM names WHERE {within})")  # noqa: S608 - of constants
        values += [end for both in ranges for end in both]
    exact: list[tuple[str, object]] = [
        ("s.serial = ?", None if query.serial is None else serial_bytes(query.serial)),
        ("s.issuer = (SELECT number FROM issuers WHERE key = ?)", query.issuer),
        ("s.key = ?", query.key),
        ("s.at >= ?", query.after and int(query.after.timestamp() * 1000)),
        ("s.at < ?", query.before and int(query.before.timestamp() * 1000)),
        ("l.origin = ?", query.origin),
    ]
    for term, value in exact:
        if value is not None:
            terms.append(term)
            values.append(value)
    where = f" WHERE {' AND '.join(terms)}" if terms else ""
    return f"{_SELECT}{where} ORDER BY s.at DESC, s.log, s.position DESC", values


_SELECT = (
    "SELECT l.origin, s.position, s.at, s.kind, i.key, s.serial, s.key, s.not_before, s.not_after, s.names, s.recorded "
    "FROM sightings s JOIN logs l ON l.number = s.log JOIN issuers i ON i.number = s.issuer"
)


def _found(row: tuple[Any, ...]) -> Found:
    origin, position, at, kind, issuer, serial, key, begins, ends, names, recorded = row
    return Found(
        origin,
        position,
        moment(at / 1000),
        bool(kind),
        issuer,
        int.from_bytes(serial, "big", signed=True),
        key,
        moment(begins),
        moment(ends),
        tuple(shown_name(name) for name in names.split("\n") if name),
        recorded,
    )
