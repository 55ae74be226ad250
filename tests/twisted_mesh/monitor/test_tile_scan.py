"""Data tiles scanned, held against those that are read into values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.entry import EntryType, LogEntry, SignedEntry, data_tile, parse_data_tile
from pki.errors import Malformed
from twisted_mesh.monitor.tile_scan import scan

_BODY = st.binary(min_size=1, max_size=300)
_HASH = st.binary(min_size=32, max_size=32)


@st.composite
def entries(draw: st.DrawFn) -> tuple[LogEntry, ...]:
    first = draw(st.integers(0, 2**32 - 1)) * 256
    found = []
    for number in range(draw(st.integers(1, 6))):
        is_precertificate = draw(st.booleans())
        signed = (
            SignedEntry(EntryType.PRECERT, draw(_BODY), draw(_HASH))
            if is_precertificate
            else SignedEntry(EntryType.X509, draw(_BODY))
        )
        found.append(
            LogEntry(
                draw(st.integers(0, 2**62)),
                signed,
                first + number,
                draw(_BODY) if is_precertificate else b"",
                tuple(draw(st.lists(_HASH, max_size=3))),
            )
        )
    return tuple(found)


@given(entries(), st.integers(0, 3))
def test_a_tile_is_scanned_as_it_is_read(tile: tuple[LogEntry, ...], skip: int) -> None:
    scanned = list(scan(data_tile(tile), tile[0].leaf_index, skip))
    assert len(scanned) == max(len(tile) - skip, 0)
    for entry, found in zip(tile[skip:], scanned, strict=True):
        assert found.timestamp == entry.timestamp
        assert found.leaf_hash == entry.leaf_hash
        assert found.is_precertificate is (entry.type is EntryType.PRECERT)
        assert found.body == entry.signed.body
        issuer = entry.signed.issuer_key_hash or (entry.chain[0] if entry.chain else b"")
        assert found.issuer_key == issuer


@given(entries(), st.data())
def test_what_is_damaged_is_refused_by_both_or_read_alike(
    tile: tuple[LogEntry, ...], data: st.DataObject
) -> None:
    damaged = bytearray(data_tile(tile))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    cut = bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    first = tile[0].leaf_index
    for bytes_ in (bytes(damaged), cut):
        try:
            scanned = list(scan(bytes_, first))
        except Malformed:
            continue
        assert [found.leaf_hash for found in scanned] == [
            entry.leaf_hash for entry in parse_data_tile(bytes_)
        ]


def test_an_entry_that_says_that_it_is_another_is_refused() -> None:
    entry = LogEntry(1, SignedEntry(EntryType.X509, b"x"), 7)
    with pytest.raises(Malformed, match="another"):
        list(scan(entry.tile_leaf, 8))


def test_more_than_a_tile_has_is_refused() -> None:
    tile = [LogEntry(1, SignedEntry(EntryType.X509, b"x"), n) for n in range(257)]
    assert len(list(scan(data_tile(tile[:256]), 0))) == 256
    with pytest.raises(Malformed, match="256"):
        list(scan(data_tile(tile), 0))
