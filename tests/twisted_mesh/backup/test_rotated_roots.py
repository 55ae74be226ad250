"""A backup of a CA whose root is being rotated, and what a restore may bring back."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pki.issuing.root_line import Phase
from tests.authorities import DAY
from tests.twisted_mesh.backup.states import ca_state, record_certificate
from tests.twisted_mesh.ca.lives import Life
from tests.twisted_mesh.ca.rigs import result_of
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import Archive
from twisted_mesh.backup.credentials import DoNotFit
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.state.directory import StateDirectory, StateError


@pytest.fixture
def life(tmp_path: Path) -> Life:
    (tmp_path / "ca").mkdir()
    record_certificate(ca_state(tmp_path / "ca" / "state"), 1)
    made = Life(tmp_path / "ca")
    made.run()
    return made


def steps(life: Life, *names: str) -> None:
    for name in names:
        result_of(getattr(life.root_steps, name)("unix:uid:0"))


def save(life: Life, path: Path) -> Path:
    creation.create(life.state, path, life.time)
    return path


def restore(state: StateDirectory, saved: Path, life: Life) -> None:
    with closing(Archive.open(saved)) as archive:
        restoration = Restoration(state, archive, life.time, accept_unsigned=True)
        try:
            restoration.prepare([])
            restoration.perform("unix:uid:0")
        finally:
            restoration.abandon()


ALL = ("prepare", "activate", "switch", "retire")


@pytest.mark.parametrize("count", range(1, 5))
def test_each_phase_comes_back_elsewhere(life: Life, tmp_path: Path, count: int) -> None:
    steps(life, *ALL[:count])
    line, before = life.authorities.root_line, life.files()
    saved = save(life, tmp_path / "ca.tar")
    elsewhere = StateDirectory(tmp_path / "new" / "state")
    (tmp_path / "new").mkdir()
    elsewhere.prepare()
    restore(elsewhere, saved, life)
    found = Life(tmp_path / "new", life.time)
    assert found.authorities.root_line == line
    assert [ca.certificate for ca in found.authorities.every_issuing] == [
        ca.certificate for ca in life.authorities.every_issuing
    ]
    assert set(before) - {"mesh.db"} <= set(found.files())
    found.assert_all_keys_fit()


def test_the_number_of_the_bundle_never_goes_back(life: Life, tmp_path: Path) -> None:
    saved = save(life, tmp_path / "ca.tar")
    steps(life, "prepare")
    published = life.current.bundle().sequence
    restore(life.state, saved, life)
    life.time += DAY
    life.start()
    assert life.authorities.root_line.phase is Phase.SETTLED
    rotation_steps = life.root_steps.rotation_steps
    result_of(rotation_steps.keep_line(life.authorities.root_line.restored(life.time)))
    assert life.current.bundle().sequence > published
    life.start()
    assert life.current.bundle().sequence > published


def test_a_root_that_was_retired_does_not_come_back(life: Life, tmp_path: Path) -> None:
    saved = save(life, tmp_path / "before.tar")
    overlap_steps = ALL[:2]
    steps(life, *overlap_steps)
    overlap = save(life, tmp_path / "overlap.tar")
    steps(life, *ALL[2:])
    for old in (saved, overlap):
        with pytest.raises(StateError, match="from before its root was retired here"):
            restore(life.state, old, life)
    life.start()
    assert life.authorities.root_line.phase is Phase.SETTLED


def test_an_earlier_phase_comes_back_in_place(life: Life, tmp_path: Path) -> None:
    steps(life, "prepare")
    saved = save(life, tmp_path / "ca.tar")
    steps(life, "activate", "switch")
    restore(life.state, saved, life)
    life.start()
    assert life.authorities.root_line.phase is Phase.PREPARED
    assert life.generations[0] == 1
    assert all(life.authorities.key_of(root) for root in life.authorities.roots)


def test_a_detached_key_stays_where_its_root_does(life: Life, tmp_path: Path) -> None:
    steps(life, "prepare")
    kept = {name: (life.state.private / name).read_bytes() for name in ("root.key", "root-2.key")}
    for name in kept:
        (life.state.private / name).unlink()
    saved = save(life, tmp_path / "ca.tar")
    for name, data in kept.items():
        (life.state.private / name).write_bytes(data)
        (life.state.private / name).chmod(0o600)
    restore(life.state, saved, life)
    life.start()
    assert all(life.authorities.key_of(root) for root in life.authorities.roots)


def changed(name: str, old: bytes, new: bytes) -> Callable[[Life], None]:
    def change(life: Life) -> None:
        path = life.state.ca / name
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        changed("roots.json", b'"activated"', b'"switched"'),
        changed("roots.json", b"{", b"["),
        lambda life: (life.state.ca / "root-2.crt").write_bytes(
            (life.state.ca / "root.crt").read_bytes()
        ),
        lambda life: (life.state.ca / "root.crt").write_bytes(
            (life.state.ca / "root-2.crt").read_bytes()
        ),
        lambda life: (life.state.private / "root-2.key").write_bytes(
            (life.state.private / "root.key").read_bytes()
        ),
        lambda life: (life.state.ca / "roots.json").unlink(),
    ],
)
def test_what_does_not_fit_is_no_backup(
    life: Life, tmp_path: Path, damage: Callable[[Life], object]
) -> None:
    steps(life, "prepare", "activate")
    damage(life)
    with pytest.raises(DoNotFit):
        save(life, tmp_path / "ca.tar")
