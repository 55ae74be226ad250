"""Patterns of names: what they match, and that the index's range has all of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.spiffe import SpiffeId, SpiffePattern
from twisted_mesh.monitor.name_pattern import (
    NamePattern,
    indexed_host,
    indexed_uri,
    shown_name,
)

MATCHES = [
    ("spiffe://mesh.local/service/**", "spiffe://mesh.local/service/a/b", True),
    ("spiffe://mesh.local/service/**", "spiffe://mesh.local/service", False),
    ("spiffe://mesh.local/*/db", "spiffe://mesh.local/x/db", True),
    ("spiffe://mesh.local/*/db", "spiffe://mesh.local/x/db\n", False),
    ("spiffe://mesh.local/**", "spiffe://mesh-local/x", False),
    ("spiffe://mesh.local/**", "spiffe://meshxlocal/x", False),
    ("*.example.com", "www.example.com", True),
    ("*.example.com", "a.b.example.com", True),
    ("*.example.com", "*.example.com", True),
    ("*.example.com", "example.com", False),
    ("*.example.com", "wwwexample.com", False),
    ("www.example.com", "www.example.com", True),
    ("www.example.com", "*.example.com", True),
    ("WWW.Example.com", "www.example.com", True),
    ("www.example.com", "www.example.com.evil", False),
    ("localhost", "localhost", True),
]


@pytest.mark.parametrize(("pattern", "name", "is_meant"), MATCHES)
def test_what_is_meant(pattern: str, name: str, is_meant: bool) -> None:
    assert NamePattern.parse(pattern).matches(name) is is_meant


@pytest.mark.parametrize(
    ("pattern", "name"), [(pattern, name) for pattern, name, is_meant in MATCHES if is_meant]
)
def test_what_is_meant_is_within_the_range_of_the_index(pattern: str, name: str) -> None:
    indexed = indexed_uri(name) if "://" in name else indexed_host(name)
    assert any(first <= indexed < end for first, end in NamePattern.parse(pattern).ranges)


_SEGMENT = st.text("ab.-_*", min_size=1, max_size=3)


@given(
    st.lists(_SEGMENT, max_size=4), st.lists(st.text("ab.-_", min_size=1, max_size=3), max_size=4)
)
def test_spiffe_ids_are_matched_as_endpoints_match_them(
    pattern: list[str], segments: list[str]
) -> None:
    text = "/".join(["spiffe://td", *pattern])
    name = "/".join(["spiffe://td", *segments])
    try:
        wanted, spiffe_id = SpiffePattern.parse(text), SpiffeId.parse(name)
    except PkiError:
        return
    ours = NamePattern.parse(text)
    assert ours.matches(name) is wanted.matches(spiffe_id)
    assert str(ours) == text
    if ours.matches(name):
        assert any(first <= name < end for first, end in ours.ranges)


@pytest.mark.parametrize("text", ["", "*", "a b", "*.", "x..y", "spiffe://", "a\n", "é.example"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        NamePattern.parse(text)


@given(st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,3}", fullmatch=True))
def test_a_host_is_shown_as_it_was_written(name: str) -> None:
    assert shown_name(indexed_host(name)) == name
    assert shown_name(indexed_uri("dns:x")) == "dns:x"
