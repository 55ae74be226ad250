"""Whoever can write a backup, and has no passphrase, becomes nobody: by real processes."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from pki.policy.entry import EntryMembers, read_entry
from pki.spiffe import TrustDomain
from tests.interop.administering import answer, issue, told
from tests.interop.house import House
from tests.twisted_mesh.backup.falsifying import Falsified

SHOP = "spiffe://mesh.local/service/shop"
UNDO = (
    "CREATE TRIGGER undo AFTER UPDATE OF revoked_at ON certificates BEGIN "
    "UPDATE certificates SET revoked_at = NULL WHERE id = new.id; END"
)


@pytest.fixture
def passphrase(house: House) -> Path:
    path = house.home / "passphrase"
    path.touch(0o600)
    path.write_text("correct horse\n")
    return path


def let_in(found: Falsified, uid: int) -> None:
    """A row that lets whoever has that uid have any name below /service."""
    said = EntryMembers(selectors=[f"unix:uid:{uid}"], spiffe_id="spiffe://mesh.local/service/**")
    document = read_entry("anybody", TrustDomain("mesh.local"), said).to_document()
    now = int(time.time() * 1e6)
    found.sql(f"INSERT INTO entries VALUES ('anybody', {now}, x'{document.hex()}')")


@pytest.mark.interop(
    "tests/interop/test_backup_provenance.py::test_a_row_and_a_trigger_in_an_archive_give_nothing"
)
def test_the_running_ca_signs_or_the_passphrase_does(house: House, passphrase: Path) -> None:
    ca = house.start_ca("--key-passphrase-file", str(passphrase))
    issue(house, SHOP)
    archive = house.home / "ca.tar"
    made = answer(house, "backup", "create", str(archive))
    assert (made["signed"], made["plain"]) == (True, [])
    assert answer(house, "backup", "show", str(archive))["signed"]
    assert ca.stop() == 0

    unsigned = house.home / "unsigned.tar"
    said = told(house.ctl("backup", "create", unsigned), 0)
    assert "the CA does not sign the backup: " in said
    assert "it is NOT SIGNED" in said
    with_it = house.home / "sealed.tar"
    made = answer(house, "backup", "create", str(with_it), "--key-passphrase-file", str(passphrase))
    assert made["signed"]
    for signed in (with_it, archive):
        report = answer(
            house, "backup", "restore", str(signed), "--dry-run", status=_any(signed, with_it)
        )
        assert report["signed"]
        assert report["doubts"] == []
    assert "add --accept-unsigned" in told(house.ctl("backup", "restore", unsigned), 2)


def _any(signed: Path, newest: Path) -> int:
    """The older one lacks what the CA did when it stopped."""
    return 0 if signed == newest else 1


def test_a_row_and_a_trigger_in_an_archive_give_nothing(house: House, passphrase: Path) -> None:
    ca = house.start_ca("--key-passphrase-file", str(passphrase))
    issue(house, SHOP)
    archive = house.home / "ca.tar"
    assert house.ctl("backup", "create", archive).returncode == 0
    assert ca.stop() == 0

    found = Falsified.of(archive, house.home)
    let_in(found, 666)
    with_row = found.write()
    assert "its signature does not hold" in told(
        house.ctl("backup", "restore", with_row, "--accept-unsigned", "--accept-loss"), 2
    )
    found.signature = None
    with_row = found.write()
    with_only_row = house.home / "with-row.tar"
    with_only_row.write_bytes(with_row.read_bytes())
    assert "it is not signed" in told(house.ctl("backup", "restore", with_row, "--accept-loss"), 2)
    words = ("--accept-loss", "--accept-unsigned")
    said = told(house.ctl("backup", "restore", with_row, *words), 1)
    assert (
        "the entry anybody is on record for spiffe://mesh.local/service/** with unix:uid:666"
        in said
    )
    assert "add --accept-unvouched" in said
    found.sql(UNDO)
    said = told(house.ctl("backup", "restore", found.write(), *words, "--accept-unvouched"), 2)
    assert "it holds what is not this program's (the trigger 'undo')" in said

    # The record that is here is still the CA's own; with the trigger in it the CA does not start.
    with closing(sqlite3.connect(house.state / "ca" / "mesh.db")) as connection, connection:
        connection.execute(UNDO)
    refused = house.start_ca("--key-passphrase-file", str(passphrase), wait=False)
    refused.wait_for("it holds what is not this program's \\(the trigger 'undo'\\)")
    assert refused.wait() == 1

    # The remedy that it names: the CA's own backup, which knows what the damaged record has revoked or not.
    words = ("--accept-loss",)
    assert house.ctl("backup", "restore", archive, *words).returncode == 0
    ca = house.start_ca("--key-passphrase-file", str(passphrase))
    issue(house, SHOP)
    assert ca.stop() == 0
    # And who says so gets what the log does not vouch for.
    words = ("--accept-loss", "--accept-unsigned", "--accept-unvouched")
    assert house.ctl("backup", "restore", with_only_row, *words).returncode == 0
