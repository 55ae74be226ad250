"""What is known of revocations gets old, on a clock that nobody can put back."""

from datetime import timedelta

import pytest
from attrs import define, field

from pki.errors import Malformed, Problem
from tests.authorities import NOW
from twisted_mesh.trust.freshness import Freshness, OnStale, freshness


@define(eq=False)
class Rig:
    seconds: float = 100.0
    max_age: timedelta | None = timedelta(seconds=10)
    on_stale: OnStale = OnStale.FAIL_CLOSED
    fresh: Freshness = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.fresh = Freshness(self.max_age, self.on_stale, lambda: self.seconds)


def test_before_the_first_answer_there_is_no_age() -> None:
    rig = Rig()
    assert (rig.fresh.age, rig.fresh.is_stale) == (None, False)


def test_it_gets_old_and_then_too_old() -> None:
    rig = Rig()
    rig.fresh.refresh(98.0, NOW)
    rig.seconds = 108.0
    assert (rig.fresh.age, rig.fresh.refuses) == (10.0, False)
    rig.seconds = 108.1
    assert rig.fresh.refuses
    problem = rig.fresh.problem()
    assert problem.code == "stale-revocation"
    assert "after 2026-11-23T09:59:58Z" in problem.detail
    assert "--revocation-max-age is 10s" in problem.detail
    assert "CA" in problem.remedy
    rig.fresh.refresh(108.1, NOW)
    assert not rig.fresh.refuses


def test_an_answer_that_was_overtaken_makes_nothing_older() -> None:
    rig = Rig()
    rig.fresh.refresh(99.0, NOW)
    rig.fresh.refresh(50.0, NOW)
    assert rig.fresh.age == 1.0


def test_with_grace_it_is_stale_and_refuses_nobody() -> None:
    rig = Rig(on_stale=OnStale.GRACE)
    rig.fresh.refresh(50.0, NOW)
    assert (rig.fresh.is_stale, rig.fresh.refuses) == (True, False)


def test_without_a_limit_it_is_good_until_our_own_certificate_ends() -> None:
    rig = Rig(max_age=None)
    rig.fresh.refresh(100.0, NOW)
    rig.seconds = 10**9
    assert not rig.fresh.is_stale
    rig.fresh.lapse()
    assert rig.fresh.refuses
    assert "our own certificate has ended" in rig.fresh.problem().detail
    rig.fresh.refresh(10**9, NOW)
    assert not rig.fresh.is_stale


def test_a_limit_holds_whatever_our_own_certificate_does() -> None:
    rig = Rig()
    rig.fresh.refresh(100.0, NOW)
    rig.fresh.lapse()
    assert not rig.fresh.is_stale


def test_the_options_are_read() -> None:
    read = freshness("90s", "grace")
    assert (read.max_age, read.on_stale) == (timedelta(seconds=90), OnStale.GRACE)
    assert freshness(None, "fail-closed").max_age is None


@pytest.mark.parametrize(
    ("max_age", "on_stale"), [("2s", "grace"), ("0s", "grace"), ("x", "grace"), (None, "open")]
)
def test_options_that_are_none_are_refused(max_age: str | None, on_stale: str) -> None:
    with pytest.raises(Malformed):
        freshness(max_age, on_stale)


@pytest.mark.parametrize("on_stale", OnStale)
def test_another_source_that_is_out_of_date_is_a_reason_too(on_stale: OnStale) -> None:
    rig = Rig(on_stale=on_stale)
    rig.fresh.refresh(98.0, NOW)
    doubts: list[Problem] = []
    rig.fresh.doubts.append(lambda: doubts[0] if doubts else None)
    assert not rig.fresh.refuses
    doubts.append(Problem("stale-revocation", "a list is too old"))
    assert rig.fresh.refuses is (on_stale is OnStale.FAIL_CLOSED)
    assert rig.fresh.problem() == doubts[0]
    rig.seconds = 109.0
    assert "--revocation-max-age" in rig.fresh.problem().detail, "the CA comes first"
