"""What is asked of the tables: one certificate, pages of them, open intents, the feed of revocations."""

import binascii
import contextlib
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    bindparam,
    func,
    literal_column,
    select,
)

from pki.errors import discreet
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason, Revocation
from twisted_mesh.stores.records import (
    BadCursor,
    Feed,
    IssuedCertificate,
    LastCrl,
    OpenIntent,
    Page,
    Query,
    Status,
)
from twisted_mesh.stores.schema import (
    bodies,
    certificate_of,
    certificates,
    counter,
    crls,
    feed,
    intents,
    microseconds,
    of_agent,
    of_key,
    serial_text,
    time_of,
)

#: So many revocations at most in one answer; its position says from where to ask for the rest.
FEED_LIMIT = 100_000

#: So many rows are fetched and sorted without a thought.
_FEW = 1000
#: So many rows are looked at for one page, where what is wanted is spread thin.
_WALK = 50_000

_c = certificates.c
_CURSOR = struct.Struct(">Q")

_LISTED = select(certificates, intents.c.certificate.label("intent")).outerjoin(
    intents, intents.c.certificate == _c.id
)
#: A row that :func:`certificate_of` reads, with the certificate itself.
ROW = _LISTED.add_columns(bodies.c.der).outerjoin(bodies, bodies.c.certificate == _c.id)

_FIRST = select(func.min(_c.id))
_FIND = ROW.where(_c.serial == bindparam("serial_"))
_FIND_ALL = _LISTED.where(_c.serial.in_(bindparam("serials_", expanding=True)))
# The empty text keeps the database from reading all by the index of IDs: the times narrow it.
_ISSUED_SINCE = (
    select(_c.spiffe_id, _c.entry, func.count())
    .where(_c.issued_at >= bindparam("at"))
    .group_by(_c.spiffe_id + literal_column("''"), _c.spiffe_id, _c.entry)
)
_FIND_REQUEST = ROW.where(_c.request_key == bindparam("key_"))
_OPEN = _LISTED.add_columns(intents.c.digest).where(intents.c.certificate.is_not(None))
_FEED = (
    select(feed.c.position, _c.serial, _c.issuer, _c.revoked_at, _c.reason, _c.expires_at)
    .join(certificates, _c.id == feed.c.certificate)
    .where(feed.c.position > bindparam("after"), feed.c.position <= bindparam("until"))
    .order_by(feed.c.position)
    .limit(bindparam("most"))
)


def find(connection: Connection, serial: int) -> IssuedCertificate | None:
    """The certificate of that serial, its DER with it if it is signed; None if there is none."""
    row = connection.execute(_FIND, {"serial_": serial_text(serial)}).mappings().first()
    return None if row is None else certificate_of(row)


def find_all(connection: Connection, serials: Collection[int]) -> tuple[IssuedCertificate, ...]:
    """Those that there are, without the certificates themselves; in no particular order."""
    rows = rows_of(connection, [serial_text(serial) for serial in serials])
    return tuple(certificate_of(row) for row in rows)


def issued_since(connection: Connection, at: datetime) -> tuple[tuple[str, str | None, int], ...]:
    """IDs, entries, and how many certificates of both there are."""
    asked = connection.execute(_ISSUED_SINCE, {"at": microseconds(at)})
    return tuple((spiffe_id, entry, count) for spiffe_id, entry, count in asked)


def rows_of(connection: Connection, serials: Collection[str]) -> Sequence[RowMapping]:
    """The rows of serials as :func:`serial_text` writes them."""
    return connection.execute(_FIND_ALL, {"serials_": list(serials)}).mappings().all()


def last_crl(connection: Connection, issuer: str) -> LastCrl | None:
    """The number that the issuer's last CRL was given, and when that was served; None before the first."""
    row = connection.execute(select(crls).where(crls.c.issuer == issuer)).first()
    if row is None:
        return None
    return LastCrl(row.number, None if row.served is None else time_of(row.served))


def find_request(connection: Connection, request_key: str) -> IssuedCertificate | None:
    """What a request was answered with before."""
    row = connection.execute(_FIND_REQUEST, {"key_": request_key}).mappings().first()
    return None if row is None else certificate_of(row)


def open_intents(connection: Connection, limit: int) -> tuple[OpenIntent, ...]:
    """The oldest of them."""
    rows = connection.execute(_OPEN.order_by(_c.id).limit(limit)).mappings().all()
    return tuple(OpenIntent(row["id"], certificate_of(row), bytes(row["digest"])) for row in rows)


def page(connection: Connection, query: Query) -> Page:
    """Raises :class:`BadCursor`."""
    limit = max(query.limit, 1)
    end = counter(connection, "certificate") + 1
    if query.cursor is not None:
        end = min(end, _position(query.cursor))
    wanted = [_c.id < end, *_conditions(query)]
    few = _few(connection, query)
    floor = 0 if few is not None else max(0, end - _WALK)
    wanted.append(_c.id.in_(few) if few is not None else _c.id >= floor)
    statement = _LISTED.where(*wanted).order_by(_c.id.desc()).limit(limit + 1)
    rows = connection.execute(statement).mappings().all()
    following: int | None = None
    if len(rows) > limit:
        following = rows[limit - 1]["id"]
    elif floor > 1:
        following = floor
    return Page(
        certificates=tuple(certificate_of(row) for row in rows[:limit]),
        next=None if following is None else _cursor(following),
    )


