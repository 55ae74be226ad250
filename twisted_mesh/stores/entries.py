"""Registration entries in their table: made, deleted, read, and forgotten with the token they were made for."""

from collections.abc import Collection
from functools import lru_cache

from sqlalchemy import Connection, Row, bindparam, delete, exists, select, type_coerce
from sqlalchemy.types import NullType

from pki.errors import PkiError, discreet, printable
from pki.policy.entry import RegistrationEntry
from twisted_mesh.stores import log
from twisted_mesh.stores.commands import CreateEntry, DeleteEntry, SettleDefaultEntry
from twisted_mesh.stores.records import Conflict, StoredEntry, StoreError, Unknown
from twisted_mesh.stores.schema import (
    Value,
    certificates,
    entries,
    mark,
    microseconds,
    time_of,
    tokens,
)

_e = entries.c
_SETTLED = "default-entry"

# As it is, also where something else than bytes was put there.
_ROW = select(_e.id, _e.created_at, type_coerce(_e.document, NullType()).label("document"))
_ONE = select(_e.id).where(_e.id == bindparam("id_"))
_ALL = _ROW.order_by(_e.created_at, _e.id)


def everything(connection: Connection) -> tuple[StoredEntry, ...]:
    """All of them, the oldest first. Raises :class:`StoreError` that names the first that cannot be read."""
    # Fetched first: an error half way through a result would keep the reader where it stands.
    rows = connection.execute(_ALL).all()
    return tuple(StoredEntry(_read(row.id, row.document), time_of(row.created_at)) for row in rows)


def create(connection: Connection, command: CreateEntry) -> None:
    """Make an entry, which is an act. Raises :class:`Conflict` where its id is taken."""
    if not insert(connection, StoredEntry(command.entry, command.at)):
        raise taken(command.entry.id)
    log.record(connection, command.act)


def remove(connection: Connection, command: DeleteEntry) -> None:
    """Its tokens go by the database's own rule."""
    if not connection.execute(delete(entries).where(_e.id == command.id)).rowcount:
        raise gone(command.id)
    log.record(connection, command.act)


def settle_default(connection: Connection, command: SettleDefaultEntry) -> bool:
    """Once in the life of a store, whether it has the default entry: made, or declined where ``entry`` is None.

    False where that was settled before; then nothing is changed.
    """
    choice = "declined" if command.entry is None else "made"
    if not insert_once(connection, "meta (name, value)", "name", (_SETTLED, choice)):
        return False
    if command.entry is not None:
        insert(connection, StoredEntry(command.entry, command.at))
    log.record(connection, command.act)
    return True


def insert(connection: Connection, stored: StoredEntry) -> bool:
    """False where the id is taken."""
    row = (stored.entry.id, microseconds(stored.created_at), stored.entry.to_document())
    return insert_once(connection, "entries (id, created_at, document)", "id", row)


def insert_once(connection: Connection, into: str, key: str, row: tuple[Value, ...]) -> bool:
    """Of many that insert one key at a time, on any database, one is told True."""
    marks = ", ".join([mark(connection)] * len(row))
    statement = f"INSERT INTO {into} VALUES ({marks}) ON CONFLICT ({key}) DO NOTHING"  # noqa: S608
    return bool(connection.exec_driver_sql(statement, row).rowcount)


def is_there(connection: Connection, entry_id: str) -> bool:
    """Whether an entry has that id."""
    return connection.execute(_ONE, {"id_": entry_id}).first() is not None


def taken(entry_id: str) -> Conflict:
    """What whoever makes an entry hears where its id has one already."""
    return Conflict(f"there is an entry {discreet(entry_id, 60)} already: choose another id")


def gone(entry_id: str) -> Unknown:
    """What whoever names an entry hears where the store has none of that id."""
    return Unknown(
        f"there is no entry {discreet(entry_id, 60)} in the store: compare its id with the list of entries"
    )


def forget_orphans(connection: Connection, ids: Collection[str]) -> int:
    """Of those entries delete the ones that were made for a token and have nothing left on record."""
    used = exists().where(tokens.c.entry == _e.id) | exists().where(certificates.c.entry == _e.id)
    rows = connection.execute(_ROW.where(_e.id.in_(ids), ~used)).all()
    orphans = [row.id for row in rows if _is_of_token(row)]
    return connection.execute(delete(entries).where(_e.id.in_(orphans))).rowcount


def _is_of_token(row: Row[tuple[str, int, bytes | str]]) -> bool:
    try:
        return _read(row.id, row.document).is_of_token
    except StoreError:  # to be looked at by people
        return False


@lru_cache(maxsize=4096)
def _read(entry_id: str, document: bytes | str) -> RegistrationEntry:
    """The same one each time: entries are read for each certificate, and never change."""
    try:
        data = document if isinstance(document, bytes) else str(document).encode()
        entry = RegistrationEntry.from_document(data)
    except (PkiError, UnicodeError) as error:
        raise _unreadable(entry_id, str(error)) from None
    if entry.id != entry_id:
        raise _unreadable(entry_id, f"it says that it is {printable(entry.id, 60)}")
    return entry


def _unreadable(entry_id: str, why: str) -> StoreError:
    name = printable(entry_id, 60)
    return StoreError(
        f"the registration entry {name} in the store cannot be read ({why}): delete it (mesh-ctl entry delete "
        f"{name}) and make it anew, or restore the last backup; nothing is issued until then"
    )
