"""Hundreds of deaths of the CA, each checked, and a count of what clients held and what was lost."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import dying
from tests.faults.ordeal import ordeal
from tests.faults.test_kills import dies

#: So many CAs without logs, each of which dies at every step once; faults/test_logged_kills has those with logs.
_LIVES = 12
#: Of these, so many in CI.
_OF_CI = 1


@pytest.mark.soak
@pytest.mark.parametrize(
    "seed",
    [
        *range(_OF_CI),
        *(pytest.param(n, marks=pytest.mark.endurance) for n in range(_OF_CI, _LIVES)),
    ],
)
def test_nothing_is_lost_in_hundreds_of_deaths(
    seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(seed)
    with ordeal(tmp_path / "home", seed) as under:
        dies(under, draw.sample(dying.USUAL, len(dying.USUAL)), draw)
        under.lives()
    came = under.outcome
    came.tell(record_property)
    assert came.lost == ()
    assert came.kills >= len(dying.USUAL)
