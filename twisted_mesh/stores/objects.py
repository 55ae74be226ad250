"""What a file of SQLite may hold besides rows: our tables and their indices, and nothing that acts by itself.

Whoever can write the file, and nothing else, could otherwise leave a trigger in it that undoes what the CA does,
a view that says what no row says, or a column that is computed.
"""

import re
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from pki.errors import printable
from twisted_mesh.stores.schema import VERSION, metadata

#: Reads what :func:`foreign` judges.
LISTING = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid"
#: What SQLite makes itself: for UNIQUE and PRIMARY KEY, and where somebody ran ANALYZE.
_AUTOMATIC = "sqlite_autoindex_"
_STATISTICS = ("sqlite_stat1", "sqlite_stat4")
#: Of the tables before numbers came (version 1), which the migration drops.
_OLD_INDICES = frozenset(
    f"certificates_{name}" for name in ("newest", "by_spiffe_id", "by_expiry", "pending", "revoked")
)

_BLANK = " \t\n\f\r"
_BLANKS = re.compile(f"[{_BLANK}]+")

Listed = tuple[str, str, str, str | None]


def foreign(listed: Iterable[Listed], version: int = VERSION) -> list[str]:
    """Those of the objects that are not this program's, as people call them: ``the trigger 'undo'``.

    Of tables of an earlier ``version`` the names are compared, of today's every word.
    """
    ours = _ours()
    found = []
    for kind, name, table, sql in listed:
        told = f"the {printable(str(kind), 20)} {printable(str(name), 60)!r}"
        if _is_sqlites_own(kind, name, table, sql):
            continue
        written = ours.get((kind, name))
        if version < VERSION and kind == "index" and name in _OLD_INDICES:
            continue
        if written is None:
            found.append(told)
        elif version == VERSION and written != (table, _canonical(sql or "")):
            found.append(f"{told}, which is not as this program makes it")
    return found


def harden(connection: sqlite3.Connection) -> None:
    """Let no schema that a stranger may have written call anything, or run anything where SQLite can be told so."""
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER, False)
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW, False)


def _is_sqlites_own(kind: str, name: str, table: str, sql: str | None) -> bool:
    if kind == "index" and sql is None:
        return name == f"{_AUTOMATIC}{table}_{name.rpartition('_')[2]}" and table in metadata.tables
    return kind == "table" and name in _STATISTICS and name == table


@lru_cache
def _ours() -> Mapping[tuple[str, str], tuple[str, str]]:
    """By kind and name: the table, and the statement that makes the object."""
    dialect = sqlite.dialect()
    found = {}
    for table in metadata.sorted_tables:
        statement = str(CreateTable(table).compile(dialect=dialect))
        found["table", table.name] = table.name, _canonical(statement)
        for index in table.indexes:
            statement = str(CreateIndex(index).compile(dialect=dialect))
            found["index", str(index.name)] = table.name, _canonical(statement)
    return found


def _canonical(sql: str) -> str:
    """A statement without what differs by the way that made it: blanks, and where a later column stands."""
    # What else is a blank to Python is part of a name to SQLite.
    text = _BLANKS.sub(" ", sql.strip(_BLANK))
    head, _, rest = text.partition("(")
    if not head.startswith("CREATE TABLE "):
        return text
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if (letter == "," and not depth) or depth < 0:
            parts.append(rest[start:i].strip(_BLANK))
            start = i + 1
        if depth < 0:
            break
    return f"{head.strip(_BLANK)} ({', '.join(sorted(parts))}){rest[start:].strip(_BLANK)}"
