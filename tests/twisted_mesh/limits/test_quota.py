"""How many certificates an ID and an entry may have an hour: counted, given back, recalled, and begun anew."""

from datetime import UTC, datetime, timedelta

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from pki.errors import Malformed
from twisted_mesh.limits.quota import Allowance, Quota, QuotaUsedUp

A, B, C = (f"spiffe://mesh.local/service/{name}" for name in "abc")


@define(eq=False)
class Hours:
    """A wall clock, and what it is counted by."""

    at: datetime = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    quota: Quota = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.quota = Quota(lambda: self.at, Allowance(2, 3))


def test_an_id_has_so_many_an_hour_and_is_told_when_there_are_more() -> None:
    hours = Hours()
    for _ in range(2):
        hours.quota.charge(A, None)
    with pytest.raises(QuotaUsedUp) as refused:
        hours.quota.charge(A, None)
    assert str(refused.value).startswith(
        f"{A} has had 2 certificates since 12:00Z, as many as one ID may have an hour: "
    )
    assert (refused.value.code, refused.value.retry_after) == ("quota", 1800)
    hours.quota.charge(B, None)
    hours.at += timedelta(minutes=30)
    hours.quota.charge(A, None)


def test_the_ids_of_one_entry_have_so_many_together() -> None:
    hours = Hours()
    for spiffe_id in (A, B, A):
        hours.quota.charge(spiffe_id, "e1")
    with pytest.raises(QuotaUsedUp, match=r"the registration entry e1 has had 3 certificates"):
        hours.quota.charge(C, "e1")
    hours.quota.charge(C, "e2")


def test_what_comes_to_nothing_and_what_is_refused_is_not_counted() -> None:
    hours = Hours()
    for _ in range(100):
        hours.quota.charge(A, "e1")
        hours.quota.give_back(A, "e1")
    for spiffe_id in (A, A, B):
        hours.quota.charge(spiffe_id, "e1")
    for _ in range(100):
        with pytest.raises(QuotaUsedUp):
            hours.quota.charge(C, "e1")
    hours.quota.charge(C, "e2")
    hours.quota.charge(C, None)


def test_what_was_issued_this_hour_before_the_start_counts() -> None:
    hours = Hours()
    assert hours.quota.hour == datetime(2026, 3, 1, 12, tzinfo=UTC)
    hours.quota.recall([(A, None, 1), (A, "e1", 1), (B, "e1", 2)])
    for spiffe_id, entry in ((A, None), (B, None), (C, "e1")):
        with pytest.raises(QuotaUsedUp):
            hours.quota.charge(spiffe_id, entry)


def test_off_counts_nothing() -> None:
    quota = Quota(lambda: Hours().at, Allowance.parse("off"))
    for _ in range(1000):
        quota.charge(A, "e1")


@given(st.integers(1, 10**8), st.integers(0, 10**8))
def test_an_allowance_is_read_as_it_is_written(of_id: int, more: int) -> None:
    allowance = Allowance(of_id, min(of_id + more, 10**8))
    assert Allowance.parse(str(allowance)) == allowance
    assert Allowance.parse("off") == Allowance(0, 0)


@pytest.mark.parametrize(
    "text", ["", "10", "0:10", "11:10", "1:1000000000", "1:2:3", "-1:2", "٣:٤"]
)
def test_what_is_no_allowance_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="is no quota: write certificates an hour"):
        Allowance.parse(text)
