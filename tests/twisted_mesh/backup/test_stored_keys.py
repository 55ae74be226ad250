"""Backups of a CA whose keys are in a store: the archive refers to them, and a restore looks whether they are there."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pki.issuing.authority import Authority
from pki.keys import KeyReference, MemoryKey
from tests.authorities import NOW, key, mesh
from tests.twisted_mesh.backup.states import LOG_KEY, ca_state
from tests.twisted_mesh.keystores.fake_store import FakeStore
from tests.twisted_mesh.keystores.settling import result_now
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import ISSUING_KEY, Archive, Manifest
from twisted_mesh.backup.credentials import DoNotFit
from twisted_mesh.backup.provenance import log_key_bytes, sign_here
from twisted_mesh.backup.restoration import Restoration
from twisted_mesh.cli.ctl import backup_keys
from twisted_mesh.cli.ctl.key_stores import Named
from twisted_mesh.keystores.stores import KeyStores
from twisted_mesh.state.directory import StateDirectory, StateError, write_whole
from twisted_mesh.state.key_files import KeyFiles

URI = "pkcs11:token=mesh;object=mesh.local%20issuing-1;id=%01"
STORE = "pkcs11:token=mesh"


def memory_key(authority: Authority) -> MemoryKey:
    assert isinstance(authority.key, MemoryKey)
    return authority.key


def refer(state: StateDirectory, name: str, to: MemoryKey, uri: str = URI) -> None:
    reference = KeyReference(uri, to.public_key)
    write_whole(state.private / name, str(reference).encode(), 0o600)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = ca_state(tmp_path / "state")
    refer(made, "issuing.key", memory_key(mesh().issuing))
    return made


@pytest.fixture
def archive(state: StateDirectory, tmp_path: Path) -> Path:
    path = tmp_path / "ca.tar"
    creation.create(state, path, NOW)
    return path


def test_the_archive_says_which_keys_are_not_in_it(archive: Path) -> None:
    with closing(Archive.open(archive)) as opened:
        assert opened.manifest.elsewhere == [ISSUING_KEY]
        assert ISSUING_KEY not in opened.manifest.plain_keys


def test_an_archive_of_before_reads_as_it_did(tmp_path: Path) -> None:
    """Its manifest says nothing of this, and its digest is what was signed."""
    path = tmp_path / "ca.tar"
    created = creation.create(ca_state(tmp_path / "other"), path, NOW)
    assert b"elsewhere" not in created.manifest.to_bytes()
    with closing(Archive.open(path)) as opened:
        assert opened.manifest.elsewhere == []
        assert opened.manifest.digest == created.manifest.digest


def test_a_reference_of_another_key_does_not_fit(state: StateDirectory, tmp_path: Path) -> None:
    refer(state, "issuing.key", key("stranger"))
    with pytest.raises(DoNotFit, match="has no key beside it"):
        creation.create(state, tmp_path / "ca.tar", NOW)
    refer(state, "issuing.key", memory_key(mesh().issuing))
    refer(state, "root.key", memory_key(mesh().issuing))
    with pytest.raises(DoNotFit, match=r"root.key is not the key of root.crt but of issuing.crt"):
        creation.create(state, tmp_path / "ca.tar", NOW)


def test_it_is_signed_by_the_running_ca_alone(state: StateDirectory) -> None:
    with pytest.raises(StateError, match="this is no private key"):
        sign_here(KeyFiles(state.private), "mesh.local/audit/x", "0" * 64)


def test_the_logs_key_is_known_by_its_reference(state: StateDirectory) -> None:
    reference = KeyReference(URI, LOG_KEY.key.public_key)
    assert log_key_bytes(str(reference).encode()) == LOG_KEY.verifier.public_bytes
    assert log_key_bytes(LOG_KEY.to_pem()) == LOG_KEY.verifier.public_bytes


def elsewhere(archive: Path, home: Path) -> Any:
    with closing(Archive.open(archive)) as opened:
        restoration = Restoration(StateDirectory(home), opened, NOW, None, True)
        restoration.state.prepare()
        try:
            restoration.prepare([])
            return restoration.elsewhere
        finally:
            restoration.abandon()


def test_a_restore_looks_for_the_keys_where_they_are_said_to_be(
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    references = elsewhere(archive, tmp_path / "new")
    assert list(references) == [ISSUING_KEY]
    assert backup_keys.missing_keys(references, Named([], None), tmp_path) == []
    assert f"not in this backup but in {URI}" in capsys.readouterr().err
    token = FakeStore()
    token.start()
    stores = KeyStores({STORE: token})
    monkeypatch.setattr(backup_keys, "with_stores", lambda _, __, work: result_now(work(stores)))
    named = Named([STORE], None)
    (missing,) = backup_keys.missing_keys(references, named, tmp_path)
    assert missing.startswith("issuing.key: 0 keys are")
    token.keys[URI] = (key("stranger"), "mesh.local issuing-1")
    (missing,) = backup_keys.missing_keys(references, named, tmp_path)
    assert "is another key now" in missing
    token.keys[URI] = (memory_key(mesh().issuing), "mesh.local issuing-1")
    assert backup_keys.missing_keys(references, named, tmp_path) == []


def test_a_manifest_reads_back() -> None:
    import msgspec

    made = Manifest(1, "", "", "", "", 0, 0, None, 0, [], [], [ISSUING_KEY])
    assert msgspec.json.decode(made.to_bytes(), type=Manifest) == made
