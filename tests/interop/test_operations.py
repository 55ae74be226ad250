"""Drills: the runbooks of docs/OPERATIONS.md, command by command, against a real CA."""

import json
import re
import shlex
import shutil
import signal
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from attrs import define, frozen
from cryptography import x509

from pki.keys import spki_der
from pki.validity import rfc3339
from tests.interop.administering import issue, statuses
from tests.interop.house import House
from tests.interop.test_falsified_record import emptied
from tests.running import BIN, CHECKOUT, run, until
from twisted_mesh.runtime.clock import wall_clock

_PAGE = (CHECKOUT / "docs" / "OPERATIONS.md").read_text()
KEPT, REVOKED = (f"spiffe://mesh.local/service/{name}" for name in ("kept", "revoked"))


@frozen
class Step:
    """A command of the page, and the lines that are shown below it."""

    command: str
    shown: tuple[str, ...]


def steps(title: str) -> list[Step]:
    """Every command of one section, in order."""
    section = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", _PAGE, re.MULTILINE | re.DOTALL
    )
    assert section, f"the page has no section {title!r}"
    found = []
    for block in re.findall(r"```console\n(.*?)```", section[1], re.DOTALL):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            found.append(Step(command, tuple(shown.splitlines())))
    return found


@define
class Drill:
    """A machine with a CA on it, whose operator follows the page."""

    house: House
    backup: Path

    def run(self, step: Step) -> None:
        if step.command == "systemctl start mesh-ca":
            self.house.start_ca()
        elif step.command == "systemctl stop mesh-ca":
            assert self.house.processes.pop().stop() == 0
        elif step.command == "systemctl reload mesh-server":
            self.house.server.process.send_signal(signal.SIGHUP)
        else:
            self._type(step)

    def _type(self, step: Step) -> None:
        command = step.command.replace("bin/mesh-ctl", str(BIN / "mesh-ctl"))
        for place in ("backup", "offline", "stick"):
            command = command.replace(f"/mnt/{place}", str(self.backup.with_name(place)))
        needs_shell = set(command) & set("|&;<>$*?`(")
        words = ["bash", "-c", command] if needs_shell else shlex.split(command)
        done = run(*words, cwd=self.house.home, env=self.house.env)
        said = (done.stdout + done.stderr).replace(str(self.backup), "/mnt/backup")
        assert "Traceback" not in said
        for line in step.shown:
            pattern = ".*".join(map(re.escape, line.split("…")))
            assert re.search(f"^{pattern}$", said, re.MULTILINE), f"{step.command}\n{said}"
        told_no = "nothing was restored" in said or said.startswith(("fail: ", "waits: "))
        if not told_no:
            assert done.returncode == 0, f"{step.command}\n{said}"

    def follow(self, title: str) -> None:
        for step in steps(title):
            self.run(step)


@pytest.fixture
def drill(house: House, tmp_path: Path) -> Drill:
    backup = tmp_path / "backup"
    backup.mkdir()
    return Drill(house, backup)


def test_every_section_has_its_drill() -> None:
    with_commands = {
        title for title in re.findall(r"^## (.*)$", _PAGE, re.MULTILINE) if steps(title)
    }
    assert with_commands == {
        *("Every day", "A lost host", "A damaged record"),
        *("A record that somebody changed", "The root's key, taken away", "A root that ends"),
        *("A compromised issuing CA", "A compromised root", "An offline root", "Pins move"),
        *("A rotation that is taken back", "Locked out by a policy"),
    }


@pytest.mark.slow
def test_a_host_is_lost(drill: Drill) -> None:
    drill.house.start_ca()
    kept, revoked = issue(drill.house, KEPT), issue(drill.house, REVOKED)
    assert drill.house.ctl("cert", "revoke", "--serial", revoked, "--yes").returncode == 0
    root = drill.house.root.read_bytes()
    drill.follow("Every day")
    assert drill.house.processes.pop().stop() == 0
    shutil.rmtree(drill.house.state)
    drill.follow("A lost host")
    assert drill.house.root.read_bytes() == root
    found = statuses(drill.house)
    assert (found[kept], found[revoked]) == ("valid", "revoked")


@pytest.mark.slow
def test_a_root_is_offline(drill: Drill) -> None:
    drill.backup.with_name("stick").mkdir()
    drill.follow("An offline root")
    assert not list((drill.house.state / "ca" / "private").glob("root*"))
    drill.house.start_server()
    drill.house.identity("payment-worker")
    drill.house.assert_it_serves()


@pytest.mark.slow
def test_a_record_is_damaged(drill: Drill) -> None:
    drill.house.start_ca()
    issue(drill.house, KEPT)
    drill.follow("Every day")
    revoked = issue(drill.house, REVOKED)
    assert drill.house.ctl("cert", "revoke", "--serial", revoked, "--yes").returncode == 0
    drill.follow("A damaged record")
    assert statuses(drill.house)[revoked] == "revoked", "nothing is un-revoked"


