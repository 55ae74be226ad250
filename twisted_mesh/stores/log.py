"""The audit log in tables: its entries, its Merkle tree, proofs from it, its checkpoints."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from pki.audit.log import Entry
from pki.tlog import merkle
from twisted_mesh.stores.records import LogCut, LoggedEntry, LogHead
from twisted_mesh.stores.schema import (
    audit,
    checkpoints,
    counter,
    microseconds,
    next_numbers,
    of_cas,
    tiles,
)

#: How many acts are taken into the tree by one command.
_STRIDE = 5000
#: Among how many of the newest acts the latest time is looked for: with more, a start would take its time.
_LOOKED_AT = 1_000_000
#: Of the checkpoints of so many microseconds one is kept, once the acts of that time are pruned.
_HOUR = 3600 * 10**6

_TILE = select(tiles.c.hashes).where(
    tiles.c.level == bindparam("level_"), tiles.c.number == bindparam("number_")
)


def _reader(connection: Connection) -> Callable[[int, int], bytes]:
    def read(level: int, number: int) -> bytes:
        found = connection.execute(_TILE, {"level_": level, "number_": number}).scalar()
        return b"" if found is None else bytes(found)

    return read


def head(connection: Connection) -> LogHead:
    """Of the tree; the newest acts may not be in it yet."""
    size = counter(connection, "tree")
    return LogHead(size, merkle.root(size, _reader(connection)))


def record(connection: Connection, entry: Entry) -> None:
    """Write an act at the next position. It comes into the tree later, by :func:`extend`."""
    (count,) = next_numbers(connection, audit=1)
    row = {"position": count - 1, "at": microseconds(entry.at), "entry": entry.to_bytes()}
    connection.execute(insert(audit), row)


def extend(connection: Connection) -> LogHead:
    """Take what was recorded since into the tree. Raises :class:`LogCut` where some of it is gone."""
    size = counter(connection, "tree")
    news = connection.execute(
        select(audit.c.position, audit.c.entry)
        .where(audit.c.position >= size)
        .order_by(audit.c.position)
        .limit(_STRIDE)
    ).all()
    if [row.position for row in news] != list(range(size, size + len(news))):
        raise LogCut(
            f"entries of the audit log are missing after the first {size}: somebody deleted them; "
            "keep a copy of the store, and restore the last backup"
        )
    if news:
        leaves = [merkle.leaf_hash(row.entry) for row in news]
        changed = merkle.append(size, leaves, _reader(connection))
        for (level, number), hashes in changed.items():
            _write_tile(connection, level, number, hashes)
        next_numbers(connection, tree=len(news))
    return head(connection)


def _write_tile(connection: Connection, level: int, number: int, hashes: bytes) -> None:
    where = (tiles.c.level == level, tiles.c.number == number)
    if not connection.execute(update(tiles).where(*where).values(hashes=hashes)).rowcount:
        row = {"level": level, "number": number, "hashes": hashes}
        connection.execute(insert(tiles), row)


def entries(connection: Connection, start: int, limit: int) -> tuple[Sequence[LoggedEntry], int]:
    """At most ``limit`` of those in the tree, from position ``start`` on; and the tree's size."""
    size = counter(connection, "tree")
    start = min(max(start, 0), size)
    end = min(size, start + max(limit, 0))
    found = {
        row.position: bytes(row.entry)
        for row in connection.execute(
            select(audit.c.position, audit.c.entry).where(
                audit.c.position >= start, audit.c.position < end
            )
        )
    }
    leaves = merkle.leaves(start, end, _reader(connection))
    listed = [
        LoggedEntry(position, leaf, found.get(position))
        for position, leaf in zip(range(start, end), leaves, strict=True)
    ]
    return listed, size


def keep(connection: Connection, size: int, at: int, note: str) -> None:
    """Keep a checkpoint; of two for the same size the later one."""
    connection.execute(delete(checkpoints).where(checkpoints.c.size == size))
    connection.execute(insert(checkpoints), {"size": size, "at": at, "note": note})


def notes(connection: Connection, start: int, limit: int) -> Sequence[tuple[int, str]]:
    """Size and signed note of checkpoints, from size ``start`` on."""
    rows = connection.execute(
        select(checkpoints.c.size, checkpoints.c.note)
        .where(checkpoints.c.size >= start)
        .order_by(checkpoints.c.size)
        .limit(limit)
    )
    return [(row.size, row.note) for row in rows]


