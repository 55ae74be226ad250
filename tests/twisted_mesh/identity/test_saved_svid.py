"""What is kept between two runs is for its owner alone, and is used only if all of it is good."""

import os
import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pki.keys import MemoryKey
from pki.spiffe import SpiffeId
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.pin import Fingerprint, RootPin
from pki.svid.x509svid import X509Svid, certificates_pem, load_certificates
from tests.authorities import BACKEND, HOUR, MESH, NOW, OTHER, forge_root, key, mesh
from tests.twisted_mesh.recording import RecordingLog
from twisted_mesh.identity import saved_svid as kept_identity_module
from twisted_mesh.identity.saved_svid import SavedSvid, identity_path
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.pinned_judge import PinnedJudge
from twisted_mesh.trust.trust import Trust

PIN = RootPin(Fingerprint.of(mesh().root.certificate), MESH)


def by_fingerprint(pin: RootPin = PIN) -> Judge:
    return PinnedJudge(lambda: NOW, pin=pin)


def by_file() -> Judge:
    return Judge(lambda: NOW, Trust(mesh().bundles))


def svid(now: Any = NOW, name: int = 9) -> X509Svid:
    leaf = mesh().leaf(BACKEND, now, HOUR, key(name))
    return X509Svid.assemble((leaf, *mesh().issuing.intermediates), key(name))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> RecordingLog:
    log = RecordingLog()
    monkeypatch.setattr(kept_identity_module, "_log", log)
    return log


@pytest.fixture
def kept(tmp_path: Path, log: RecordingLog) -> SavedSvid:
    kept = SavedSvid(identity_path(tmp_path / "state", "who"))
    kept.keep(svid(), mesh().bundle)
    assert log.events == []
    return kept


def home_of(kept: SavedSvid) -> Path:
    assert kept.directory is not None
    return kept.directory


@pytest.mark.parametrize("ca", [by_fingerprint, by_file])
def test_what_is_kept_is_found_again(
    ca: Callable[[], Judge], kept: SavedSvid, log: RecordingLog
) -> None:
    found = kept.recall(BACKEND, ca(), NOW)
    assert found is not None
    assert found.chain == svid_of(kept).chain
    assert found.key.to_pem() == key(9).to_pem()
    assert "until 2026-11-23T11:00:00Z: it shows the CA who we are" in log.text("identity-recalled")


def svid_of(kept: SavedSvid) -> X509Svid:
    chain = load_certificates((home_of(kept) / "svid.pem").read_bytes())
    return X509Svid.assemble(
        chain, MemoryKey.from_pem((home_of(kept) / "svid_key.pem").read_bytes())
    )


def test_nobody_else_may_look(kept: SavedSvid) -> None:
    home = home_of(kept)
    for directory in (home, home.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "svid_key.pem").stat().st_mode) == 0o600


def test_each_time_it_is_another_generation(kept: SavedSvid) -> None:
    for name in (8, 7, 6):
        kept.keep(svid(name=name), mesh().bundle)
        found = kept.recall(BACKEND, by_file(), NOW)
        assert found is not None
        assert found.key.public_key == key(name).public_key
    assert len(list(home_of(kept).glob(".generation-*"))) == 2


def test_two_endpoints_do_not_share_it(tmp_path: Path) -> None:
    assert identity_path(tmp_path, "a") != identity_path(tmp_path, "b")
    assert identity_path(tmp_path, "a") == identity_path(tmp_path, "a")


def test_where_nothing_was_kept_there_is_nothing(tmp_path: Path, log: RecordingLog) -> None:
    for kept in (SavedSvid(None), SavedSvid(tmp_path / "identity" / "x")):
        assert kept.recall(BACKEND, by_file(), NOW) is None
        kept.forget()
    assert log.events == []


def test_without_a_place_nothing_is_kept(log: RecordingLog) -> None:
    SavedSvid(None).keep(svid(), mesh().bundle)
    assert log.events == []


def test_what_is_forgotten_is_gone(kept: SavedSvid) -> None:
    kept.forget()
    assert not home_of(kept).exists()
    assert kept.recall(BACKEND, by_file(), NOW) is None


