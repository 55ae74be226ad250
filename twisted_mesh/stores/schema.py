"""The tables, the same on every database, and what their columns mean.

Serials are zero-padded hex text (no database has 160-bit integers), so that text sorts as numbers
do; times are integer microseconds since 1970. A serial is given out once, whichever the issuer, so
that a serial alone finds its certificate.
"""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
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
    dialects,
    func,
    insert,
    literal_column,
    select,
)
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.schema import CreateIndex, CreateTable

from pki.policy.principal import evidence_of
from pki.spiffe import SpiffeId
from pki.svid.revocation_set import Reason
from twisted_mesh.stores.records import IssuedCertificate

#: What a column takes.
Value = int | str | bytes | None

#: How the canonical text of an act begins that is about the CA's own certificates: :attr:`pki.audit.log.Act.ROTATE`.
ROTATE = b'{"act":"rotate"'

#: The version of these tables, kept in ``meta`` under ``schema``.
VERSION = 7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# 64 bits everywhere: SQLite's INTEGER has them, and as a primary key it is the row id itself.
_Int64 = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()

#: ``schema``: the version of these tables; ``store``: the random id of this store; ``default-entry``:
#: ``made`` or ``declined``, once that is settled; ``before``: the ids that a store had before it was
#: restored, as JSON.
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
    Column("entry", Text),
    Column("claim", Text),
)

_c = certificates.c
# Ids grow, so each index lists the newest of its kind last: pages are read off its end.
for _column in (_c.spiffe_id, _c.issued_at, _c.expires_at):
    Index(f"certificates_by_{_column.name}", _column, _c.id)

#: Keys are random: in one large index each insert would change a page of its own. Among its last
#: neighbours a new one costs a quarter of that, and a search looks into each neighbourhood.
_NEIGHBOURS = 4096
_PREFIX = 16
# To the letter the same in index and query, without bound values: that is how they are matched.
_neighbourhood = _c.id // literal_column(str(_NEIGHBOURS), Integer)
_key_prefix = func.substr(_c.key, literal_column("1"), literal_column(str(_PREFIX)))
Index("certificates_by_key", _neighbourhood, _key_prefix)
_revoked, _repeatable = _c.revoked_at.is_not(None), _c.request_key.is_not(None)
_bought = _c.entry.is_not(None)
_claimed = _c.claim.is_not(None)
# Of SQLite alone: to name another database here loads all of its drivers.
Index("certificates_revoked", _c.id, sqlite_where=_revoked)
Index(
    "certificates_by_request",
    _c.request_key,
    unique=True,
    sqlite_where=_repeatable,
)
#: What an entry has bought; the newest of it last.
by_entry = Index("certificates_by_entry", _c.entry, _c.id, sqlite_where=_bought)
#: What a claim has bought, and what was renewed of that.
by_claim = Index("certificates_by_claim", _c.claim, _c.id, sqlite_where=_claimed)


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

#: Registration entries: ``document`` is what :meth:`pki.policy.entry.RegistrationEntry.to_document` writes.
entries = Table(
    "entries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", _Int64, nullable=False),
    Column("document", LargeBinary, nullable=False),
)

#: Join tokens, found by the id that is the beginning of their digest. ``serial`` and ``request`` are of
#: the intent that one was spent with; it is live while ``spent_at`` and ``revoked_at`` are null and
#: ``expires_at`` is not over.
tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("entry", Text, ForeignKey("entries.id", ondelete="CASCADE"), nullable=False),
    Column("key", Text),
    Column("created_at", _Int64, nullable=False),
    Column("expires_at", _Int64, nullable=False),
    Column("revoked_at", _Int64),
    Column("spent_at", _Int64),
    Column("request", Text),
    Column("serial", Text),
)
for _column in (tokens.c.entry, tokens.c.expires_at, tokens.c.serial):
    Index(f"tokens_by_{_column.name}", _column)

