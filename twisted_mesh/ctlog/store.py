"""The log's record, in SQLite: the signed head, what is in no full tile yet, and what was seen lately.

It is what counts at a start: files may lack the last batch, and get it from here. Entries leave it once the full tile
that they are in is on the disk; only their digests stay, as long as somebody may submit them again.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

from pki.errors import printable
from twisted_mesh.ctlog.errors import ContradictsItself, CtLogStateError
from twisted_mesh.ctlog.tables import TABLES, VERSION

#: What a digest is remembered for after its certificate's end, in seconds: clocks differ.
_AFTER_END = 86_400
#: Digests that are forgotten at a time.
_AT_A_TIME = 2000
#: Bytes of the write-ahead log that stay after it was put in the file.
_WAL_KEPT = 16 * 1024 * 1024


@frozen
class Head:
    """What was signed last."""

    size: int
    root: bytes
    timestamp: int
    """Milliseconds since 1970, as RFC 6962 counts."""
    note: str
    """The signed note, without cosignatures."""


@frozen
class Seen:
    """An entry that has been taken."""

    digest: bytes
    position: int
    not_after: int
    """When its certificate ends, in seconds since 1970."""


@define(eq=False, repr=False)
class LogStore:
    """Used in one thread at a time."""

    path: Path
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _opened: tuple[int, int] | None = field(default=None, init=False)
    """Which file that was: SQLite would go on in one that was deleted, for nobody."""

    # Opened, and changed whole.

    def open(self, origin: str | None, log_id: bytes) -> str:
        """Open it, or make it, for the log of that name and key; which name it has.

        None is for the name that it has already. Raises :class:`CtLogStateError`.
        """
        with self._explaining():
            if not self.path.exists():
                if origin is None:
                    raise CtLogStateError(f"{self.path} does not exist: there is no log here yet")
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self.path, isolation_level=None, timeout=5.0, check_same_thread=False
            )
            self._connection, self._opened = connection, self._file()
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}").fetchall()
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
                self._make(origin or "", log_id)
        self._refuse_foreign()
        return self._demand_same(origin, log_id)

    def _make(self, origin: str, log_id: bytes) -> None:
        with self.changing():
            for table in TABLES:
                self._do(table)
            self._set("version", VERSION)
            self._set("origin", origin)
            self._set("log-id", log_id.hex())

    def _demand_same(self, origin: str | None, log_id: bytes) -> str:
        version, found = self._get("version"), self._get("origin") or ""
        if version != VERSION:
            raise CtLogStateError(
                f"{self.path} is of version {printable(version or 'none', 20)}, and this program knows {VERSION}: "
                "upgrade twisted-mesh"
            )
        if origin is not None and origin != found:
            raise CtLogStateError(
                f"{self.path} is the record of the log {printable(found, 200)}, and --url says {origin}: a log keeps "
                "its name for life. Say --url as before, or begin another log with another --state-dir"
            )
        if self._get("log-id") != log_id.hex():
            raise ContradictsItself(
                f"{self.path} is the record of a log with another key than the one in private/log.key: bring both back "
                "from one backup"
            )
        return found

    def close(self) -> None:
        """May be said again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One transaction, durable once it is left; taken back whole where anything is raised."""
        with self._explaining():
            if self._file() != self._opened:
                raise CtLogStateError(
                    f"{self.path} was moved, deleted or replaced while it was in use: put it back; nothing is added to "
                    "one that no start would find"
                )
            self._do("BEGIN IMMEDIATE")
            try:
                yield
                self._do("COMMIT")
            except BaseException:
                if self._connection is not None and self._connection.in_transaction:
                    self._do("ROLLBACK")
                raise

    # What is there.

    def head(self) -> Head | None:
        """What was signed last; None before the first."""
        for row in self._rows("SELECT size, root, timestamp, note FROM head"):
            return Head(*row)
        return None

    def entries(self) -> Sequence[tuple[int, bytes]]:
        """Position and tile leaf of those that are here, in their order."""
        return self._rows("SELECT position, data FROM entries ORDER BY position")

    def tiles(self) -> dict[tuple[int, int], bytes]:
        """By level and number: all partial ones, and the full ones that may not be in files yet."""
        rows = self._rows("SELECT level, number, hashes FROM tiles")
        return {(level, number): hashes for level, number, hashes in rows}

    def issuers(self) -> Sequence[tuple[bytes, bytes]]:
        """Fingerprint and DER of every certificate that entries name in their chains."""
        return self._rows("SELECT fingerprint, der FROM issuers")

    def position_of(self, digest: bytes) -> int | None:
        """Where an entry is that was taken before; None for one that is not known."""
        for (position,) in self._rows("SELECT position FROM seen WHERE digest = ?", digest):
            return int(position)
        return None

    def remembered(self) -> int:
        """How many digests are known."""
        ((count,),) = self._rows("SELECT count(*) FROM seen")
        return int(count)

    # What is put there, within changing().

    def add(
        self,
        entries: Iterable[tuple[int, bytes]],
        seen: Iterable[Seen],
        tiles: dict[tuple[int, int], bytes],
        issuers: dict[bytes, bytes],
    ) -> None:
        """A batch, and the tiles as they are with it."""
        self._many("INSERT INTO entries VALUES (?, ?)", entries)
        self._many(
            "INSERT OR REPLACE INTO seen VALUES (?, ?, ?)",
            ((one.digest, one.position, one.not_after) for one in seen),
        )
        self._many(
            "INSERT OR REPLACE INTO tiles VALUES (?, ?, ?)",
            ((level, number, hashes) for (level, number), hashes in tiles.items()),
        )
        self._many("INSERT OR IGNORE INTO issuers VALUES (?, ?)", issuers.items())

    def sign(self, head: Head) -> None:
        """From the commit on it is what was signed last."""
        self._do(
            "INSERT OR REPLACE INTO head VALUES (1, ?, ?, ?, ?)",
            head.size,
            head.root,
            head.timestamp,
            head.note,
        )

    def forget(self, published: int, full: int, now: int) -> None:
        """Drop what is in full tiles on the disk by now, and some of what was seen long ago.

        ``published`` is the size up to which all files are there, ``full`` the length of a full tile.
        """
        self._do("DELETE FROM entries WHERE position < ?", published // 256 * 256)
        for level in range(6):
            done = published >> 8 * (level + 1)
            self._do(
                "DELETE FROM tiles WHERE level = ? AND number < ? AND length(hashes) = ?",
                level,
                done,
                full,
            )
        self._do(
            "DELETE FROM seen WHERE digest IN (SELECT digest FROM seen WHERE not_after < ? LIMIT ?)",
            now - _AFTER_END,
            _AT_A_TIME,
        )

    # SQLite.

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _do(self, sql: str, *values: object) -> sqlite3.Cursor:
        return self._open_one.execute(sql, values)

    def _many(self, sql: str, rows: Iterable[tuple[object, ...]]) -> None:
        self._open_one.executemany(sql, rows)

    @property
    def _open_one(self) -> sqlite3.Connection:
        if self._connection is None:
            raise CtLogStateError(f"{self.path} is not open: the log is being stopped")
        return self._connection

    def _rows(self, sql: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._explaining():
            return self._do(sql, *values).fetchall()

    def _get(self, name: str) -> str | None:
        for (value,) in self._rows("SELECT value FROM meta WHERE name = ?", name):
            return str(value)
        return None

    def _set(self, name: str, value: str) -> None:
        self._do("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    def _refuse_foreign(self) -> None:
        """A trigger or a view would act by itself: nothing is in there but what is made here."""
        rows = self._rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        if [sql for (sql,) in rows] != list(TABLES):
            raise CtLogStateError(
                f"{self.path} has tables, triggers or views that are not as this program makes them: somebody has "
                "changed it; bring it back from a backup"
            )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            raise CtLogStateError(
                f"{self.path} cannot be used ({name}: {printable(str(error), 120)}): nothing was added; free some "
                "space, or look at its owner and mode"
            ) from None
