"""When CRLs are made anew, how long they hold, and what they list."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.crl.schedule import Span, is_worth_renewing, list_life, listed_from
from pki.validity import Validity
from tests.authorities import DAY, HOUR, NOW

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
moments = st.timedeltas(-30 * DAY, 30 * DAY).map(NOW.__add__)


@pytest.mark.parametrize(
    ("leaf", "life"),
    [(SECOND, HOUR), (HOUR, HOUR), (8 * HOUR, 8 * HOUR), (DAY, DAY), (365 * DAY, DAY)],
)
def test_a_crl_holds_as_long_as_certificates_do_within_an_hour_and_a_day(
    leaf: timedelta, life: timedelta
) -> None:
    assert list_life(leaf) == life


def test_a_span_begins_a_little_before_and_is_made_anew_at_its_half() -> None:
    span = Span.starting(NOW + 0.7 * SECOND, HOUR)
    assert span == Span(NOW - 30 * SECOND, NOW + HOUR)
    assert not span.is_due(NOW)
    assert not span.is_due(NOW + 29 * MINUTE)
    assert span.is_due(NOW + 30 * MINUTE)
    assert not span.is_late(NOW + 49 * MINUTE)
    assert span.is_late(NOW + 50 * MINUTE)
    assert not span.is_over(NOW + HOUR)
    assert span.is_over(NOW + HOUR + SECOND)


def test_a_clock_that_was_ahead_wants_another_one() -> None:
    assert Span.starting(NOW + DAY, HOUR).is_due(NOW)
    assert Span.until(NOW, NOW + 365 * DAY).is_due(NOW - HOUR)


@given(moments, st.timedeltas(HOUR, DAY), st.lists(st.timedeltas(SECOND, 2 * DAY), max_size=30))
def test_what_expires_is_on_one_more_crl_for_a_whole_life_of_it(
    ends_at: object, life: timedelta, pauses: list[timedelta]
) -> None:
    """However irregularly they are made."""
    now, served, listed = NOW, None, []
    for pause in pauses:
        now += pause
        is_listed = ends_at >= listed_from(now, life, served)  # type: ignore[operator]
        listed.append((now, is_listed))
        served = now
    after = [(at, is_on) for at, is_on in listed if at > ends_at]  # type: ignore[operator]
    if len(listed) > len(after):  # there was one while it was alive
        assert all(is_on for at, is_on in listed if (at, is_on) not in after)
        if after:
            assert after[0][1]
        assert all(is_on for at, is_on in after if at <= ends_at + life)  # type: ignore[operator]


def test_where_none_was_made_before_a_life_is_enough() -> None:
    assert listed_from(NOW, HOUR, None) == NOW - HOUR
    assert listed_from(NOW, HOUR, NOW - DAY) == NOW - DAY
    assert listed_from(NOW, HOUR, NOW - MINUTE) == NOW - HOUR


def test_a_responder_is_replaced_at_half_of_its_life_if_that_helps() -> None:
    own, issuer = Validity(NOW, NOW + DAY), Validity(NOW - DAY, NOW + 30 * DAY)
    assert not is_worth_renewing(own, issuer, NOW + 11 * HOUR)
    assert is_worth_renewing(own, issuer, NOW + 12 * HOUR)
    assert not is_worth_renewing(own, Validity(NOW, NOW + DAY), NOW + 23 * HOUR)
    assert is_worth_renewing(own, issuer, NOW + 2 * DAY)
    assert is_worth_renewing(own, issuer, NOW - HOUR)
