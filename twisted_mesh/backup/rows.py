"""A record made anew from the rows of another: whatever else a stranger has put into its file stays behind."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table

from pki.errors import printable
from twisted_mesh.stores.objects import LISTING, foreign, harden
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.schema import COUNTERS, metadata
from twisted_mesh.stores.sqlite import Sqlite

#: Bytes of one value, of one row, and of a statement: the largest of ours is a tile of 8 KiB or a certificate.
_LONGEST = 4 * 1024 * 1024
#: What SQLite keeps for whoever made the file, and we do not use.
_HEADERS = ("user_version", "application_id")
#: A counter, the column that it counts, and what has to be added to its largest value.
_COUNTED = (
    ("certificate", "certificates", "id", 0),
    ("feed", "feed", "position", 0),
    ("audit", "audit", "position", 1),
)


def opened(path: Path, mode: str) -> sqlite3.Connection:
    """A record that may be a stranger's: nothing of its schema is trusted, and nothing in it may be huge."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, timeout=5, isolation_level=None
    )
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST)
        harden(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """What SQLite says against a record, as :class:`StoreError`."""
    try:
        yield
    except UnicodeDecodeError:  # of SQLite's own words about a damaged schema
        raise StoreError(
            f"store {path}: it is damaged: keep a copy of it, and use another backup"
        ) from None
    except sqlite3.Error as error:
        raise Sqlite(path).explain(error) from None


def refuse_foreign(connection: sqlite3.Connection, name: str) -> None:
    """Raises :class:`StoreError` that names what no version of this program has made. Nothing is run for that."""
    found = foreign(connection.execute(LISTING).fetchall(), 1)
    for header in _HEADERS:
        (value,) = connection.execute(f"PRAGMA {header}").fetchone()
        if value:
            found.append(f"the {header} {value}")
    if found:
        raise StoreError(
            f"store {name}: it holds what is not this program's ({'; '.join(found[:5])}): somebody has written to it; "
            "use another backup"
        )


def remake(path: Path) -> None:
    """Replace a record, whose tables are up to date, by a new one with its rows.

    Raises :class:`StoreError` for values of another kind, and for rows that contradict each other.
    """
    source = path.with_name(f"{path.name}.old")
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    path.replace(source)
    database = Sqlite(path)
    database.make()
    engine = database.engine()
    with engine.execution_options(writes=True).begin() as connection:
        metadata.create_all(connection)
    engine.dispose()
    with closing(opened(path, "rw")) as target:
        target.execute(
            "PRAGMA foreign_keys = OFF"
        )  # checked at the end, in whatever order rows come
        target.execute("ATTACH ? AS source", (f"file:{quote(str(source))}?mode=ro",))
        target.execute("BEGIN IMMEDIATE")
        for table in metadata.sorted_tables:
            names = ", ".join(column.name for column in table.columns)
            target.execute(
                f"INSERT INTO main.{table.name} ({names}) SELECT {names} FROM source.{table.name}"  # noqa: S608
            )
        problems = [*_of_wrong_kind(target), *_contradictions(target)]
        if problems:
            raise StoreError(f"store {database}: {'; '.join(problems[:5])}: use another backup")
        target.execute("COMMIT")
        target.execute("DETACH source")
    source.unlink()


def _of_wrong_kind(connection: sqlite3.Connection) -> Iterator[str]:
    for table in metadata.sorted_tables:
        for column in table.columns:
            kinds = [_kind(column)] + (["null"] if column.nullable else [])
            marks = ", ".join("?" * len(kinds))
            found = connection.execute(
                f"SELECT count(*) FROM main.{table.name} WHERE typeof({column.name}) NOT IN ({marks})",  # noqa: S608
                kinds,
            ).fetchone()
            if found[0]:
                yield f"{_where(table, column)} has {found[0]} values that are not {kinds[0]}"


def _kind(column: "Column[object]") -> str:
    if isinstance(column.type, Integer | BigInteger):
        return "integer"
    return "blob" if isinstance(column.type, LargeBinary) else "text"


def _where(table: Table, column: "Column[object]") -> str:
    return f"{table.name}.{column.name}"


def _contradictions(connection: sqlite3.Connection) -> Iterator[str]:
    orphans = {row[0] for row in connection.execute("PRAGMA main.foreign_key_check").fetchall()}
    for table in sorted(orphans):
        yield f"{printable(str(table), 60)} has rows of what is not there"
    counters = dict(connection.execute("SELECT name, value FROM main.counters").fetchall())
    if counters.keys() != set(COUNTERS) or min(counters.values()) < 0:
        yield "its counters are not those of a record"
        return
    for name, table_name, column, more in _COUNTED:
        (last,) = connection.execute(
            f"SELECT coalesce(max({column}) + {more}, 0) FROM main.{table_name}"  # noqa: S608
        ).fetchone()
        if counters[name] < last:
            yield f"its counter {name} is behind what has been counted"
    if not 0 <= counters["tree"] <= counters["audit"]:
        yield "its tree has more acts than there are"
    # Whoever is revoked and in no feed would stay good everywhere.
    (untold,) = connection.execute(
        "SELECT count(*) FROM main.certificates c LEFT JOIN main.feed f ON f.certificate = c.id "
        "WHERE (c.revoked_at IS NULL) != (f.position IS NULL)"
    ).fetchone()
    if untold:
        yield f"{untold} certificates are revoked and no endpoint would hear of it, or the other way round"