def _few(connection: Connection, query: Query) -> Sequence[int] | None:
    """The ids that the narrowest of the conditions leaves, if those are few."""
    first = connection.execute(_FIRST).scalar() or 0
    last = counter(connection, "certificate")
    for condition in _selective(query, first, last):
        found = connection.execute(select(_c.id).where(condition).limit(_FEW + 1)).scalars().all()
        if len(found) <= _FEW:
            return found
    return None


def revocations(connection: Connection, store: str, after: int) -> Feed:
    """At most :data:`FEED_LIMIT` of them; the position is then that of the last one."""
    # The position is read first: what is committed in between is for the next time.
    until = counter(connection, "feed")
    if not 0 <= after <= until:
        after = 0
    asked = {"after": after, "until": until, "most": FEED_LIMIT}
    rows = connection.execute(_FEED, asked).all()
    position = rows[-1].position if len(rows) == FEED_LIMIT else until
    return Feed(
        store=store,
        position=position,
        more=position < until,
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


def _selective(query: Query, first: int, last: int) -> Iterator[ColumnElement[bool]]:
    """Conditions that an index answers by itself, for ids from ``first`` to ``last``."""
    if query.status is Status.PENDING:
        yield _c.id.in_(select(intents.c.certificate))
    if query.status is Status.REVOKED:
        yield _c.revoked_at.is_not(None)
    if query.serial is not None:
        yield _c.serial == serial_text(query.serial)
    if query.spiffe_id is not None:
        yield _c.spiffe_id == str(query.spiffe_id)
    if query.below is not None:
        yield _below(query.below)
    if query.entry is not None:
        yield _c.entry == query.entry
    if query.claim is not None:
        yield _c.claim == query.claim
    if query.key is not None:
        yield of_key(query.key, first, last)
    if expiry := list(_between(query, _c.expires_at.expression)):
        yield expiry[0] if len(expiry) == 1 else expiry[0] & expiry[1]
    if query.issued_after is not None:
        yield _c.issued_at > microseconds(query.issued_after)
    if query.issued_before is not None:
        yield _c.issued_at < microseconds(query.issued_before)


def _conditions(query: Query) -> Iterator[ColumnElement[bool]]:
    """The status is that of :meth:`IssuedCertificate.status`: revoked beats expired beats the rest."""
    # The sums keep the database from choosing an index of its own: the ids narrow it already.
    yield from _between(query, _c.expires_at + 0)
    if query.issued_after is not None:
        yield _c.issued_at + 0 > microseconds(query.issued_after)
    if query.issued_before is not None:
        yield _c.issued_at + 0 < microseconds(query.issued_before)
    if query.spiffe_id is not None:
        yield _c.spiffe_id == str(query.spiffe_id)
    if query.below is not None:
        yield _below(query.below)
    if query.serial is not None:
        yield _c.serial == serial_text(query.serial)
    if query.entry is not None:
        yield _c.entry == query.entry
    if query.claim is not None:
        yield _c.claim == query.claim
    if query.agent is not None:
        yield of_agent(query.agent)
    if query.issuer is not None:
        yield _c.issuer == query.issuer
    if query.key is not None:
        yield _c.key == query.key
    if query.status is not None:
        revoked = query.status is Status.REVOKED
        yield _c.revoked_at.is_not(None) if revoked else _c.revoked_at.is_(None)
    if query.status is Status.VALID:
        yield intents.c.certificate.is_(None)
    elif query.status is Status.PENDING:
        yield intents.c.certificate.is_not(None)


def _between(query: Query, expires_at: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
    """The bounds on the expiry, the status's among them: at most one from each side."""
    befores = [query.expires_before] if query.expires_before is not None else []
    afters = [query.expires_after] if query.expires_after is not None else []
    if query.status is Status.EXPIRED:
        befores.append(query.now)
    if befores:
        yield expires_at < microseconds(min(befores))
    living = query.status in (Status.VALID, Status.PENDING)
    least = max(
        [microseconds(time) + 1 for time in afters] + [microseconds(query.now)] * living,
        default=None,
    )
    if least is not None:
        yield expires_at >= least


def _below(spiffe_id: SpiffeId) -> ColumnElement[bool]:
    """A range of text: ``0`` is the character after ``/``."""
    return _c.spiffe_id.between(f"{spiffe_id}/", f"{spiffe_id}0") & (
        _c.spiffe_id != f"{spiffe_id}0"
    )


def _cursor(number: int) -> str:
    return _encoded(_CURSOR.pack(number))


def _encoded(packed: bytes) -> str:
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _position(cursor: str) -> int:
    """The inverse of :func:`_cursor`. Raises :class:`BadCursor`."""
    with contextlib.suppress(UnicodeError, binascii.Error, struct.error):
        packed = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        (number,) = _CURSOR.unpack(packed)
        # Decoding passes over what is not base64.
        if _encoded(packed) == cursor and number < 1 << 63:
            return int(number)
    raise BadCursor(
        f"{discreet(cursor, 60)!r} is not a cursor: give the `next` of the page before, "
        "or none for the first page"
    )
