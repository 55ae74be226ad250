"""The units and the log rotation that the documents show: systemd and logrotate take them, and they work."""

import configparser
import grp
import os
import pwd
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pki.policy.join_token import JoinToken
from tests.running import BIN, CHECKOUT, PATIENCE, Running, until
from tests.tools import require_tool
from twisted_mesh.taps.agent_options import Options as AgentOptions
from twisted_mesh.taps.proxy_options import Options

_PAGE = (CHECKOUT / "docs" / "OPERATIONS.md").read_text()
_SIDECAR = (CHECKOUT / "docs" / "SIDECAR.md").read_text()
_ATTESTATION = (CHECKOUT / "docs" / "ATTESTATION.md").read_text()
_COMMANDS = (CHECKOUT / "docs" / "COMMANDS.md").read_text()


def example(language: str, begins: str, page: str = _PAGE) -> str:
    """The block of a page that begins so."""
    found = re.search(rf"^```{language}\n({re.escape(begins)}.*?)^```", page, re.M | re.S)
    assert found, f"the page shows nothing that begins with {begins!r}"
    return found[1]


def parsed(unit: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=False)
    found.optionxform = str  # type: ignore[assignment, method-assign]
    found.read_string(unit)
    return found


def sidecar_units() -> dict[str, str]:
    """The socket and the service of a sidecar, by the name of their file."""
    return {
        "mesh-proxy-web.socket": example("ini", "[Unit]\nDescription=Where callers", page=_SIDECAR),
        "mesh-proxy-web.service": example("ini", "[Unit]\nDescription=The sidecar", page=_SIDECAR),
    }


def test_the_unit_starts_a_program_of_ours_with_what_we_read() -> None:
    unit = parsed(example("ini", "[Unit]"))
    service = unit["Service"]
    assert (BIN / Path(service["ExecStart"]).name).exists()
    variable, _, place = service["Environment"].partition("=")
    assert f"| `{variable}` |" in _COMMANDS
    assert place == f"/var/lib/{service['StateDirectory']}"
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_sidecar_takes_the_socket_of_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    socket, service = map(parsed, sidecar_units().values())
    program, *words = shlex.split(service["Service"]["ExecStart"])
    assert (BIN / Path(program).name).exists()
    for line in sidecar_units()["mesh-proxy-web.service"].splitlines():
        if line.startswith("Environment="):
            monkeypatch.setenv(*line.removeprefix("Environment=").split("=", 1))
    options = Options()
    options.parseOptions(words)
    (listener,) = options["listeners"]
    assert listener.address == f"systemd:{socket['Socket']['FileDescriptorName']}"
    assert service["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"


def agent_unit() -> str:
    return example("ini", "[Unit]\nDescription=The mesh's agent", page=_ATTESTATION)


def test_the_agent_takes_what_its_unit_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = parsed(agent_unit())["Service"]
    program, *words = shlex.split(service["ExecStart"].replace("%d", str(tmp_path)))
    assert (BIN / Path(program).name).exists()
    loaded = re.findall(r"^LoadCredential=([a-z.]+):", agent_unit(), re.M)
    assert {str(tmp_path / name) for name in loaded} < set(words)
    for name in loaded:
        (tmp_path / name).write_text(JoinToken.generate().text + "\n")
    monkeypatch.setenv(*service["Environment"].split("=", 1))
    options = AgentOptions()
    options.parseOptions(words)
    assert [str(one.socket) for one in options["containers"].settings] == ["/run/docker.sock"]
    assert str(options["socket"].parent) == f"/run/{service['RuntimeDirectory']}"
    assert str(options["state-dir"]) == f"/var/lib/{service['StateDirectory']}"
    # What hides other processes, or their PIDs, would hide whom it is to attest.
    assert not {"PrivatePIDs", "PrivateUsers", "ProtectProc", "PrivateNetwork"} & set(service)
    # Callbacks of cffi, which pyOpenSSL's are, are written and then run.
    assert "MemoryDenyWriteExecute" not in service


def test_the_rotation_sends_the_signal_that_reopens_the_log() -> None:
    rotation = example("text", "/var/log/")
    assert "systemctl kill --signal=SIGUSR1 mesh-ca" in rotation
    assert "| SIGUSR1 | it reopens its log |" in _PAGE


@pytest.mark.interop(
    "tests/test_unit_examples.py::test_the_unit_starts_a_program_of_ours_with_what_we_read"
)
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    # It says what it does not know on stderr, and its status is 0 all the same.
    units = {
        "mesh-ca.service": example("ini", "[Unit]"),
        "mesh-agent.service": agent_unit(),
        **sidecar_units(),
    }
    for name, unit in units.items():
        (tmp_path / name).write_text(unit.replace("/opt/twisted-mesh/.venv/bin", str(BIN)))
    paths = [str(tmp_path / name) for name in units]
    verify = [require_tool("systemd-analyze"), "--man=no", "verify", *paths]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=PATIENCE * 2)
    assert (done.returncode, "mesh-" in done.stderr) == (0, False), done.stderr


@pytest.mark.interop("tests/test_unit_examples.py::test_the_agent_takes_what_its_unit_says")
def test_systemd_calls_the_agents_unit_safe(tmp_path: Path) -> None:
    unit = tmp_path / "mesh-agent.service"
    unit.write_text(agent_unit())
    judge = [require_tool("systemd-analyze"), "security", "--offline=yes", "--no-pager"]
    done = subprocess.run(
        [*judge, "--threshold=25", str(unit)], capture_output=True, text=True, timeout=PATIENCE * 2
    )
    assert done.returncode == 0, done.stdout[-2000:]


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
