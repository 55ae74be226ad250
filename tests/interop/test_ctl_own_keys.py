"""``--blocked-keys`` and ``mesh-ctl key block`` against a real CA's own keys."""

import signal
from pathlib import Path

from cryptography import x509

from pki.keys import key_id
from tests.interop.administering import answer
from tests.interop.house import House


def test_a_ca_lets_go_of_its_own_blocked_key(house: House, tmp_path: Path) -> None:
    names = tmp_path / "stolen.txt"
    names.write_text("00" * 32 + "\n")
    ca = house.start_ca("--blocked-keys", str(names))
    (path,) = house.state.rglob("issuing.crt")
    public = x509.load_pem_x509_certificate(path.read_bytes()).public_key()
    own = key_id(public)

    done = house.ctl("key", "block", str(path), "--reason", "stolen")
    assert done.returncode == 1
    assert f"mesh-ctl ca revoke-issuing {own}" in done.stderr

    names.write_text(f"{own}\n")
    ca.process.send_signal(signal.SIGHUP)
    ca.wait_for(r"ERROR: .* has a key that is blocked: .*revoke-issuing")
    assert house.ask("socket", "/readyz").status == 503
    for door in (("install",), ("prepare", "--root-cert")):
        refused = house.ctl("ca", "root", *door, str(path), "--yes")
        assert (refused.returncode, str(names) in refused.stderr) == (1, True), refused.stderr
    assert ca.stop() == 0

    ca = house.start_ca("--blocked-keys", str(names), wait=False)
    assert ca.wait() == 1
    assert f"mesh-ctl ca revoke-issuing {own}" in ca.text
    ca = house.start_ca()
    answer(house, "ca", "revoke-issuing", own, "--yes")
    assert ca.stop() == 0
    ca = house.start_ca("--blocked-keys", str(names))
    assert house.ask("socket", "/readyz").status == 200
    assert ca.stop() == 0
