"""A caller gets its burst and its rate, never more, in memory that no flood of callers grows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock

from pki.errors import Malformed
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.limits.rate_limit import (
    DEFAULT_RATE,
    Busy,
    LimitedLog,
    Rate,
    RateLimited,
    TokenBuckets,
    address_key,
    network_of,
)

RATES = st.builds(Rate, st.integers(1, 1000), st.integers(1, 50))
OFF = Rate(0, 0)


def buckets(rate: Rate, most: int = 8192) -> tuple[TokenBuckets, Clock]:
    clock = Clock()
    return TokenBuckets(rate, clock.seconds, most), clock


# Rates.


@given(RATES | st.just(OFF))
def test_a_rate_survives_the_round_trip_through_text(rate: Rate) -> None:
    assert Rate.parse(str(rate)) == rate


def test_a_burst_is_five_seconds_worth_unless_it_is_given() -> None:
    assert Rate.parse("200") == Rate(200, 1000)
    assert Rate.parse("200:7") == Rate(200, 7)
    assert Rate.parse("1000000") == Rate(1_000_000, 1_000_000)
    assert Rate.parse("off") == OFF
    assert str(OFF) == "off"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0:1",
        "1:0",
        "-1",
        "1.5",
        "1:",
        ":1",
        "1:2:3",
        "200 ",
        "OFF",
        "\N{FULLWIDTH DIGIT ONE}",
        "1000001",
        "1\n",
    ],
)
def test_what_is_no_rate_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(Malformed, match="is no rate: write requests a second and a burst") as found:
        Rate.parse(text)
    assert "\n" not in str(found.value)


@given(st.text())
def test_no_text_makes_a_rate_raise_anything_else(text: str) -> None:
    try:
        rate = Rate.parse(text)
    except Malformed:
        return
    assert Rate.parse(str(rate)) == rate


# Buckets.


def test_the_burst_is_let_through_and_then_the_rate() -> None:
    bucket, clock = buckets(Rate(2, 3))
    assert [bucket.take("a") for _ in range(3)] == [0.0] * 3
    assert bucket.take("a") == pytest.approx(0.5)
    clock.advance(0.5)
    assert bucket.take("a") == 0.0
    assert bucket.take("a") > 0


def test_a_caller_does_not_pay_for_another() -> None:
    bucket, _ = buckets(Rate(1, 1))
    assert bucket.take("noisy") == 0.0
    assert bucket.take("noisy") > 0
    assert bucket.take("quiet") == 0.0


def test_being_refused_costs_nothing() -> None:
    bucket, clock = buckets(Rate(1, 1))
    bucket.take("a")
    waits = [bucket.take("a") for _ in range(100)]
    assert waits == [1.0] * 100
    clock.advance(1)
    assert bucket.take("a") == 0.0


def test_off_lets_all_through_and_remembers_nobody() -> None:
    bucket, _ = buckets(OFF)
    assert not any(bucket.take(str(n % 7)) for n in range(10_000))
    assert len(bucket) == 0


def test_a_hundred_clients_of_one_user_can_start_at_once_by_default() -> None:
    bucket, _ = buckets(DEFAULT_RATE)
    assert not any(bucket.take("unix:uid:1000") for _ in range(100 * 10))


@given(
    RATES,
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2, allow_nan=False)), max_size=200),
    st.integers(1, 4),
)
def test_no_window_has_more_than_the_burst_and_the_rate(
    rate: Rate, asked: list[tuple[int, float]], most: int
) -> None:
    """Also where there are more callers than places: to be forgotten gives nobody more."""
    bucket, clock = buckets(rate, most)
    passed: dict[int, list[float]] = {}
    for caller, pause in asked:
        clock.advance(pause)
        if bucket.take(str(caller)) == 0.0:
            passed.setdefault(caller, []).append(clock.seconds())
        assert len(bucket) <= most
    for moments in passed.values():
        for first, start in enumerate(moments):
            for last in range(first, len(moments)):
                allowed = rate.burst + rate.per_second * (moments[last] - start)
                assert last - first + 1 <= allowed + 1e-6


@given(RATES, st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=100))
def test_whoever_waits_as_long_as_told_gets_through(rate: Rate, pauses: list[float]) -> None:
    bucket, clock = buckets(rate)
    for pause in pauses:
        clock.advance(pause)
        wait = bucket.take("a")
        assert 0.0 <= wait <= 1 / rate.per_second + 1e-6
        clock.advance(wait)
        if wait:
            assert bucket.take("a") == 0.0


@given(RATES, st.integers(1, 100), st.floats(0, 10), st.floats(0, 10))
def test_a_longer_wait_never_leaves_more_to_wait_for(
    rate: Rate, asked: int, first: float, more: float
) -> None:
    waits = []
    for pause in (first, first + more):
        bucket, clock = buckets(rate)
        for _ in range(asked):
            bucket.take("a")
        clock.advance(pause)
        waits.append(bucket.take("a"))
    assert waits[1] <= waits[0] + 1e-9


def test_a_flood_of_strange_callers_keeps_its_memory_and_frees_nobody() -> None:
    bucket, clock = buckets(Rate(10, 10), most=100)
    for _ in range(10):
        bucket.take("noisy")
    for stranger_ in range(10_000):
        bucket.take(f"stranger {stranger_}")
    assert len(bucket) == 100
    assert bucket.take("noisy") > 0, "it was not forgotten, so it has no fresh credit"
    assert bucket.take("one more") > 0, "who has no place shares what is left with all such"
    clock.advance(1.1)
    assert bucket.take("one more") == 0.0


def test_a_caller_without_a_place_gets_one_with_its_debts() -> None:
    bucket, clock = buckets(Rate(1, 2), most=1)
    bucket.take("first")
    assert [bucket.take("a") > 0 for _ in range(3)] == [False, False, True]
    clock.advance(1.0)  # the first one's bucket is full again, so its place is free
    assert [bucket.take("a") > 0 for _ in range(2)] == [False, True]


def test_an_idle_caller_makes_room_for_a_new_one() -> None:
    bucket, clock = buckets(Rate(10, 10), most=10)
    for caller in range(10):
        bucket.take(str(caller))
    clock.advance(1)
    for caller in range(10, 20):
        for _ in range(10):
            assert bucket.take(str(caller)) == 0.0, "a bucket of its own, with a whole burst"
    assert len(bucket) <= 10


def test_a_refusal_says_when_to_come_back_in_whole_seconds() -> None:
    bucket, _ = buckets(Rate(1, 1))
    bucket.charge("a")
    with pytest.raises(RateLimited, match="more than 1 times a second: ask again in 1 s") as found:
        bucket.charge("a")
    assert found.value.code == "rate-limited"
    assert found.value.retry_after == 1
    assert RateLimited("soon", 0.004).retry_after == 1, "0 would be an invitation"
    assert Busy("later", 2.1).retry_after == 3


# Strangers.


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "address:192.0.2.7"),
        ("::ffff:192.0.2.7", "address:192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "address:2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "address:2001:db8:1:2::/64"),
        ("fe80::1%eth0", "address:fe80::/64"),
        ("a\nb", "address:a\\nb"),
        (None, "address:local"),
    ],
)
def test_strangers_are_told_apart_by_address_or_network(host: str | None, key: str) -> None:
    assert network_of(host) == key


def test_an_address_of_twisted_is_counted_by_where_it_is() -> None:
    assert address_key(IPv4Address("TCP", "192.0.2.7", 1)) == "address:192.0.2.7"
    assert address_key(IPv6Address("TCP", "2001:db8::1", 1)) == "address:2001:db8::/64"
    assert address_key(UNIXAddress(None)) == "address:local"
    assert address_key(None) == "address:local"


@given(st.text(max_size=80))
def test_no_host_makes_a_key_of_more_than_one_line(host: str) -> None:
    assert network_of(host).isprintable()


def test_warnings_beyond_a_rate_are_for_debugging_and_each_kind_has_its_own() -> None:
    clock, log = Clock(), RecordingLog()
    limited = LimitedLog(log, Rate(1, 2), clock.seconds)
    for peer in range(4):
        limited.warn("{peer} is refused", event="refused", peer=peer)
    limited.warn("another kind", event="other")
    clock.advance(1)
    limited.warn("{peer} is refused", event="refused", peer=4)
    levels = [(event["event"], event["log_level"].name) for event in log.events]
    assert levels == [
        *[("refused", "warn")] * 2,
        *[("refused", "debug")] * 2,
        ("other", "warn"),
        ("refused", "warn"),
    ]
    assert "3 is refused" in log.all_text()


def test_what_was_left_out_is_counted_once_a_second_at_most() -> None:
    clock, log, counts = Clock(), RecordingLog(), list[int]()
    limited = LimitedLog(log, Rate(10, 10), clock.seconds, counts.append)
    for _ in range(100):
        limited.warn("refused", event="refused")
    assert counts == [], "not before the next warning"
    for _ in range(30):
        clock.advance(0.1)
        for _ in range(10):
            limited.warn("refused", event="refused")
    assert counts == [90, 90, 90]
    levels = [event["log_level"].name for event in log.events]
    assert levels.count("warn") == 40