#: What platforms vouch for once and that buys one certificate: used with the intent, by the one ``key``. ``was``
#: is the serial of the holder before, whose renewal this is; from ``until`` on nobody can show it any more.
claims = Table(
    "claims",
    metadata,
    Column("claim", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("spiffe_id", Text, nullable=False),
    Column("serial", Text, nullable=False),
    Column("was", Text),
    Column("at", _Int64, nullable=False),
    Column("until", _Int64),
)
for _column in (claims.c.spiffe_id, claims.c.serial, claims.c.until):
    Index(f"claims_by_{_column.name}", _column)

#: Where each issuer's CRLs stand: the highest number, and the ``this_update`` of the last one served.
crls = Table(
    "crls",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("number", _Int64, nullable=False),
    Column("served", _Int64),
)

#: Other trust domains that are federated with: ``relationship`` as :mod:`twisted_mesh.ca.federation` writes it,
#: ``bundle`` the last good one of theirs (SPIFFE's JWKS), ``fetched_at`` when they were last heard to stand by it.
federation = Table(
    "federation",
    metadata,
    Column("trust_domain", Text, primary_key=True),
    Column("created_at", _Int64, nullable=False),
    Column("relationship", LargeBinary, nullable=False),
    Column("sequence", _Int64, nullable=False),
    Column("bundle", LargeBinary),
    Column("fetched_at", _Int64),
)

#: Keys that nothing is certified for, as :class:`~twisted_mesh.stores.records.BlockedKey` tells.
blocked_keys = Table(
    "blocked_keys",
    metadata,
    Column("spki", Text, primary_key=True),
    Column("number", Text),
    Column("blocked_at", _Int64, nullable=False),
    Column("serial", Text),
    Column("reason", Text, nullable=False),
)

#: The audit log: each act, written in the act's own transaction. Pruned, its hash stays in ``tiles``.
audit = Table(
    "audit",
    metadata,
    Column("position", _Int64, primary_key=True, autoincrement=False),
    Column("at", _Int64, nullable=False),
    Column("entry", LargeBinary, nullable=False),
)

# To the letter the same in index and query, like those of certificates; an entry's first member is its act.
_first = func.substr(audit.c.entry, literal_column("1"), literal_column("15"))
of_cas = _first == literal_column(f"X'{ROTATE.hex().upper()}'")
#: What became of the CA's own certificates: few among many, and looked through at each start.
by_ca = Index("audit_of_cas", audit.c.position, sqlite_where=of_cas)

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

#: ``certificate``, ``feed``, ``audit``: how many numbers were given out. ``tree``: how many acts are in
#: the tree. ``thinned``: up to which size checkpoints have been thinned out.
COUNTERS = ("certificate", "feed", "audit", "tree", "thinned")

_COUNTER = select(counters.c.value).where(counters.c.name == bindparam("name_"))
#: What is known of a certificate before it is signed, as :func:`row_of` gives it.
INTENDED = "id, serial, issuer, spiffe_id, subject, key, issued_at, expires_at, requester, request_key, entry, claim"


def create(connection: Connection) -> str:
    """Make the tables of a new store; its id."""
    for statement in _statements(connection.dialect.name):
        run(connection, statement)
    store = secrets.token_hex(16)
    connection.execute(
        insert(meta),
        [{"name": "schema", "value": str(VERSION)}, {"name": "store", "value": store}],
    )
    connection.execute(insert(counters), [{"name": name, "value": 0} for name in COUNTERS])
    return store


@lru_cache
def _statements(database: str) -> Sequence[str]:
    """What makes all tables and their indices: to compile it takes SQLAlchemy longer than a database to do it."""
    dialect, made = dialects.registry.load(database)(), []
    for table in metadata.sorted_tables:
        made.append(str(CreateTable(table).compile(dialect=dialect)))
        indices = sorted(table.indexes, key=lambda index: str(index.name))
        made += [str(CreateIndex(index).compile(dialect=dialect)) for index in indices]
    return made


def counter(connection: Connection, name: str) -> int:
    """The last number given out under ``name``."""
    value: int = connection.execute(_COUNTER, {"name_": name}).scalar_one()
    return value


def next_numbers(connection: Connection, **counts: int) -> Sequence[int]:
    """Take so many numbers of each name; the last of each. The rows stay locked until the commit."""
    statement = _take(tuple(counts), mark(connection))
    taken = dict(run(connection, statement, tuple(counts.values())).fetchall())
    return [taken[name] for name in counts]


@lru_cache
def _take(names: Sequence[str], mark: str) -> str:
    # By hand: compiled anew each time it would cost as much as all else about a command.
    whens = " ".join(f"WHEN '{name}' THEN CAST({mark} AS BIGINT)" for name in names)
    quoted = ", ".join(f"'{name}'" for name in names)
    return (
        f"UPDATE counters SET value = value + CASE name {whens} END "  # noqa: S608
        f"WHERE name IN ({quoted}) RETURNING name, value"
    )


def run(connection: Connection, statement: str, values: Sequence[Value] = ()) -> DBAPICursor:
    """Have the driver do a statement that is written for it: SQLAlchemy takes twenty times as long as most of these.

    Raises the driver's own errors.
    """
    cursor = connection.connection.cursor()
    cursor.execute(statement, values)
    return cursor


def mark(connection: Connection) -> str:
    """What stands for a value in a statement written by hand."""
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"


def of_key(key: str, first: int, last: int) -> ColumnElement[bool]:
    """The certificates of keys that begin like this one, and with ids from ``first`` to ``last``.

    By the index of keys; that the key is equal is not said here, since SQLite would put it into the
    index's expression then and not find it.
    """
    neighbourhoods = range(first // _NEIGHBOURS, last // _NEIGHBOURS + 1)
    return _neighbourhood.in_(neighbourhoods) & (_key_prefix == key[:_PREFIX])


def of_agent(agent: SpiffeId) -> ColumnElement[bool]:
    """The certificates of an agent, and those that were signed on the word of one of these."""
    word = evidence_of(agent)
    return (_c.spiffe_id == str(agent)) | (func.substr(_c.requester, 1, len(word)) == word)


def facts(connection: Connection) -> dict[str, str]:
    """What ``meta`` says."""
    return {row.name: row.value for row in connection.execute(select(meta))}


def serial_text(serial: int) -> str:
    """A serial number as the tables have it: 40 digits of hex, so that text sorts like numbers."""
    return f"{serial:040x}"


def microseconds(time: datetime) -> int:
    """A time as the tables have it: whole microseconds since 1970, UTC."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """The time that :func:`microseconds` has written, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def row_of(
    number: int, certificate: IssuedCertificate, request_key: str | None
) -> tuple[int | str | None, ...]:
    """The columns :data:`INTENDED` of a certificate that is about to be signed."""
    if not 0 <= certificate.serial < 1 << 160:  # RFC 5280 section 4.1.2.2
        raise ValueError("a serial number has at most 20 bytes and is not negative")
    return (
        number,
        serial_text(certificate.serial),
        certificate.issuer,
        str(certificate.spiffe_id),
        certificate.subject,
        certificate.key,
        microseconds(certificate.issued_at),
        microseconds(certificate.expires_at),
        certificate.requester,
        request_key,
        certificate.entry,
        certificate.claim,
    )


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
        entry=row["entry"],
        claim=row["claim"],
    )
