"""The unit and the log rotation that docs/OPERATIONS.md shows: systemd and logrotate take them, and they work."""

import configparser
import grp
import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from tests.running import BIN, CHECKOUT, PATIENCE, Running, until
from tests.tools import require_tool

_PAGE = (CHECKOUT / "docs" / "OPERATIONS.md").read_text()
_COMMANDS = (CHECKOUT / "docs" / "COMMANDS.md").read_text()


def example(language: str, begins: str) -> str:
    """The block of the page that begins so."""
    found = re.search(rf"^```{language}\n({re.escape(begins)}.*?)^```", _PAGE, re.M | re.S)
    assert found, f"the page shows nothing that begins with {begins!r}"
    return found[1]


def test_the_unit_starts_a_program_of_ours_with_what_we_read() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(example("ini", "[Unit]"))
    service = unit["Service"]
    assert (BIN / Path(service["ExecStart"]).name).exists()
    variable, _, place = service["Environment"].partition("=")
    assert f"| `{variable}` |" in _COMMANDS
    assert place == f"/var/lib/{service['StateDirectory']}"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_rotation_sends_the_signal_that_reopens_the_log() -> None:
    rotation = example("text", "/var/log/")
    assert "systemctl kill --signal=SIGUSR1 mesh-ca" in rotation
    assert "| SIGUSR1 | it reopens its log |" in _PAGE


@pytest.mark.interop(
    "tests/test_unit_examples.py::test_the_unit_starts_a_program_of_ours_with_what_we_read"
)
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    # It says what it does not know on stderr, and its status is 0 all the same.
    unit = example("ini", "[Unit]").replace("/opt/twisted-mesh/.venv/bin", str(BIN))
    path = tmp_path / "mesh-ca.service"
    path.write_text(unit)
    verify = [require_tool("systemd-analyze"), "--man=no", "verify", str(path)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert (done.returncode, "mesh-ca.service" in done.stderr) == (0, False), done.stderr


@pytest.mark.interop(
    "tests/test_unit_examples.py::test_the_rotation_sends_the_signal_that_reopens_the_log"
)
def test_logrotate_does_what_the_page_says(tmp_path: Path) -> None:
    logrotate = require_tool("logrotate")
    logs = tmp_path / "logs"
    logs.mkdir(0o755)
    log = logs / "mesh-ca.log"
    ca = Running.start(
        *(BIN / "mesh-ca", "--port", "0", "--root-key", "ec-p256", "--logfile", log),
        cwd=tmp_path,
        env={"MESH_STATE_DIR": str(tmp_path / "state")},
    )
    try:
        until(lambda: log.exists() and "Ready to issue certificates." in log.read_text())
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        rotation = example("text", "/var/log/").replace("/var/log/mesh-ca", str(logs))
        rotation = rotation.replace("create 0640 mesh-ca adm", f"create 0640 {user} {group}")
        rotation = rotation.replace(
            "systemctl kill --signal=SIGUSR1 mesh-ca", f"kill -USR1 {ca.process.pid}"
        )
        configuration = tmp_path / "rotation"
        configuration.write_text(rotation)
        configuration.chmod(0o644)
        force = [logrotate, "--force", "--state", str(tmp_path / "status"), str(configuration)]
        done = subprocess.run(force, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        assert "Ready to issue" in (logs / "mesh-ca.log.1").read_text()
    finally:
        assert ca.stop() == 0
    assert re.search(r"Stopped$", log.read_text().strip())
    assert log.stat().st_mode & 0o777 == 0o640
