"""CAs that were revoked, and what a restore brings back of them."""

from contextlib import closing
from pathlib import Path

import pytest

from pki.issuing.root_line import fingerprint_of
from tests.twisted_mesh.backup.states import ca_state, record_certificate
from tests.twisted_mesh.ca.rotation.revocations import Revocations
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import Archive
from twisted_mesh.backup.credentials import DoNotFit
from twisted_mesh.backup.loss import Loss
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.ca.revoked_authorities import NAME
from twisted_mesh.state.directory import StateDirectory, StateError


@pytest.fixture
def rig(tmp_path: Path) -> Revocations:
    (tmp_path / "ca").mkdir()
    record_certificate(ca_state(tmp_path / "ca" / "state"), 1)
    return Revocations(tmp_path / "ca")


def save(rig: Revocations, path: Path) -> Path:
    creation.create(rig.life.state, path, rig.life.time)
    return path


def restore(rig: Revocations, state: StateDirectory, saved: Path) -> Loss:
    with closing(Archive.open(saved)) as archive:
        restoration = Restoration(state, archive, rig.life.time, accept_unsigned=True)
        try:
            loss = restoration.prepare([])
            restoration.perform("unix:uid:0")
        finally:
            restoration.abandon()
    return loss


def issuing(rig: Revocations) -> str:
    return rig.life.authorities.issuing.key_id


def test_a_backup_from_before_does_not_bring_it_back(rig: Revocations, tmp_path: Path) -> None:
    saved, before = save(rig, tmp_path / "ca.tar"), issuing(rig)
    rig.revoke(before)
    restore(rig, rig.life.state, saved)
    rig.start()
    assert rig.life.authorities.is_revoked(before)
    assert issuing(rig) != before
    assert [row.issuer for row in rig.life.current.published.revoked_authorities]
    assert rig.life.authorities.issuer(before) is None


def test_what_either_knows_is_revoked_afterwards(rig: Revocations, tmp_path: Path) -> None:
    first = issuing(rig)
    rig.revoke(first)
    saved, second = save(rig, tmp_path / "ca.tar"), issuing(rig)
    rig.revoke(second)
    restore(rig, rig.life.state, saved)
    rig.start()
    assert {row.key_id for row in rig.life.authorities.revoked} == {first, second}
    assert not rig.life.authorities.is_revoked(issuing(rig))


def test_it_is_restored_elsewhere_too(rig: Revocations, tmp_path: Path) -> None:
    first = issuing(rig)
    rig.revoke(first)
    saved = save(rig, tmp_path / "ca.tar")
    elsewhere = StateDirectory(tmp_path / "new" / "state")
    (tmp_path / "new").mkdir()
    elsewhere.prepare()
    restore(rig, elsewhere, saved)
    found = Revocations(tmp_path / "new")
    assert [row.key_id for row in found.life.authorities.revoked] == [first]


def test_a_distrusted_root_does_not_come_back(rig: Revocations, tmp_path: Path) -> None:
    (root,) = rig.life.authorities.roots
    saved = save(rig, tmp_path / "ca.tar")
    rig.distrust(fingerprint_of(root))
    with pytest.raises(StateError, match="was distrusted here"):
        restore(rig, rig.life.state, saved)


def test_what_cannot_be_read_is_a_loss_to_be_accepted(rig: Revocations, tmp_path: Path) -> None:
    rig.revoke(issuing(rig))
    saved = save(rig, tmp_path / "ca.tar")
    (rig.life.state.ca / NAME).write_bytes(b"{")
    loss = restore(rig, rig.life.state, saved)
    assert not loss.is_bearable
    rig.start()
    assert len(rig.life.authorities.revoked) == 1


def test_a_damaged_one_is_not_saved(rig: Revocations, tmp_path: Path) -> None:
    rig.revoke(issuing(rig))
    (rig.life.state.ca / NAME).write_bytes(b"{")
    with pytest.raises(DoNotFit, match="revoked-authorities"):
        save(rig, tmp_path / "ca.tar")
