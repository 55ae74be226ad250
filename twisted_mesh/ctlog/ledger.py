"""The log itself: its tree, its record and its files, and the one order in which they change.

Entries, digests, tiles and the new signed head are committed together and synced; then the files are written and
synced; then the checkpoint gets its name; and only then anybody hears of it. So there is no receipt without an entry,
no index twice, and no head that goes back, wherever the process is killed.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import define, field, frozen

from pki.ct.entry import LogEntry, parse_data_tile
from pki.ct.tile_path import TilePath, issuer_path
from pki.ct.tree_head import TreeHead, with_signatures
from pki.errors import PkiError
from pki.tlog.merkle import (
    EMPTY_ROOT,
    BadProof,
    DamagedTree,
    append,
    consistency_proof,
    inclusion_proof,
    root,
    verify_inclusion,
)
from pki.tlog.note import NoteSignature
from twisted_mesh.ctlog.admission import Admitted
from twisted_mesh.ctlog.errors import ContradictsItself, CtLogStateError
from twisted_mesh.ctlog.head_key import HeadKey
from twisted_mesh.ctlog.store import Head, LogStore, Seen
from twisted_mesh.ctlog.tiles import CHECKPOINT, COSIGNED, TileFiles
from twisted_mesh.runtime.clock import RELEASE

WIDTH = 256
_FULL = WIDTH * 32
#: Milliseconds for which the clock may stand behind what was signed: so far, the time of the last head is said again.
_BEHIND = 300_000
#: Milliseconds for which partial tiles stay beside the full one: somebody may have read the checkpoint before it.
_LINGERS = 60_000
_BACKUP = (
    "bring back both directories, private and public, from the same moment; if the log has gone on since, it is lost "
    "as one that grows: serve it with --read-only, and begin another"
)


@frozen
class Sequenced:
    """An entry that is in the log, and was before if it is not new."""

    entry: LogEntry
    is_new: bool


@define(eq=False, repr=False)
class Ledger:
    """Used in one thread at a time; what it raises is :class:`PkiError`."""

    store: LogStore
    files: TileFiles
    key: HeadKey
    now: Callable[[], int]
    """Milliseconds since 1970."""
    head: Head = field(init=False, default=Head(0, EMPTY_ROOT, 0, ""))
    """What was signed last, and committed."""
    published: Head = field(init=False, default=Head(0, EMPTY_ROOT, 0, ""))
    """What the files show."""
    _tiles: dict[tuple[int, int], bytes] = field(factory=dict, init=False)
    """The partial ones, and the full ones that may not be on the disk yet."""
    _tail: list[bytes] = field(factory=list, init=False)
    """The tile leaves of the last data tile, while it is partial."""
    _unwritten: dict[str, bytes] = field(factory=dict, init=False)
    """Files that belong to the head, and are not on the disk yet."""
    _superfluous: "deque[tuple[int, str]]" = field(factory=deque, init=False)
    """Partial tiles that full ones have taken the place of, and since when."""
    _is_sure: bool = field(default=True, init=False)
    """Whether what is here is what is in the record."""

    # The start.

    def open(self) -> None:
        """Hold the record against what was signed, and the files against the record; write what they lack.

        Raises :class:`ContradictsItself` where something was changed that only the log's key may change.
        """
        self._tiles, self._tail, self._unwritten = {}, [], {}
        shown = self._shown()
        head = self.store.head()
        if head is None:
            if shown is not None:
                raise ContradictsItself(
                    f"{self.store.path} is new, and {CHECKPOINT} tells of {shown.size} entries that were signed: "
                    f"{_BACKUP}"
                )
            self._begin()
            return
        self._demand_signed(head)
        self._take(head)
        self._demand_shown(shown)
        self.head, self._is_sure = head, True
        self._publish()

    def _begin(self) -> None:
        head = self._signed(0, EMPTY_ROOT, self._moment())
        with self.store.changing():
            self.store.sign(head)
        self.head, self._is_sure = head, True
        self._publish()

    def _shown(self) -> TreeHead | None:
        """What the checkpoint says that readers see."""
        data = self.files.read(CHECKPOINT)
        if data is None:
            return None
        try:
            return self.key.open(data.decode("utf-8", "replace"))
        except PkiError as error:
            raise ContradictsItself(
                f"{self.files.root / CHECKPOINT} is not signed by the key of this log ({error}): {_BACKUP}"
            ) from None

    def _demand_signed(self, head: Head) -> None:
        try:
            signed = self.key.open(head.note)
        except PkiError as error:
            raise ContradictsItself(
                f"the head in {self.store.path} is not signed by the key of this log ({error}): {_BACKUP}"
            ) from None
        if (signed.size, signed.root, signed.timestamp) != (head.size, head.root, head.timestamp):
            raise ContradictsItself(
                f"the head in {self.store.path} is not the one that was signed: {_BACKUP}"
            )

    def _take(self, head: Head) -> None:
        """Tiles and entries of the record: all of them lead to the signed root, or nothing is done with them."""
        entries, size = self.store.entries(), head.size
        self._tiles = self.store.tiles()
        base = entries[0][0] if entries else size
        whole = base % WIDTH == 0 and base <= size - size % WIDTH
        if not whole or [position for position, _ in entries] != list(range(base, size)):
            raise ContradictsItself(f"{self.store.path} lacks entries that were signed: {_BACKUP}")
        try:
            hashes = b"".join(_leaf(data).leaf_hash for _, data in entries)
            for number in range(base // WIDTH, -(-size // WIDTH)):
                at = (number * WIDTH - base) * 32
                if hashes[at : at + _FULL] != self._read(0, number):
                    raise DamagedTree(0, number)
            if root(size, self._read) != head.root:
                raise DamagedTree(0, size // WIDTH)
        except PkiError as error:
            raise ContradictsItself(
                f"the tree in {self.store.path} is not the one that was signed ({error}): {_BACKUP}"
            ) from None
        self._tail = [data for position, data in entries if position >= size - size % WIDTH]
        files = self._files_of(self._tiles)
        leaves = [data for _, data in entries]
        files |= self._data_files(base, leaves)
        files |= {issuer_path(fingerprint): der for fingerprint, der in self.store.issuers()}
        self._unwritten = {
            path: data for path, data in files.items() if self.files.read(path) != data
        }

    def _demand_shown(self, shown: TreeHead | None) -> None:
        head = self.store.head()
        if head is None:
            raise AssertionError("there is a head")
        if shown is None:
            if head.size:
                raise ContradictsItself(
                    f"{self.files.root / CHECKPOINT} is gone, which tells what was last signed apart from the record: "
                    f"{_BACKUP}"
                )
            return
        if shown.size > head.size or shown.timestamp > head.timestamp:
            raise ContradictsItself(
                f"{CHECKPOINT} tells of {shown.size} entries that were signed, and {self.store.path} has {head.size}: "
                f"it was put back by an older one; {_BACKUP}"
            )
        try:
            is_older = root(shown.size, self._read) == shown.root
        except DamagedTree:
            is_older = False
        if not is_older:
            raise ContradictsItself(
                f"{CHECKPOINT} tells of another log of {shown.size} entries than is in {self.store.path}: {_BACKUP}"
            )

    # Growing.

    def extend(self, batch: Sequence[Admitted]) -> list[Sequenced]:
        """Add what is new, and publish it; where each of them is."""
        self._settle()
        moment, size = self._moment(), self.head.size
        news: dict[bytes, Admitted] = {}
        places: dict[bytes, int] = {}
        entries: dict[bytes, LogEntry] = {}
        for one in batch:
            digest = one.digest
            if digest in places or digest in entries:
                continue
            known = self.store.position_of(digest)
            if known is None:
                places[digest] = size + len(news)
                news[digest] = one
                entries[digest] = one.at(places[digest], moment)
            else:
                entries[digest] = self._proven(one, known)
        if news:
            self._commit(moment, news, [entries[digest] for digest in news])
            self._publish()
        fresh = set(news)
        found = []
        for one in batch:
            found.append(Sequenced(entries[one.digest], one.digest in fresh))
            fresh.discard(one.digest)
        return found

    def refresh(self, after: int) -> bool:
        """Sign the same tree again, if its head is older than so many milliseconds; whether it was signed."""
        self._settle()
        moment = self._moment()
        if moment - self.head.timestamp < after:
            return False
        head = self._signed(self.head.size, self.head.root, moment)
        with self._changing():
            self.store.sign(head)
        self.head = head
        self._publish()
        return True

    def _settle(self) -> None:
        """What an earlier batch has left to do: till that is done no other begins."""
        if not self._is_sure:
            self.open()
        if self.published is not self.head:
            self._publish()

    def _moment(self) -> int:
        now, last = self.now(), self.head.timestamp
        if now < last - _BEHIND:
            raise CtLogStateError(
                f"the clock is {(last - now) // 1000} s behind what was signed last: nothing is added until it is "
                "right; compare it with another machine's"
            )
        if now < RELEASE.at.timestamp() * 1000:
            raise CtLogStateError(
                "the clock says a time before this program was made: nothing is added until it is right"
            )
        return max(now, last)

    def _commit(
        self, moment: int, news: Mapping[bytes, Admitted], entries: Sequence[LogEntry]
    ) -> None:
        size = self.head.size
        hashes = [entry.leaf_hash for entry in entries]
        leaves = [entry.tile_leaf for entry in entries]
        changed = append(size, hashes, self._read)
        tiles = self._tiles | changed
        total = size + len(entries)
        head = self._signed(total, root(total, lambda *at: tiles.get(at, b"")), moment)
        issuers = {fp: der for one in news.values() for fp, der in one.issuers.items()}
        seen = [
            Seen(digest, entry_at, one.not_after)
            for entry_at, (digest, one) in enumerate(news.items(), size)
        ]
        files = self._files_of(changed)
        files |= self._data_files(size - len(self._tail), [*self._tail, *leaves])
        files |= {issuer_path(fingerprint): der for fingerprint, der in issuers.items()}
        with self._changing():
            self.store.add(enumerate(leaves, size), seen, changed, issuers)
            self.store.sign(head)
            self.store.forget(self.published.size, _FULL, self.now() // 1000)
        self._tiles = {
            at: hashes for at, hashes in tiles.items() if len(hashes) < _FULL or at in changed
        }
        whole = [*self._tail, *leaves]
        self._tail = whole[len(whole) - total % WIDTH :]
        self._unwritten |= files
        self.head = head

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A commit that fails may be on the disk all the same: the record is read again before anything else."""
        self._is_sure = False
        with self.store.changing():
            yield
        self._is_sure = True

    def _publish(self) -> None:
        """Write what the files lack, then the checkpoint."""
        if self._unwritten:
            self.files.write(self._unwritten)
            self._unwritten = {}
        self.files.write({CHECKPOINT: self.head.note.encode()})
        self.published = self.head
        now = self.now()
        while self._superfluous and self._superfluous[0][0] < now - _LINGERS:
            self.files.remove_partial(self._superfluous.popleft()[1])

    def cosign(self, head: Head, lines: Sequence[NoteSignature], *, by_all: bool) -> str | None:
        """Put cosignatures into the checkpoint; the note with them, or None where another head is published by now."""
        note = with_signatures(head.note, lines)
        files = {COSIGNED: note.encode()} if by_all else {}
        is_current = self.published is head
        if is_current:
            files[CHECKPOINT] = note.encode()
        if files:
            self.files.write(files)
        return note if is_current else None

    # Reading.

    def proof_between(self, first: int, second: int) -> tuple[bytes, ...]:
        """That the published tree of size ``second`` extends that of size ``first``."""
        return consistency_proof(first, second, self._read) if 0 < first < second else ()

    def _proven(self, one: Admitted, position: int) -> LogEntry:
        """An entry that was taken before, and is in the tree that was signed: else nothing is signed of it."""
        try:
            entry = self._entry(position)
            if one.at(position, entry.timestamp).merkle_leaf != entry.merkle_leaf:
                raise BadProof(f"entry {position} is another")
            size, leaf = self.head.size, entry.leaf_hash
            proof = inclusion_proof(position, size, self._read)
            verify_inclusion(leaf, position, size, proof, self.head.root)
        except PkiError as error:
            raise ContradictsItself(
                f"what was seen as entry {position} is not in the log that was signed ({error}): the record or a tile "
                f"was changed; {_BACKUP}"
            ) from None
        return entry

    def _entry(self, position: int) -> LogEntry:
        number, at = divmod(position, WIDTH)
        if number == self.head.size // WIDTH:
            return _leaf(self._tail[at])
        data = self.files.read(str(TilePath(None, number)))
        entries = () if data is None else parse_data_tile(data)
        if at >= len(entries):
            raise DamagedTree(0, number)
        return entries[at]

    def _read(self, level: int, number: int) -> bytes:
        found = self._tiles.get((level, number))
        return found if found is not None else self.files.read(str(TilePath(level, number))) or b""

    def _signed(self, size: int, tree_root: bytes, moment: int) -> Head:
        return Head(size, tree_root, moment, self.key.sign_head(size, tree_root, moment))

    def _files_of(self, tiles: Mapping[tuple[int, int], bytes]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for (level, number), hashes in tiles.items():
            width = len(hashes) // 32
            files[str(TilePath(level, number, width))] = hashes
            if width == WIDTH:
                self._superfluous.append((self.now(), str(TilePath(level, number))))
        return files

    def _data_files(self, base: int, leaves: Sequence[bytes]) -> dict[str, bytes]:
        """``base`` is the position of the first, which begins a tile."""
        files: dict[str, bytes] = {}
        for at in range(0, len(leaves), WIDTH):
            number, some = (base + at) // WIDTH, leaves[at : at + WIDTH]
            files[str(TilePath(None, number, len(some)))] = b"".join(some)
            if len(some) == WIDTH:
                self._superfluous.append((self.now(), str(TilePath(None, number))))
        return files


def _leaf(data: bytes) -> LogEntry:
    (entry,) = parse_data_tile(data)
    return entry
