"""The tables, the same on every database, and what their columns mean.

Serials are zero-padded hex text (no database has 160-bit integers), so that text sorts as numbers
do; times are integer microseconds since 1970. A serial is given out once, whichever the issuer, so
that a serial alone finds its certificate.
"""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    Table,
    Text,
    bindparam,
    case,
    insert,
    select,
    update,
)

from pki.revocation import Reason
from pki.spiffe import SpiffeId
from twisted_mesh.stores.records import IssuedCertificate

#: The version of these tables, kept in ``meta`` under ``schema``.
VERSION = 2

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# 64 bits everywhere: SQLite's INTEGER has them, and as a primary key it is the row id itself.
_Int64 = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

#: ``schema``: the version of these tables; ``store``: the random id of this store.
meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

#: Numbers that only grow. A position is taken by updating its row, which stays locked until the
#: commit: positions are in commit order (a sequence's are not), and none is used twice.
counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", _Int64, nullable=False),
)

certificates = Table(
    "certificates",
    metadata,
    Column("id", _Int64, primary_key=True, autoincrement=False),
    Column("serial", Text, nullable=False, unique=True),
    Column("issuer", Text, nullable=False),
    Column("spiffe_id", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("issued_at", _Int64, nullable=False),
    Column("expires_at", _Int64, nullable=False),
    Column("requester", Text, nullable=False),
    Column("request_key", Text),
    Column("revoked_at", _Int64),
    Column("reason", Text),
)

_c = certificates.c
# Ids grow, so each index lists the newest of its kind last: pages are read off its end.
for _column in (_c.spiffe_id, _c.key, _c.issued_at, _c.expires_at):
    Index(f"certificates_by_{_column.name}", _column, _c.id)
_revoked, _repeatable = _c.revoked_at.is_not(None), _c.request_key.is_not(None)
Index("certificates_revoked", _c.id, sqlite_where=_revoked, postgresql_where=_revoked)
Index(
    "certificates_by_request",
    _c.request_key,
    unique=True,
    sqlite_where=_repeatable,
    postgresql_where=_repeatable,
)


def _whose(name: str = "certificate") -> Column[int]:
    return Column(
        name,
        _Int64,
        ForeignKey("certificates.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )


#: Signatures that were about to be made: a row goes when its certificate comes.
intents = Table("intents", metadata, _whose(), Column("digest", LargeBinary, nullable=False))

#: The certificates themselves, apart from what is searched: most reads do not want them.
bodies = Table("bodies", metadata, _whose(), Column("der", LargeBinary, nullable=False))

#: What endpoints must hear of, in the order in which it was committed.
feed = Table(
    "feed",
    metadata,
    Column("position", _Int64, primary_key=True, autoincrement=False),
    Column(
        "certificate",
        _Int64,
        ForeignKey("certificates.id", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
)

#: The audit log: each act, written in the act's own transaction. ``entry`` is NULL once pruned.
audit = Table(
    "audit",
    metadata,
    Column("position", _Int64, primary_key=True, autoincrement=False),
    Column("at", _Int64, nullable=False),
    Column("entry", LargeBinary),
)

#: The Merkle tree over it, in tiles of 256 hashes (C2SP tlog-tiles).
tiles = Table(
    "tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", _Int64, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("size", _Int64, primary_key=True, autoincrement=False),
    Column("at", _Int64, nullable=False),
    Column("note", Text, nullable=False),
)

#: ``certificate``, ``feed``, ``audit``: the last number given out. ``tree``: how many acts are in the tree.
COUNTERS = ("certificate", "feed", "audit", "tree")


_COUNTER = select(counters.c.value).where(counters.c.name == bindparam("name_"))


def create(connection: Connection) -> str:
    """Make the tables of a new store; its id."""
    metadata.create_all(connection)
    store = secrets.token_hex(16)
    connection.execute(
        insert(meta),
        [{"name": "schema", "value": str(VERSION)}, {"name": "store", "value": store}],
    )
    connection.execute(insert(counters), [{"name": name, "value": 0} for name in COUNTERS])
    return store


def counter(connection: Connection, name: str) -> int:
    """The last number given out under ``name``."""
    value: int = connection.execute(_COUNTER, {"name_": name}).scalar_one()
    return value


def next_numbers(connection: Connection, **counts: int) -> dict[str, int]:
    """Take so many numbers of each name; the last of each. The rows stay locked until the commit."""
    taken = connection.execute(
        update(counters)
        .where(counters.c.name.in_(counts))
        .values(value=counters.c.value + case(counts, value=counters.c.name))
        .returning(counters.c.name, counters.c.value)
    )
    return {row.name: row.value for row in taken}


def upsert_tile(connection: Connection, level: int, number: int, hashes: bytes) -> None:
    where = (tiles.c.level == level, tiles.c.number == number)
    if not connection.execute(update(tiles).where(*where).values(hashes=hashes)).rowcount:
        row = {"level": level, "number": number, "hashes": hashes}
        connection.execute(insert(tiles), row)


def facts(connection: Connection) -> dict[str, str]:
    """What ``meta`` says."""
    return {row.name: row.value for row in connection.execute(select(meta))}


def serial_text(serial: int) -> str:
    return f"{serial:040x}"


def microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def row_of(certificate: IssuedCertificate, request_key: str | None = None) -> dict[str, Any]:
    """A row of ``certificates`` but for its id; :func:`certificate_of` reads it."""
    if not 0 <= certificate.serial < 1 << 160:  # RFC 5280 section 4.1.2.2
        raise ValueError("a serial number has at most 20 bytes and is not negative")
    revoked_at = certificate.revoked_at
    return {
        "serial": serial_text(certificate.serial),
        "issuer": certificate.issuer,
        "spiffe_id": str(certificate.spiffe_id),
        "subject": certificate.subject,
        "key": certificate.key,
        "issued_at": microseconds(certificate.issued_at),
        "expires_at": microseconds(certificate.expires_at),
        "requester": certificate.requester,
        "request_key": request_key,
        "revoked_at": None if revoked_at is None else microseconds(revoked_at),
        "reason": certificate.reason,
    }


def certificate_of(row: RowMapping) -> IssuedCertificate:
    """``is_pending`` is whether ``row`` has an ``intent``, ``der`` is its ``der`` if it has one."""
    revoked_at, reason = row["revoked_at"], row["reason"]
    return IssuedCertificate(
        issuer=row["issuer"],
        serial=int(row["serial"], 16),
        spiffe_id=SpiffeId.parse(row["spiffe_id"]),
        subject=row["subject"],
        key=row["key"],
        issued_at=time_of(row["issued_at"]),
        expires_at=time_of(row["expires_at"]),
        requester=row["requester"],
        is_pending=row["intent"] is not None,
        revoked_at=None if revoked_at is None else time_of(revoked_at),
        reason=None if reason is None else Reason(reason),
        der=row.get("der"),
    )
