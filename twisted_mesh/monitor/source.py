"""Where a monitor reads a log: over the network, or from a directory that has a copy of its files."""

from hashlib import sha256
from pathlib import Path
from typing import Protocol, cast

from attrs import frozen
from cryptography import x509

from pki.ct.log_list import Log
from pki.ct.tile_path import CHECKPOINT, TilePath, issuer_path
from pki.ct.tree_head import open_note
from pki.errors import HOSTILE_INPUT
from twisted_mesh.ct.errors import LogUnusable
from twisted_mesh.ct.reader import HASH, LARGEST_ENTRY, WIDTH, LogReader, SignedHead
from twisted_mesh.ct.view import LogView
from twisted_mesh.state.directory import StateError, read_file

_LARGEST_NOTE, _LARGEST_ISSUER = 128 * 1024, 64 * 1024


class Source(Protocol):
    """Serves one log. Nothing that it serves is believed before it was verified. Raises :class:`PkiError`."""

    @property
    def log(self) -> Log:
        """Which."""

    async def checkpoint(self) -> SignedHead:
        """The newest head, whose signature is verified."""

    async def tile(self, level: int, number: int, width: int = WIDTH) -> bytes:
        """So many hashes of a tile."""

    async def data_tile(self, number: int, width: int = WIDTH) -> bytes:
        """So many entries of a data tile, or more."""

    async def issuer(self, fingerprint: bytes) -> x509.Certificate:
        """A certificate by its SHA-256."""


def view_of(source: Source, signed: SignedHead) -> LogView:
    """The tree of that head. A view uses no more of a reader than a :class:`Source` has."""
    return LogView(cast(LogReader, source), signed)


@frozen(eq=False, repr=False)
class Directory:
    """A copy of a log's files, as static-ct-api lays them out: a mirror's, or the log's own."""

    log: Log
    path: Path

    async def checkpoint(self) -> SignedHead:
        note = self._read(CHECKPOINT, _LARGEST_NOTE).decode("utf-8", "replace")
        return SignedHead(open_note(note, self.log), note)

    async def tile(self, level: int, number: int, width: int = WIDTH) -> bytes:
        found = self._tile(TilePath(level, number, width), HASH)
        if len(found) < width * HASH:
            raise LogUnusable(f"{self.path}/{TilePath(level, number, width)} is cut short")
        return found[: width * HASH]

    async def data_tile(self, number: int, width: int = WIDTH) -> bytes:
        return self._tile(TilePath(None, number, width), LARGEST_ENTRY)

    async def issuer(self, fingerprint: bytes) -> x509.Certificate:
        data = self._read(issuer_path(fingerprint), _LARGEST_ISSUER)
        try:
            if sha256(data).digest() == fingerprint:
                return x509.load_der_x509_certificate(data)
        except HOSTILE_INPUT:
            pass
        raise LogUnusable(f"{self.path}/{issuer_path(fingerprint)} is not that certificate")

    def _tile(self, path: TilePath, largest: int) -> bytes:
        # A log may drop a partial tile once the full one is there.
        if path.width < WIDTH and not (self.path / str(path)).exists():
            path = path.whole
        return self._read(str(path), path.width * largest)

    def _read(self, name: str, most: int) -> bytes:
        try:
            return read_file(self.path / name, "the log's copy", most)
        except StateError as error:
            raise LogUnusable(str(error)) from None
