"""deploy/systemd: what the units start is what our programs read, and systemd takes them and calls them safe."""

import pwd
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pki.keys import KeyAlgorithm
from tests.running import BIN, CHECKOUT, PATIENCE
from tests.test_unit_examples import example, parsed
from tests.tools import require_tool
from twisted_mesh.signer.address import SignerAddress
from twisted_mesh.signer.directory import SignerDirectory
from twisted_mesh.taps.ca_options import Options as CaOptions
from twisted_mesh.taps.signer_options import Options as SignerOptions

UNITS = CHECKOUT / "deploy" / "systemd"
SIGNER = (UNITS / "mesh-signer.service").read_text()
DROP_IN = (UNITS / "mesh-ca.service.d" / "signer.conf").read_text()


def started(unit: str) -> list[str]:
    """The program and its arguments, of the last ``ExecStart=`` there is."""
    found = re.findall(r"^ExecStart=(.+?)$", unit.replace("\\\n", " "), re.MULTILINE)
    program, *words = shlex.split(found[-1])
    assert (BIN / Path(program).name).exists()
    return words


def socket() -> Path:
    """Where the unit's signer listens."""
    return SignerDirectory(Path(parsed(SIGNER)["Service"]["Environment"].partition("=")[2])).socket


def test_the_signer_reads_what_its_unit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    service = parsed(SIGNER)["Service"]
    users = {"mesh-ca": 4711}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: _User(users[name]))
    options = SignerOptions()
    options.parseOptions(started(SIGNER))
    assert options.uids == {4711}
    assert service["Environment"].endswith(f"=/var/lib/{service['StateDirectory']}")
    # Others pass through it to the socket, and see nothing of it.
    assert service["StateDirectoryMode"] == "0711"
    # Callbacks of cffi, which pyOpenSSL's are, are written and then run.
    assert "MemoryDenyWriteExecute" not in service


class _User:
    def __init__(self, uid: int) -> None:
        self.pw_uid = uid


def test_the_ca_is_led_to_that_signer() -> None:
    options = CaOptions()
    options.parseOptions(started(DROP_IN))
    for name, algorithm in (("root-key", "ec-p384"), ("issuing-key", "ec-p256")):
        assert options[name].algorithm is KeyAlgorithm(algorithm)
        address = SignerAddress.parse(options[name].store)
        assert Path(address.path) == socket()
        assert address.user == parsed(SIGNER)["Service"]["User"]


@pytest.mark.interop("tests/test_signer_units.py::test_the_signer_reads_what_its_unit_says")
def test_systemd_takes_them_and_calls_the_signer_safe(tmp_path: Path) -> None:
    analyze = require_tool("systemd-analyze")
    units = {
        "mesh-signer.service": SIGNER,
        "mesh-ca.service": example("ini", "[Unit]"),
        "mesh-ca.service.d/signer.conf": DROP_IN,
    }
    for name, unit in units.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(unit.replace("/opt/twisted-mesh/.venv/bin", str(BIN)))
    paths = [str(tmp_path / name) for name in units if name.endswith(".service")]
    done = subprocess.run(
        [analyze, "--man=no", "verify", *paths],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert (done.returncode, "mesh-" in done.stderr) == (0, False), done.stderr
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", "--threshold=15", paths[0]],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
    assert done.returncode == 0, done.stdout[-3000:]
