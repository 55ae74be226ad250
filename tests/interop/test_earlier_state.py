"""A state directory that an earlier version of ours has written is gone on with, and nothing in it is lost.

A CA's keys and record, identities and witnesses of endpoints, a backup, and what that version's ``mesh-ctl`` said of it
all. Its CAs have ended since, so everything here runs by a clock that stands an hour after it was left.
"""

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from pki.spiffe import SpiffeId, TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.x509svid import load_certificates
from tests.earlier import LEFT, unpack
from tests.running import Running
from twisted_mesh.identity.saved_svid import SavedSvid
from twisted_mesh.trust.judge import Judge
from twisted_mesh.trust.trust import Trust


@define(eq=False)
class Earlier:
    """What was left behind, and programs of today that run on it."""

    home: Path
    now: datetime
    ca: Running | None = None

    @property
    def state(self) -> Path:
        return self.home / "state"

    def said(self, name: str) -> Any:
        """What the earlier mesh-ctl printed."""
        return json.loads((self.home / f"{name}.json").read_text())

    def start(self, program: str, *arguments: str | Path) -> Running:
        return Running.start(
            sys.executable,
            *("-m", "tests.interop.at_another_time", self.now.isoformat(), program, *arguments),
            cwd=Path(__file__).resolve().parents[2],
            env={"MESH_STATE_DIR": str(self.state), "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            real=True,  # where modules are there already, they have taken the clock
        )

    def start_ca(self) -> Running:
        pid_file = f"--pidfile={self.home / 'twistd.pid'}"
        self.ca = self.start("twistd", "-n", pid_file, "mesh-ca", "--port", "0")
        self.ca.wait_for(r"Ready to issue certificates\.")
        return self.ca

    def ctl(self, *arguments: str | Path, status: int = 0) -> str:
        running = self.start("mesh-ctl", *arguments)
        assert running.wait() == status, running.text
        return running.text

    def listed(self, *arguments: str) -> Any:
        return json.loads(self.ctl(*arguments, "--format", "json"))

    def stop(self) -> None:
        if self.ca is not None:
            self.ca.stop()


@pytest.fixture(params=LEFT)
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Earlier]:
    unpack(request.param, tmp_path)
    left = Earlier(tmp_path, LEFT[request.param])
    try:
        yield left
    finally:
        left.stop()


def without_connections(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Certificates as they are listed, but for who is connected by them now, by serial."""
    kept = [{k: v for k, v in row.items() if k != "connections"} for row in rows]
    return sorted(kept, key=lambda row: row["serial"])


def test_its_ca_goes_on_with_all_that_was_on_record(earlier: Earlier) -> None:
    ca = earlier.start_ca()
    before = without_connections(earlier.said("list"))
    serials = {row["serial"] for row in before}
    rows = [row for row in earlier.listed("cert", "list") if row["serial"] in serials]
    assert without_connections(rows) == before
    assert earlier.listed("entry", "list") == earlier.said("entries")
    assert earlier.listed("token", "list") == earlier.said("tokens")
    # Its witness was there before: what it has seen must be what the log begins with.
    assert earlier.ctl("audit", "verify").startswith("ok: ")
    assert "Root CA certificate created" not in ca.text
    assert ca.stop() == 0


def test_it_issues_revokes_and_publishes_as_before(earlier: Earlier) -> None:
    earlier.start_ca()
    entry = earlier.said("entries")[0]["id"]
    assert earlier.listed("entry", "show", entry)["id"] == entry
    known = next(row for row in earlier.said("list") if row["status"] == "valid")
    assert "1 certificate revoked" in earlier.ctl(
        "cert", "revoke", "--serial", known["serial"], "--yes"
    )
    again = {row["serial"]: row["status"] for row in earlier.listed("cert", "list")}
    assert again[known["serial"]] == "revoked"
    token = earlier.listed("token", "create", "--spiffe-id", "spiffe://mesh.local/service/new")
    assert token["spiffe_id"] == "spiffe://mesh.local/service/new"
    assert len(again) > len(earlier.said("list"))  # the CA's own, at least


def test_its_backup_is_restored(earlier: Earlier) -> None:
    restore = ("backup", "restore", earlier.home / "backup.tar")
    refused = earlier.ctl(*restore, "--accept-loss", status=2)
    assert "it is not signed, so that anybody may have written it" in refused
    told = earlier.ctl(*restore, "--dry-run", "--accept-unsigned", status=1)
    assert "1 revocation made since the backup" in told, told
    assert "not vouched for" not in told, told
    earlier.ctl(*restore, "--accept-loss", "--accept-unsigned")
    earlier.start_ca()
    status = {row["serial"]: row["status"] for row in earlier.listed("cert", "list")}
    revoked = {row["serial"] for row in earlier.said("list") if row["status"] == "revoked"}
    assert {status.get(serial) for serial in revoked} == {"revoked"}
    assert earlier.listed("entry", "list") == earlier.said("entries")


def test_an_identity_that_it_kept_is_read(earlier: Earlier) -> None:
    (directory,) = (earlier.state / "identity").iterdir()
    roots = load_certificates((earlier.state / "ca" / "root.crt").read_bytes())
    bundle = TrustBundle(TrustDomain.parse("mesh.local"), roots)
    judge = Judge(lambda: earlier.now, Trust(BundleSet.of(bundle)))
    shop = SpiffeId.parse("spiffe://mesh.local/service/shop")
    kept = SavedSvid(directory).recall(shop, judge, earlier.now)
    assert kept is not None
    assert kept.spiffe_id == shop
