"""``mesh-ctl backup`` with a real CA: saved while it runs, brought back, and never un-revoked."""

import json
import shutil
from pathlib import Path

import pytest

from tests.interop.administering import answer, issue, statuses, told
from tests.interop.house import House

KEPT, REVOKED, LATER = (
    f"spiffe://mesh.local/backup/{name}" for name in ("kept", "revoked", "later")
)


@pytest.fixture
def archive(house: House) -> Path:
    return house.home / "ca.tar"


def test_a_ca_is_saved_while_it_runs_and_brought_back_elsewhere(
    house: House, archive: Path
) -> None:
    ca = house.start_ca()
    serial = issue(house, KEPT)
    saved = house.ctl("backup", "create", archive)
    assert "audit.key, issuing.key, root.key in it are NOT ENCRYPTED" in told(saved, 0)
    assert archive.stat().st_mode & 0o777 == 0o600
    shown = answer(house, "backup", "show", str(archive))
    assert {member["name"] for member in shown["members"]} == {
        "ca/root.crt", "ca/issuing.crt", "ca/mesh.db", "ca/root.crl",
        "ca/private/root.key", "ca/private/issuing.key", "ca/private/audit.key",
    }  # fmt: skip
    assert (shown["certificates"], shown["revoked"]) == (len(statuses(house)), 0)
    root = house.root.read_bytes()
    assert ca.stop() == 0

    # A lost host: nothing is left but the backup.
    shutil.rmtree(house.state)
    assert "add --fingerprint sha256:" in told(house.ctl("backup", "restore", archive), 2)
    other = house.ctl("backup", "restore", archive, "--fingerprint", f"sha256:{'0' * 64}")
    assert f"and --fingerprint names sha256:{'0' * 64}" in told(other, 2)
    done = house.ctl("backup", "restore", archive, "--fingerprint", f"sha256:{shown['root']}")
    assert "nobody here has seen a later log of this CA" in told(done, 0)
    assert house.root.read_bytes() == root
    for key in (house.state / "ca" / "private").glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    house.start_ca()
    assert statuses(house)[serial] == "valid"
    issue(house, KEPT)


def test_a_restore_says_what_it_loses_and_keeps_what_is_revoked_revoked(
    house: House, archive: Path
) -> None:
    ca = house.start_ca()
    revoked = issue(house, REVOKED)
    assert house.ctl("backup", "create", archive).returncode == 0
    later, also_revoked = issue(house, LATER), issue(house, LATER)
    for serial in (revoked, also_revoked):
        assert house.ctl("cert", "revoke", "--serial", serial, "--yes").returncode == 0
    running = told(house.ctl("backup", "restore", archive), 1)
    assert f"PID {ca.process.pid}, owns {house.state}" in running
    assert ca.stop() == 0

    refused = house.ctl("backup", "restore", archive)
    sentences = told(refused, 1)
    assert "1 certificate issued since the backup of" in sentences
    assert "1 of them still good: nobody could list or revoke those" in sentences
    assert "2 revocations made since the backup of" in sentences
    assert "entries of the audit log would be lost" in sentences
    assert sentences.endswith("nothing was restored: to accept what is lost, add --accept-loss")
    assert not (house.state / "ca" / "restoring").exists()
    dry = answer(house, "backup", "restore", str(archive), "--dry-run", status=1)
    assert (dry["outcome"], dry["loss"]["living"], dry["loss"]["carried_over"]) == (
        "would restore", 1, 2,
    )  # fmt: skip

    done = house.ctl("backup", "restore", archive, "--accept-loss")
    assert done.returncode == 0, done.stderr
    (aside,) = (house.state / "ca").glob("replaced-*")
    assert str(aside) in done.stdout
    assert (aside / "mesh.db").exists()
    assert (aside / "private" / "issuing.key").exists()
    note = json.loads((house.state / "ca" / "restored").read_text())
    assert sorted(note["carried_over"]) == sorted([revoked, also_revoked])
    assert note["lost"]["certificates"] == 1
    assert note["store"]["before"] != note["store"]["now"]

    house.start_ca()
    now = statuses(house)
    assert later not in now
    assert (now[revoked], now[also_revoked]) == ("revoked", "revoked")
    told_to_endpoints = house.ask("socket", "/api/v1/trust?after=0").json["revocations"]
    assert {row["serial"] for row in told_to_endpoints} == {revoked, also_revoked}


