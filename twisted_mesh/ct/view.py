"""A log's tree under one signed head: whatever is read of it is of that tree, or is an error."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, FirstError, gatherResults

from pki.ct.entry import LogEntry, parse_data_tile
from pki.ct.tile_path import tile_width
from pki.errors import Malformed, PkiError
from pki.tlog import merkle
from pki.tlog.merkle import DamagedTree, node_hash
from twisted_mesh.ct.errors import LogUnusable, TilesContradict
from twisted_mesh.ct.reader import HASH, WIDTH, LogReader, SignedHead

T = TypeVar("T")
Place = tuple[int, int]
"""A tile: its level and its number."""

REMEMBERED = 256
_EVERY_HASH = bytes(WIDTH * HASH)


@define(eq=False, repr=False)
class LogView:
    """The tree of ``signed``, read by ``reader``; full tiles are remembered once they are shown to be of it."""

    reader: LogReader
    signed: SignedHead
    remembered: int = REMEMBERED
    """How many tiles are, of 8 KiB each."""
    _full: OrderedDict[Place, bytes] = field(factory=OrderedDict, init=False)
    _edge: dict[Place, bytes] | None = field(default=None, init=False)
    """The tiles at the right edge, which are not full: by them all others are verified."""

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.signed.size

    async def entries(self, start: int, end: int) -> Sequence[LogEntry]:
        """The entries from ``start`` up to ``end``, which is not among them."""
        self._demand(start, end)
        found: list[LogEntry] = []
        for number in range(start // WIDTH, -(-end // WIDTH)):
            first = number * WIDTH
            of_tile = await self._entries_of(number)
            found += of_tile[max(start - first, 0) : end - first]
        return found

    async def leaf_hashes(self, start: int, end: int) -> Sequence[bytes]:
        """The hashes of the entries from ``start`` up to ``end``."""
        self._demand(start, end)
        return await self.with_tiles(lambda read: list(merkle.leaves(start, end, read)))

    async def inclusion_proof(self, index: int) -> tuple[bytes, ...]:
        """That the entry ``index`` is in this tree. Raises :class:`~pki.tlog.merkle.BadProof` where none is."""
        return await self.with_tiles(lambda read: merkle.inclusion_proof(index, self.size, read))

    async def consistency_proof(self, first: int) -> tuple[bytes, ...]:
        """That this tree extends its own first so many entries."""
        return await self.with_tiles(lambda read: merkle.consistency_proof(first, self.size, read))

    async def root_at(self, size: int) -> bytes:
        """The root that the tree's first ``size`` entries have."""
        self._demand(0, size)
        return await self.with_tiles(lambda read: merkle.root(size, read))

    def extended(self, signed: SignedHead) -> "LogView":
        """The view of a later head that was shown to extend this one: what is remembered of full tiles holds on."""
        later = LogView(self.reader, signed, self.remembered)
        later._full.update(self._full)
        return later

    async def with_tiles(self, work: Callable[[merkle.Read], T]) -> T:
        """What ``work`` makes of tiles, all of them verified. It is called twice, and first to learn which it reads."""
        wanted: set[Place] = set()

        def note(level: int, number: int) -> bytes:
            wanted.add((level, number))
            return _EVERY_HASH

        work(note)
        tiles = await self._tiles(wanted)
        return work(lambda level, number: tiles.get((level, number), b""))

    def _demand(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.size:
            raise Malformed(f"the log has {self.size} entries, and not {start} to {end}")

    async def _entries_of(self, number: int) -> Sequence[LogEntry]:
        width = self._width(0, number)
        asked: Sequence[Deferred[Any]] = (
            Deferred.fromCoroutine(self._tiles({(0, number)})),
            Deferred.fromCoroutine(self.reader.data_tile(number, width)),
        )
        hashes, data = await _together(asked)
        try:
            entries = parse_data_tile(data)[:width]
        except PkiError as error:
            raise LogUnusable(f"the entries of tile {number} cannot be read: {error}") from None
        row = hashes[0, number]
        if len(entries) != width:
            raise LogUnusable(f"the entries of tile {number} are {len(entries)}, and not {width}")
        for at, entry in enumerate(entries):
            if entry.leaf_hash != row[at * HASH : (at + 1) * HASH]:
                raise TilesContradict(
                    f"the entry {number * WIDTH + at} is not the one that the log's tree has there"
                )
        return entries

    def _width(self, level: int, number: int) -> int:
        """How many hashes of it are in this tree."""
        return tile_width(level, number, self.size)

    async def _tiles(self, wanted: Iterable[Place]) -> Mapping[Place, bytes]:
        """These tiles, verified from the edge down."""
        edge = await self._edges()
        found: dict[Place, bytes] = {}
        missing: set[Place] = set()
        for place in wanted:
            level, number = place
            if not self._width(level, number):
                raise Malformed(
                    f"the log of {self.size} entries has no tile {number} of level {level}"
                )
            above = place
            while above not in found and above not in missing:
                if (known := edge.get(above) or self._full.get(above)) is not None:
                    found[above] = known
                    if above in self._full:
                        self._full.move_to_end(above)
                    break
                missing.add(above)
                above = (above[0] + 1, above[1] // WIDTH)
        fetched = dict(zip(missing, await self._fetched(missing), strict=True))
        for level, number in sorted(missing, reverse=True):
            tile = fetched[level, number]
            at = number % WIDTH * HASH
            if _fold(tile) != found[level + 1, number // WIDTH][at : at + HASH]:
                raise _contradiction(level, number)
            found[level, number] = tile
            self._full[level, number] = tile
        while len(self._full) > self.remembered:
            self._full.popitem(last=False)
        return found

    async def _edges(self) -> Mapping[Place, bytes]:
        if self._edge is None:
            places = [
                (level, self.size >> 8 * (level + 1))
                for level in range(-(-self.size.bit_length() // 8))
                if (self.size >> 8 * level) % WIDTH
            ]
            edge = dict(zip(places, await self._fetched(places), strict=True))
            try:
                root = merkle.root(self.size, lambda level, number: edge.get((level, number), b""))
            except DamagedTree as error:
                raise TilesContradict(str(error)) from None
            if root != self.signed.root:
                raise TilesContradict(
                    f"the tiles of {self.signed.head.origin} are not those of the tree of {self.size} entries that it "
                    "has signed: it shows different trees, or what serves the tiles has not all of them"
                )
            self._edge = edge
        return self._edge

    async def _fetched(self, places: Iterable[Place]) -> Sequence[bytes]:
        return await _together(
            [
                Deferred.fromCoroutine(self.reader.tile(level, number, self._width(level, number)))
                for level, number in places
            ]
        )


def _contradiction(level: int, number: int) -> TilesContradict:
    return TilesContradict(
        f"tile {number} of level {level} is not of the tree whose head the log has signed"
    )


def _fold(tile: bytes) -> bytes:
    """The root over the hashes of a full tile."""
    row = [tile[i : i + HASH] for i in range(0, len(tile), HASH)]
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


async def _together(asked: "Sequence[Deferred[T]]") -> list[T]:
    """All of it; once one has failed the others are given up."""
    try:
        return await gatherResults(asked, consumeErrors=True)
    except FirstError as error:
        for one in asked:
            one.cancel()
        raise _first_of(error) from None


def _first_of(error: FirstError) -> BaseException:
    """What went wrong first."""
    found = error.subFailure.value
    return error if found is None else found