def owned_by_another(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


def linked_elsewhere(home: Path) -> None:
    home.rename(home.with_name("moved"))
    home.symlink_to(home.with_name("moved"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def file_of(home: Path, name: str) -> Path:
    return (home / name).resolve()


#: What was done to the files meanwhile, and what is said of it.
HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "the key can be read by others": (
        lambda home: file_of(home, "svid_key.pem").chmod(0o640),
        "can be read by others",
    ),
    "the key is another user's": (
        lambda home: owned_by_another(file_of(home, "svid_key.pem")),
        "belongs to another user",
    ),
    "the chain is another user's": (
        lambda home: owned_by_another(file_of(home, "svid.pem")),
        "belongs to another user",
    ),
    "the directory is another user's": (owned_by_another, "belongs to another user"),
    "the directory above is another user's": (
        lambda home: owned_by_another(home.parent),
        "belongs to another user",
    ),
    "the directory is open": (lambda home: home.chmod(0o755), "is open to others: chmod 700"),
    "the directory is a link": (linked_elsewhere, "is no directory"),
    "the key is gone": (lambda home: file_of(home, "svid_key.pem").unlink(), "cannot be read"),
    "all is gone": (lambda home: (home / "current").unlink(), "cannot be read"),
    "the key is empty": (
        lambda home: file_of(home, "svid_key.pem").write_bytes(b""),
        "no private key in PEM",
    ),
    "the key is a pipe": (lambda home: a_pipe(file_of(home, "svid_key.pem")), ""),
    "the key is another": (
        lambda home: file_of(home, "svid_key.pem").write_bytes(key(8).to_pem()),
        "issued for another key",
    ),
    "the chain is cut": (
        lambda home: file_of(home, "svid.pem").write_bytes(certificates_pem([svid().leaf])),
        "did not present its issuer",
    ),
    "the chain is no chain": (
        lambda home: file_of(home, "svid.pem").write_bytes(b"\xff" * 100),
        "holds no certificates in PEM",
    ),
    "the bundle is no bundle": (
        lambda home: file_of(home, "svid_bundle.pem").write_bytes(b"nothing"),
        "holds no certificates in PEM",
    ),
    "the bundle is of another mesh": (
        lambda home: file_of(home, "svid_bundle.pem").write_bytes(mesh(OTHER).bundle.to_pem()),
        "unknown-authority",
    ),
    "what was believed is gone": (
        lambda home: file_of(home, "svid_trust.json").write_bytes(b"{"),
        "svid_trust.json is not what was kept there",
    ),
    "what was believed is another user's": (
        lambda home: owned_by_another(file_of(home, "svid_trust.json")),
        "belongs to another user",
    ),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_was_harmed_is_not_used_and_said_in_one_line(
    harm: str, kept: SavedSvid, log: RecordingLog
) -> None:
    do, words = HARM[harm]
    do(home_of(kept))
    assert kept.recall(BACKEND, by_fingerprint(), NOW) is None
    (line,) = log.all_text().splitlines()
    assert line.startswith(f"The identity kept in {kept.directory} is not used: ")
    assert words in line


#: For whom it is recalled, whom that one believes, when, and what is said.
MISFITS: dict[str, tuple[SpiffeId, Judge, datetime, str]] = {
    "another ID": (
        MESH.member("service", "other"),
        by_file(),
        NOW,
        "and not of spiffe://mesh.local/service/other",
    ),
    "too late": (BACKEND, by_file(), NOW + HOUR + timedelta(seconds=1), "expired"),
    "too early": (BACKEND, by_file(), NOW - HOUR, "not-yet-valid"),
    "another fingerprint": (
        BACKEND,
        by_fingerprint(RootPin(Fingerprint.of(forge_root().certificate), MESH)),
        NOW,
        "it is of another root than sha256:",
    ),
    "another trust domain": (
        BACKEND,
        Judge(lambda: NOW, Trust(mesh(OTHER).bundles)),
        NOW,
        "it is of mesh.local, of which the CA is not",
    ),
    "another root": (
        BACKEND,
        Judge(lambda: NOW, Trust(BundleSet.of(TrustBundle(MESH, (forge_root().certificate,))))),
        NOW,
        "it is of another root than sha256:",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_any_more_is_not_used(
    misfit: str, kept: SavedSvid, log: RecordingLog
) -> None:
    spiffe_id, ca, now, words = MISFITS[misfit]
    assert kept.recall(spiffe_id, ca, now) is None
    assert words in log.text("identity-unusable")


def test_where_it_cannot_be_kept_that_is_said_once(tmp_path: Path, log: RecordingLog) -> None:
    (tmp_path / "state").write_text("no directory")
    kept = SavedSvid(identity_path(tmp_path / "state", "who"))
    for _ in range(3):
        kept.keep(svid(), mesh().bundle)
    (line,) = log.all_text().splitlines()
    assert "a restart will need a new join token" in line
    (tmp_path / "state").unlink()
    kept.keep(svid(), mesh().bundle)
    assert kept.recall(BACKEND, by_file(), NOW) is not None


def test_nothing_is_written_where_others_may_look(kept: SavedSvid, log: RecordingLog) -> None:
    home_of(kept).parent.chmod(0o755)
    kept.keep(svid(name=8), mesh().bundle)
    assert "is open to others" in log.text("identity-not-kept")
    assert svid_of(kept).key.public_key == key(9).public_key


def test_what_cannot_be_forgotten_is_said(kept: SavedSvid, log: RecordingLog) -> None:
    home_of(kept).chmod(0o755)
    kept.forget()
    assert "A revoked identity is still kept" in log.all_text()
