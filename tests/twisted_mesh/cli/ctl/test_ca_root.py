"""What ``mesh-ctl ca root`` prints and does, whatever the CA answers."""

import json
from typing import Any

import msgspec
import pytest
from attrs import define, field

from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.api.root_messages import (
    FormerRootRow,
    RootRow,
    RootStatus,
    RootStepDone,
    RootStepRequest,
    RootWait,
)
from twisted_mesh.cli.ctl.ca_root_actions import Showing, Stepping
from twisted_mesh.cli.status import DONE, REFUSED

ROOT = RootRow("sha256:aa", "sha256/AA=", "CN=r", "then", "later", True, "/s/root.key", True)
STATUS = RootStatus(
    "switched",
    "2026-11-29T12:00:00Z",
    [ROOT, msgspec.structs.replace(ROOT, is_served=False, key="/s/root-1.key", has_key=False)],
    ["sha256/BB="],
    7,
    "retire",
    None,
    "mesh-ctl ca root retire",
    [],
    [FormerRootRow("sha256:cc", "sha256/CC=", "CN=f", "2020-01-01T00:00:00Z", "reverted")],
)
WAITS = RootWait("root-unacknowledged", "one serves the old chain", "see to it", ["x"], True)
NOTE = msgspec.structs.replace(WAITS, detail="one never tells", blocking=False)


@define
class Ca:
    """Answers what it was told to, one after the other; the last one again and again."""

    answers: list[RootStepDone]
    asked: list[tuple[str, RootStepRequest]] = field(factory=list)

    async def root(self) -> RootStatus:
        return STATUS

    async def step_root(self, step: str, how: RootStepRequest) -> RootStepDone:
        self.asked.append((step, how))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answer(*waits: RootWait, done: bool = False) -> RootStepDone:
    return RootStepDone(done, list(waits), STATUS)


def stepped(ca: Ca, step: str, *, as_json: bool = False, **how: Any) -> tuple[int, list[float]]:
    slept: list[float] = []
    work = Stepping(step, RootStepRequest(**how), True, as_json, slept.append)
    return result_of(work(ca)), slept  # type: ignore[arg-type]


def test_the_status_names_roots_keys_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert result_of(Showing(False)(Ca([]))) == DONE  # type: ignore[arg-type]
    said = capsys.readouterr().out
    for words in (
        *("phase: switched since 2026-11-29T12:00:00Z", "chains lead to it", "sha256:aa"),
        *("not here; wanted as /s/root-1.key", "a key to come, of the next issuing CA: sha256/BB="),
        *("reverted at 2020-01-01T00:00:00Z: sha256:cc", "next: mesh-ctl ca root retire"),
    ):
        assert words in said
    assert result_of(Showing(True)(Ca([]))) == DONE  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out) == msgspec.to_builtins(STATUS)


@pytest.mark.parametrize(
    ("waits", "status", "words"),
    [
        ((), DONE, "nothing stands against ca root retire"),
        ((NOTE,), DONE, "note: one never tells: see to it"),
        ((WAITS, NOTE), REFUSED, "waits: one serves the old chain: see to it"),
    ],
)
def test_a_dry_run_says_what_stands_against_it(
    capsys: pytest.CaptureFixture[str], waits: tuple[RootWait, ...], status: int, words: str
) -> None:
    ca = Ca([answer(*waits)])
    assert stepped(ca, "retire", dry_run=True) == (status, [])
    assert words in capsys.readouterr().out
    assert ca.asked == [("retire", RootStepRequest(dry_run=True))]


def test_a_step_that_is_half_done_is_asked_for_again_once_nobody_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ca = Ca([answer(WAITS), answer(WAITS), answer(), answer(done=True)])
    status, slept = stepped(ca, "retire", reason="it ends")
    assert (status, len(slept)) == (DONE, 1)
    assert [how.dry_run for _, how in ca.asked] == [False, True, True, False]
    assert {how.reason for _, how in ca.asked} == {"it ends"}
    assert "The old root is retired" in capsys.readouterr().err


def test_one_that_stays_half_done_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    ca = Ca([answer(WAITS)])
    status, slept = stepped(ca, "retire")
    assert status == REFUSED
    assert 10 <= len(slept) <= 60
    assert "ask again" in capsys.readouterr().err


def test_json_says_what_has_become_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert stepped(Ca([answer(done=True)]), "prepare", as_json=True)[0] == DONE
    assert json.loads(capsys.readouterr().out)["done"] is True