@pytest.mark.slow
def test_a_record_is_changed(drill: Drill) -> None:
    ca = drill.house.start_ca()
    revoked = issue(drill.house, REVOKED)
    assert drill.house.ctl("cert", "revoke", "--serial", revoked, "--yes").returncode == 0
    assert ca.stop() == 0
    emptied(drill.house)
    ca = drill.house.start_ca()
    drill.follow("A record that somebody changed")
    ca.wait_for("The audit log is accepted as it is")
    issue(drill.house, KEPT)


@pytest.mark.slow
def test_the_roots_key_is_taken_away_and_brought_back(drill: Drill) -> None:
    ca = drill.house.start_ca()
    drill.follow("The root's key, taken away")
    ca.wait_for(r"The root's key is back, in")
    issue(drill.house, KEPT)


def key_of(path: Path) -> bytes:
    """What a certificate is about."""
    return spki_der(x509.load_pem_x509_certificate(path.read_bytes()).public_key())


@pytest.mark.slow
def test_a_root_ends(drill: Drill) -> None:
    brief = ("--cert-duration", "2s", "--max-cert-duration", "2s", "--issuing-duration", "1h")
    drill.house.start_ca(*brief)
    server = drill.house.start_server("--ttl", "2s")
    before = drill.house.root.read_bytes()
    for step in steps("A root that ends"):
        command = step.command
        if " activate " in command:
            command += " --force"  # nobody waits for 25 minutes here
        elif " retire " in command:
            for _ in range(100):
                if drill.house.ctl("ca", "root", "retire", "--dry-run").returncode == 0:
                    break
        drill.run(Step(command, step.shown))
    assert drill.house.root.read_bytes() != before
    assert drill.house.client("--ttl", "2s").returncode == 0
    assert server.stop() == 0


@pytest.mark.slow
def test_a_rotation_is_taken_back(drill: Drill) -> None:
    drill.house.start_ca()
    server = drill.house.start_server()
    before = drill.house.root.read_bytes()
    for step in steps("A rotation that is taken back"):
        drill.run(step)
        assert drill.house.client().returncode == 0, step
        assert drill.house.root.read_bytes() == before
    assert server.stop() == 0


@pytest.mark.slow
def test_an_issuing_ca_is_compromised(drill: Drill) -> None:
    drill.house.start_ca()
    serial = issue(drill.house, KEPT)
    root, issuing = drill.house.root.read_bytes(), drill.house.state / "ca/issuing.crt"
    before = key_of(issuing)
    drill.follow("A compromised issuing CA")
    assert drill.house.root.read_bytes() == root
    assert key_of(issuing) != before == key_of(drill.backup / "stolen.crt")
    assert KEPT in (drill.backup / "issued.jsonl").read_text()
    # It stands as it stood: what is revoked is its issuer.
    assert statuses(drill.house)[serial] == "valid"
    done = drill.house.client("--server", "https://localhost:1", "--timeout", "5s")
    assert "Certificate issued" in done.stdout


@pytest.mark.slow
def test_a_root_is_compromised(drill: Drill) -> None:
    drill.house.start_ca()
    issue(drill.house, KEPT)
    before = key_of(drill.house.root)
    drill.follow("A compromised root")
    assert key_of(drill.house.root) != before
    done = drill.house.client("--server", "https://localhost:1", "--timeout", "5s")
    assert "Certificate issued" in done.stdout


@pytest.mark.slow
def test_a_policy_locks_everybody_out(drill: Drill) -> None:
    drill.house.state.mkdir(mode=0o711)
    policy = drill.house.state / "policy.toml"
    rule = 'name = "all"\neffect = "deny"\nwhen = "true"\n'
    policy.write_text(f"version = 1\n\n[[rule]]\n{rule}")
    policy.chmod(0o600)
    drill.house.start_ca("--policy", str(policy))
    with pytest.raises(AssertionError, match="policy-denied"):
        issue(drill.house, KEPT)
    drill.follow("Locked out by a policy")
    issue(drill.house, KEPT)


@pytest.mark.slow
def test_pins_move(drill: Drill) -> None:
    house = drill.house
    house.start_ca()
    status = json.loads(house.ctl("ca", "root", "status", "--format", "json").stdout)
    ends = rfc3339(wall_clock() + timedelta(days=30))
    spare = f"sha256/{'A' * 43}="
    rule = f"spiffe://mesh.local/service/**={status['roots'][0]['pin']},{spare}"
    pins = house.state / "pins"
    pins.write_text(f"mode enforce\nuntil {ends}\n{rule}\n")
    server = house.start_server("--peer-pin-file", str(pins))

    def they_are(in_the_way: bool) -> bool:
        said = house.ctl("ca", "root", "activate", "--dry-run").stdout
        return ("[root-breaks-pin]" in said) is in_the_way

    looks = iter((True, False))
    for step in steps("Pins move"):
        if "--dry-run" in step.command:
            until(partial(they_are, next(looks)))
        drill.run(step)
    assert next(looks, None) is None
    server.wait_for("will go over to other keys")
    server.wait_for("Peers are held to 1 pins of CA keys until", count=2)
    server.wait_for("Pins of CA keys are only reported")
    assert house.client().returncode == 0
    assert server.stop() == 0
