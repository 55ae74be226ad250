"""A CA whose keys are with a signer, from its first start to its next root; and what becomes of it when either dies."""

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.interop.administering import answer, issue, statuses
from tests.interop.house import Reply
from tests.interop.signing import SignedHouse, sign, signed_house
from tests.running import Running, until

ATTACKS = "tests/interop/test_signer_attacks.py::test_the_issuing_key_does_not_sign"
PIN = r"sha256/[A-Za-z0-9+/]{43}="
SHOP = "spiffe://mesh.local/service/shop"
YES = ("--yes", "--format", "json")


@pytest.fixture
def house() -> Iterator[SignedHouse]:
    """One whose signer runs, and whose CA does not yet."""
    with TemporaryDirectory(prefix="mesh-") as home, signed_house(Path(home)) as found:
        found.start_signer()
        yield found


def introduced(home: Path) -> SignedHouse:
    """A house whose signer is over TLS: each of the two is told of the other's key, as the recipe has it."""
    found = SignedHouse(home, is_remote=True)
    found.signer_port = 1
    lost = found.start_signed_ca(wait=False)
    assert lost.wait() != 0
    ours = re.search(rf"this CA shows it the key ({PIN})", lost.text)
    assert ours, lost.text
    found.signer_port = 0
    found.options = ("--client-pin", ours[1])
    theirs = found.start_signer().wait_for(rf"pin=, is ({PIN})")
    found.pin = theirs[1]
    return found


def revoke(house: SignedHouse, serial: str) -> Reply:
    return house.post("socket", "/api/v1/revoke", {"serial": serial, "reason": "keyCompromise"})


def listed(house: SignedHouse) -> str:
    """The CRL of the CA, verified by openssl against the issuing CA's certificate, and shown."""
    (house.home / "crl.der").write_bytes(house.ask_der("/api/v1/crl"))
    issuing = house.state / "ca" / "issuing.crt"
    done = house.run(
        *("openssl", "crl", "-inform", "DER", "-in", house.home / "crl.der"),
        *("-CAfile", issuing, "-noout", "-text"),
    )
    assert "verify OK" in done.stdout + done.stderr
    return done.stdout.replace(":", "").lower()


def answered(house: SignedHouse, serial: str) -> str:
    """What OCSP says, as openssl believes it."""
    issuing, asked = house.state / "ca" / "issuing.crt", house.home / "asked.der"
    made = house.run(
        *("openssl", "ocsp", "-issuer", issuing, "-serial", f"0x{serial.replace(':', '')}"),
        *("-no_nonce", "-reqout", asked),
    )
    assert made.returncode == 0, made.stderr
    reply = house.home / "answer.der"
    sent = house.run(
        *("curl", "-sS", "--fail", "--unix-socket", house.socket, "--output", reply),
        *("-H", "content-type: application/ocsp-request", "--data-binary", f"@{asked}"),
        "http://localhost/api/v1/ocsp",
    )
    assert sent.returncode == 0, sent.stderr
    done = house.run(
        *("openssl", "ocsp", "-reqin", asked, "-respin", reply, "-CAfile", house.root),
        *("-issuer", issuing, "-verify_other", issuing, "-serial", f"0x{serial.replace(':', '')}"),
        "-no_nonce",
    )
    assert "Response verify OK" in done.stderr, done.stderr
    return done.stdout


def assert_no_key_is_here(house: SignedHouse) -> None:
    """The files that name CA keys have none in them; a signer that is closed has no use for them."""
    for path in (house.state / "ca" / "private").glob("*.key"):
        text = path.read_text()
        if re.match(r"(root|issuing)", path.name):
            assert "PRIVATE" not in text
            assert text.startswith("signer:")


