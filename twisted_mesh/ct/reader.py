"""Reading a log (C2SP static-ct-api): its signed head, and what it serves, each piece of it verified against a head."""

from hashlib import sha256

from attrs import define, field, frozen
from cryptography import x509

from pki.ct.log_list import Log
from pki.ct.tile_path import CHECKPOINT, TilePath, issuer_path
from pki.ct.tree_head import TreeHead, open_note
from pki.errors import HOSTILE_INPUT, printable
from twisted_mesh.ct.errors import LogUnusable, NotInLog
from twisted_mesh.ct.transport import TIMEOUT, LogTransport
from twisted_mesh.ct.urls import is_own_server, monitoring_url
from twisted_mesh.interfaces import IReactor

HASH, WIDTH = 32, 256
#: Bytes of one entry in a data tile, on the average of its tile: whatever a log of ours takes, twice 48 KiB and what is
#: around them. A thief of its CA could fill a tile with such, which nobody who reads it would come past.
LARGEST_ENTRY = 97 * 1024
_LONGEST_NOTE = 128 * 1024
_LONGEST_ISSUER = 64 * 1024
_TILE_TIMEOUT = 30.0


@frozen
class SignedHead:
    """A head of a log's tree, and the note that the log has signed of it."""

    head: TreeHead
    note: str = field(repr=False)

    @property
    def size(self) -> int:
        """How many entries."""
        return self.head.size

    @property
    def root(self) -> bytes:
        """Of the tree over them."""
        return self.head.root


@define(eq=False, repr=False)
class LogReader:
    """Reads one log. Whatever goes wrong is a :class:`~pki.errors.PkiError`.

    Nothing of it is believed but heads, which are signed: :class:`~twisted_mesh.ct.view.LogView` verifies the rest.
    """

    log: Log
    reactor: IReactor
    timeout: float = TIMEOUT
    """Seconds for a head; a tile may take longer."""
    requires_pq: bool = False
    _transport: LogTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        # What another server serves is signed too; who that is, is the web's CAs' to say.
        pins = self.log.tls_pins if is_own_server(self.log) else ()
        self._transport = LogTransport(
            self.reactor,
            monitoring_url(self.log),
            pins,
            timeout=max(self.timeout, _TILE_TIMEOUT),
            requires_pq=self.requires_pq,
        )

    async def checkpoint(self) -> SignedHead:
        """The latest head, with the log's signature verified; that it extends others is not."""
        data = await self._transport.get(f"/{CHECKPOINT}", _LONGEST_NOTE, self.timeout)
        try:
            note = data.decode()
        except UnicodeDecodeError:
            raise LogUnusable(f"{self._where}/checkpoint is no signed note") from None
        return SignedHead(open_note(note, self.log), note)

    async def tile(self, level: int, number: int, width: int = WIDTH) -> bytes:
        """The first ``width`` hashes of a tile, unverified. Of one that is full by now they are the first."""
        size = width * HASH
        found = await self._tile(TilePath(level, number, width), HASH)
        if len(found) < size:
            raise LogUnusable(
                f"tile {number} of level {level} at {self._where} is cut short: it has {len(found)} bytes of {size}"
            )
        return found[:size]

    async def data_tile(self, number: int, width: int = WIDTH) -> bytes:
        """The entries of a tile, unverified: at least ``width`` of them."""
        return await self._tile(TilePath(None, number, width), LARGEST_ENTRY)

    async def _tile(self, path: TilePath, largest: int) -> bytes:
        """What is at ``path``, or in the full tile that has taken its place meanwhile."""
        try:
            return await self._transport.get(f"/{path}", path.width * largest)
        except NotInLog:
            if path.width == WIDTH:
                raise
            return await self._transport.get(f"/{path.whole}", WIDTH * largest)

    async def issuer(self, fingerprint: bytes) -> x509.Certificate:
        """The certificate whose SHA-256 that is."""
        data = await self._transport.get(f"/{issuer_path(fingerprint)}", _LONGEST_ISSUER)
        if sha256(data).digest() != fingerprint:
            raise LogUnusable(
                f"what {self._where} has for the issuer {fingerprint.hex()} is something else"
            )
        try:
            return x509.load_der_x509_certificate(data)
        except HOSTILE_INPUT:
            raise LogUnusable(
                f"the issuer {fingerprint.hex()} at {self._where} is no certificate"
            ) from None

    def hang_up(self) -> None:
        """Keep no connection."""
        self._transport.hang_up()

    @property
    def _where(self) -> str:
        return printable(str(self._transport.url), 200)
