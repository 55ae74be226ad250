"""SQLite: one file (or memory), durable at each commit, its troubles told in a sentence."""

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from pki.errors import printable
from twisted_mesh.stores.objects import harden
from twisted_mesh.stores.records import Full, StoreError
from twisted_mesh.stores.reserve import Reserve
from twisted_mesh.stores.schema import run

_log = Logger(namespace="mesh.store")

#: The file is damaged. Writing would go on in the pages that are in memory, and what was written be gone at the
#: next start.
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
#: The disk is full, when a page is written and when the index of the write-ahead log grows.
_FULL = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
_REMEDIES = {
    **dict.fromkeys(
        _FULL, "the disk is full: free some space, and it goes on by itself; revoking still works"
    ),
    "SQLITE_READONLY": "it cannot be written: check its owner and mode, and whether the disk is mounted read-only",
    "SQLITE_CANTOPEN": "it cannot be opened: check the path, and the owner and mode of file and directory",
    "SQLITE_PERM": "it cannot be opened: check the owner and mode of file and directory",
    "SQLITE_BUSY": "another process keeps it locked: end that one, and it goes on by itself",
    "SQLITE_LOCKED": "another process keeps it locked: end that one, and it goes on by itself",
    "SQLITE_IOERR": "the disk reports errors: look into the kernel's log, and it goes on once the disk does",
    "SQLITE_CORRUPT": "it is damaged: stop, keep a copy of it, and restore the last backup",
    "SQLITE_ERROR": "its tables are not those of this program: name another file, or restore the last backup",
    "SQLITE_CONSTRAINT": "it contradicts itself: stop, keep a copy of it, and restore the last backup",
    "SQLITE_NOTADB": "it is not a database, or it is damaged: move it away, and restore the last backup",
}


class Sqlite:
    """Where a :class:`twisted_mesh.stores.sql.SqlStore` keeps its tables."""

    #: What the database itself says no with, whoever has asked it.
    errors = (DBAPIError, sqlite3.Error)

    def __init__(self, path: Path | None, *, patience: float = 5.0) -> None:
        """``path`` None is memory; ``patience`` is how many seconds another process's lock is waited for."""
        self.path = path
        self._patience = patience
        self.reserve = None if path is None else Reserve(path.with_name("reserve"))
        self.damage: str | None = None
        """What is wrong with the file, once that is known: from then on nothing is written to it."""

    def __str__(self) -> str:
        return "memory" if self.path is None else printable(str(self.path))

    def make(self) -> None:
        """Make the file, here and only here: one that vanishes later is an error, not an empty store.

        Raises :class:`StoreError`.
        """
        if self.path is not None:
            self._make_file(self.path)

    def engine(self) -> Engine:
        """One connection, open. Raises what :meth:`explain` explains."""
        engine = create_engine("sqlite://", creator=self._connect, poolclass=StaticPool)
        with engine.connect():
            opened = self._file()
        event.listen(engine, "begin", lambda begun: self._begin(begun, opened))
        return engine

    def tidy(self, engine: Engine) -> None:
        """Give back to the disk what the write-ahead log takes of it, as far as that can be done now."""
        connection = engine.raw_connection()  # not in a transaction
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            _log.debug("The write-ahead log stays as it is: {error}", error=str(error))
        finally:
            connection.close()

    def explain(self, error: Exception) -> StoreError:
        """What an error of the database means, without its traceback and its SQL."""
        if isinstance(error, StoreError):
            return error
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.Error):
            _log.failure("the store broke", failure=Failure(error))
        name = getattr(cause, "sqlite_errorname", None) or type(cause).__name__
        for known, remedy in _REMEDIES.items():
            if name.startswith(known):
                told = f"store {self}: {remedy}"
                if known in _DAMAGED and self.damage is None:
                    self.damage = told
                    _log.error(
                        "Nothing is recorded any more: {told}", event="record-damaged", told=told
                    )
                return Full(told) if known in _FULL else StoreError(told)
        return StoreError(f"store {self}: {name}, {printable(str(cause))}: nothing was kept")

    def _connect(self) -> sqlite3.Connection:
        where = ":memory:" if self.path is None else f"file:{quote(str(self.path))}?mode=rw"
        connection = sqlite3.connect(
            where,
            uri=True,
            timeout=self._patience,
            isolation_level=None,  # transactions begin in _begin
            check_same_thread=False,  # opened by start(), then used by one thread alone
            cached_statements=256,
        )
        try:
            harden(connection)
            # FULL: a commit returns when the log is on the disk. WAL alone would leave that to checkpoints.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            # What is only put aside needs no disk, which may be full.
            connection.execute("PRAGMA temp_store = MEMORY")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if self.path is not None and mode != "wal":
                raise StoreError(
                    f"store {self}: its file system cannot hold a write-ahead log: use a local disk"
                )
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_file(self, path: Path) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise StoreError(
                f"store {self}: {error.strerror}: check the path, and the owner and mode of file and directory"
            ) from None

    def _begin(self, connection: Connection, opened: tuple[int, int] | None) -> None:
        if self._file() != opened:
            raise StoreError(
                f"store {self}: the file was moved, deleted or replaced while in use: "
                "put it back, or restart to use what is there now"
            )
        # A transaction that reads first and writes later can lose its turn to another process half way.
        write = connection.get_execution_options().get("writes", False)
        run(connection, "BEGIN IMMEDIATE" if write else "BEGIN")

    def _file(self) -> tuple[int, int] | None:
        """Which file has the name: SQLite would go on in one that was deleted, for nobody."""
        if self.path is None:
            return None
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
