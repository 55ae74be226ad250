"""The audit log in tables: its Merkle tree, proofs from it, its checkpoints."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, bindparam, delete, func, select

from pki import merkle
from twisted_mesh.stores.records import LoggedEntry, LogHead
from twisted_mesh.stores.schema import audit, checkpoints, counter, next_numbers, tiles, upsert_tile

#: How many acts are taken into the tree by one command.
_STRIDE = 5000

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


def extend(connection: Connection) -> LogHead:
    """Take what was recorded since into the tree."""
    size = counter(connection, "tree")
    news = connection.execute(
        select(audit.c.position, audit.c.entry)
        .where(audit.c.position >= size)
        .order_by(audit.c.position)
        .limit(_STRIDE)
    ).all()
    if [row.position for row in news] != list(range(size, size + len(news))):
        raise RuntimeError("positions are missing in the audit log")
    if news:
        leaves = [merkle.leaf_hash(row.entry) for row in news]
        changed = merkle.append(size, leaves, _reader(connection))
        for (level, number), hashes in changed.items():
            upsert_tile(connection, level, number, hashes)
        next_numbers(connection, tree=len(news))
    return head(connection)


def entries(connection: Connection, start: int, limit: int) -> tuple[Sequence[LoggedEntry], int]:
    """At most ``limit`` of those in the tree, from position ``start`` on; and the tree's size."""
    size = counter(connection, "tree")
    end = min(size, start + limit)
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
        for position, leaf in zip(range(start, end), leaves, strict=False)
    ]
    return listed, size


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
    return tuple(merkle.inclusion_proof(position, size, _reader(connection)))


def consistency(connection: Connection, first: int, second: int) -> tuple[bytes, ...]:
    return tuple(merkle.consistency_proof(first, second, _reader(connection)))


def recorded(connection: Connection) -> tuple[int, int | None]:
    """How many acts there are, in the tree or not yet, and when the last was, in microseconds."""
    newest = select(audit.c.at).order_by(audit.c.position.desc()).limit(1)
    return counter(connection, "audit"), connection.execute(newest).scalar()


def prune(connection: Connection, before: int, limit: int) -> int:
    """Forget the text of acts from before a time, and old checkpoints but for one an hour."""
    size = counter(connection, "tree")
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
    end = min(size, first + limit if kept is None else kept)
    return connection.execute(delete(audit).where(audit.c.position < end)).rowcount