def test_it_begins_issues_revokes_and_says_so(house: SignedHouse) -> None:
    ca = house.start_signed_ca()
    house.start_server()
    assert house.client().returncode == 0
    assert_no_key_is_here(house)
    kept, gone = issue(house, SHOP), issue(house, SHOP)
    assert revoke(house, gone).status == 200
    assert gone.replace(":", "").lower() in listed(house)
    assert kept.replace(":", "").lower() not in listed(house)
    assert ": good" in answered(house, kept)
    assert ": revoked" in answered(house, gone)
    shown = answer(house, "ca", "keys")
    assert [key["kind"] for key in shown if key["purpose"] != "audit"] == ["signer", "signer"]
    assert all(key["proven"] for key in shown), shown
    # The same keys again, and nothing anew.
    assert ca.stop() == 0
    again = house.start_signed_ca()
    assert "Generating" not in again.text
    assert statuses(house)[gone] == "revoked"
    issue(house, SHOP)
    assert again.stop() == 0
    assert "ERROR" not in ca.text + again.text


@pytest.mark.interop(ATTACKS)
def test_it_begins_on_another_machine(tmp_path: Path) -> None:
    house = introduced(tmp_path)
    try:
        house.start_signed_ca()
        house.start_server()
        assert house.client().returncode == 0
        assert_no_key_is_here(house)
        serial = issue(house, SHOP)
        assert revoke(house, serial).status == 200
        assert serial.replace(":", "").lower() in listed(house)
    finally:
        house.stop()


@pytest.mark.interop(ATTACKS)
def test_its_cas_and_its_root_have_successors_there(house: SignedHouse) -> None:
    brief = ("--cert-duration", "3s", "--max-cert-duration", "3s", "--issuing-duration", "12s")
    ca = house.start_signed_ca(*brief)
    server = house.start_server("--ttl", "3s")
    ca.wait_for("A new issuing CA issues from now on")
    server.wait_for(r"Issuer: .*generation 2,")
    old = house.root.read_bytes()
    for step in (("prepare",), ("activate", "--force")):
        done = house.ctl("ca", "root", *step, *YES)
        assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: house.ctl("ca", "root", "retire", "--dry-run").returncode == 0)
    assert house.ctl("ca", "root", "retire", *YES).returncode == 0
    assert house.root.read_bytes() != old
    assert house.client("--ttl", "3s").returncode == 0
    assert_no_key_is_here(house)
    assert ca.stop() == 0
    assert "ERROR" not in ca.text


