"""Whether SQLite's indices lead to the rows of their tables: one that lacks a row hides it from whoever looks it up.

The statement that makes an index tells nothing of what is in it. Whoever takes entries out of its pages has a
certificate that is listed and not found by its serial, so that nobody can revoke it.
"""

from collections.abc import Iterator

from sqlalchemy import Connection, Index, Table
from sqlalchemy.dialects import sqlite

from twisted_mesh.stores.schema import certificates, metadata

#: Up to so many certificates all are counted at a start, which takes a second or two.
COUNTED = 1_000_000
_SERIALS = "sqlite_autoindex_certificates_1"
#: By index: what finds the row ``c`` by it as ``d``, and which rows are in it.
_ENTRIES = {
    _SERIALS: ("d.serial = c.serial", "1"),
    "certificates_by_spiffe_id": ("d.spiffe_id = c.spiffe_id", "1"),
    "certificates_by_issued_at": ("d.issued_at = c.issued_at", "1"),
    "certificates_by_expires_at": ("d.expires_at = c.expires_at", "1"),
    "certificates_by_key": (
        "d.id / 4096 = c.id / 4096 AND substr(d.key, 1, 16) = substr(c.key, 1, 16)",
        "1",
    ),
    "certificates_revoked": ("d.revoked_at IS NOT NULL", "c.revoked_at IS NOT NULL"),
    "certificates_by_request": ("d.request_key = c.request_key", "c.request_key IS NOT NULL"),
    "certificates_by_entry": ("d.entry = c.entry", "c.entry IS NOT NULL"),
    "certificates_by_claim": ("d.claim = c.claim", "c.claim IS NOT NULL"),
}
#: Tables of which every row is looked up at once.
_SMALL = (
    "counters",
    "crls",
    "meta",
    "entries",
    "tokens",
    "claims",
    "blocked_keys",
    "federation",
    "feed",
    "tiles",
)
_NAMED = 20


def miscounted(connection: Connection) -> list[str]:
    """The indices that have more or fewer entries than their tables have rows, by name.

    Nothing is counted of a record with more than :data:`COUNTED` certificates.
    """
    ask = connection.exec_driver_sql
    if (ask("SELECT max(id) FROM certificates").scalar() or 0) > COUNTED:
        return []
    # Not count(*): that takes whichever index is the smallest, whatever it is told.
    found = []
    for table in metadata.sorted_tables:
        for name in _names(connection, table):
            where = _condition(table, name)
            rows = ask(f"SELECT total(1) FROM {table.name} NOT INDEXED{where}").scalar()  # noqa: S608
            held = ask(f"SELECT total(1) FROM {table.name} INDEXED BY {name}{where}").scalar()  # noqa: S608
            if rows != held:
                found.append(name)
    return found


def unfound(connection: Connection, start: int, end: int) -> dict[int, list[str]]:
    """By the number of the certificate, from ``start`` to before ``end``: the indices that do not lead to it."""
    found: dict[int, list[str]] = {}
    for name, (same, those) in _ENTRIES.items():
        statement = (
            f"SELECT c.id FROM certificates c NOT INDEXED WHERE c.id >= ? AND c.id < ? AND {those} AND NOT EXISTS "  # noqa: S608
            f"(SELECT 1 FROM certificates d INDEXED BY {name} WHERE {same} AND d.id = c.id)"
        )
        for (number,) in connection.exec_driver_sql(statement, (start, end)).all():
            found.setdefault(number, []).append(name)
    return found


def damaged(connection: Connection) -> Iterator[tuple[str, str]]:
    """Table and damage, in SQLite's own words, of those tables that are looked through at once."""
    for table in _SMALL:
        statement = f"PRAGMA integrity_check('{table}')"
        for (told,) in connection.exec_driver_sql(statement).fetchmany(_NAMED):
            if told != "ok":
                yield table, told
    for name in miscounted(connection):
        if name in _ENTRIES:
            yield certificates.name, f"wrong # of entries in index {name}"


def _names(connection: Connection, table: Table) -> list[str]:
    return [row[1] for row in connection.exec_driver_sql(f"PRAGMA index_list('{table.name}')")]


def _condition(table: Table, name: str) -> str:
    index: Index | None = next((index for index in table.indexes if index.name == name), None)
    where = None if index is None else index.dialect_options["sqlite"]["where"]
    return "" if where is None else f" WHERE {where.compile(dialect=sqlite.dialect())}"