def latest(connection: Connection) -> tuple[int, str] | None:
    """Size and note of the last checkpoint."""
    row = connection.execute(
        select(checkpoints.c.size, checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
    ).first()
    return None if row is None else (row.size, row.note)


def inclusion(connection: Connection, position: int, size: int) -> tuple[bytes, ...]:
    """The hashes that prove the entry at ``position`` in the tree of the first ``size`` (RFC 9162 section 2.1.3).

    Raises :class:`pki.tlog.merkle.BadProof` where the position is not below the size.
    """
    return tuple(merkle.inclusion_proof(position, size, _reader(connection)))


def consistency(connection: Connection, first: int, second: int) -> tuple[bytes, ...]:
    """The hashes that prove that the tree of ``second`` entries extends that of ``first`` (RFC 9162 section 2.1.4).

    Raises :class:`pki.tlog.merkle.BadProof` where ``first`` is 0 or above ``second``.
    """
    return tuple(merkle.consistency_proof(first, second, _reader(connection)))


def recorded(connection: Connection) -> tuple[int, int | None]:
    """How many acts there are, in the tree or not yet, and when the last was, in microseconds."""
    newest = select(audit.c.at).order_by(audit.c.position.desc()).limit(1)
    return counter(connection, "audit"), connection.execute(newest).scalar()


def latest_time(connection: Connection) -> int | None:
    """The latest time of an act, in microseconds, of those that are not pruned; None where there is none."""
    newest = select(audit.c.at).order_by(audit.c.position.desc()).limit(_LOOKED_AT).subquery()
    at: int | None = connection.execute(select(func.max(newest.c.at))).scalar()
    return at


ca_acts_query = select(audit.c.entry).where(of_cas).order_by(audit.c.position)


def ca_acts(connection: Connection) -> tuple[bytes, ...]:
    """The entries about the CA's own certificates, the oldest first, of those that are not pruned."""
    return tuple(bytes(row.entry) for row in connection.execute(ca_acts_query))


#: Canonical text: what is in quotes within a fact is written otherwise.
_ABOUT_FEDERATION = b',"object":"federation '
_OF_RESTORES = b'{"act":"restore"'
_federation_acts_query = (
    select(audit.c.entry)
    .where(
        or_(
            func.instr(audit.c.entry, _ABOUT_FEDERATION) > 0,
            func.instr(audit.c.entry, _OF_RESTORES) == 1,
        )
    )
    .order_by(audit.c.position)
)


def federation_acts(connection: Connection) -> tuple[bytes, ...]:
    """The entries about federated trust domains and about restores, the oldest first, of those that are not pruned."""
    return tuple(bytes(row.entry) for row in connection.execute(_federation_acts_query))


def prune(connection: Connection, before: int, limit: int) -> int:
    """Forget the text of acts from before a time, and of each hour's checkpoints all but the last.

    At most about ``limit`` of each; how many are gone.
    """
    return _prune_acts(connection, before, limit) + _thin_out(connection, before, limit)


def _prune_acts(connection: Connection, before: int, limit: int) -> int:
    first = connection.execute(select(func.min(audit.c.position))).scalar()
    if first is None:
        return 0
    # In order, up to the first that stays: a time that ran backwards once leaves no holes.
    kept = connection.execute(
        select(audit.c.position)
        .where(audit.c.position >= first, audit.c.position < first + limit, audit.c.at >= before)
        .order_by(audit.c.position)
        .limit(1)
    ).scalar()
    end = min(counter(connection, "tree"), first + limit if kept is None else kept)
    return connection.execute(delete(audit).where(audit.c.position < end)).rowcount


def _thin_out(connection: Connection, before: int, limit: int) -> int:
    thinned = counter(connection, "thinned")
    rows = connection.execute(
        select(checkpoints.c.size, checkpoints.c.at)
        .where(checkpoints.c.size > thinned)
        .order_by(checkpoints.c.size)
        .limit(limit + 1)
    ).all()
    seen, gone = thinned, []
    for checkpoint, following in pairwise(rows):
        if following.at >= before:
            break
        seen = checkpoint.size
        if checkpoint.at // _HOUR == following.at // _HOUR:
            gone.append(seen)
    next_numbers(connection, thinned=seen - thinned)
    return connection.execute(delete(checkpoints).where(checkpoints.c.size.in_(gone))).rowcount
