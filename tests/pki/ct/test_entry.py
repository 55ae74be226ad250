"""Entries as leaves of the tree and as parts of data tiles: read back, and nothing but what was written."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.entry import (
    TILE_WIDTH,
    EntryType,
    LogEntry,
    SignedEntry,
    data_tile,
    key_hash_of,
    merkle_leaf_of,
    of_certificate,
    of_precertificate,
    parse_data_tile,
    signed_entry_of,
)
from pki.ct.precertificate import LONGEST
from pki.ct.sct import MOST_ENTRIES, index_extension
from pki.ct.wire import vector
from pki.errors import Malformed
from pki.keys import spki_der
from pki.tlog.merkle import leaf_hash
from tests.authorities import mesh
from tests.pki.ct.logs import NOW_MS, ONE, entry_of, log_entries, logged
from tests.pki.strategies import mutated

hashes = st.binary(min_size=32, max_size=32)
bodies = st.binary(min_size=1, max_size=300)
shared = {
    "timestamp": st.integers(0, 2**48),
    "leaf_index": st.integers(0, MOST_ENTRIES - 1),
    "chain": st.lists(hashes, max_size=16).map(tuple),
}
entries = st.builds(
    LogEntry, signed=st.builds(SignedEntry, st.just(EntryType.X509), bodies), **shared
) | st.builds(
    LogEntry,
    signed=st.builds(SignedEntry, st.just(EntryType.PRECERT), bodies, hashes),
    pre_certificate=bodies,
    **shared,
)


@given(st.lists(entries, min_size=1, max_size=5))
def test_a_data_tile_is_read_back(found: list[LogEntry]) -> None:
    assert parse_data_tile(data_tile(found)) == tuple(found)


@given(mutated(data_tile(log_entries(3))) | st.binary(max_size=200))
def test_damage_raises_nothing_but_malformed_and_is_canonical(data: bytes) -> None:
    try:
        found = parse_data_tile(data)
    except Malformed:
        return
    assert data_tile(found) == data


def test_a_full_tile_has_256_entries_and_no_tile_more() -> None:
    full = data_tile(log_entries(TILE_WIDTH))
    assert len(parse_data_tile(full)) == TILE_WIDTH
    with pytest.raises(Malformed, match="more than 256"):
        parse_data_tile(full + log_entries(1)[0].tile_leaf)


_HEAD = bytes(8)
_X509 = b"\0\0" + vector(3, b"c")
_INDEX = vector(2, index_extension(1))


BAD = {
    "nothing": (b"", "without an entry"),
    "another type": (_HEAD + b"\0\2" + vector(3, b"c") + _INDEX + b"\0\0", "no type"),
    "no index": (_HEAD + _X509 + b"\0\0" + b"\0\0", "does not say where"),
    "an odd fingerprint": (_HEAD + _X509 + _INDEX + vector(2, bytes(33)), "cut short"),
    "too many issuers": (_HEAD + _X509 + _INDEX + vector(2, bytes(17 * 32)), "too many"),
    "an empty certificate": (_HEAD + b"\0\0" + vector(3, b"") + _INDEX + b"\0\0", "too few"),
    "a huge certificate": (_HEAD + b"\0\0" + vector(3, bytes(LONGEST + 1)), "too many"),
    "cut short": (log_entries(1)[0].tile_leaf[:-1], "cut short"),
}


@pytest.mark.parametrize(("bad", "told"), BAD.values(), ids=BAD)
def test_what_is_no_tile_is_refused_with_its_reason(bad: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse_data_tile(bad)


def test_precertificate_and_certificate_are_one_entry() -> None:
    leaf, issuer = mesh().leaf(), mesh().issuing.certificate
    entry = entry_of(leaf)
    final = logged(leaf, ONE.sct(entry))
    assert signed_entry_of(final, issuer) == entry
    assert entry.digest == signed_entry_of(final, issuer).digest
    assert entry.digest != of_certificate(final).digest
    assert entry.issuer_key_hash == key_hash_of(issuer)
    assert key_hash_of(issuer) == hashlib.sha256(spki_der(issuer.public_key())).digest()
    with pytest.raises(Malformed, match="no poison"):
        of_precertificate(final, issuer)


def test_what_a_receipt_promises_is_the_leaf_of_its_entry() -> None:
    entry = log_entries(3)[2]
    promised = merkle_leaf_of(entry.signed, NOW_MS, ONE.sct(entry.signed, index=2).extensions)
    assert promised == entry.merkle_leaf
    assert entry.leaf_hash == leaf_hash(promised)
    assert (entry.type, entry.submitted) == (EntryType.PRECERT, b"pre")
    assert LogEntry(0, of_certificate(mesh().leaf()), 0).submitted.startswith(b"\x30")
