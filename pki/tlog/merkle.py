"""Merkle trees by RFC 9162 section 2, kept in tiles as C2SP's tlog-tiles describes them.

A tile is the hashes of up to 256 neighbours: of leaves at level 0, of complete tiles of level L at
level L + 1. Functions get ``read``, which gives a tile's bytes by level and number (``b""`` for none),
and need a handful of tiles whatever the size of the tree.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

from attrs import define, field

from pki.codes import Code
from pki.errors import PkiError

Read = Callable[[int, int], bytes]

_HASH = 32
_sha256 = hashlib.sha256
_HEIGHT = 8
_WIDTH = 1 << _HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()


class BadProof(PkiError):
    """A proof does not lead from what it starts with to the root."""

    code = Code.BAD_PROOF


class DamagedTree(PkiError):
    """A tile has fewer hashes than the tree's size says."""

    code = Code.DAMAGED_TREE

    def __init__(self, level: int, number: int) -> None:
        super().__init__(
            f"tile {number} of level {level} of the log's tree is missing or cut short: "
            "restore the store from a backup"
        )


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry, 32 bytes (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def append(size: int, leaves: Sequence[bytes], read: Read) -> dict[tuple[int, int], bytes]:
    """The tiles, by level and number, that change when a tree of ``size`` gets these leaf hashes.

    Raises :class:`DamagedTree` rather than build on a tile that is cut short.
    """
    changed: dict[tuple[int, int], bytes] = {}
    level, start, news = 0, size, list(leaves)
    while news:
        above, end = [], start + len(news)
        for number in range(start // _WIDTH, (end - 1) // _WIDTH + 1):
            first = number * _WIDTH
            filled = max(start - first, 0)
            kept = read(level, number)[: filled * _HASH] if filled else b""
            if len(kept) != filled * _HASH:
                raise DamagedTree(level, number)
            added = news[max(first - start, 0) : first + _WIDTH - start]
            tile = kept + b"".join(added)
            changed[level, number] = tile
            if len(tile) == _WIDTH * _HASH:
                above.append(_fold(_split(tile)))
        level, start, news = level + 1, start // _WIDTH, above
    return changed


def leaves(start: int, end: int, read: Read) -> Iterator[bytes]:
    """The leaf hashes from ``start`` up to ``end``, which is not among them.

    Raises :class:`DamagedTree` where one is not there.
    """
    for number in range(start // _WIDTH, -(-end // _WIDTH)):
        first = number * _WIDTH
        row = _split(read(0, number))[: end - first]
        if len(row) != min(end - first, _WIDTH):
            raise DamagedTree(0, number)
        yield from row[max(start - first, 0) :]


def root(size: int, read: Read) -> bytes:
    """The hash of the tree's first ``size`` leaves. Raises :class:`DamagedTree`."""
    return _Tree(read).root_of(0, size) if size else EMPTY_ROOT


def inclusion_proof(position: int, size: int, read: Read) -> tuple[bytes, ...]:
    """The audit path of a leaf (section 2.1.3.1). Raises :class:`BadProof` for one that is not there."""
    if not 0 <= position < size:
        raise BadProof(f"there is no entry {position} in a log of {size}")
    tree, start, end = _Tree(read), 0, size
    path: list[bytes] = []
    while end - start > 1:
        middle = start + _split_at(end - start)
        if position < middle:
            path.append(tree.root_of(middle, end))
            end = middle
        else:
            path.append(tree.root_of(start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_proof(first: int, second: int, read: Read) -> tuple[bytes, ...]:
    """That the tree of size ``second`` extends that of size ``first`` (section 2.1.4.1)."""
    if not 0 < first <= second:
        raise BadProof(f"a log of {second} entries does not extend one of {first}")
    tree, start, end, is_whole = _Tree(read), 0, second, True
    path: list[bytes] = []
    while first != end:
        middle = start + _split_at(end - start)
        if first <= middle:
            path.append(tree.root_of(middle, end))
            end = middle
        else:
            path.append(tree.root_of(start, middle))
            start, is_whole = middle, False
    if not is_whole:
        path.append(tree.root_of(start, end))
    return tuple(reversed(path))


def verify_inclusion(
    leaf: bytes, position: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Section 2.1.3.2. Raises :class:`BadProof`."""
    if not 0 <= position < size:
        raise BadProof(f"there is no entry {position} in a log of {size}")
    _demand_hashes((leaf, root, *proof))
    number, last, result = position, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise BadProof("the proof is too long")
        if number & 1 or number == last:
            result = node_hash(sibling, result)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        number, last = number >> 1, last >> 1
    if last or result != root:
        raise BadProof(f"the proof does not show entry {position} in the log of {size}")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Section 2.1.4.2. Raises :class:`BadProof`."""
    told = f"the proof does not show that the log of {second} entries extends that of {first}"
    if not 0 < first <= second:
        raise BadProof(f"a log of {second} entries does not extend one of {first}")
    _demand_hashes((first_root, second_root, *proof))
    if first == second:
        if proof or first_root != second_root:
            raise BadProof(told)
        return
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise BadProof("the proof is empty")
    number, last = first - 1, second - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise BadProof("the proof is too long")
        if number & 1 or number == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        number, last = number >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise BadProof(told)


def _demand_hashes(values: Sequence[bytes]) -> None:
    """A node is hashed over two hashes end to end: of other lengths, they could be cut elsewhere."""
    if any(len(value) != _HASH for value in values):
        raise BadProof(f"a proof is made of hashes of {_HASH} bytes, and this one is not")


@define(eq=False, repr=False)
class GrowingTree:
    """A tree of which only what its root needs is kept: as many hashes as its size has ones in binary."""

    size: int = 0
    _peaks: list[bytes] = field(factory=list, init=False)
    """Roots of the complete subtrees, the largest first."""

    @classmethod
    def resumed(cls, size: int, peaks: Sequence[bytes]) -> Self:
        """One that has grown before: ``GrowingTree.resumed(t.size, t.peaks)`` goes on as ``t`` would."""
        if len(peaks) != size.bit_count():
            raise BadProof(f"a tree of {size} entries is not kept in {len(peaks)} hashes")
        _demand_hashes(peaks)
        tree = cls(size)
        tree._peaks = list(peaks)
        return tree

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """What is kept of it: the roots of its complete subtrees, the largest first."""
        return tuple(self._peaks)

    def add(self, leaf: bytes) -> None:
        """One entry more, by its :func:`leaf_hash`."""
        size, top = self.size, leaf
        while size & 1:
            top = node_hash(self._peaks.pop(), top)
            size >>= 1
        self._peaks.append(top)
        self.size += 1

    def add_all(self, leaves: Iterable[bytes]) -> None:
        """Several entries more, each as :meth:`add` adds it: who follows a log has millions."""
        peaks, size = self._peaks, self.size
        for top in leaves:
            rest = size
            while rest & 1:
                top = _sha256(b"\1" + peaks.pop() + top).digest()  # noqa: PLW2901 - it is what it grows into
                rest >>= 1
            peaks.append(top)
            size += 1
        self.size = size

    @property
    def root(self) -> bytes:
        """The root of all that was added (RFC 6962 section 2.1)."""
        if not self._peaks:
            return EMPTY_ROOT
        *rest, top = self._peaks
        for peak in reversed(rest):
            top = node_hash(peak, top)
        return top


class _Tree:
    """A tree in tiles, each of them read once."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._tiles: dict[tuple[int, int], Sequence[bytes]] = {}

    def root_of(self, start: int, end: int) -> bytes:
        """The root of the leaves from ``start`` up to ``end``, as RFC 9162 splits the tree."""
        size = end - start
        if size & (size - 1) == 0:
            return self._complete(size.bit_length() - 1, start // size)
        middle = start + _split_at(size)
        return node_hash(self.root_of(start, middle), self.root_of(middle, end))

    def _complete(self, height: int, number: int) -> bytes:
        """The root of the ``number``-th complete subtree of that height."""
        level, rest = divmod(height, _HEIGHT)
        first = number << rest
        inside = first % _WIDTH
        row = self._tile(level, first // _WIDTH)[inside : inside + (1 << rest)]
        if len(row) != 1 << rest:
            raise DamagedTree(level, first // _WIDTH)
        return _fold(row)

    def _tile(self, level: int, number: int) -> Sequence[bytes]:
        if (level, number) not in self._tiles:
            self._tiles[level, number] = _split(self._read(level, number))
        return self._tiles[level, number]


def _split_at(size: int) -> int:
    """The largest power of two below ``size``."""
    return 1 << (size - 1).bit_length() - 1


def _split(tile: bytes) -> Sequence[bytes]:
    """The whole hashes of a tile; a piece of one at its end is left out."""
    return [tile[i : i + _HASH] for i in range(0, len(tile) - _HASH + 1, _HASH)]


def _fold(row: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes."""
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]
