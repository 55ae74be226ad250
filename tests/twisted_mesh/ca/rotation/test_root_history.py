"""An earlier ``roots.json`` that somebody has put back, or that a crash has left, at the next start."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from twisted.internet.defer import DeferredLock
from twisted.internet.task import Clock

from pki.audit.log import Act, Entry
from pki.issuing.root_line import Phase
from tests.authorities import NOW
from tests.twisted_mesh.ca.lives import Life
from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.ca.rotation.root_history import RootHistory
from twisted_mesh.ca.rotation.root_rotator import RootRotator
from twisted_mesh.state.directory import StateError


@pytest.fixture
def life(tmp_path: Path) -> Life:
    made = Life(tmp_path)
    made.run()
    return made


def step(life: Life, *names: str) -> None:
    for name in names:
        result_of(getattr(life.root_steps, name)())


def logged(life: Life) -> list[bytes]:
    return [
        Entry(
            life.time + timedelta(seconds=number), Act(act.name), "self", act.target, act.facts
        ).to_bytes()
        for number, act in enumerate(life.acts)
    ]


def start(life: Life) -> None:
    """As the CA starts: with what there is on disk, held against the log."""
    life.start()
    rotator = RootRotator(
        life.root_steps,
        life.current,
        None,  # type: ignore[arg-type]
        lambda: life.time,
        Clock(),
        DeferredLock(),
    )
    result_of(rotator.hold_against([*logged(life), b"damaged", b"{}"]))


def kept(life: Life) -> Callable[[], None]:
    """Puts back what there is now, and nothing else."""

    def present() -> dict[Path, bytes]:
        found = [*life.state.ca.iterdir(), *life.state.private.iterdir()]
        return {path: path.read_bytes() for path in found if path.is_file()}

    files = present()

    def put_back() -> None:
        for path in present():
            path.unlink()
        for path, data in files.items():
            path.touch(0o600)
            path.write_bytes(data)

    return put_back


@pytest.mark.parametrize(
    ("before", "last", "phase"),
    [
        (("prepare", "activate", "switch"), "retire", Phase.SETTLED),
        (("prepare",), "revert", Phase.SETTLED),
    ],
)
def test_a_step_that_was_recorded_and_cut_short_is_done_at_the_start(
    life: Life, before: tuple[str, ...], last: str, phase: Phase
) -> None:
    step(life, *before)
    put_back = kept(life)
    step(life, last)
    root = life.authorities.root
    put_back()
    start(life)
    assert life.authorities.root_line.phase is phase
    assert life.authorities.root == root
    start(life)  # and no more of it


def test_a_document_from_before_the_last_two_steps_is_refused(life: Life) -> None:
    step(life, "prepare", "activate")
    put_back = kept(life)
    step(life, "switch", "retire")
    put_back()
    with pytest.raises(StateError, match="somebody has put an earlier file back"):
        start(life)


def test_a_document_from_before_an_earlier_rotation_is_refused(life: Life) -> None:
    step(life, "prepare", "activate", "switch")
    put_back = kept(life)
    step(life, "retire", "prepare")
    put_back()
    with pytest.raises(StateError, match="restore the present one from a backup"):
        start(life)


def test_what_the_log_says_is_there_starts_at_each_step(life: Life) -> None:
    for name in ("prepare", "revert", "prepare", "activate", "revert", "activate"):
        step(life, name)
        start(life)
    for name in ("switch", "revert", "switch", "retire", "prepare"):
        step(life, name)
        start(life)


def test_a_retirement_that_was_given_up_takes_nothing_out(life: Life) -> None:
    step(life, "prepare", "activate", "switch")
    put_back = kept(life)
    acts = list(life.acts)
    step(life, "retire")
    retired = life.acts[len(acts)]
    put_back()
    life.start()
    life.acts[:] = [*acts, retired]
    step(life, "revert")
    start(life)
    assert life.authorities.root_line.phase is Phase.ACTIVATED


def test_a_root_that_is_brought_a_second_time_is_there_again() -> None:
    def act(name: str, root: str, **more: str) -> bytes:
        facts = {"step": f"root-{name}", "fingerprint": root, **more}
        return Entry(NOW, Act.ROTATE, "self", "key", facts).to_bytes()

    acts = [act("prepared", "a"), act("reverted", "a", was="prepared"), act("prepared", "b")]
    assert RootHistory.of(acts) == RootHistory(frozenset("a"))
    acts += [act("reverted", "b", was="prepared"), act("prepared", "a")]
    assert RootHistory.of(acts) == RootHistory(frozenset("b"))
