"""What is asked of the tables: one certificate, pages of them, the feed of revocations."""

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, bindparam, select, tuple_

from pki.errors import printable
from pki.revocation import Reason, Revocation
from twisted_mesh.stores.records import (
    BadCursor,
    Feed,
    IssuedCertificate,
    Page,
    Query,
    Status,
)
from twisted_mesh.stores.schema import (
    certificate_of,
    certificates,
    counters,
    feed,
    microseconds,
    serial_text,
    time_of,
)

#: So many revocations at most in one answer; its position says from where to ask for the rest.
FEED_LIMIT = 100_000

_c = certificates.c
_CURSOR = struct.Struct(">q20s")

_FIND = select(certificates).where(_c.serial == bindparam("serial_"))
_NEWEST = select(certificates).order_by(_c.issued_at.desc(), _c.serial.desc())
_POSITION = select(counters.c.value).where(counters.c.name == "feed")
_FEED = (
    select(feed.c.position, feed.c.serial, _c.issuer, _c.revoked_at, _c.reason, _c.expires_at)
    .join(certificates, _c.serial == feed.c.serial)
    .where(feed.c.position > bindparam("after"), feed.c.position <= bindparam("until"))
    .order_by(feed.c.position)
    .limit(bindparam("most"))
)


def find(connection: Connection, serial: int) -> IssuedCertificate | None:
    row = connection.execute(_FIND, {"serial_": serial_text(serial)}).mappings().first()
    return None if row is None else certificate_of(row)


def page(connection: Connection, query: Query) -> Page:
    """Raises :class:`BadCursor`."""
    limit = max(query.limit, 1)
    statement = _NEWEST.where(*_conditions(query)).limit(limit + 1)
    rows = connection.execute(statement).mappings().all()
    more = len(rows) > limit
    return Page(
        certificates=tuple(certificate_of(row) for row in rows[:limit]),
        next=_cursor(rows[limit - 1]) if more else None,
    )


def revocations(connection: Connection, store: str, after: int) -> Feed:
    """At most :data:`FEED_LIMIT` of them; the position is then that of the last one."""
    # The position is read first: what is committed in between is for the next time.
    until = connection.execute(_POSITION).scalar_one()
    if not 0 <= after <= until:
        after = 0
    asked = {"after": after, "until": until, "most": FEED_LIMIT}
    rows = connection.execute(_FEED, asked).all()
    return Feed(
        store=store,
        position=rows[-1].position if len(rows) == FEED_LIMIT else until,
        revocations=tuple(
            Revocation(
                issuer=row.issuer,
                serial=int(row.serial, 16),
                revoked_at=time_of(row.revoked_at),
                reason=Reason(row.reason),
                expires_at=time_of(row.expires_at),
            )
            for row in rows
        ),
    )


def _conditions(query: Query) -> list[ColumnElement[bool]]:
    conditions = []
    if query.cursor is not None:
        issued_at, serial = _position(query.cursor)
        conditions.append(tuple_(_c.issued_at, _c.serial) < tuple_(issued_at, serial))
    if query.spiffe_id is not None:
        conditions.append(_c.spiffe_id == str(query.spiffe_id))
    if query.expires_before is not None:
        conditions.append(_c.expires_at < microseconds(query.expires_before))
    if query.status is not None:
        conditions.append(_has_status(query.status, microseconds(query.now)))
    return conditions


def _has_status(status: Status, now: int) -> ColumnElement[bool]:
    """As :meth:`IssuedCertificate.status` decides."""
    if status is Status.REVOKED:
        return _c.revoked_at.is_not(None)
    if status is Status.EXPIRED:
        return and_(_c.revoked_at.is_(None), _c.expires_at < now)
    signed = _c.der.is_not(None) if status is Status.VALID else _c.der.is_(None)
    return and_(_c.revoked_at.is_(None), _c.expires_at >= now, signed)


def _cursor(row: RowMapping) -> str:
    packed = _CURSOR.pack(row["issued_at"], bytes.fromhex(row["serial"]))
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _position(cursor: str) -> tuple[int, str]:
    """The inverse of :func:`_cursor`. Raises :class:`BadCursor`."""
    try:
        issued_at, serial = _CURSOR.unpack(
            urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        )
    except (UnicodeError, binascii.Error, struct.error):
        raise BadCursor(
            f"{printable(cursor, 60)!r} is not a cursor: give the `next` of the page before, "
            "or none for the first page"
        ) from None
    return issued_at, serial.hex()
