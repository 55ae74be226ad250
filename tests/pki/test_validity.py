"""Durations, times and validity periods."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed, PkiError
from pki.validity import (
    Validity,
    format_duration,
    parse_duration,
    parse_rfc3339,
    rfc3339,
    spoken_duration,
    whole_second_after,
)

NOON = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@given(st.integers(0, 999_999_999).map(lambda seconds: timedelta(seconds=seconds)))
def test_durations_read_back(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(0, 999_999_999), st.sampled_from("smhd"))
def test_every_well_formed_duration_is_read(number: int, unit: str) -> None:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    assert parse_duration(f"{number}{unit}") == timedelta(**{units[unit]: number})


@given(st.text() | st.text("0123456789smhd", max_size=14))
def test_any_text_is_a_duration_or_malformed(text: str) -> None:
    with suppress(PkiError):
        assert parse_duration(text) >= timedelta()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90",
        "s",
        "-1s",
        "1.5h",
        "1h30m",
        "1 h",
        "1h\n",
        "1H",
        "1w",
        "1e3s",
        "٣s",
        "9" * 10 + "s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Malformed, match=r"is not a duration: .* like 90s or 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "short", "spoken"),
    [
        (0, "0s", "0s"),
        (59, "59s", "59s"),
        (60, "1m", "1m 0s"),
        (90, "90s", "1m 30s"),
        (3599, "3599s", "59m 59s"),
        (3600, "1h", "1h 0m"),
        (86400, "1d", "1 days"),
        (30 * 86400 + 7200, "722h", "30 days 2h"),
    ],
)
def test_durations_are_written_short_and_spoken(seconds: int, short: str, spoken: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == short
    assert spoken_duration(timedelta(seconds=seconds)) == spoken


def test_spoken_durations_are_never_negative() -> None:
    assert spoken_duration(timedelta(seconds=-5)) == "0s"


@given(st.datetimes(timezones=st.just(UTC)).map(lambda t: t.replace(microsecond=0)))
def test_times_read_back(moment: datetime) -> None:
    assert parse_rfc3339(rfc3339(moment)) == moment


@given(
    st.text()
    | st.from_regex(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:00:00[+-][0-2][0-9]:[0-5][0-9]")
)
def test_any_text_is_a_time_or_malformed(text: str) -> None:
    with suppress(PkiError):
        assert parse_rfc3339(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-23",
        "2026-11-23T12:00:00",
        "2026-11-23T25:00:00Z",
        "2026-11-23T12:00:00Z\n",
        "\ud800",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
    ],
)
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Malformed, match="is not a time: write it like 2026-11-23T10:00:00Z"):
        parse_rfc3339(text)


def test_times_are_read_with_any_offset_and_written_in_utc() -> None:
    assert parse_rfc3339("2026-11-23T13:00:00+01:00") == NOON
    assert parse_rfc3339("2026-11-23T12:00:00.5Z") == NOON + SECOND / 2
    elsewhere = NOON.astimezone(timezone(timedelta(hours=-5)))
    assert rfc3339(elsewhere) == "2026-11-23T12:00:00Z"


def test_both_ends_of_a_validity_belong_to_it() -> None:
    validity = Validity(NOON, NOON + SECOND)
    assert validity.contains(NOON)
    assert validity.contains(NOON + SECOND)
    assert not validity.contains(NOON - SECOND / 1000)
    assert not validity.contains(NOON + SECOND * 1.001)


@given(st.timedeltas(timedelta(), 10_000 * timedelta(days=1)))
def test_rounding_up_loses_less_than_a_second(later: timedelta) -> None:
    moment = NOON + later
    rounded = whole_second_after(moment)
    assert rounded.microsecond == 0
    assert timedelta() <= rounded - moment < SECOND