def test_without_a_record_the_witnesses_tell_what_is_lost(house: House, archive: Path) -> None:
    ca = house.start_ca()
    assert house.ctl("backup", "create", archive).returncode == 0
    issue(house, LATER)
    assert ca.stop() == 0
    ca = house.start_ca()  # which signs for all that was before
    assert house.ctl("audit", "verify").returncode == 0
    assert ca.stop() == 0
    database = house.state / "ca" / "mesh.db"
    database.write_bytes(b"SQLite no more" * 500)
    for tail in ("-wal", "-shm"):
        database.with_name(f"mesh.db{tail}").unlink(missing_ok=True)

    sentences = told(house.ctl("backup", "restore", archive), 1)
    assert "cannot be counted" in sentences
    assert "entries of the audit log would be lost" in sentences
    assert "a witness saw" in sentences
    assert told(house.ctl("backup", "restore", archive, "--accept-loss"), 0)
    house.start_ca()
    issue(house, LATER)

    # The log says itself that it begins anew, and whoever knows of that believes it.
    replaced = house.ctl("audit", "verify")
    assert replaced.returncode == 1
    assert "says that the CA was restored from a backup of" in replaced.stdout
    (restore,) = answer(house, "audit", "show", "--act", "restore")
    assert restore["entry"]["facts"]["lost.entries"] != "0"
    for remembered in (house.state / "witness").glob("*.json"):
        remembered.unlink()
    assert house.ctl("audit", "verify").returncode == 0


def test_a_restore_without_loss_needs_no_leave(house: House, archive: Path) -> None:
    ca = house.start_ca()
    serial = issue(house, KEPT)
    assert ca.stop() == 0
    assert house.ctl("backup", "create", archive).returncode == 0
    (house.state / "ca" / "private" / "issuing.key").unlink()
    done = house.ctl("backup", "restore", archive)
    assert done.returncode == 0, done.stderr
    assert not (house.state / "ca" / "restored").exists(), "the log goes on as it was"
    house.start_ca()
    assert statuses(house)[serial] == "valid"
    assert house.ctl("audit", "verify").returncode == 0


def test_another_cas_state_is_not_overwritten(house: House, archive: Path) -> None:
    ca = house.start_ca()
    assert house.ctl("backup", "create", archive).returncode == 0
    assert ca.stop() == 0
    shutil.rmtree(house.state)
    ca = house.start_ca()
    assert ca.stop() == 0
    sentence = told(house.ctl("backup", "restore", archive, "--accept-loss"), 2)
    assert f"{house.root} is another CA's than the backup's" in sentence


def test_a_ca_does_not_start_half_restored(house: House) -> None:
    ca = house.start_ca()
    assert ca.stop() == 0
    restoring = house.state / "ca" / "restoring"
    restoring.mkdir()
    (restoring / "plan.json").write_text("{}")
    refused = house.start_ca(wait=False)
    refused.wait_for("run the same mesh-ctl backup restore again, which ends it")
    assert refused.wait() == 1
    report = answer(house, "doctor", status=1)
    assert "restore" in {check["name"] for check in report["checks"] if check["status"] == "fail"}


def test_what_is_no_backup_is_refused(house: House, archive: Path) -> None:
    archive.write_bytes(b"no tar at all")
    assert "is no backup of a CA, or a damaged one" in told(house.ctl("backup", "show", archive), 2)
    assert "cannot be read (No such file" in told(house.ctl("backup", "restore", "/none"), 2)
    assert "is not there, or not for you to see" in told(
        house.ctl("backup", "create", archive, "--overwrite"), 2
    )
