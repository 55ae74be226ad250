"""When to renew, and how long to wait after a failure."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.issuing.profile import BACKDATE
from pki.renewal import (
    BACKOFF_FIRST,
    BACKOFF_LAST,
    JITTER,
    Action,
    RenewalPlan,
    backoff,
    next_action,
    plan,
)

NOW = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)

lifetimes = st.timedeltas(SECOND, timedelta(days=400))
shares = st.floats(0.05, 0.9)
seeds = st.integers().map(random.Random)


@given(lifetimes, shares, seeds)
def test_renewal_is_due_around_the_share_that_was_asked_for(
    lifetime: timedelta, share: float, draw: random.Random
) -> None:
    due = plan(NOW, NOW + lifetime, share, draw).renew_at - NOW
    spread = lifetime * share * JITTER / 2 + timedelta(microseconds=2)
    assert abs(due - lifetime * share) <= spread
    assert due < lifetime


@given(lifetimes, shares, seeds, st.floats(0, 2))
def test_nothing_is_done_before_its_time(
    lifetime: timedelta, share: float, draw: random.Random, moment: float
) -> None:
    made = plan(NOW, NOW + lifetime, share, draw)
    now = NOW + lifetime * moment
    action = next_action(made, now)
    assert (action is Action.WAIT) == (now < made.renew_at)
    assert (action is Action.RENEW) == (made.renew_at <= now <= made.expires_at)
    assert (action is Action.EXPIRED) == (now > made.expires_at)


def test_jitter_is_drawn_once_per_certificate() -> None:
    class Counting(random.Random):
        drawn = 0

        def random(self) -> float:
            self.drawn += 1
            return 0.75

    draw = Counting()
    made = plan(NOW, NOW + timedelta(hours=1), 0.5, draw)
    for tick in range(0, 3600, 60):
        next_action(made, NOW + timedelta(seconds=tick))
    assert draw.drawn == 1


def test_a_fleet_spreads_over_the_whole_window() -> None:
    draw = random.Random(7)
    due = [plan(NOW, NOW + timedelta(hours=1), 0.5, draw).renew_at for _ in range(500)]
    window = timedelta(hours=1) * 0.5 * JITTER
    assert window * 0.95 < max(due) - min(due) <= window


def test_a_short_lived_certificate_is_not_due_at_once() -> None:
    # Counted from its backdated notBefore, half of a 10 s certificate's life is over before its issue.
    made = plan(NOW, NOW + 10 * SECOND, 0.5, random.Random(1))
    assert BACKDATE > 10 * SECOND
    assert next_action(made, NOW) is Action.WAIT
    assert next_action(made, NOW + 4 * SECOND) is Action.WAIT
    assert next_action(made, NOW + 6 * SECOND) is Action.RENEW


def test_a_certificate_that_came_expired_is_expired() -> None:
    made = plan(NOW, NOW - SECOND, 0.5, random.Random(1))
    assert next_action(made, NOW) is Action.EXPIRED


def test_without_a_certificate_one_is_wanted_before_any_work() -> None:
    assert next_action(None, NOW) is Action.EXPIRED


def test_a_certificate_holds_until_the_very_end() -> None:
    made = RenewalPlan(NOW, NOW + SECOND)
    assert next_action(made, NOW + SECOND) is Action.RENEW
    assert next_action(made, NOW + SECOND * 1.001) is Action.EXPIRED


@given(st.integers(0, 10**9), seeds, st.none() | st.timedeltas())
def test_pauses_are_positive_and_bounded(
    failures: int, draw: random.Random, remaining: timedelta | None
) -> None:
    pause = backoff(failures, draw, remaining).total_seconds()
    assert BACKOFF_FIRST / 2 <= pause <= BACKOFF_LAST
    if remaining is not None and remaining > timedelta():
        assert pause <= max(BACKOFF_FIRST, remaining.total_seconds() / 10) + 1e-6


@pytest.mark.parametrize(
    ("failures", "least", "most"), [(0, 0.125, 0.25), (1, 0.25, 0.5), (3, 1, 2), (7, 15, 30)]
)
def test_pauses_double(failures: int, least: float, most: float) -> None:
    pauses = [backoff(failures, random.Random(n)).total_seconds() for n in range(200)]
    assert least <= min(pauses) < least * 1.1
    assert most * 0.9 < max(pauses) <= most
