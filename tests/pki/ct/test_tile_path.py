"""Paths of tiles and issuers: one for each, read back, and how wide a tile is in a tree of some size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.tile_path import TilePath, issuer_path, parse_issuer, tile_width
from pki.errors import Malformed
from tests.pki.ct.logs import Tree, leaf_hashes

paths = st.builds(
    TilePath, st.none() | st.integers(0, 5), st.integers(0, 2**32 - 1), st.integers(1, 256)
)


@given(paths)
def test_a_path_is_read_back(path: TilePath) -> None:
    assert TilePath.parse(str(path)) == path
    assert path.whole.width == 256


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (TilePath(0, 0), "tile/0/000"),
        (TilePath(0, 1234067), "tile/0/x001/x234/067"),
        (TilePath(None, 17, 255), "tile/data/017.p/255"),
        (TilePath(5, 1000, 1), "tile/5/x001/000.p/1"),
    ],
    ids=str,
)
def test_paths_are_as_static_ct_has_them(path: TilePath, text: str) -> None:
    assert str(path) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tile/6/000",
        "tile/00/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000/",
        "/tile/0/000",
        "tile/0/000\n",
        "tile/0/\u0660\u0660\u0660",
        "tile/entries/000",
        "tile/0/x004/x294/x967/296",
        "tile/0/../000",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="no path of a tile"):
        TilePath.parse(text)


@given(st.text(max_size=30).map("tile/0/{}".format) | st.text(max_size=40))
def test_any_text_raises_nothing_but_malformed(text: str) -> None:
    try:
        assert str(TilePath.parse(text)) == text
    except Malformed:
        return


def test_a_tree_of_70000_has_the_tiles_that_static_ct_says() -> None:
    assert [tile_width(0, n, 70000) for n in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert [tile_width(1, n, 70000) for n in (0, 1, 2)] == [256, 17, 0]
    assert [tile_width(2, n, 70000) for n in (0, 1)] == [1, 0]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600])
def test_widths_are_those_of_the_tiles_that_are_made(size: int) -> None:
    made = Tree().add(leaf_hashes(size)).tiles
    assert made
    for (level, number), tile in made.items():
        assert tile_width(level, number, size) == len(tile) // 32


def test_an_issuer_is_found_by_its_fingerprint() -> None:
    fingerprint = bytes(range(32))
    assert parse_issuer(issuer_path(fingerprint)) == fingerprint
    for bad in ("issuer/", f"issuer/{'A' * 64}", f"issuer/{'a' * 63}", f"issuer/{'a' * 64}\n"):
        with pytest.raises(Malformed, match="no path of an issuer"):
            parse_issuer(bad)
