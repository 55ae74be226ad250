"""From whatever tables there are to those of this version, forwards only, in the start's own transaction."""

import re
from collections.abc import Callable, Mapping

from attrs import frozen
from cryptography import x509
from sqlalchemy import Connection, insert, inspect, select, text, update
from twisted.logger import Logger

from pki.errors import HOSTILE_INPUT
from pki.keys import key_id
from twisted_mesh.stores import blocked_keys
from twisted_mesh.stores.indices import miscounted
from twisted_mesh.stores.objects import LISTING, foreign
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.schema import (
    COUNTERS,
    VERSION,
    bodies,
    by_ca,
    by_claim,
    by_entry,
    certificates,
    counters,
    create,
    facts,
    intents,
    meta,
    metadata,
    next_numbers,
)

_log = Logger(namespace="mesh.store")
_STRIDE = 1000
_VERSION = re.compile(r"[1-9]\d{0,3}", re.ASCII)
_STORE = re.compile(r"[\w.-]{1,100}", re.ASCII)
#: So many foreign objects are named.
_TOLD = 5


@frozen
class Tables:
    """What :func:`bring_up` made or found."""

    store: str
    """The id of the store that they are of."""
    is_new: bool


def bring_up(connection: Connection, name: str) -> Tables:
    """Make the tables, or bring them up to date; what is not ours among them is refused, by its name.

    Raises :class:`StoreError`, with the store's ``name``.
    """
    tables = set(inspect(connection).get_table_names())
    if not tables:
        _refuse_foreign(connection, name, VERSION)
        return Tables(create(connection), is_new=True)
    known = facts(connection) if "meta" in tables else {}
    version = _version(known.get("schema"))
    if version > VERSION:
        raise StoreError(
            f"store {name}: it was written by a later version of this program "
            f"(tables {version}, here {VERSION}): upgrade twisted-mesh"
        )
    if 0 < version < VERSION:
        _refuse_foreign(connection, name, version)
        _migrate(connection, version)
        _log.info(
            "Store {store} brought from tables {old} to {new}",
            event="store-migrated",
            store=name,
            old=version,
            new=VERSION,
        )
        tables = set(inspect(connection).get_table_names())
    if not version or not set(metadata.tables) <= tables:
        raise StoreError(
            f"store {name}: its tables are not those of this program: name another file"
        )
    _refuse_foreign(connection, name, VERSION)
    _demand_facts(connection, name, known)
    if found := miscounted(connection):
        raise StoreError(
            f"store {name}: it is damaged, or somebody has written to its pages: not all that is on record is found by "
            f"{', '.join(found[:_TOLD])}; keep a copy, and restore the last backup"
        )
    return Tables(known["store"], is_new=False)


def _version(told: object) -> int:
    """0 for what is none."""
    return int(told) if isinstance(told, str) and _VERSION.fullmatch(told) else 0


def _demand_facts(connection: Connection, name: str, known: Mapping[str, object]) -> None:
    """What every record has had since it was made: without it the CA would break at its first act."""
    store = known.get("store")
    counted = {row.name: row.value for row in connection.execute(select(counters))}
    missing = [counter for counter in COUNTERS if type(counted.get(counter)) is not int]
    if not (isinstance(store, str) and _STORE.fullmatch(store)):
        missing.append("id")
    if missing:
        raise StoreError(
            f"store {name}: it is damaged, or somebody has written to it: it has no {', no '.join(missing)} any more; "
            "keep a copy, and restore the last backup"
        )


def _refuse_foreign(connection: Connection, name: str, version: int) -> None:
    rows = connection.exec_driver_sql(LISTING).all()
    found = foreign([(row[0], row[1], row[2], row[3]) for row in rows], version)
    if found:
        more = f" and {len(found) - _TOLD} others" if len(found) > _TOLD else ""
        raise StoreError(
            f"store {name}: it holds what is not this program's ({'; '.join(found[:_TOLD])}{more}): somebody has "
            "written to it; keep a copy, find out who, and restore the last backup"
        )


def _migrate(connection: Connection, version: int) -> None:
    """Bring the tables from ``version`` to :data:`VERSION`."""
    while version < VERSION:
        version = _MIGRATIONS[version](connection)
        connection.execute(update(meta).where(meta.c.name == "schema").values(value=str(version)))


def _from_1(connection: Connection) -> int:
    """Certificates get a number, in the order of their issue, and their bodies a table of their own."""
    for name in ("newest", "by_spiffe_id", "by_expiry", "pending", "revoked"):
        connection.execute(text(f"DROP INDEX certificates_{name}"))
    for name in ("certificates", "feed"):
        connection.execute(text(f"ALTER TABLE {name} RENAME TO old_{name}"))
    connection.execute(insert(counters), [{"name": n, "value": 0} for n in COUNTERS if n != "feed"])
    metadata.create_all(connection)
    old = connection.execute(text("SELECT * FROM old_certificates ORDER BY issued_at, serial"))
    for rows in old.mappings().partitions(_STRIDE):
        (last,) = next_numbers(connection, certificate=len(rows))
        numbered = list(enumerate(rows, last - len(rows) + 1))
        connection.execute(
            insert(certificates),
            [
                {
                    **{name: row[name] for name in row if name != "der"},
                    "id": number,
                    "key": _key_of(row["der"]),
                }
                for number, row in numbered
            ],
        )
        if signed := [{"certificate": n, "der": r["der"]} for n, r in numbered if r["der"]]:
            connection.execute(insert(bodies), signed)
        # What was to be signed was not recorded then.
        if unsigned := [{"certificate": n, "digest": b""} for n, r in numbered if not r["der"]]:
            connection.execute(insert(intents), unsigned)
    connection.execute(
        text(
            "INSERT INTO feed (position, certificate) SELECT position, id FROM old_feed "
            "JOIN certificates ON certificates.serial = old_feed.serial"
        )
    )
    for name in ("feed", "certificates"):
        connection.execute(text(f"DROP TABLE old_{name}"))
    return 6


def _from_2(connection: Connection) -> int:
    """Entries and tokens come; what bought the certificates that there are is not known."""
    # At once, however many rows there are.
    connection.execute(text("ALTER TABLE certificates ADD COLUMN entry TEXT"))
    by_entry.create(connection)
    metadata.create_all(connection)
    return 3


def _from_3(connection: Connection) -> int:
    """The numbers of CRLs come: nothing was published before."""
    metadata.create_all(connection)
    return 4


def _from_4(connection: Connection) -> int:
    """Federation comes, of which there was none before; and acts about CAs are found without looking through all."""
    metadata.create_all(connection)
    by_ca.create(connection, checkfirst=True)
    return 5


def _from_5(connection: Connection) -> int:
    """Claims come: no platform was asked before."""
    connection.execute(text("ALTER TABLE certificates ADD COLUMN claim TEXT"))
    by_claim.create(connection)
    metadata.create_all(connection)
    return 6


def _from_6(connection: Connection) -> int:
    """Blocked keys come: those of what was revoked as compromised until now are the first."""
    metadata.create_all(connection)
    blocked_keys.block_compromised(connection, blocked_keys.compromised(connection))
    return 7


def _key_of(der: bytes | None) -> str:
    try:
        return key_id(x509.load_der_x509_certificate(der or b"").public_key())
    except HOSTILE_INPUT:
        return ""


#: By the version that each starts from; each tells the version that it has come to.
_MIGRATIONS: Mapping[int, Callable[[Connection], int]] = {
    1: _from_1,
    2: _from_2,
    3: _from_3,
    4: _from_4,
    5: _from_5,
    6: _from_6,
}
