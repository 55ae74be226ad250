"""The CA's record (``mesh.db``) as a backup sees it: copied while in use, brought up to date, compared."""

import secrets
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import msgspec
from attrs import field, frozen

from pki.audit.log import Checkpoint
from pki.errors import PkiError
from twisted_mesh.backup import rights, rows
from twisted_mesh.backup.rows import opened, refuse_foreign, telling
from twisted_mesh.stores import migrations, schema
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.sqlite import Sqlite


@frozen
class Summary:
    """What a record holds, in numbers."""

    store: str
    certificates: int
    revoked: int
    acts: int
    """In the audit log, in its tree or not yet."""
    note: str | None
    """Its latest checkpoint."""
    entries: int = 0
    """Registration entries."""
    before: Mapping[str, int] = field(factory=dict)
    """The ids that it had before it was restored, and how many acts were in it then."""

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The latest checkpoint; None where there is none, or none that can be read."""
        return checkpoint_of(self.note)

    def has_known(self, other: "Summary") -> bool:
        """Whether all that is in ``other`` once was in this one."""
        acts = self.acts if self.store == other.store else self.before.get(other.store, -1)
        return other.acts <= acts


@frozen
class Lost:
    """What one record has and another has not."""

    certificates: int = 0
    """Not revoked."""
    living: int = 0
    """Those that have not expired: they would be good, and nobody could revoke them."""
    revocations: tuple[int, ...] = ()
    """Serials that are revoked in the one only."""
    acts: int = 0
    is_same_log: bool = True
    """Whether both are of one log, so that its lengths can be compared."""
    is_successor: bool = field(default=True, eq=False)
    """Whether the one has known all that is in the other: what it lacks was deleted."""


def checkpoint_of(note: str | None) -> Checkpoint | None:
    """What a note says, its signature left aside: a backup is believed as a whole, or not at all."""
    if note is None:
        return None
    try:
        return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
    except PkiError:
        return None


def copy(source: Path, target: Path) -> None:
    """Copy a record that may be in use, in one transaction, to a single file. Raises :class:`StoreError`."""
    with (
        telling(source),
        closing(opened(source, "ro")) as present,
        closing(opened(target, "rwc")) as copied,
    ):
        present.backup(copied)
        copied.execute("PRAGMA journal_mode = DELETE")
        _check(copied, source)
    target.chmod(0o600)


def check(path: Path) -> None:
    """Raises :class:`StoreError` for a damaged record, and for one with what is not ours in it."""
    with telling(path), closing(opened(path, "ro")) as connection:
        refuse_foreign(connection, str(path))
        _check(connection, path)


def remake(path: Path) -> None:
    """See :func:`twisted_mesh.backup.rows.remake`. Raises :class:`StoreError`."""
    with telling(path):
        rows.remake(path)


def bring_up(path: Path) -> None:
    """Bring the tables up to those of this program. Raises :class:`StoreError`."""
    database = Sqlite(path)
    engine = database.engine()
    try:
        with engine.execution_options(writes=True).begin() as connection:
            if migrations.bring_up(connection, str(database)).is_new:
                raise StoreError(f"store {database}: it is empty: no CA has ever used it")
    except StoreError:
        raise
    except Exception as error:
        raise database.explain(error) from None
    finally:
        engine.dispose()


def summary(path: Path) -> Summary:
    """Of a record whose tables are up to date. Raises :class:`StoreError`."""
    with telling(path), closing(opened(path, "ro")) as connection:
        ask = connection.execute
        counts = dict(ask("SELECT name, value FROM counters").fetchall())
        note = ask("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return Summary(
            store=ask("SELECT value FROM meta WHERE name = 'store'").fetchone()[0],
            certificates=ask("SELECT count(*) FROM certificates").fetchone()[0],
            revoked=ask(
                "SELECT count(*) FROM certificates WHERE revoked_at IS NOT NULL"
            ).fetchone()[0],
            acts=counts["audit"],
            note=note[0] if note else None,
            entries=ask("SELECT count(*) FROM entries").fetchone()[0],
            before=_before(connection),
        )


def compare(backup: Path, present: Path, now: datetime) -> Lost:
    """What ``backup`` lacks of ``present``, both up to date. Raises :class:`StoreError`."""
    theirs, ours = summary(backup), summary(present)
    with telling(backup), closing(opened(backup, "ro")) as connection:
        _attach(connection, present)
        certificates, living = connection.execute(
            f"SELECT count(*), coalesce(sum(expires_at >= ?), 0) {_NEWER}",
            (schema.microseconds(now),),
        ).fetchone()
        revoked = connection.execute(f"SELECT p.serial {_REVOKED_SINCE}").fetchall()
        return Lost(
            certificates,
            living,
            tuple(int(serial, 16) for (serial,) in revoked),
            max(0, ours.acts - theirs.acts) if ours.store == theirs.store else 0,
            ours.store == theirs.store,
            ours.has_known(theirs),
        )


def carry_over(backup: Path, present: Path, *, deletions: bool) -> None:
    """Revoke, spend and, where ``deletions`` are certain, delete in ``backup`` what is in ``present``.

    Nothing is ever un-revoked, and no number of a CRL is given out again. A certificate that is
    revoked and that the backup does not know comes along with its row. Raises :class:`StoreError`.
    """
    with telling(backup), closing(opened(backup, "rw")) as connection:
        _attach(connection, present)
        connection.execute("BEGIN IMMEDIATE")
        for (serial,) in connection.execute(f"SELECT p.serial {_REVOKED_SINCE}").fetchall():
            _revoke(connection, serial)
        connection.execute(_NUMBERS)
        rights.carry_over(connection, deletions=deletions)
        connection.execute("COMMIT")


#: What is known of a certificate that comes along.
_CARRIED = "serial, issuer, spiffe_id, subject, key, issued_at, expires_at, requester, revoked_at, reason, entry, claim"


def _revoke(connection: sqlite3.Connection, serial: str) -> None:
    found = connection.execute(
        "SELECT id FROM main.certificates WHERE serial = ?", (serial,)
    ).fetchone()
    if found is None:
        number = _next(connection, "certificate")
        connection.execute(
            f"INSERT INTO main.certificates (id, {_CARRIED}) SELECT ?, {_CARRIED} "  # noqa: S608
            "FROM present.certificates WHERE serial = ?",
            (number, serial),
        )
        connection.execute(
            "INSERT INTO main.bodies (certificate, der) SELECT ?, b.der FROM present.bodies b "
            "JOIN present.certificates p ON p.id = b.certificate WHERE p.serial = ?",
            (number, serial),
        )
    else:
        (number,) = found
        connection.execute(
            "UPDATE main.certificates SET (revoked_at, reason) = "
            "(SELECT revoked_at, reason FROM present.certificates WHERE serial = ?) WHERE id = ?",
            (serial, number),
        )
    connection.execute(
        "INSERT INTO main.feed (position, certificate) VALUES (?, ?)",
        (_next(connection, "feed"), number),
    )


def settle_tokens(path: Path, *, keep_live: bool) -> None:
    """See :func:`twisted_mesh.backup.rights.settle`. Raises :class:`StoreError`."""
    with telling(path), closing(opened(path, "rw")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rights.settle(connection, keep_live=keep_live)
        connection.execute("COMMIT")


def rename_store(path: Path) -> str:
    """A new id for the record: no position of its old feed means anything any more. Raises :class:`StoreError`."""
    held, store = summary(path), secrets.token_hex(16)
    before = msgspec.json.encode({**held.before, held.store: held.acts}).decode()
    with telling(path), closing(opened(path, "rw")) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE meta SET value = ? WHERE name = 'store'", (store,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('before', ?)", (before,))
        connection.execute("COMMIT")
    return store


def close(path: Path) -> None:
    """Have all of the record in its one file. Raises :class:`StoreError`."""
    with telling(path), closing(opened(path, "rw")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        _check(connection, path)


#: The revoked among them are carried over.
_NEWER = (
    "FROM present.certificates p WHERE revoked_at IS NULL "
    "AND serial NOT IN (SELECT serial FROM main.certificates)"
)
_REVOKED_SINCE = (
    "FROM present.certificates p LEFT JOIN main.certificates b ON b.serial = p.serial "
    "WHERE p.revoked_at IS NOT NULL AND b.revoked_at IS NULL ORDER BY p.revoked_at, p.id"
)


#: No condition there is, but the syntax of an upsert from a SELECT wants one.
_NUMBERS = (
    "INSERT INTO main.crls SELECT * FROM present.crls WHERE true "
    "ON CONFLICT (issuer) DO UPDATE SET number = max(number, excluded.number)"
)


def _before(connection: sqlite3.Connection) -> dict[str, int]:
    row = connection.execute("SELECT value FROM meta WHERE name = 'before'").fetchone()
    try:
        return msgspec.json.decode(row[0], type=dict[str, int]) if row else {}
    except (msgspec.DecodeError, TypeError):
        return {}


def _next(connection: sqlite3.Connection, name: str) -> int:
    (number,) = connection.execute(
        "UPDATE main.counters SET value = value + 1 WHERE name = ? RETURNING value", (name,)
    ).fetchone()
    return int(number)


def _attach(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("ATTACH ? AS present", (f"file:{quote(str(path))}?mode=ro",))


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found: list[tuple[str]] = connection.execute("PRAGMA integrity_check(1)").fetchall()
    if found != [("ok",)]:
        raise StoreError(f"store {path}: it is damaged ({found[0][0]})")