@pytest.mark.interop(ATTACKS)
def test_a_ca_with_its_keys_in_files_moves_to_a_signer(house: SignedHouse) -> None:
    """By succession: no key is copied, and nobody is cut off."""
    assert house.start_ca().stop() == 0
    ca = house.start_ca("--issuing-key", house.key_options()[1])
    server = house.start_server()
    done = house.ctl("ca", "rotate-issuing", *YES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert house.client().returncode == 0
    issue(house, SHOP)
    shown = answer(house, "ca", "keys")
    assert {key["kind"] for key in shown} >= {"file", "signer"}
    assert all(key["proven"] for key in shown), shown
    private = house.state / "ca" / "private"
    assert any(path.read_text().startswith("signer:") for path in private.glob("issuing*.key"))
    for running in (server, ca):
        assert running.stop() == 0


@pytest.mark.interop(ATTACKS)
def test_a_backup_has_the_keys_names_and_a_restored_ca_the_keys(house: SignedHouse) -> None:
    ca = house.start_signed_ca()
    serial = issue(house, SHOP)
    archive = house.home / "ca.tar"
    saved = house.ctl("backup", "create", archive)
    assert saved.returncode == 0, saved.stderr
    shown = answer(house, "backup", "show", str(archive))
    assert ca.stop() == 0
    house.state.rename(house.home / "lost")
    done = house.ctl("backup", "restore", archive, "--fingerprint", f"sha256:{shown['root']}")
    assert done.returncode == 0, done.stderr
    house.start_signed_ca()
    assert statuses(house)[serial] == "valid"
    issue(house, SHOP)
    assert_no_key_is_here(house)


@pytest.mark.interop(ATTACKS)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_while_the_signer_is_away_the_ca_says_so_and_goes_on(
    house: SignedHouse, number: int
) -> None:
    ca = house.start_signed_ca()
    serial = issue(house, SHOP)
    assert house.signer is not None
    house.signer.stop(number)
    asked = sign(house)
    assert (asked.status, asked.code) == (503, "key-store-away")
    assert "no socket is there" in asked.text or "left behind" in asked.text
    assert "twistd -n mesh-signer" in asked.text
    # What is revoked meanwhile is on record, and on the list later.
    assert revoke(house, serial).status in (200, 202, 503)
    assert statuses(house)[serial] == "revoked"
    until(lambda: house.ask("socket", "/readyz").status == 503)
    assert "mesh-signer" in house.ctl("doctor").stdout
    house.start_signer()
    until(lambda: sign(house).status == 201)
    until(lambda: house.ask("socket", "/readyz").status == 200)
    until(lambda: serial.replace(":", "").lower() in listed(house))
    assert ca.stop() == 0


@pytest.mark.interop(ATTACKS)
def test_a_signer_that_is_stopped_in_the_middle_holds_nothing_up_for_long(
    house: SignedHouse,
) -> None:
    house.start_signed_ca()
    issue(house, SHOP)
    signer = house.signer
    assert signer is not None
    signer.process.send_signal(signal.SIGSTOP)
    try:
        waiting = [Asking(house, number) for number in range(4)]
        # What needs no signature is answered all the while.
        for _ in range(5):
            assert house.ask("socket", "/api/v1/ca").status == 200
        until(lambda: all(one.is_done for one in waiting))
        assert {one.status for one in waiting} == {503}
        assert "did not answer" in sign(house).text
    finally:
        signer.process.send_signal(signal.SIGCONT)
    until(lambda: sign(house).status == 201)


@pytest.mark.interop(ATTACKS)
def test_what_the_signers_policy_refuses_the_ca_says_with_the_rule(tmp_path: Path) -> None:
    """It is narrower than the CA's own entries; the store has no problem by that, and no other name is held up."""
    house = SignedHouse(tmp_path)
    policy = tmp_path / "signing.toml"
    policy.touch(0o600)
    policy.write_text(
        'version = 1\ntrust-domain = "mesh.local"\n'
        'names = ["spiffe://mesh.local/mesh/ca", "spiffe://mesh.local/service/shop"]\n'
    )
    try:
        house.start_signer("--policy", str(policy))
        ca = house.start_signed_ca()
        for _ in range(3):
            asked = sign(house, "bank")
            assert (asked.status, asked.code) == (403, "key-store-refused")
            assert "(rule names)" in asked.text
            assert sign(house).status == 201
        assert house.ask("socket", "/readyz").status == 200
        assert ca.stop() == 0
        assert "Traceback" not in ca.text
    finally:
        house.stop()


@pytest.mark.interop(ATTACKS)
def test_a_ca_that_is_killed_in_the_middle_finds_its_keys_again(house: SignedHouse) -> None:
    ca = house.start_signed_ca()
    waiting = [Asking(house, number) for number in range(8)]
    until(lambda: any(one.is_done for one in waiting))
    ca.stop(signal.SIGKILL)
    until(lambda: all(one.is_done for one in waiting))
    again = house.start_signed_ca()
    serial = issue(house, SHOP)
    assert revoke(house, serial).status == 200
    assert serial.replace(":", "").lower() in listed(house)
    assert again.stop() == 0


class Asking:
    """Somebody who asks for a certificate, in a thread of their own."""

    def __init__(self, house: SignedHouse, number: int) -> None:
        self.status = 0
        self.is_done = False
        self._house, self._number = house, number
        threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        # curl's word for a CA that was killed is no answer.
        with suppress(AssertionError):
            self.status = sign(self._house, str(self._number)).status
        self.is_done = True


def test_where_the_signer_is_not_there_the_first_start_says_what_to_do(tmp_path: Path) -> None:
    house = SignedHouse(tmp_path)
    try:
        ca: Running = house.start_signed_ca(wait=False)
        assert ca.wait() != 0
        assert "no signer answers at unix:" in ca.text
        assert "twistd -n mesh-signer" in ca.text
        assert "Traceback" not in ca.text
    finally:
        house.stop()
