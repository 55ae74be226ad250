"""Merkle trees: known answers, a naive tree of the test's own, proofs and what must not pass for one."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import PkiError
from pki.tlog import merkle
from pki.tlog.merkle import (
    EMPTY_ROOT,
    BadProof,
    DamagedTree,
    GrowingTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

#: The eight entries and the roots over the first 0 to 8 of them that Certificate Transparency publishes.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_LEFT = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_RIGHT = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_LAST = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_FIRST = [
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    _LEFT,
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
]
_SIXTH = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"


def naive_root(entries: Sequence[bytes]) -> bytes:
    """RFC 9162 section 2.1.1, word for word."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while 2 * k < len(entries):
        k *= 2
    left, right = naive_root(entries[:k]), naive_root(entries[k:])
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tiles(dict[tuple[int, int], bytes]):
    """A tree in memory that counts what is asked of it."""

    def __init__(self, entries: Sequence[bytes] = ()) -> None:
        self.size = self.reads = 0
        self.grow([leaf_hash(entry) for entry in entries])

    def read(self, level: int, number: int) -> bytes:
        self.reads += 1
        return self.get((level, number), b"")

    def grow(self, leaves: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
        changed = merkle.append(self.size, leaves, self.read)
        self.update(changed)
        self.size += len(leaves)
        return changed


def many(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


CT = Tiles(ENTRIES)
#: 600 leaves: two complete tiles and a partial one.
WIDE_ENTRIES = many(600)
WIDE = Tiles(WIDE_ENTRIES)
#: Roots by a naive tree, for the sizes that a mistake would pick.
WIDE_ROOTS = {
    size: naive_root(WIDE_ENTRIES[:size])
    for size in (*range(1, 18), 63, 64, 65, *range(254, 259), *range(510, 515), 599, 600)
}
wide_sizes = st.sampled_from(sorted(WIDE_ROOTS))


@pytest.mark.parametrize("size", range(9))
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root(size, CT.read).hex() == ROOTS[size]
    assert naive_root(ENTRIES[:size]).hex() == ROOTS[size]


@pytest.mark.parametrize(
    ("position", "size", "path"),
    [
        (0, 1, []),
        (0, 8, _FIRST),
        (5, 8, [_RIGHT, _LAST, ROOTS[4]]),
        (2, 3, [ROOTS[2]]),
        (1, 5, [ROOTS[1], _LEFT, _RIGHT]),
    ],
)
def test_inclusion_proofs_are_those_of_certificate_transparency(
    position: int, size: int, path: list[str]
) -> None:
    proof = merkle.inclusion_proof(position, size, CT.read)
    assert [step.hex() for step in proof] == path
    verify_inclusion(
        leaf_hash(ENTRIES[position]), position, size, proof, bytes.fromhex(ROOTS[size])
    )


@pytest.mark.parametrize(
    ("first", "second", "path"),
    [
        (1, 1, []),
        (1, 8, _FIRST),
        (6, 8, [_SIXTH, _LAST, ROOTS[4]]),
        (2, 5, [_LEFT, _RIGHT]),
    ],
)
def test_consistency_proofs_are_those_of_certificate_transparency(
    first: int, second: int, path: list[str]
) -> None:
    proof = merkle.consistency_proof(first, second, CT.read)
    assert [step.hex() for step in proof] == path
    old, new = (bytes.fromhex(ROOTS[size]) for size in (first, second))
    verify_consistency(first, second, old, new, proof)


@pytest.mark.parametrize("size", WIDE_ROOTS)
def test_the_root_from_tiles_is_that_of_a_naive_tree(size: int) -> None:
    assert merkle.root(size, WIDE.read) == WIDE_ROOTS[size]


@pytest.mark.parametrize("size", [0, *WIDE_ROOTS])
def test_a_growing_tree_has_the_same_root(size: int) -> None:
    tree = GrowingTree()
    for entry in WIDE_ENTRIES[:size]:
        tree.add(leaf_hash(entry))
    assert tree.size == size
    assert tree.root == WIDE_ROOTS.get(size, EMPTY_ROOT)


@given(st.lists(st.integers(0, 20), max_size=6))
def test_a_tree_goes_on_from_what_was_kept_of_it(steps: list[int]) -> None:
    leaves = [leaf_hash(entry) for entry in WIDE_ENTRIES[: sum(steps)]]
    whole, resumed, at = GrowingTree(), GrowingTree(), 0
    for leaf in leaves:
        whole.add(leaf)
    for step in steps:
        resumed = GrowingTree.resumed(resumed.size, resumed.peaks)
        resumed.add_all(leaves[at : at + step])
        at += step
    assert (resumed.size, resumed.root, resumed.peaks) == (whole.size, whole.root, whole.peaks)


@pytest.mark.parametrize(("size", "peaks"), [(1, ()), (3, (bytes(32),)), (1, (b"short",))])
def test_what_is_no_tree_is_not_gone_on_with(size: int, peaks: tuple[bytes, ...]) -> None:
    with pytest.raises(BadProof):
        GrowingTree.resumed(size, peaks)


@given(st.lists(st.integers(0, 700), max_size=8))
def test_tiles_do_not_depend_on_how_a_tree_grew(steps: list[int]) -> None:
    entries = many(sum(steps))
    tiles = Tiles()
    ends = [sum(steps[:count]) for count in range(len(steps) + 1)]
    for start, end in pairwise(ends):
        tiles.grow([leaf_hash(entry) for entry in entries[start:end]])
    assert tiles == Tiles(entries)


def test_tiles_are_laid_out_as_tlog_tiles_says() -> None:
    # The specification's own example, of 70,000 leaves.
    tiles = Tiles(many(70_000))
    assert sum(level == 0 for level, _ in tiles) == 274
    assert {len(tiles[0, number]) for number in range(273)} == {256 * 32}
    assert len(tiles[0, 273]) == 112 * 32
    assert [len(tiles[1, number]) for number in (0, 1)] == [256 * 32, 17 * 32]
    assert len(tiles[2, 0]) == 32
    assert len(tiles) == 274 + 2 + 1
    assert tiles[1, 0][:32] == naive_root(many(256))
    assert merkle.root(70_000, tiles.read) == naive_root(many(70_000))


def test_a_large_log_grows_by_a_handful_of_tiles() -> None:
    tiles = Tiles(many(66_000))
    tiles.reads = 0
    changed = tiles.grow([leaf_hash(b"new")] * 1000)
    assert len(changed) <= 8
    assert tiles.reads <= 4


def test_a_large_log_gives_proofs_from_a_handful_of_tiles() -> None:
    tiles = Tiles(many(66_000))
    tiles.reads = 0
    merkle.root(66_000, tiles.read)
    merkle.inclusion_proof(33_333, 66_000, tiles.read)
    merkle.consistency_proof(33_333, 66_000, tiles.read)
    assert tiles.reads <= 12


def test_nothing_appended_changes_nothing() -> None:
    assert merkle.append(600, [], WIDE.read) == {}


@pytest.mark.parametrize(("start", "end"), [(0, 600), (0, 0), (255, 257), (300, 301), (512, 600)])
def test_leaves_are_read_from_where_to_where(start: int, end: int) -> None:
    expected = [leaf_hash(entry) for entry in WIDE_ENTRIES[start:end]]
    assert list(merkle.leaves(start, end, WIDE.read)) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 11, 16])
