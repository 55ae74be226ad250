"""A witness's record: of each log the last head that it has cosigned, durable before anybody hears of it."""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

from pki.ct.tree_head import TreeHead
from pki.errors import printable
from twisted_mesh.witness.errors import WitnessStateError
from twisted_mesh.witness.tables import TABLES, VERSION


@frozen
class CosignedHead:
    """A head, and the note that says so: the log's signature and then ours."""

    head: TreeHead
    note: str = field(repr=False)
    cosigned_at: int
    """In seconds since 1970, by our clock."""


@define(eq=False, repr=False)
class Record:
    """Used in one thread at a time."""

    path: Path
    _connection: sqlite3.Connection | None = field(default=None, init=False)

    def open(self, name: str) -> None:
        """Open it, or make it, for the witness of that name. Raises :class:`WitnessStateError`."""
        with self._explaining():
            if not self.path.exists():
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self.path, isolation_level=None, timeout=5.0, check_same_thread=False
            )
            self._connection = connection
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
                with self._changing():
                    for table in TABLES:
                        connection.execute(table)
                    self._do("INSERT INTO meta VALUES ('version', ?), ('name', ?)", VERSION, name)
        self._refuse_foreign()
        meta = dict(self._rows("SELECT name, value FROM meta"))
        if meta.get("version") != VERSION:
            raise WitnessStateError(
                f"{self.path} is of version {printable(meta.get('version', 'none'), 20)}, and this program knows "
                f"{VERSION}: upgrade twisted-mesh"
            )
        if meta.get("name") != name:
            raise WitnessStateError(
                f"{self.path} is of the witness {printable(meta.get('name', ''), 80)} and not of {name}: a witness "
                "has one name, so choose another --state-dir"
            )

    def close(self) -> None:
        """May be said again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def heads(self) -> Mapping[str, CosignedHead]:
        """By their origin, all."""
        rows = self._rows("SELECT origin, size, root, timestamp, note, cosigned_at FROM heads")
        return {
            origin: CosignedHead(TreeHead(origin, size, root, timestamp), note, at)
            for origin, size, root, timestamp, note, at in rows
        }

    def replace(self, before: CosignedHead | None, new: CosignedHead) -> None:
        """Remember ``new``, where nothing but ``before`` was remembered of that log; on the disk when it returns.

        Raises :class:`WitnessStateError`.
        """
        head = new.head
        values = (head.size, head.root, head.timestamp, new.note, new.cosigned_at, head.origin)
        with self._explaining(), self._changing():
            if before is None:
                self._do(
                    "INSERT INTO heads (size, root, timestamp, note, cosigned_at, origin) VALUES (?, ?, ?, ?, ?, ?)",
                    *values,
                )
                return
            changed = self._do(
                "UPDATE heads SET size = ?, root = ?, timestamp = ?, note = ?, cosigned_at = ? "
                "WHERE origin = ? AND size = ? AND root = ?",
                *values,
                before.head.size,
                before.head.root,
            )
            if changed.rowcount != 1:
                raise WitnessStateError(
                    f"{self.path} was changed by somebody else: one process has it, and that is this one"
                )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._do("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._do("ROLLBACK")
            raise
        self._do("COMMIT")

    def _do(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self._connection is None:
            raise WitnessStateError(f"{self.path} is not open: the witness is being stopped")
        return self._connection.execute(sql, values)

    def _rows(self, sql: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._explaining():
            return self._do(sql, *values).fetchall()

    def _refuse_foreign(self) -> None:
        """A trigger or a view would act by itself: nothing is in there but what is made here."""
        rows = self._rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        if [sql for (sql,) in rows] != list(TABLES):
            raise WitnessStateError(
                f"{self.path} has tables, triggers or views that are not as this program makes them: somebody has "
                "changed it; bring it back from a backup"
            )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            raise WitnessStateError(
                f"{self.path} cannot be used ({name}: {printable(str(error), 120)}): nothing was cosigned; free some "
                "space, or look at its owner and mode"
            ) from None
