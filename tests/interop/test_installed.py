"""The wheel, in an environment that has nothing else of ours: five programs, and no twistd.

That is what pipx and uv make of it. The environment borrows the packages that ours depends on, so it needs no network.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from attrs import frozen

from tests.running import CHECKOUT, PATIENCE, Running, until

PROGRAMS = {
    *("mesh-agent", "mesh-ca", "mesh-client", "mesh-ctl", "mesh-proxy", "mesh-server"),
    *("mesh-ctlog", "mesh-signer", "mesh-witness"),
    "pki-inspect",
}
_NOT_BUILT = shutil.ignore_patterns(
    ".*", "*.egg-info", "__pycache__", "build", "dist", "dropin.cache", "htmlcov", "tests"
)


@frozen
class Installation:
    """The programs, somewhere that is no checkout, and a state directory."""

    bin: Path
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """Nothing else is on the PATH, and no directory but its own is looked into."""
        return {
            **os.environ,
            "PATH": str(self.bin),
            "PYTHONPATH": "",
            "MESH_STATE_DIR": str(self.home / "state"),
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.bin / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.home,
            env=self.env,
            timeout=PATIENCE * 2,
        )

    def start(self, program: str, *arguments: str) -> Running:
        return Running.start(self.bin / program, *arguments, cwd=self.home, env=self.env, real=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from an archive of the sources, as for everybody else."""
    sources = tmp_path_factory.mktemp("sources") / "twisted-mesh"
    shutil.copytree(CHECKOUT, sources, ignore=_NOT_BUILT)
    built = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", sources / "dist", sources],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (sources / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    home = tmp_path_factory.mktemp("elsewhere")
    environment = home / "environment"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # Only this directory is added: what makes an editable installation of ours in there is not read.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    yield Installation(environment / "bin", home)
    assert not list(packages.rglob("dropin.cache")), "nobody asked for a list of plugins"


def test_all_of_it_is_the_wheels(installed: Installation) -> None:
    theirs = ("python", "activate", "Activate")
    there = {path.name for path in installed.bin.iterdir() if not path.name.startswith(theirs)}
    assert there == PROGRAMS
    ask = (
        "import pki, twisted_mesh; from twisted.plugins import mesh_plugins;"
        "print(pki.__file__, twisted_mesh.__file__, mesh_plugins.__file__, sep='\\n')"
    )
    shown = installed.run("python", "-c", ask)
    assert shown.stderr == ""
    for file in shown.stdout.splitlines():
        assert Path(file).is_relative_to(installed.bin.parent)


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_each_program_says_its_version(program: str, installed: Installation) -> None:
    shown = installed.run(program, "--version")
    assert (shown.returncode, shown.stdout, shown.stderr) == (
        0, f"twisted-mesh {version('twisted-mesh')}\n", "",
    )  # fmt: skip


def test_three_terminals_make_a_mesh(installed: Installation) -> None:
    ca = installed.start("mesh-ca", "--pidfile", "ca.pid", "--port", "0", "--root-key", "ec-p256")
    try:
        ca.wait_for(r"Ready to issue certificates\.")
        assert (installed.home / "ca.pid").read_text().strip() == str(ca.process.pid)
        server = installed.start(
            "mesh-server", "--listen", "127.0.0.1:0", "--logfile", "server.log"
        )
        try:
            log = installed.home / "server.log"
            until(lambda: log.exists() and "Ready to accept mTLS" in log.read_text(), log.read_text)
            port = re.findall(r"Starting mTLS server on \S*:(\d+)", log.read_text())[0]
            url = f"https://localhost:{port}"
            client = installed.run("mesh-client", "--server", url, "--export", "identity")
            assert client.returncode == 0, client.stdout + client.stderr
            assert "Response: 200 OK" in client.stdout
        finally:
            assert server.stop() == 0
        shown = installed.run(
            "pki-inspect", "verify", "identity/svid.pem", "--roots", "identity/svid_bundle.pem"
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        doctor = installed.run("mesh-ctl", "doctor")
        assert (doctor.returncode, doctor.stderr) == (0, "")
    finally:
        assert ca.stop() == 0
    assert not (installed.home / "ca.pid").exists()
