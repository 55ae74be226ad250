"""What a CA publishes when its root's key leaves, when it starts again, and when an older backup comes back."""

from pathlib import Path

import pytest
from cryptography import x509

from tests.interop.administering import answer, issue, told
from tests.interop.house import House
from tests.tools import require_tool

SOMEBODY = "spiffe://mesh.local/published/somebody"

pytestmark = pytest.mark.slow


def crl(house: House, issuer: str = "") -> x509.CertificateRevocationList:
    require_tool("curl")
    target = house.home / "fetched.crl"
    path = f"/api/v1/crl{f'?issuer={issuer}' if issuer else ''}"
    origin = "http://localhost"
    done = house.curl(f"{origin}{path}", "--unix-socket", house.socket, "-f", "-o", target)
    assert done.returncode == 0, done.stderr
    return x509.load_der_x509_crl(target.read_bytes())


def number(of: x509.CertificateRevocationList) -> int:
    return of.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def revoke(house: House, serial: str) -> None:
    done = house.ctl("cert", "revoke", "--serial", serial, "--yes")
    assert done.returncode == 0, done.stderr


def standing(house: House, check: str) -> str:
    (found,) = (c for c in answer(house, "doctor")["checks"] if c["name"] == check)
    return str(found["status"])


def test_the_roots_crl_is_signed_before_its_key_leaves_and_served_without_it(
    house: House, tmp_path: Path
) -> None:
    ca = house.start_ca()
    first = number(crl(house, "root"))
    kept = tmp_path / "root.key"
    assert house.ctl("ca", "detach-root", kept, "--yes").returncode == 0
    signed = crl(house, "root")
    assert number(signed) > first
    assert ca.stop() == 0
    ca = house.start_ca()
    assert crl(house, "root") == signed
    assert standing(house, "crls") == "ok"
    assert ca.stop() == 0
    # Without it there is nothing to serve, and the doctor says what to do.
    (house.state / "ca" / "root.crl").unlink()
    house.start_ca()
    assert standing(house, "crls") == "warn"
    (house.state / "ca" / "private" / "root.key").write_bytes(kept.read_bytes())
    (house.state / "ca" / "private" / "root.key").chmod(0o600)
    house.processes[-1].wait_for(r"The root's CRL is signed")
    assert number(crl(house, "root")) > number(signed)


def test_after_an_older_backup_it_goes_on_above_what_it_served(house: House) -> None:
    archive = house.home / "ca.tar"
    ca = house.start_ca()
    before = issue(house, SOMEBODY)
    revoke(house, before)
    told(house.ctl("backup", "create", archive), 0)
    serials = [issue(house, SOMEBODY) for _ in range(3)]
    for serial in serials:
        revoke(house, serial)
    last = number(crl(house)), number(crl(house, "root"))
    assert ca.stop() == 0
    done = house.ctl("backup", "restore", archive, "--accept-loss")
    assert done.returncode == 0, done.stderr
    house.start_ca()
    again = crl(house)
    assert number(again) > last[0]
    assert number(crl(house, "root")) >= last[1]
    listed = {revoked.serial_number for revoked in again}
    assert {int(serial.replace(":", ""), 16) for serial in (before, *serials)} <= listed


def test_on_a_new_disk_it_goes_on_above_what_it_served(house: House) -> None:
    archive = house.home / "ca.tar"
    ca = house.start_ca()
    told(house.ctl("backup", "create", archive), 0)
    for _ in range(3):
        revoke(house, issue(house, SOMEBODY))
    last = number(crl(house))
    fingerprint = house.fingerprint
    assert ca.stop() == 0
    house.state.rename(house.home / "lost")
    told(house.ctl("backup", "restore", archive, "--fingerprint", fingerprint), 0)
    house.start_ca()
    assert number(crl(house)) > last
    assert number(crl(house, "root"))
