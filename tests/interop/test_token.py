"""A real CA whose root and issuing CA are on a SoftHSM token: a life of it, the token taken out, and a wrong PIN."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.house import House
from tests.running import until
from tests.tools import require_tool
from tests.twisted_mesh.pkcs11.softhsm import SoftHsm

STORED = "tests/twisted_mesh/ca/test_stored_keys.py::"


@pytest.fixture
def softhsm(tmp_path: Path) -> Iterator[SoftHsm]:
    pytest.importorskip("pkcs11")
    softhsm = SoftHsm.made(tmp_path / "softhsm", "mesh")
    with softhsm.here():
        yield softhsm


def on_token(softhsm: SoftHsm) -> tuple[str, ...]:
    uri = softhsm.uri()
    return (
        *("--root-key", f"{uri}&algorithm=ec-p384", "--issuing-key", uri),
        *("--token-pin-file", str(softhsm.pin)),
    )


@pytest.mark.interop(f"{STORED}test_keys_are_made_on_the_token_and_files_refer_to_them")
def test_a_whole_mesh_lives_by_a_token(house: House, softhsm: SoftHsm) -> None:
    ca = house.start_ca(*on_token(softhsm))
    listed = softhsm.tool("--list-objects", "--type", "privkey")
    assert listed.count("never extractable") == 2
    assert "mesh.local root-1" in listed
    assert "mesh.local issuing-1" in listed
    house.start_server("--ttl", "60s")
    web = house.identity("web")
    # OpenSSL verifies the chain, and the CRL that the token has signed.
    chain = house.state / "ca"
    verified = house.run(
        *(
            require_tool("openssl"),
            "verify",
            "-CAfile",
            house.root,
            "-untrusted",
            web.cert,
            web.cert,
        )
    )
    assert verified.stdout.strip().endswith("OK"), verified.stderr
    assert house.ctl("audit", "verify").returncode == 0
    assert not list(chain.rglob("*PRIVATE*"))
    for key in ("root.key", "issuing.key"):
        assert (chain / "private" / key).read_text().startswith("pkcs11:token=mesh;serial=")
    # Each key signs a number of the caller's.
    proved = house.ctl("ca", "keys")
    assert proved.returncode == 0, proved.stdout + proved.stderr
    assert proved.stdout.count("SoftHSM") >= 2
    # The token is taken out: nothing is issued, and what is revoked is on record.
    softhsm.take_out()
    refused = house.client("--spiffe-id", "spiffe://mesh.local/service/late", "--timeout", "3s")
    assert refused.returncode != 0
    doctor = house.ctl("doctor", "--format", "json")
    assert doctor.returncode == 1
    assert "no token" in doctor.stdout
    revoked = house.ctl("cert", "revoke", "--spiffe-id", "spiffe://mesh.local/service/web", "--yes")
    assert "not-published" in revoked.stdout + revoked.stderr, revoked
    # It is back: what was waiting is done without anybody's help.
    softhsm.put_back()
    ca.wait_for("signs again")
    assert house.client("--spiffe-id", "spiffe://mesh.local/service/late").returncode == 0
    until(lambda: house.ctl("doctor").returncode == 0)
    revocations = json.loads(
        house.ctl("cert", "list", "--status", "revoked", "--format", "json").stdout
    )
    assert "spiffe://mesh.local/service/web" in {one["spiffe_id"] for one in revocations}
    crl = house.home / "issuing.crl"

    def is_dead() -> bool:
        house.curl("http://localhost/api/v1/crl", "--unix-socket", house.socket, "--output", crl)
        dead = house.run(
            *(require_tool("openssl"), "verify", "-crl_check", "-CRLfile", crl),
            *("-CAfile", house.root, "-untrusted", web.cert, web.cert),
        )
        return "certificate revoked" in dead.stdout + dead.stderr

    assert is_dead(), "doctor says that it is well"
    assert ca.stop() == 0
    again = house.start_ca(*on_token(softhsm))
    # The next issuing CA is made there, too.
    rotated = house.ctl("ca", "rotate-issuing", "--yes")
    assert rotated.returncode == 0, rotated.stdout + rotated.stderr
    assert "mesh.local issuing-2" in softhsm.tool("--list-objects", "--type", "privkey")
    assert house.client("--repeat", "2").returncode == 0
    assert again.stop() == 0


@pytest.mark.interop(f"{STORED}test_the_next_start_asks_the_token_nothing")
def test_a_wrong_pin_is_told_and_put_right_without_a_restart(
    house: House, softhsm: SoftHsm
) -> None:
    assert house.start_ca(*on_token(softhsm)).stop() == 0
    right = softhsm.pin.read_text()
    softhsm.pin.write_text("0000\n")
    ca = house.start_ca(*on_token(softhsm), wait=False)
    ca.wait_for("the PIN is wrong")
    assert "0000" not in ca.text
    softhsm.pin.write_text("9999\n")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(
        rf"--token-pin-file {softhsm.pin} was read again: another PIN for pkcs11:token=mesh; it does not sign: "
    )
    softhsm.pin.write_text(right)
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for("was read again: another PIN for pkcs11:token=mesh", count=2)
    ca.wait_for(r"Ready to issue certificates\.")
    assert ca.stop() == 0
