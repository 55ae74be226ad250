"""Probes: words that a key signs to show itself, and that nothing else can be taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.keys.probe import is_probe, probe


@pytest.mark.parametrize("asked", ["0" * 32, "2026-11-29T18:00:00Z", "2026-11-29T18:00:00+00:00"])
def test_a_probe_is_known_as_one(asked: str) -> None:
    assert is_probe(probe(asked))


@pytest.mark.parametrize("asked", ["", "a b", "a\n", "é", "0" * 101, "0\x30"[:0]])
def test_what_may_mean_something_is_none(asked: str) -> None:
    with pytest.raises(ValueError):
        probe(asked)


@given(st.binary(max_size=200))
def test_nothing_else_is_taken_for_one(data: bytes) -> None:
    if is_probe(data):
        assert probe(data.partition(b"? ")[2].decode()) == data
    assert not is_probe(b"\x30" + data)
    assert not is_probe(probe("0") + b"\n" + data)
