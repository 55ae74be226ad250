"""``mesh-ctl ca`` and ``doctor`` against a running CA."""

import os
import re
import sys

import pytest

from tests.interop.administering import answer, issue, told
from tests.interop.house import House
from tests.running import CHECKOUT


def test_the_root_and_the_issuing_ca_are_shown_with_their_fingerprints(shared: House) -> None:
    shown = answer(shared, "ca", "show")
    root, issuing = shown["certificates"]
    fingerprint = shared.run(
        "openssl", "x509", "-in", shared.root, "-noout", "-fingerprint", "-sha256"
    ).stdout
    assert (
        root["fingerprint"]
        == "sha256:" + fingerprint.partition("=")[2].strip().replace(":", "").lower()
    )
    assert (root["name"], issuing["name"]) == ("root", "issuing.crt")
    assert issuing["seconds_left"] > 360 * 86400
    assert {check["status"] for check in shown["checks"]} == {"ok"}
    text = shared.ctl("ca", "show").stdout
    assert root["fingerprint"] in text
    assert "CN=mtls-mesh-issuing-ca" in text


def test_a_healthy_ca_gives_the_doctor_nothing_to_say(shared: House) -> None:
    report = answer(shared, "doctor")
    names = [check["name"] for check in report["checks"]]
    assert len(set(names)) == len(names)
    assert {"modes", "ca", "clocks", "signing", "store", "issuer", "audit", "disk"} <= set(names)
    assert report["status"] in ("ok", "warn")  # a small disk is worth a word
    assert shared.ctl("doctor").stdout.startswith("ok    modes: ")


def test_the_doctor_finds_keys_that_others_can_read_and_a_ca_that_is_away(house: House) -> None:
    ca = house.start_ca()
    key = house.state / "ca" / "private" / "issuing.key"
    key.chmod(0o644)
    found = house.ctl("doctor")
    assert found.returncode == 1
    assert f"fail  modes: {key} has mode 0644: others can read it" in found.stdout
    assert "-> chmod 711 the directory" in found.stdout
    key.chmod(0o600)
    assert ca.stop() == 0
    report = answer(house, "doctor", status=1)
    (away,) = (check for check in report["checks"] if check["status"] == "fail")
    assert away["name"] == "ca"
    assert "start it" in away["remedy"]


def test_the_roots_key_is_taken_away_and_brought_back(house: House) -> None:
    ca = house.start_ca()
    key = house.state / "ca" / "private" / "root.key"
    content = key.read_bytes()
    safe = house.home / "safe"
    safe.mkdir()

    inside = told(house.ctl("ca", "detach-root", house.state / "ca", "--yes"), 2)
    assert "is in the state directory" in inside
    assert "add --yes" in told(house.ctl("ca", "detach-root", safe), 2)
    assert key.exists()

    done = house.ctl("ca", "detach-root", safe, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"The root's key is at {safe}/root.key only" in done.stdout
    assert re.search(
        r"copy it back to \S+/root\.key, owned by the CA's user, mode 0600", done.stdout
    )
    assert not key.exists()
    assert (safe / "root.key").read_bytes() == content
    assert (safe / "root.key").stat().st_mode & 0o777 == 0o600
    issue(house, "spiffe://mesh.local/service/x")
    assert "taken away before" in told(house.ctl("ca", "detach-root", safe, "--yes"), 1)

    key.write_bytes(content)
    key.chmod(0o600)
    ca.stop()
    house.start_ca()
    taken = told(house.ctl("ca", "detach-root", safe, "--yes"), 2)
    assert f"{safe}/root.key exists already" in taken
    assert key.exists()


#: Runs mesh-ctl as somebody else: everything is imported first, for that user may not read our files.
_AS_NOBODY = """
import os, sys
import twisted_mesh.cli.ctl.cert_actions, twisted_mesh.cli.ctl.session, twisted_mesh.cli.ctl.cert
import twisted_mesh.cli.ctl.ca_actions, twisted_mesh.cli.ctl.ca, rich.console, rich.table, rich.text
import encodings.idna, encodings.charmap, twisted_mesh.cli.ctl.cert_filters, twisted_mesh.cli.ctl.cert_revoke
from twisted_mesh.cli.ctl.command import main
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["cert list", "cert show 1f", "ca show"])
def test_another_user_is_told_the_rule(command: str, shared: House) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    done = shared.run(sys.executable, "-c", _AS_NOBODY, *command.split())
    sentence = told(done, 1)
    assert sentence.startswith("no-proof: ")


def test_the_checkout_has_the_command_too(shared: House) -> None:
    done = shared.run(sys.executable, CHECKOUT / "bin" / "mesh-ctl", "cert", "list", "--limit", "1")
    assert done.returncode == 0, done.stderr
