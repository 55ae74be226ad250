"""The CA dies at each step of what it does, while it is used; nothing is lost. ``make soak`` does it by hundreds."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults import dying
from tests.faults.ordeal import Ordeal, ordeal
from tests.running import BIN, Running

SEED = 20261124


def passes(step: str, draw: random.Random) -> int:
    """At which pass of a step it is to die: soon, and not always in the same life of a signature."""
    if step in (*dying.START, *dying.STOP, *dying.WRITE_OFF):
        return 1
    few = (*dying.REVOCATION, *dying.PUBLISHING)
    return draw.randint(1, 3 if step in dying.LOG else 4 if step in few else 15)


def dies(under: Ordeal, steps: Sequence[str], draw: random.Random) -> None:
    for step in steps:
        if step in dying.WRITE_OFF:  # there must be something to write off
            under.dies_at("elsewhere-signed", passes("elsewhere-signed", draw) + 1)
        under.dies_at(step, passes(step, draw))


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps",
    [
        dying.ISSUANCE,
        dying.ELSEWHERE,
        (*dying.REVOCATION, *dying.PUBLISHING, *dying.LOG),
        (*dying.START, *dying.WRITE_OFF, *dying.STOP),
    ],
    ids=["issuance", "issuance-elsewhere", "revocation-and-log", "start-and-stop"],
)
def test_nothing_is_lost_when_it_dies_at_each_step(
    steps: Sequence[str], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw = random.Random(SEED)
    with ordeal(tmp_path / "home", SEED) as under:
        few = draw.sample(steps, -(-len(steps) // 2))  # make soak has all of them
        dies(under, few, draw)
        under.lives()
    came = under.outcome
    came.tell(record_property)
    assert came.lost == ()
    assert came.kills >= len(few)
    assert came.held > len(few)


@pytest.mark.slow
def test_a_log_of_both_forms_is_found_in_order(tmp_path: Path) -> None:
    """A record that an earlier version, or a key elsewhere, has begun goes on in the shorter form."""
    with ordeal(tmp_path / "home", SEED) as under:
        under.dies_at("elsewhere-signed", 6)
        under.dies_at("issue-committed", 6)
        ca = under.start(wait=True)
        assert under.sign().status == 201
        command = (BIN / "mesh-ctl", "audit", "verify")
        environment = {"MESH_STATE_DIR": str(under.state)}
        verified = Running.start(*command, cwd=under.home, env=environment)
        assert verified.wait() == 0, verified.text
        shown = Running.start(*command[:2], "show", cwd=under.home, env=environment)
        assert shown.wait() == 0, shown.text
        assert {"issue", "write-off"} <= set(shown.text.split())
        under.lives_on(ca)
    assert under.outcome.lost == ()


@pytest.mark.slow
def test_it_may_die_while_it_recovers_again_and_again(tmp_path: Path) -> None:
    with ordeal(tmp_path / "home", SEED) as under:
        under.dies_at("elsewhere-signed", 6)
        for step in (
            "store-opened",
            "write-off-uncommitted",
            "write-off-committed",
            "start-committed",
        ):
            under.dies_at(step, 1)
        under.lives()
    assert under.outcome.lost == ()
