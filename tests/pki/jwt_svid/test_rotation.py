"""When a JWT key is made, signs, and may be forgotten: by values."""

from datetime import timedelta

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from pki.jwt_svid.rotation import (
    LEEWAY,
    PUBLISHED_FOR,
    KeyState,
    KeyTerm,
    Line,
    Rules,
    Step,
    activate_at,
    can_be_forgotten,
    next_step,
)
from pki.keys import KeyAlgorithm
from tests.pki.jwt_svid.tokens import KEY, NOW, OTHER_KEY, RSA_KEY, authority_of

DAY, HOUR, SECOND = timedelta(days=1), timedelta(hours=1), timedelta(seconds=1)
RULES = Rules(KeyAlgorithm.EC_P256, 8 * DAY, HOUR)
FIRST = KeyTerm(authority_of(KEY), KeyAlgorithm.EC_P256, NOW, NOW, longest=HOUR)
ALONE = Line((FIRST,), 5)
NEXT = KeyTerm(authority_of(OTHER_KEY), KeyAlgorithm.EC_P256, NOW + 6 * DAY)
BOTH = ALONE.with_key(NEXT, NOW + 6 * DAY)


def test_the_first_key_signs_at_once() -> None:
    assert next_step(Line(), RULES, NOW) is Step.PREPARE
    made = Line().with_key(evolve(FIRST, active_at=None), NOW)
    assert next_step(made, RULES, NOW) is Step.ACTIVATE
    assert next_step(ALONE, RULES, NOW) is Step.WAIT


def test_a_successor_is_published_for_a_quarter_of_its_predecessors_life() -> None:
    assert next_step(ALONE, RULES, NOW + 6 * DAY - SECOND) is Step.WAIT
    assert next_step(ALONE, RULES, NOW + 6 * DAY) is Step.PREPARE
    assert next_step(BOTH, RULES, NOW + 8 * DAY - SECOND) is Step.WAIT
    assert next_step(BOTH, RULES, NOW + 8 * DAY) is Step.ACTIVATE


def test_one_that_comes_late_is_published_before_it_signs_all_the_same() -> None:
    late = evolve(NEXT, published_at=NOW + 9 * DAY)
    line = ALONE.with_key(late, NOW + 9 * DAY)
    assert activate_at(line, late, RULES) == NOW + 9 * DAY + PUBLISHED_FOR
    assert next_step(line, RULES, NOW + 9 * DAY) is Step.WAIT


def test_one_that_is_hurried_is_published_for_long_enough() -> None:
    line = BOTH.with_key(evolve(NEXT, is_hurried=True), NOW)
    at = NEXT.published_at + PUBLISHED_FOR
    assert next_step(line, RULES, at - SECOND) is Step.WAIT
    assert next_step(line, RULES, at) is Step.ACTIVATE


def test_another_algorithm_is_prepared_at_once_and_one_of_the_old_kind_dropped() -> None:
    rules = evolve(RULES, algorithm=KeyAlgorithm.RSA_2048)
    assert next_step(ALONE, rules, NOW) is Step.PREPARE
    assert next_step(BOTH, rules, NEXT.published_at) is Step.DROP
    made = KeyTerm(authority_of(RSA_KEY), KeyAlgorithm.RSA_2048, NOW + HOUR)
    line = ALONE.with_key(made, NOW + HOUR)
    assert next_step(line, rules, NOW + HOUR) is Step.WAIT
    assert next_step(line, rules, NOW + HOUR + PUBLISHED_FOR) is Step.ACTIVATE


def test_what_a_clock_that_was_ahead_has_made_does_not_stay_for_years() -> None:
    ahead = evolve(FIRST, active_at=NOW + 9000 * DAY)
    line = Line((ahead,), 5)
    assert next_step(line, RULES, NOW) is Step.PREPARE
    line = line.with_key(evolve(NEXT, published_at=NOW), NOW)
    assert next_step(line, RULES, NOW + PUBLISHED_FOR - SECOND) is Step.WAIT
    assert next_step(line, RULES, NOW + PUBLISHED_FOR) is Step.ACTIVATE
    line = ALONE.with_key(evolve(NEXT, published_at=NOW + 9000 * DAY), NOW)
    assert next_step(line, RULES, NOW) is Step.DROP
    # A clock that is set back by a little is no reason for anything.
    assert next_step(ALONE, RULES, NOW - PUBLISHED_FOR) is Step.WAIT


def test_a_retired_key_stays_until_no_token_of_it_can_be_good() -> None:
    retired = evolve(FIRST, retired_at=NOW + 8 * DAY)
    end = NOW + 8 * DAY + HOUR + LEEWAY
    assert retired.forget_at == end
    assert not can_be_forgotten(retired, end - SECOND, DAY)
    assert can_be_forgotten(retired, end, DAY)
    # A wall clock that is ahead for a moment costs nobody a token.
    assert not can_be_forgotten(retired, end + DAY, SECOND)
    assert not can_be_forgotten(FIRST, NOW + 100 * DAY, DAY)


def test_a_longer_token_lets_the_active_key_be_published_for_longer() -> None:
    line = ALONE.allowing(2 * HOUR).allowing(HOUR)
    assert line.active is not None
    assert line.active.longest == 2 * HOUR
    assert BOTH.allowing(2 * HOUR).prepared == NEXT


def test_the_sequence_grows_with_the_set_that_is_published_and_with_nothing_else() -> None:
    assert BOTH.sequence == int((NOW + 6 * DAY).timestamp())
    active = BOTH.activated(NEXT.kid, RULES, NOW + 8 * DAY)
    assert active.sequence == BOTH.sequence
    assert (active.retired[0].kid, active.active.kid) == (FIRST.kid, NEXT.kid)  # type: ignore[union-attr]
    assert active.authorities == BOTH.authorities
    assert active.without(FIRST.kid, NOW).sequence == BOTH.sequence + 1
    assert active.with_key(evolve(NEXT, is_hurried=True), NOW).sequence == BOTH.sequence


@pytest.mark.parametrize("state", KeyState)
def test_each_key_has_one_state(state: KeyState) -> None:
    keys = {
        KeyState.PREPARED: NEXT,
        KeyState.ACTIVE: FIRST,
        KeyState.RETIRED: evolve(FIRST, retired_at=NOW),
    }
    assert keys[state].state is state


@given(st.lists(st.integers(1, 40), max_size=60), st.booleans())
def test_whenever_it_is_asked_one_key_signs_and_was_published_before(
    hours: list[int], with_rsa: bool
) -> None:
    """A CA that is looked at now and then: of two keys the next was in the bundle before it signed."""
    line, now = ALONE, NOW
    rules = evolve(RULES, algorithm=KeyAlgorithm.RSA_2048) if with_rsa else RULES
    names = iter(range(1000))
    for pause in hours:
        now += pause * HOUR
        while (step := next_step(line, rules, now)) is not Step.WAIT:
            prepared = line.prepared
            if step is Step.PREPARE:
                authority = evolve(authority_of(KEY), kid=f"{next(names):08}")
                line = line.with_key(KeyTerm(authority, rules.algorithm, now), now)
            else:
                assert step is Step.ACTIVATE
                assert prepared is not None
                assert now - prepared.published_at >= rules.published_for
                line = line.activated(prepared.kid, rules, now)
        assert [key.state for key in line.keys].count(KeyState.ACTIVE) == 1
        assert len([key for key in line.keys if key.state is KeyState.PREPARED]) <= 1
