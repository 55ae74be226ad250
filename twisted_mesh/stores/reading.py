"""What is asked of the tables: one certificate, pages of them, the feed of revocations."""

import binascii
import contextlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, RowMapping, bindparam, select, tuple_

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

#: So many rows are sorted without a thought.
_FEW = 1000

_c = certificates.c
_CURSOR = struct.Struct(">q20s")

_FIND = select(certificates).where(_c.serial == bindparam("serial_"))
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
    # By default the newest are walked until the page is full: with few matches, through the whole
    # table. Those few are found by their expiry and sorted. The sum keeps the other index out of it.
    issued_at = _c.issued_at + 0 if _few(connection, query) else _c.issued_at.expression
    statement = (
        select(certificates)
        .where(*_conditions(query))
        .order_by(issued_at.desc(), _c.serial.desc())
        .limit(limit + 1)
    )
    if query.cursor is not None:
        last = _position(query.cursor)
        statement = statement.where(tuple_(issued_at, _c.serial) < tuple_(*last))
    rows = connection.execute(statement).mappings().all()
    more = len(rows) > limit
    return Page(
        certificates=tuple(certificate_of(row) for row in rows[:limit]),
        next=_cursor(rows[limit - 1]) if more else None,
    )


def _few(connection: Connection, query: Query) -> bool:
    """Whether the bounds on the expiry, where there are any, leave few certificates."""
    conditions = list(_expiry(query))
    if not conditions or query.spiffe_id is not None:
        return False
    another = select(_c.expires_at).where(*conditions).limit(1).offset(_FEW)
    return connection.execute(another).first() is None


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


def _expiry(query: Query) -> Iterator[ColumnElement[bool]]:
    if query.expires_before is not None:
        yield _c.expires_at < microseconds(query.expires_before)
    if query.status is Status.EXPIRED:
        yield _c.expires_at < microseconds(query.now)
    elif query.status in (Status.VALID, Status.PENDING):
        yield _c.expires_at >= microseconds(query.now)


def _conditions(query: Query) -> Iterator[ColumnElement[bool]]:
    """The status is that of :meth:`IssuedCertificate.status`: revoked beats expired beats the rest."""
    yield from _expiry(query)
    if query.spiffe_id is not None:
        yield _c.spiffe_id == str(query.spiffe_id)
    if query.status is not None:
        revoked = query.status is Status.REVOKED
        yield _c.revoked_at.is_not(None) if revoked else _c.revoked_at.is_(None)
    if query.status is Status.VALID:
        yield _c.der.is_not(None)
    elif query.status is Status.PENDING:
        yield _c.der.is_(None)


def _cursor(row: RowMapping) -> str:
    return _encoded(_CURSOR.pack(row["issued_at"], bytes.fromhex(row["serial"])))


def _encoded(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _position(cursor: str) -> tuple[int, str]:
    """The inverse of :func:`_cursor`. Raises :class:`BadCursor`."""
    with contextlib.suppress(UnicodeError, binascii.Error, struct.error):
        packed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        issued_at, serial = _CURSOR.unpack(packed)
        # Decoding passes over what is not base64.
        if _encoded(packed) == cursor:
            return issued_at, serial.hex()
    raise BadCursor(
        f"{printable(cursor, 60)!r} is not a cursor: give the `next` of the page before, "
        "or none for the first page"
    )