def test_every_leaf_of_a_small_log_is_proven_to_be_there(size: int) -> None:
    for position in range(size):
        proof = merkle.inclusion_proof(position, size, WIDE.read)
        leaf = leaf_hash(WIDE_ENTRIES[position])
        verify_inclusion(leaf, position, size, proof, WIDE_ROOTS[size])


@given(st.data(), wide_sizes)
def test_inclusion_is_proven_and_anything_else_is_not(data: st.DataObject, size: int) -> None:
    position = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(position, size, WIDE.read)
    leaf, root = leaf_hash(WIDE_ENTRIES[position]), WIDE_ROOTS[size]
    verify_inclusion(leaf, position, size, proof, root)
    with pytest.raises(BadProof):
        verify_inclusion(changed_byte(data, leaf), position, size, proof, root)
    with pytest.raises(BadProof):
        verify_inclusion(leaf, position, size, proof, changed_byte(data, root))
    with pytest.raises(BadProof):
        verify_inclusion(leaf, position, size, [*proof, root], root)
    other = data.draw(st.integers(-2, size + 2).filter(lambda p: p != position))
    with pytest.raises(BadProof):
        verify_inclusion(leaf, other, size, proof, root)
    # The size alone is what the checkpoint vouches for, together with its root.
    other_size = data.draw(wide_sizes.filter(lambda s: s != size))
    with pytest.raises(BadProof):
        verify_inclusion(leaf, position, other_size, proof, WIDE_ROOTS[other_size])
    if proof:
        with pytest.raises(BadProof):
            verify_inclusion(leaf, position, size, damaged(data, proof), root)


