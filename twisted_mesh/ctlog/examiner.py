"""A slow look through all full tiles, at each start and SIGHUP: that the disk still has what was signed.

What is added next rests on the last tiles alone, which are in the record; a tile of last year may be gone, or another,
and nobody here would notice.
"""

import itertools
from collections.abc import Iterator
from hashlib import sha256

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pki.ct.entry import parse_data_tile
from pki.ct.tile_path import TilePath, issuer_path
from pki.errors import PkiError
from pki.tlog.merkle import append
from twisted_mesh.ctlog.errors import ContradictsItself
from twisted_mesh.ctlog.tiles import TileFiles
from twisted_mesh.runtime.tasks import Defer, Ticker, spawn

_WIDTH = 256
#: Seconds between two tiles: a log of a week, 130,000 tiles, takes two hours, and a tenth of a core.
_PACE = 0.05


@define(eq=False, repr=False)
class Examiner:
    """Of one log."""

    files: TileFiles
    clock: IReactorTime
    defer: Defer
    log: Logger
    problem: ContradictsItself | None = field(default=None, init=False)
    """What was found; until it is mended and looked at again, no receipt is given."""
    examined: int = field(default=0, init=False)
    """Entries that were looked at in the present look."""
    _size: int = field(default=0, init=False)
    _left: Iterator[int] = field(factory=lambda: iter(()), init=False)
    _damaged: int | None = field(default=None, init=False)
    """The tile that was found so."""
    _is_looking: bool = field(default=False, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ticker = Ticker(self.clock, _PACE, self._next, "looking through tiles", self.log)

    def start(self, size: int) -> None:
        """Look through the full tiles of a tree of that size, the newest first."""
        self.stop()
        self.examined, self._size = 0, size
        found = [] if self._damaged is None else [self._damaged]
        self._left = itertools.chain(found, range(size // _WIDTH - 1, -1, -1))
        self._ticker.start(now=False)

    def stop(self) -> None:
        """Look no further."""
        self._ticker.stop()

    def _next(self) -> None:
        if self._is_looking:
            return
        number = next(self._left, None)
        if number is None:
            self.stop()
            return
        self._is_looking = True
        _ = spawn(self._one(number), "looking through tiles", self.log)

    async def _one(self, number: int) -> None:
        try:
            await self.defer(self.examine, number)
            self.examined += _WIDTH
            if number == self._damaged:
                self._damaged = self.problem = None
                self.log.info("The tile {number} is back", event="ctlog-tile-back", number=number)
        except ContradictsItself as error:
            self.stop()
            if self.problem is None or str(self.problem) != str(error):
                self.log.critical("{error}", event="ctlog-tile-damaged", error=str(error))
            self.problem, self._damaged = error, number
        except PkiError as error:
            self.log.warn("{error}", event="ctlog-tile-unread", error=str(error))
        finally:
            self._is_looking = False

    def examine(self, number: int) -> None:
        """One tile of entries, its hashes, and their place above. Raises :class:`ContradictsItself`."""
        hashes = self._read(TilePath(0, number))
        data = self._read(TilePath(None, number))
        try:
            entries = parse_data_tile(data)
        except PkiError:
            entries = ()
        found = b"".join(entry.leaf_hash for entry in entries)
        if found != hashes or len(hashes) != _WIDTH * 32:
            raise _other(TilePath(None, number))
        # Chains are under no hash of the tree; what they name has to be there.
        for fingerprint in {one for entry in entries for one in entry.chain}:
            issuer = self.files.read(issuer_path(fingerprint))
            if issuer is None or sha256(issuer).digest() != fingerprint:
                raise ContradictsItself(
                    f"{issuer_path(fingerprint)}, which entries in {TilePath(None, number)} name, is gone or another: "
                    "bring both back from a backup, or from whoever follows the log"
                )
        self._demand_above(1, number, hashes)

    def _demand_above(self, level: int, number: int, hashes: bytes) -> None:
        """That a full tile's root is in the tile above it; and where that is full too, so on."""
        above, at = divmod(number, _WIDTH)
        width = min(_WIDTH, (self._size >> 8 * level) - above * _WIDTH)
        tile = self._read(TilePath(level, above, width))
        made = append(0, [hashes[i : i + 32] for i in range(0, len(hashes), 32)], _none)[1, 0]
        if tile[at * 32 : at * 32 + 32] != made:
            raise _other(TilePath(level - 1, number))
        if width == _WIDTH and at == _WIDTH - 1:
            self._demand_above(level + 1, above, tile)

    def _read(self, path: TilePath) -> bytes:
        found = self.files.read(str(path))
        if found is None and path != path.whole:
            found = self.files.read(str(path.whole))  # it has become full meanwhile
        if found is None:
            raise ContradictsItself(
                f"{self.files.root / str(path)} is gone, and the log has signed for it: bring it back from a backup, "
                "or from whoever follows the log"
            )
        return found


def _none(_: int, __: int) -> bytes:
    return b""


def _other(path: TilePath) -> ContradictsItself:
    return ContradictsItself(
        f"{path} is not what the log has signed: bring it back from a backup, or from whoever follows the log"
    )
