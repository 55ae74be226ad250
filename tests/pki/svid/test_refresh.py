"""When a federated bundle is asked for again, and how old one may be."""

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from pki.svid.refresh import DEFAULT_HINT, Refresh
from tests.authorities import DAY, HOUR, NOW

BOUNDS = Refresh()
hints = st.none() | st.integers(0, 2**63)


def test_the_hint_is_followed_within_bounds() -> None:
    assert BOUNDS.interval(60) == 60
    assert BOUNDS.interval(None) == DEFAULT_HINT == 300
    assert BOUNDS.interval(0) == BOUNDS.least == 5
    assert BOUNDS.interval(2**63) == BOUNDS.most == 3600


def test_many_domains_are_asked_less_often_each() -> None:
    assert BOUNDS.interval(5, followed=1000) == 100
    assert BOUNDS.interval(300, followed=1000) == 300
    assert BOUNDS.interval(5, followed=10**6) == BOUNDS.most


@given(hints, st.integers(0, 10**9), st.integers(), st.integers(1, 2000))
def test_a_pause_is_within_bounds_whatever_a_peer_says(
    hint: int | None, failures: int, seed: int, followed: int
) -> None:
    pause = BOUNDS.pause(hint, failures, random.Random(seed), followed)
    interval = BOUNDS.interval(hint, followed)
    assert max(BOUNDS.least, 0.9 * interval) <= pause <= BOUNDS.most
    if not failures:
        assert pause <= interval


def test_who_cannot_answer_is_not_asked_more_often() -> None:
    no_jitter = random.Random()
    no_jitter.random = lambda: 0.0  # type: ignore[method-assign]
    pauses = [BOUNDS.pause(60, failures, no_jitter) for failures in range(8)]
    assert pauses == [60, 60, 120, 240, 480, 480, 480, 480]
    assert BOUNDS.pause(3000, 5, no_jitter) == BOUNDS.most


def test_those_who_were_asked_together_are_not_for_long() -> None:
    draw = random.Random(7)
    pauses = {BOUNDS.pause(300, 0, draw) for _ in range(100)}
    assert (len(pauses), max(pauses) - min(pauses) > 25) == (100, True)


def test_a_bundle_may_be_ten_pauses_old_and_three_days_at_least() -> None:
    assert BOUNDS.oldest(300) == BOUNDS.oldest(2**63) == 3 * DAY
    assert Refresh(most=DAY.total_seconds()).oldest(86_400) == 10 * DAY
    assert Refresh(max_age=HOUR).oldest(300) == HOUR


def test_what_is_older_is_not_believed() -> None:
    at_last = NOW + 3 * DAY
    assert not BOUNDS.is_too_old(300, NOW, at_last)
    assert BOUNDS.is_too_old(300, NOW, at_last + timedelta(seconds=1))
    # A clock that was set back makes nothing old.
    assert not BOUNDS.is_too_old(300, NOW, NOW - DAY)
