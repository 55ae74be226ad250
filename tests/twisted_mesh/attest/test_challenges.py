"""A challenge is answered once, in its time, by evidence of the kind that it was made for."""

from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from tests.authorities import DAY, MESH, NOW
from twisted_mesh.attest.challenges import LIFETIME, Challenges, StaleChallenge
from twisted_mesh.attest.errors import AttestorUnavailable
from twisted_mesh.attest.interface import Means
from twisted_mesh.testing import Clock


@define(eq=False)
class Rig:
    time: float = 1000.0
    challenges: Challenges = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.challenges = Challenges(lambda: self.time, most_spent=3)

    def wait(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_each_is_another_and_can_be_written_anywhere(rig: Rig) -> None:
    made = {rig.challenges.make("a") for _ in range(100)}
    assert len(made) == 100
    assert all(set(text) <= set("0123456789abcdef-") and len(text) < 100 for text in made)


def test_one_is_answered_once(rig: Rig) -> None:
    text = rig.challenges.make("a")
    rig.challenges.check("a", text)
    rig.challenges.check("a", text)
    rig.challenges.spend("a", text)
    for again in (rig.challenges.check, rig.challenges.spend):
        with pytest.raises(StaleChallenge, match="was answered before"):
            again("a", text)
    rig.challenges.spend("a", rig.challenges.make("a"))


def test_one_is_answered_in_its_time(rig: Rig) -> None:
    text, other = rig.challenges.make("a"), rig.challenges.make("a")
    rig.wait(LIFETIME - 1)
    rig.challenges.spend("a", text)
    rig.wait(1)
    for late in (text, other):
        with pytest.raises(StaleChallenge, match="that is over"):
            rig.challenges.spend("a", late)


def test_one_goes_by_a_clock_that_never_jumps_whatever_time_is_set() -> None:
    clock, times = Clock(), [NOW]
    means: Any = Means(clock, None, None, lambda: times[-1], None, trust_domain=MESH)  # type: ignore[arg-type]
    challenges = means.challenges
    early, late = challenges.make("a"), challenges.make("a")
    times.append(NOW + DAY)
    challenges.spend("a", early)
    clock.advance(LIFETIME)
    challenges.make("a")
    times.append(NOW)
    for text in (early, late):
        with pytest.raises(StaleChallenge, match="that is over"):
            challenges.check("a", text)


def test_none_tells_for_how_long_this_machine_runs(rig: Rig) -> None:
    told = {int(Rig().challenges.make("a").split("-")[0], 16) for _ in range(20)}
    assert len(told) > 1
    assert int(rig.time) + LIFETIME not in told


def test_one_is_of_its_kind_and_of_its_process(rig: Rig) -> None:
    text = rig.challenges.make("a")
    for kind, challenges in (("b", rig.challenges), ("a", Rig().challenges)):
        with pytest.raises(StaleChallenge, match="not this CA's"):
            challenges.spend(kind, text)


def test_no_other_spelling_is_another(rig: Rig) -> None:
    text = rig.challenges.make("a")
    rig.challenges.spend("a", text)
    ends, nonce, mac = text.split("-")
    longer = f"{int(ends, 16) + 3600:x}"
    for other in (
        *(text.upper(), f" {text}", f"{text} ", f"0{text}", f"+{text}", f"0x{text}", f"{text}-"),
        *(f"{longer}-{nonce}-{mac}", f"{ends}-{nonce}0-{mac}", f"{ends}-{mac}-{nonce}"),
        *(f"{ends}-{nonce}-", f"{ends}--{mac}", f"{ends[:2]}_{ends[2:]}-{nonce}-{mac}"),
    ):
        with pytest.raises(StaleChallenge):
            rig.challenges.spend("a", other)


@given(st.text() | st.from_regex(r"\A[0-9a-f]{1,9}-[0-9a-f]{32}-[0-9a-f]{32}\Z"))
def test_no_text_is_one(text: str) -> None:
    with pytest.raises(StaleChallenge) as refusal:
        Rig().challenges.check("a", text)
    assert str(refusal.value).isprintable()


def test_too_many_answers_have_to_wait_and_none_is_forgotten_before_its_end(rig: Rig) -> None:
    spent = [rig.challenges.make("a") for _ in range(3)]
    for text in spent:
        rig.challenges.spend("a", text)
    late = rig.challenges.make("a")
    with pytest.raises(AttestorUnavailable, match="3 challenges were answered"):
        rig.challenges.spend("a", late)
    for text in spent:
        with pytest.raises(StaleChallenge):
            rig.challenges.spend("a", text)
    rig.wait(LIFETIME)
    rig.challenges.spend("a", rig.challenges.make("a"))
