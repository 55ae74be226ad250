"""When an issuing CA gets a successor, when that takes over, and when the old one's key may go."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from pki.ct.errors import BadSct
from pki.ct.precertificate import is_poisoned
from pki.issuing.authority import Authority, IssuerExpired
from pki.issuing.profile import BACKDATE, WORKLOAD
from pki.issuing.rotation import (
    LEAST_LIVES,
    Line,
    ProofFailed,
    Rules,
    Step,
    Term,
    can_be_forgotten,
    is_worth_preparing,
    next_step,
    prove,
    reminder_pause,
    resumable,
)
from pki.keys import MemoryKey
from pki.validity import Validity
from tests.authorities import DAY, HOUR, MESH, NOW, OTHER, forge_issuing, forge_root, key, mesh

SECOND = timedelta(seconds=1)
YEAR = 365 * DAY
RULES = Rules(longest_leaf=DAY, life=YEAR, root_ends_at=NOW + 10 * YEAR)


def term(generation: int = 1, issued: datetime = NOW, life: timedelta = YEAR) -> Term:
    return Term(generation, Validity(issued - BACKDATE, issued + life))


ACTIVE = term()
NEXT = term(2, NOW + YEAR / 2)


def step_at(
    now: datetime, *retired: Term, active: Term = ACTIVE, prepared: Term | None = None
) -> Step:
    return next_step(Line(active, prepared, retired), RULES, now)


# The ordinary life.


def test_a_ca_certificate_is_known_by_its_generation_and_its_life_from_issue() -> None:
    found = Term.of(mesh().issuing.certificate)
    assert (found.generation, found.issued_at, found.life) == (1, NOW, YEAR)


def test_nothing_is_done_in_the_first_half_of_a_life() -> None:
    assert step_at(NOW) is Step.WAIT
    assert step_at(NOW + YEAR / 2 - SECOND) is Step.WAIT


def test_a_successor_is_prepared_at_half_of_the_life() -> None:
    assert step_at(NOW + YEAR / 2) is Step.PREPARE
    assert step_at(NOW + YEAR - SECOND) is Step.PREPARE
    assert step_at(NOW + 2 * YEAR) is Step.PREPARE


def test_the_prepared_one_waits_until_a_sixth_of_the_life_is_left() -> None:
    assert step_at(NOW + YEAR * 5 / 6 - SECOND, prepared=NEXT) is Step.WAIT
    assert step_at(NOW + YEAR * 5 / 6, prepared=NEXT) is Step.ACTIVATE
    assert step_at(NOW + YEAR, prepared=NEXT) is Step.ACTIVATE


def test_it_takes_over_sooner_where_a_leaf_would_be_cut_short() -> None:
    long = evolve(RULES, longest_leaf=60 * DAY)
    line = Line(ACTIVE, NEXT)
    assert next_step(line, long, ACTIVE.ends_at - 120 * DAY - SECOND) is Step.WAIT
    assert next_step(line, long, ACTIVE.ends_at - 120 * DAY) is Step.ACTIVATE


def test_an_ended_one_is_succeeded_by_the_prepared_one_if_that_still_lives() -> None:
    assert step_at(NOW + YEAR + DAY, prepared=NEXT) is Step.ACTIVATE
    assert step_at(NOW + 2 * YEAR, prepared=NEXT) is Step.PREPARE


@given(
    st.integers(1, 10**8).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(1, 10**8).map(lambda seconds: timedelta(seconds=seconds)),
)
def test_preparing_never_comes_after_activating(life: timedelta, leaf: timedelta) -> None:
    any_term = term(life=life)
    assert any_term.prepare_at <= any_term.activate_at(leaf) <= any_term.ends_at
    if life >= LEAST_LIVES * leaf:
        assert any_term.ends_at - any_term.activate_at(leaf) >= 2 * leaf


@given(st.integers(8, 10**7), st.integers(1, 40))
def test_in_ordinary_life_no_leaf_is_cut_short_and_no_generation_is_skipped(
    seconds: int, looks: int
) -> None:
    """Looked at often enough: at least every twentieth of a life, and within a leaf's."""
    life = timedelta(seconds=seconds)
    rules = Rules(life / LEAST_LIVES, life, NOW + 100 * life)
    line, now, generations = Line(term(life=life)), NOW, [1]
    for _ in range(looks * 5):
        now += life / 20
        while (step := next_step(line, rules, now)) is not Step.WAIT:
            if step is Step.PREPARE:
                assert line.prepared is None
                line = evolve(line, prepared=term(line.active.generation + 1, now, life))
            else:
                assert step is Step.ACTIVATE
                assert line.prepared is not None
                line = Line(line.prepared, None, (line.active,))
                generations.append(line.active.generation)
        assert line.active.ends_at - now >= rules.longest_leaf
    assert generations == list(range(1, len(generations) + 1))


# Lives that were set otherwise, and the root's end.


def test_no_row_of_ever_shorter_cas_is_made_at_the_roots_end() -> None:
    last = term(9, life=YEAR)
    ending = evolve(RULES, root_ends_at=last.ends_at)
    for now in (NOW + YEAR / 2, last.ends_at - SECOND, last.ends_at + DAY):
        assert next_step(Line(last), ending, now) is Step.WAIT
    a_bit_longer = evolve(RULES, root_ends_at=last.ends_at + DAY)
    assert next_step(Line(last), a_bit_longer, NOW + YEAR / 2) is Step.PREPARE


