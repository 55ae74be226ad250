"""What readers are given: the files as they are, from memory where they were asked for lately.

A tile never changes, so it may be kept; a disk that is slow holds up whoever asks for what is not, and nobody else.
"""

import gzip
from collections import OrderedDict
from collections.abc import Mapping

from attrs import define, field, frozen

from pki.ct.tile_path import CHECKPOINT, TilePath, parse_issuer
from pki.errors import Malformed
from twisted_mesh.ctlog.tiles import COSIGNED, TileFiles
from twisted_mesh.runtime.tasks import Defer

#: Bytes of tiles that are kept in memory.
_KEPT = 64 * 1024 * 1024
#: What resources there are.
KINDS = ("checkpoint", "tile", "data", "issuer")
_FOREVER = "public, max-age=31536000, immutable"
_NOT_AT_ALL = "no-cache"
_OCTETS = "application/octet-stream"
_NOTE = "text/plain; charset=utf-8"
_LEVEL = 6


@frozen
class Resource:
    """What is answered."""

    kind: str
    """For metrics."""
    body: bytes = field(repr=False)
    content_type: str
    headers: Mapping[str, str]


@define(eq=False, repr=False)
class Published:
    """The files of one log, read."""

    files: TileFiles
    defer: Defer
    kept: int = _KEPT
    """Bytes of tiles in memory."""
    _checkpoint: bytes = field(default=b"", init=False)
    _tiles: "OrderedDict[tuple[str, bool], bytes]" = field(factory=OrderedDict, init=False)
    _size: int = field(default=0, init=False)

    def show(self, note: bytes) -> None:
        """From now on that is the checkpoint; until this is said the file is read for each who asks."""
        self._checkpoint = note

    async def get(self, path: str, *, takes_gzip: bool) -> Resource | None:
        """The resource of that path, which has no slash in front; None where there is none.

        Raises :class:`twisted_mesh.ctlog.errors.CtLogStateError` where the disk does not give it.
        """
        if path in (CHECKPOINT, COSIGNED):
            return await self._note(path)
        if path.startswith("issuer/"):
            return await self._issuer(path)
        return await self._tile(path, takes_gzip=takes_gzip)

    async def _note(self, path: str) -> Resource | None:
        found: bytes | None = self._checkpoint if path == CHECKPOINT else b""
        if not found:
            found = await self.defer(self.files.read, path)
        if found is None:
            return None
        return Resource("checkpoint", found, _NOTE, {"cache-control": _NOT_AT_ALL})

    async def _issuer(self, path: str) -> Resource | None:
        try:
            parse_issuer(path)
        except Malformed:
            return None
        found = await self._kept((path, False), is_kept=True)
        if found is None:
            return None
        return Resource("issuer", found, "application/pkix-cert", {"cache-control": _FOREVER})

    async def _tile(self, path: str, *, takes_gzip: bool) -> Resource | None:
        try:
            tile = TilePath.parse(path)
        except Malformed:
            return None
        # Hashes are not compressed by anything.
        is_packed = takes_gzip and tile.level is None
        found = await self._kept((path, is_packed), is_kept=tile.width == tile.whole.width)
        if found is None:
            return None
        headers = {"cache-control": _FOREVER}
        if tile.level is None:
            headers["vary"] = "accept-encoding"
        if is_packed:
            headers["content-encoding"] = "gzip"
        return Resource("data" if tile.level is None else "tile", found, _OCTETS, headers)

    async def _kept(self, at: tuple[str, bool], *, is_kept: bool) -> bytes | None:
        found = self._tiles.get(at)
        if found is not None:
            self._tiles.move_to_end(at)
            return found
        found = await self.defer(self._read, *at)
        if found is not None and is_kept and at not in self._tiles:
            self._tiles[at] = found
            self._size += len(found)
            while self._size > self.kept:
                _, gone = self._tiles.popitem(last=False)
                self._size -= len(gone)
        return found

    def _read(self, path: str, is_packed: bool) -> bytes | None:
        """On a thread."""
        found = self.files.read(path)
        if found is None or not is_packed:
            return found
        return gzip.compress(found, _LEVEL, mtime=0)
