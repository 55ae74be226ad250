"""Receipts: read back what was written, the index among their extensions, and what is no receipt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.errors import BadSct
from pki.ct.sct import (
    MOST_ENTRIES,
    MOST_SCTS,
    SignedCertificateTimestamp,
    index_extension,
    list_bytes,
    milliseconds,
    moment,
    parse_extensions,
    parse_list,
    read_signature,
    scts_of,
)
from pki.ct.wire import Reader, vector
from pki.errors import Malformed, PkiError
from tests.authorities import NOW, mesh
from tests.pki.ct.logs import NOW_MS, ONE, TWO, entry_of, logged
from tests.pki.strategies import mutated

indices = st.integers(0, MOST_ENTRIES - 1)
unknown = st.dictionaries(st.integers(1, 255), st.binary(max_size=40), max_size=3)
extensions = st.tuples(st.none() | indices, unknown).map(
    lambda drawn: b"".join(
        [
            *([] if drawn[0] is None else [index_extension(drawn[0])]),
            *(bytes((kind,)) + vector(2, value) for kind, value in drawn[1].items()),
        ]
    )
)
scts = st.builds(
    SignedCertificateTimestamp,
    st.binary(min_size=32, max_size=32),
    st.integers(0, 2**47),
    extensions,
    st.binary(min_size=1, max_size=600),
    st.integers(0, 255),
    st.integers(0, 255),
)
GOOD = ONE.sct(entry_of(mesh().leaf()), index=77)


@given(scts)
def test_a_receipt_is_read_back(sct: SignedCertificateTimestamp) -> None:
    assert SignedCertificateTimestamp.parse(sct.to_bytes()) == sct
    assert read_signature(sct.signed) == (
        sct.signature,
        sct.hash_algorithm,
        sct.signature_algorithm,
    )


@given(st.lists(scts, min_size=1, max_size=MOST_SCTS))
def test_a_list_is_read_back(found: list[SignedCertificateTimestamp]) -> None:
    assert parse_list(list_bytes(found)) == tuple(found)


@given(indices)
def test_the_index_is_read_back(index: int) -> None:
    written = index_extension(index)
    assert len(written) == 8
    assert parse_extensions(written) == index


def test_times_are_milliseconds_and_read_back() -> None:
    assert moment(milliseconds(NOW)) == NOW
    assert GOOD.at == NOW and GOOD.leaf_index == 77


@given(mutated(GOOD.to_bytes()) | st.binary(max_size=200))
def test_damage_raises_nothing_but_bad_sct_and_is_canonical(data: bytes) -> None:
    try:
        found = SignedCertificateTimestamp.parse(data)
    except BadSct:
        return
    assert found.to_bytes() == data
    assert found.at.year <= 9999


@given(mutated(list_bytes([GOOD, GOOD])) | st.binary(max_size=300))
def test_a_damaged_list_raises_nothing_but_bad_sct(data: bytes) -> None:
    try:
        found = parse_list(data)
    except BadSct:
        return
    assert list_bytes(found) == data


_INDEX = index_extension(5)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"\1" + GOOD.to_bytes()[1:], "version 2"),
        (GOOD.to_bytes()[:-1], "cut short"),
        (GOOD.to_bytes() + b"\0", "1 bytes stand after its end"),
        (b"", "cut short"),
        (b"\0" + bytes(32) + b"\xff" * 8 + b"\0\0" + GOOD.signed, "no year"),
        (b"\0" + bytes(40) + vector(2, _INDEX * 2) + GOOD.signed, "twice"),
        (b"\0" + bytes(40) + vector(2, b"\0\0\4" + bytes(4)) + GOOD.signed, "an index has 5 bytes"),
        (b"\0" + bytes(40) + vector(2, _INDEX[:-1]) + GOOD.signed, "cut short"),
        (b"\0" + bytes(40) + b"\0\0" + b"\4\3\0\0", "too few"),
        (b"\0" + bytes(40) + b"\0\0" + b"\4\3" + vector(2, bytes(1025)), "too many"),
    ],
    ids=range(10),
)
def test_what_is_no_receipt_is_refused_with_its_reason(bad: bytes, told: str) -> None:
    with pytest.raises(BadSct, match=told):
        SignedCertificateTimestamp.parse(bad)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (b"\0\0", "too few"),
        (list_bytes([GOOD]) + b"\0", "after its end"),
        (vector(2, b"\0\0"), "too few"),
        (vector(2, vector(2, GOOD.to_bytes()) * (MOST_SCTS + 1)), f"over {MOST_SCTS}"),
    ],
    ids=range(4),
)
def test_what_is_no_list_is_refused_with_its_reason(bad: bytes, told: str) -> None:
    with pytest.raises(BadSct, match=told):
        parse_list(bad)


@pytest.mark.parametrize("count", [0, MOST_SCTS + 1])
def test_a_list_has_one_receipt_at_least_and_not_too_many(count: int) -> None:
    with pytest.raises(BadSct, match=f"not {count}"):
        list_bytes([GOOD] * count)


@pytest.mark.parametrize("index", [-1, MOST_ENTRIES])
def test_an_index_has_forty_bits(index: int) -> None:
    with pytest.raises(Malformed, match="no entry"):
        index_extension(index)


def test_receipts_inside_a_certificate_are_found() -> None:
    leaf = mesh().leaf()
    entry = entry_of(leaf)
    inside = ONE.sct(entry), TWO.sct(entry, index=3)
    assert scts_of(logged(leaf, *inside)) == inside
    assert scts_of(mesh().leaf()) == ()


def test_a_signature_that_is_too_short_for_its_length_is_refused() -> None:
    with pytest.raises(BadSct, match="cut short"):
        read_signature(b"\4\3\0\5abc")


def test_a_part_that_is_too_long_is_not_written() -> None:
    with pytest.raises(PkiError, match="more than such a part may have"):
        vector(1, bytes(256))
    assert Reader(vector(1, bytes(255))).vector(1) == bytes(255)


def test_a_log_without_indices_says_none() -> None:
    assert SignedCertificateTimestamp(bytes(32), NOW_MS, b"", b"x").leaf_index is None