@given(st.data(), wide_sizes, wide_sizes)
def test_consistency_is_proven_and_anything_else_is_not(
    data: st.DataObject, one: int, two: int
) -> None:
    first, second = sorted((one, two))
    proof = merkle.consistency_proof(first, second, WIDE.read)
    old, new = WIDE_ROOTS[first], WIDE_ROOTS[second]
    verify_consistency(first, second, old, new, proof)
    with pytest.raises(BadProof):
        verify_consistency(first, second, changed_byte(data, old), new, proof)
    with pytest.raises(BadProof):
        verify_consistency(first, second, old, changed_byte(data, new), proof)
    with pytest.raises(BadProof):
        verify_consistency(first, second, old, new, [*proof, new])
    other = data.draw(wide_sizes.filter(lambda size: size not in (first, second)))
    with pytest.raises(BadProof):
        verify_consistency(other, second, WIDE_ROOTS[other], new, proof)
    with pytest.raises(BadProof):
        verify_consistency(first, other, old, WIDE_ROOTS[other], proof)
    if proof:
        with pytest.raises(BadProof):
            verify_consistency(first, second, old, new, damaged(data, proof))


def test_two_hashes_cut_elsewhere_are_no_hashes() -> None:
    # Both halves of a node are hashed end to end: without a look at their lengths this would pass.
    left, right = (leaf_hash(entry) for entry in ENTRIES[:2])
    with pytest.raises(BadProof, match="hashes of 32 bytes"):
        verify_inclusion(right[1:], 1, 2, [left + right[:1]], bytes.fromhex(ROOTS[2]))


def changed_byte(data: st.DataObject, value: bytes) -> bytes:
    place = data.draw(st.integers(0, len(value) - 1))
    flip = data.draw(st.integers(1, 255))
    return value[:place] + bytes((value[place] ^ flip,)) + value[place + 1 :]


def damaged(data: st.DataObject, proof: Sequence[bytes]) -> list[bytes]:
    """A proof with one step changed, left out, cut short or lengthened."""
    place = data.draw(st.integers(0, len(proof) - 1))
    step = proof[place]
    instead = data.draw(
        st.sampled_from([[changed_byte(data, step)], [], [step[:-1]], [step + b"\0"]])
    )
    return [*proof[:place], *instead, *proof[place + 1 :]]


@given(
    st.integers(-3, 20),
    st.integers(-3, 20),
    st.lists(st.binary(max_size=40) | st.binary(min_size=32, max_size=32), max_size=6),
    st.binary(min_size=32, max_size=32),
)
def test_whatever_is_given_for_a_proof_verifies_or_is_a_bad_proof(
    one: int, two: int, proof: list[bytes], root: bytes
) -> None:
    for verify in (
        lambda: verify_inclusion(root, one, two, proof, root),
        lambda: verify_consistency(one, two, root, root, proof),
    ):
        try:
            verify()
        except PkiError as error:
            assert error.code == "bad-proof"


@pytest.mark.parametrize(("position", "size"), [(8, 8), (-1, 8), (0, 0)])
def test_there_is_no_proof_of_what_is_not_in_the_log(position: int, size: int) -> None:
    with pytest.raises(BadProof, match=f"no entry {position} in a log of {size}"):
        merkle.inclusion_proof(position, size, CT.read)
    with pytest.raises(BadProof, match=f"no entry {position} in a log of {size}"):
        verify_inclusion(EMPTY_ROOT, position, size, [], EMPTY_ROOT)


@pytest.mark.parametrize(("first", "second"), [(0, 8), (8, 7), (-1, 3)])
def test_there_is_no_proof_from_nothing_or_backwards(first: int, second: int) -> None:
    with pytest.raises(BadProof, match=f"{second} entries does not extend one of {first}"):
        merkle.consistency_proof(first, second, CT.read)
    with pytest.raises(BadProof, match=f"{second} entries does not extend one of {first}"):
        verify_consistency(first, second, EMPTY_ROOT, EMPTY_ROOT, [])


def test_an_empty_proof_leads_nowhere() -> None:
    with pytest.raises(BadProof, match="empty"):
        verify_consistency(3, 8, *(bytes.fromhex(ROOTS[n]) for n in (3, 8)), [])


@pytest.mark.parametrize("missing", [8192, 32, 7])
def test_a_tile_that_is_cut_short_is_neither_read_nor_built_upon(missing: int) -> None:
    tiles = Tiles(WIDE_ENTRIES)
    tiles[0, 2] = tiles[0, 2][:-missing]
    for use in (
        lambda: merkle.append(600, [EMPTY_ROOT], tiles.read),
        lambda: merkle.root(600, tiles.read),
        lambda: list(merkle.leaves(590, 600, tiles.read)),
        lambda: merkle.inclusion_proof(3, 600, tiles.read),
        lambda: merkle.consistency_proof(599, 600, tiles.read),
    ):
        with pytest.raises(DamagedTree, match=r"tile 2 of level 0 .* restore"):
            use()


def test_a_missing_tile_in_the_middle_is_told() -> None:
    tiles = Tiles(WIDE_ENTRIES)
    del tiles[0, 1]
    with pytest.raises(DamagedTree, match="tile 1 of level 0"):
        list(merkle.leaves(0, 600, tiles.read))