def test_a_successor_that_would_end_sooner_is_not_made_yet() -> None:
    shorter = evolve(RULES, life=60 * DAY)
    assert next_step(Line(ACTIVE), shorter, ACTIVE.ends_at - 61 * DAY) is Step.WAIT
    assert next_step(Line(ACTIVE), shorter, ACTIVE.ends_at - 59 * DAY) is Step.PREPARE


# Clocks that were wrong.


def test_what_was_prepared_by_a_clock_that_was_ahead_is_waited_for_only_if_it_comes_in_time() -> (
    None
):
    at = NOW + YEAR * 5 / 6
    assert step_at(NOW + YEAR / 2, prepared=term(2, at + BACKDATE)) is Step.WAIT
    assert step_at(NOW + YEAR / 2, prepared=term(2, at + DAY)) is Step.PREPARE
    assert step_at(at, prepared=term(2, at + DAY)) is Step.PREPARE


def test_what_was_activated_by_a_clock_that_was_ahead_gives_way_to_the_one_before() -> None:
    early = term(2, NOW + YEAR)
    assert step_at(NOW + DAY, ACTIVE, active=early) is Step.RESUME
    assert step_at(NOW + DAY, active=early) is Step.WAIT
    assert step_at(NOW + DAY, term(1, NOW - 2 * YEAR), active=early) is Step.WAIT


def test_the_newest_that_is_valid_resumes() -> None:
    older, newer, later = term(1), term(2, NOW + DAY), term(3, NOW + YEAR)
    assert resumable((older, newer, later), NOW + 2 * DAY) == newer
    assert resumable((), NOW) is None


def test_a_key_is_deleted_only_once_its_end_has_been_seen_for_an_hour() -> None:
    after = ACTIVE.ends_at + SECOND
    assert not can_be_forgotten(ACTIVE, after, timedelta())
    assert not can_be_forgotten(ACTIVE, after, HOUR - SECOND)
    assert can_be_forgotten(ACTIVE, after, HOUR)
    assert not can_be_forgotten(ACTIVE, ACTIVE.ends_at, HOUR), (
        "notAfter is still a part of its life"
    )
    assert can_be_forgotten(term(life=60 * SECOND), NOW + 61 * SECOND, 10 * SECOND)


# The root's key away.


def test_before_the_root_goes_a_successor_is_made_unless_the_active_one_is_young() -> None:
    assert not is_worth_preparing(Line(ACTIVE), RULES, NOW + YEAR / 4 - SECOND)
    assert is_worth_preparing(Line(ACTIVE), RULES, NOW + YEAR / 4)
    assert not is_worth_preparing(Line(ACTIVE, NEXT), RULES, NOW + YEAR / 2)
    ending = evolve(RULES, root_ends_at=ACTIVE.ends_at)
    assert not is_worth_preparing(Line(ACTIVE), ending, NOW + YEAR / 2)


def test_reminders_come_daily_and_in_the_last_week_hourly() -> None:
    assert reminder_pause(8 * DAY) == DAY
    assert reminder_pause(7 * DAY) == HOUR
    assert reminder_pause(-DAY) == HOUR


# The proof.


def proof_of(candidate: Authority, now: datetime = NOW) -> None:
    asyncio.run(prove(candidate, mesh().bundle, now))


def test_a_good_issuing_ca_proves_itself() -> None:
    proof_of(mesh().issuing)
    short = forge_issuing(mesh().root, end=NOW + 2 * SECOND)
    proof_of(short)


def test_one_whose_leaves_may_live_for_a_second_proves_itself_too() -> None:
    issuing = mesh().issuing
    brief = Authority(
        issuing.certificate, issuing.key, issuing.intermediates, evolve(WORKLOAD, lifetime=SECOND)
    )
    proof_of(brief)


def test_one_below_another_root_does_not() -> None:
    with pytest.raises(ProofFailed, match="unknown-authority"):
        proof_of(forge_issuing(forge_root("another root")))


def test_one_of_another_trust_domain_does_not() -> None:
    with pytest.raises(ProofFailed):
        proof_of(mesh(OTHER).issuing)


def test_one_that_is_not_valid_now_does_not() -> None:
    with pytest.raises(IssuerExpired):
        proof_of(mesh().issuing, NOW + 2 * YEAR)


def test_one_whose_intermediates_are_lost_does_not() -> None:
    issuing = mesh(MESH, issuing_key=key("proof")).issuing
    with pytest.raises(ProofFailed, match="incomplete-chain"):
        proof_of(Authority(issuing.certificate, issuing.key, ()))


@define
class SignsNoCertificate:
    """A key at a signer that signs only what logs have answered, and keeps what it was asked for."""

    key: MemoryKey
    is_without_logs: bool = False
    """Whether it knows nothing of precertificates instead."""
    asked: list[bool] = field(factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.key, name)

    async def sign(self, data: bytes) -> bytes:
        self.asked.append(is_poisoned(data))
        if is_poisoned(data) == self.is_without_logs:
            raise BadSct("a rule of the signer")
        return await self.key.sign(data)


def test_a_signer_that_demands_receipts_has_nothing_to_refuse() -> None:
    issuing = mesh().issuing
    assert isinstance(issuing.key, MemoryKey)
    signer = SignsNoCertificate(issuing.key)
    proof_of(evolve(issuing, key=signer))
    assert signer.asked == [True]


def test_a_signer_that_has_never_heard_of_logs_is_asked_for_a_certificate() -> None:
    issuing = mesh().issuing
    assert isinstance(issuing.key, MemoryKey)
    signer = SignsNoCertificate(issuing.key, is_without_logs=True)
    proof_of(evolve(issuing, key=signer))
    assert signer.asked == [True, False]
