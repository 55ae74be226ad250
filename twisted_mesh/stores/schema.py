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
    insert,
    select,
)

from pki.revocation import Reason
from pki.spiffe import SpiffeId
from twisted_mesh.stores.records import IssuedCertificate

#: The version of these tables, kept in ``meta`` under ``schema``.
VERSION = 1

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
    Column("serial", Text, primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("spiffe_id", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("issued_at", _Int64, nullable=False),
    Column("expires_at", _Int64, nullable=False),
    Column("requester", Text, nullable=False),
    Column("revoked_at", _Int64),
    Column("reason", Text),
    # Last, since it is long and most reads stop before it.
    Column("der", LargeBinary),
)

_c = certificates.c
# Both end in expires_at, so that rows of another status are passed over without being fetched.
Index("certificates_newest", _c.issued_at, _c.serial, _c.expires_at)
Index("certificates_by_spiffe_id", _c.spiffe_id, _c.issued_at, _c.serial, _c.expires_at)
Index("certificates_by_expiry", _c.expires_at)
# Few rows of a large table: only those are in the index.
for _name, _these in (("pending", _c.der.is_(None)), ("revoked", _c.revoked_at.is_not(None))):
    Index(
        f"certificates_{_name}",
        _c.issued_at,
        _c.serial,
        sqlite_where=_these,
        postgresql_where=_these,
    )

#: What endpoints must hear of, in the order in which it was committed.
feed = Table(
    "feed",
    metadata,
    Column("position", _Int64, primary_key=True, autoincrement=False),
    Column(
        "serial",
        Text,
        ForeignKey("certificates.serial", ondelete="CASCADE"),
        nullable=False,
        unique=True,
    ),
)


def create(connection: Connection) -> str:
    """Make the tables of a new store; its id."""
    metadata.create_all(connection)
    store = secrets.token_hex(16)
    connection.execute(
        insert(meta),
        [{"name": "schema", "value": str(VERSION)}, {"name": "store", "value": store}],
    )
    connection.execute(insert(counters), {"name": "feed", "value": 0})
    return store


def facts(connection: Connection) -> dict[str, str]:
    """What ``meta`` says."""
    return {row.name: row.value for row in connection.execute(select(meta))}


def serial_text(serial: int) -> str:
    return f"{serial:040x}"


def microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def row_of(certificate: IssuedCertificate) -> dict[str, Any]:
    """A row of ``certificates``; the inverse of :func:`certificate_of`."""
    if not 0 <= certificate.serial < 1 << 160:  # RFC 5280 section 4.1.2.2
        raise ValueError("a serial number has at most 20 bytes and is not negative")
    revoked_at = certificate.revoked_at
    return {
        "serial": serial_text(certificate.serial),
        "issuer": certificate.issuer,
        "spiffe_id": str(certificate.spiffe_id),
        "subject": certificate.subject,
        "issued_at": microseconds(certificate.issued_at),
        "expires_at": microseconds(certificate.expires_at),
        "requester": certificate.requester,
        "revoked_at": None if revoked_at is None else microseconds(revoked_at),
        "reason": certificate.reason,
        "der": certificate.der,
    }


def certificate_of(row: RowMapping) -> IssuedCertificate:
    revoked_at, reason = row["revoked_at"], row["reason"]
    return IssuedCertificate(
        issuer=row["issuer"],
        serial=int(row["serial"], 16),
        spiffe_id=SpiffeId.parse(row["spiffe_id"]),
        subject=row["subject"],
        issued_at=time_of(row["issued_at"]),
        expires_at=time_of(row["expires_at"]),
        requester=row["requester"],
        der=row["der"],
        revoked_at=None if revoked_at is None else time_of(revoked_at),
        reason=None if reason is None else Reason(reason),
    )
