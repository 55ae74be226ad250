"""A restore loses nothing in silence, un-revokes nothing, and may be interrupted anywhere."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from pki.svid.pin import Fingerprint
from tests.authorities import NOW, OTHER, mesh
from tests.twisted_mesh.backup.states import (
    ca_state,
    record_certificate,
    revocations,
    revoke,
    tell,
)
from twisted_mesh.backup import creation, placement, restoration
from twisted_mesh.backup.archive import Archive
from twisted_mesh.backup.credentials import DoNotFit
from twisted_mesh.backup.loss import Loss
from twisted_mesh.backup.provenance import NotProven
from twisted_mesh.backup.record import Lost
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.cli.ctl.backup_actions import Accepted, restore
from twisted_mesh.cli.status import DONE
from twisted_mesh.state.directory import StateDirectory, StateError
from twisted_mesh.stores import reading
from twisted_mesh.stores.commands import TakeCrlNumber
from twisted_mesh.stores.records import StoreError
from twisted_mesh.stores.sqlite import Sqlite


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = ca_state(tmp_path / "state")
    record_certificate(state, 1)
    record_certificate(state, 2)
    return state


@pytest.fixture
def saved(state: StateDirectory, tmp_path: Path) -> Path:
    creation.create(state, tmp_path / "ca.tar", NOW)
    return tmp_path / "ca.tar"


@contextmanager
def restoring(state: StateDirectory, saved: Path) -> Iterator[Restoration]:
    with closing(Archive.open(saved)) as archive:
        yield Restoration(state, archive, NOW, accept_unsigned=True)


def restored(state: StateDirectory, saved: Path) -> Loss:
    with restoring(state, saved) as restoration:
        loss = restoration.prepare([])
        restoration.perform("unix:uid:0")
    return loss


def last_number(state: StateDirectory, issuer: str) -> int | None:
    engine = Sqlite(state.ca / "mesh.db").engine()
    with engine.connect() as connection:
        found = reading.last_crl(connection, issuer)
    engine.dispose()
    return found.number if found else None


def test_no_number_of_a_crl_is_given_out_again(state: StateDirectory, tmp_path: Path) -> None:
    tell(state, TakeCrlNumber("aa"), TakeCrlNumber("bb"))
    saved = tmp_path / "numbers.tar"
    creation.create(state, saved, NOW)
    tell(state, TakeCrlNumber("aa", 70), TakeCrlNumber("cc", 5))
    restored(state, saved)
    assert [last_number(state, issuer) for issuer in ("aa", "bb", "cc")] == [70, 1, 5]


def test_the_roots_crl_comes_back_where_there_is_none(
    state: StateDirectory, tmp_path: Path
) -> None:
    crl = state.ca / "root.crl"
    crl.write_bytes(b"the saved one")
    saved = tmp_path / "with-crl.tar"
    creation.create(state, saved, NOW)
    elsewhere = StateDirectory(tmp_path / "elsewhere")
    elsewhere.prepare()
    restored(elsewhere, saved)
    assert (elsewhere.ca / "root.crl").read_bytes() == b"the saved one"
    assert stat.S_IMODE((elsewhere.ca / "root.crl").stat().st_mode) == 0o644
    crl.write_bytes(b"a newer one")
    restored(state, saved)
    assert crl.read_bytes() == b"a newer one", "what is here is never older"


def test_a_backup_without_the_roots_crl_takes_none_away(state: StateDirectory, saved: Path) -> None:
    (state.ca / "root.crl").write_bytes(b"newer")
    (state.ca / "crl-numbers").write_bytes(b"{}")
    restored(state, saved)
    assert (state.ca / "root.crl").read_bytes() == b"newer"
    assert (state.ca / "crl-numbers").exists()


def test_a_backup_of_the_first_format_is_read(state: StateDirectory, tmp_path: Path) -> None:
    old = tmp_path / "old.tar"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(creation, "FORMAT", 1)
        creation.create(state, old, NOW)
    assert restored(state, old).is_none


def test_a_backup_of_the_present_loses_nothing(state: StateDirectory, saved: Path) -> None:
    loss = restored(state, saved)
    assert loss.is_none
    assert loss.is_bearable
    assert not state.restored.exists()
    assert not state.restoring.exists()
    assert revocations(state.ca / "mesh.db") == {1: False, 2: False}


def test_what_is_newer_is_counted(state: StateDirectory, saved: Path) -> None:
    record_certificate(state, 3)
    record_certificate(state, 4, expired=True)
    record_certificate(state, 5, revoked=True)
    revoke(state, 1)
    with restoring(state, saved) as restoration:
        loss = restoration.prepare([])
        restoration.abandon()
    assert loss.lost == Lost(certificates=2, living=1, revocations=(1, 5), acts=5)
    assert not loss.is_bearable
    assert not state.restoring.exists()
    assert revocations(state.ca / "mesh.db")[1], "nothing was touched"


def test_what_is_revoked_stays_revoked(state: StateDirectory, saved: Path) -> None:
    revoke(state, 1)
    record_certificate(state, 5, revoked=True)
    record_certificate(state, 6)
    restored(state, saved)
    assert revocations(state.ca / "mesh.db") == {1: True, 2: False, 5: True}
    note = json.loads(state.restored.read_text())
    assert note["carried_over"] == ["01", "05"]
    assert note["by"] == "unix:uid:0"
    assert stat.S_IMODE(state.restored.stat().st_mode) == 0o600


def test_the_owner_keeps_what_was_replaced(state: StateDirectory, saved: Path) -> None:
    key = state.private / "issuing.key"
    key.write_bytes(b"another key")
    (state.ca / "issuing-2.crt").write_bytes(b"a later one")
    restored(state, saved)
    (aside,) = state.ca.glob("replaced-*")
    assert (aside / "private" / "issuing.key").read_bytes() == b"another key"
    assert (aside / "issuing-2.crt").read_bytes() == b"a later one"
    assert not (state.ca / "issuing-2.crt").exists()
    assert key.read_bytes() == mesh().issuing.key.to_pem()  # type: ignore[attr-defined]


def test_a_roots_key_that_the_backup_lacks_stays(state: StateDirectory, tmp_path: Path) -> None:
    key = state.private / "root.key"
    content = key.read_bytes()
    key.unlink()
    creation.create(state, tmp_path / "ca.tar", NOW)
    key.write_bytes(content)
    restored(state, tmp_path / "ca.tar")
    assert key.read_bytes() == content


def test_it_goes_into_an_empty_directory_too(saved: Path, tmp_path: Path) -> None:
    elsewhere = StateDirectory(tmp_path / "elsewhere")
    elsewhere.prepare()
    loss = restored(elsewhere, saved)
    assert not loss.is_known
    assert not loss.is_none, "so that its log begins a new epoch"
    assert elsewhere.restored.exists()
    assert revocations(elsewhere.ca / "mesh.db") == {1: False, 2: False}


def test_another_cas_directory_is_left_alone(saved: Path, tmp_path: Path) -> None:
    other = ca_state(tmp_path / "other", mesh(OTHER))
    with (
        restoring(other, saved) as restoration,
        pytest.raises(StateError, match="is another CA's"),
    ):
        restoration.prepare([])


def test_keys_that_fit_nothing_are_not_saved(state: StateDirectory, tmp_path: Path) -> None:
    (state.private / "issuing.key").write_bytes(mesh(OTHER).issuing.key.to_pem())  # type: ignore[attr-defined]
    (state.private / "root.key").write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(DoNotFit) as refused:
        creation.create(state, tmp_path / "ca.tar", NOW)
    assert [problem.subject for problem in refused.value.problems] == [
        "ca/private/root.key",
        "ca/issuing.crt",
    ]
    assert list(tmp_path.glob("*ca.tar*")) == []


def test_a_damaged_record_is_not_saved(state: StateDirectory, tmp_path: Path) -> None:
    database = state.ca / "mesh.db"
    data = bytearray(database.read_bytes())
    data[5000:9000] = bytes(4000)
    database.write_bytes(data)
    with pytest.raises(StoreError):
        creation.create(state, tmp_path / "ca.tar", NOW)
    assert list(tmp_path.glob("*ca.tar*")) == []


@define
class Interrupted(Exception):
    """Ctrl-C, a power cut, a full disk."""


#: What changes the file system once all is decided.
_STEPS = ("write_whole", "sync_directory", "_name_again")


@contextmanager
def breaking_after(count: int) -> Iterator[list[str]]:
    """The file system fails before its ``count``-th change; the changes that were made."""
    made: list[str] = []

    def counted(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            if len(made) == count:
                raise Interrupted
            made.append(name)
            return change(*args, **options)

        return step

    with pytest.MonkeyPatch.context() as patch:
        for module, names in ((restoration, _STEPS[:1]), (placement, _STEPS)):
            for name in names:
                patch.setattr(module, name, counted(name, getattr(module, name)))
        for name in ("replace", "unlink"):
            patch.setattr(Path, name, counted(name, getattr(Path, name)))
        patch.setattr(shutil, "rmtree", counted("rmtree", shutil.rmtree))
        yield made


def everything(state: StateDirectory) -> dict[str, bytes]:
    return {
        str(path.relative_to(state.ca)): path.read_bytes()
        for path in state.ca.rglob("*")
        if path.is_file() and path.name not in ("lock", "restored", "mesh.db")
    }


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_an_interruption_anywhere_is_made_good_by_another_run(
    state: StateDirectory, saved: Path, tmp_path: Path, stride: int
) -> None:
    record_certificate(state, 3, revoked=True)
    (state.ca / "issuing-2.crt").write_bytes(b"a later one")
    (state.private / "issuing.key").write_bytes(b"another key")
    for name in ("mesh.db-wal", "mesh.db-shm"):
        (state.ca / name).touch()
    before = tmp_path / "before"
    shutil.copytree(state.root, before)
    restored(state, saved)
    expected = everything(state)

    count = 0
    while True:
        shutil.rmtree(state.root)
        shutil.copytree(before, state.root)
        with breaking_after(count) as made, restoring(state, saved) as first:
            try:
                first.prepare([])
                first.perform("unix:uid:0")
            except Interrupted:
                assert state.root_certificate.exists(), "a CA without its root would make another"
            else:
                break
        assert len(made) == count
        decided = (state.restoring / "plan.json").exists()
        with restoring(state, saved) as second:
            assert second.resume() == decided
            if not decided and state.restoring.exists() | (everything(state) != expected):
                second.prepare([])
                second.perform("unix:uid:0")
        state.refuse_half_restored()
        assert everything(state) == expected, made
        assert revocations(state.ca / "mesh.db") == {1: False, 2: False, 3: True}
        count += stride
    assert count > 20


def test_a_restore_that_is_half_done_is_not_continued_with_another_backup(
    state: StateDirectory, saved: Path, tmp_path: Path
) -> None:
    record_certificate(state, 3)
    creation.create(state, tmp_path / "later.tar", NOW)
    (state.private / "issuing.key").unlink()
    with breaking_after(9), restoring(state, saved) as first, pytest.raises(Interrupted):
        first.prepare([])
        first.perform("unix:uid:0")
    assert (state.restoring / "plan.json").exists()
    with restoring(state, tmp_path / "later.tar") as other, pytest.raises(StateError) as refused:
        other.resume()
    assert "restore that one first" in str(refused.value)
    with pytest.raises(StateError, match="half in place"):
        state.refuse_half_restored()
    with restoring(state, saved) as second:
        assert second.resume()
    assert os.path.exists(state.private / "issuing.key")


@pytest.fixture
def half_done(state: StateDirectory, saved: Path) -> StateDirectory:
    """With a restore that was decided and then interrupted."""
    (state.private / "issuing.key").unlink()
    with breaking_after(9), restoring(state, saved) as first, pytest.raises(Interrupted):
        first.prepare([])
        first.perform("unix:uid:0")
    assert (state.restoring / "plan.json").exists()
    return state


def test_a_dry_run_does_not_finish_what_was_interrupted(
    half_done: StateDirectory, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(half_done)
    for accepted in (Accepted(), Accepted(loss=True, unsigned=True, unvouched=True)):
        status = restore(
            saved, half_done.root, accepted, fingerprint=None, dry_run=True, as_json=False
        )
        assert status == DONE
        assert "run the same without --dry-run" in capsys.readouterr().err
        assert everything(half_done) == before
    assert not restore(
        saved, half_done.root, Accepted(), fingerprint=None, dry_run=False, as_json=False
    )
    assert "the interrupted restore is finished" in capsys.readouterr().out


def test_what_is_half_done_is_not_finished_for_another_root(
    half_done: StateDirectory, saved: Path
) -> None:
    before = everything(half_done)
    other = str(Fingerprint.of(mesh(OTHER).root.certificate))
    with pytest.raises(NotProven, match="is of another root than --fingerprint names"):
        restore(saved, half_done.root, Accepted(), fingerprint=other, dry_run=False, as_json=False)
    assert everything(half_done) == before
