"""The one file of a monitor: opened, owned by one watcher at a time, and changed whole or not at all."""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from pki.errors import printable
from twisted_mesh.monitor.tables import TABLES, VERSION
from twisted_mesh.state.directory import StateError

#: Of SQLite's cache, in KiB: so that a million entries' indices need not be read again and again.
_CACHE = 64 * 1024


@define(eq=False, repr=False)
class Database:
    """Used in one thread at a time. Whatever goes wrong is a :class:`StateError`."""

    path: Path
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _lock: int | None = field(default=None, init=False)

    def own(self) -> None:
        """Open it for writing, or make it; nobody else does until this process ends."""
        with self._explaining():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise StateError(
                    f"another mesh-ctl ct watch keeps {self.path}: stop it, or choose another --index"
                ) from None
            self._lock = lock
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._open()
            if not self.rows("SELECT 1 FROM sqlite_master"):
                with self.changing():
                    for table in TABLES:
                        self.do(table)
                    self.do("INSERT INTO meta VALUES ('version', ?)", VERSION)
        self._refuse_foreign()

    def read(self) -> None:
        """Open it to look into it only, while a watcher goes on writing."""
        if not self.path.exists():
            raise StateError(
                f"there is no index {self.path}: mesh-ctl ct watch keeps one; or search logs themselves with --ct-logs"
            )
        with self._explaining():
            self._open()
            self.do("PRAGMA query_only = ON")
        self._refuse_foreign()

    def close(self) -> None:
        """May be said again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One transaction, durable once it is left; taken back whole where anything is raised."""
        with self._explaining():
            self.do("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self.do("ROLLBACK")
                raise
            self.do("COMMIT")

    def do(self, sql: str, *values: object) -> sqlite3.Cursor:
        """One statement."""
        return self._opened.execute(sql, values)

    def do_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """The same statement for each of them."""
        self._opened.executemany(sql, rows)

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All that a question is answered by."""
        with self._explaining():
            return self.do(sql, *values).fetchall()

    def each(self, sql: str, *values: object) -> Iterator[Any]:
        """The same one by one, however many there are."""
        with self._explaining():
            yield from self.do(sql, *values)

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StateError(f"{self.path} is not open")
        return self._connection

    def _open(self) -> None:
        self._connection = connection = sqlite3.connect(
            self.path, isolation_level=None, timeout=10.0, check_same_thread=False
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")

    def _refuse_foreign(self) -> None:
        """A trigger or a view would act by itself: nothing is in there but what is made here."""
        rows = self.rows(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'sqlite_sequence' ORDER BY rowid"
        )
        if [sql for (sql,) in rows] != list(TABLES):
            raise StateError(
                f"{self.path} is no index of this version: move it away, and mesh-ctl ct watch reads the logs anew"
            )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            raise StateError(
                f"{self.path} cannot be used ({name}: {printable(str(error), 120)}): free some space, or look at its "
                "owner and mode"
            ) from None
