"""Files that an operator names, on whole programs: a shell's pipes are read, and nothing holds a program up."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pki.svid.x509svid import certificates_pem
from tests.authorities import key, mesh
from tests.mangled import MANGLINGS, secret_key
from tests.running import BIN, PATIENCE

pytestmark = pytest.mark.interop(
    "tests/test_first_lines.py::test_the_first_line_names_the_cause_and_the_cure"
)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "root.crt").write_bytes(certificates_pem([mesh().root.certificate]))
    (tmp_path / "leaf.pem").write_bytes(certificates_pem([mesh().leaf()]))
    (tmp_path / "key.pem").write_bytes(key().to_pem())
    return tmp_path


def shell(line: str, where: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "MESH_STATE_DIR": "state"}
    asked = ["bash", "-c", line]
    return subprocess.run(
        asked, cwd=where, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def test_a_shells_pipe_is_a_file(files: Path) -> None:
    done = shell("pki-inspect show <(sleep 0.2; tr '\\n' ' ' < root.crt)", files)
    assert (done.returncode, done.stderr) == (0, "")
    assert "root CA" in done.stdout


@pytest.mark.parametrize(
    ("ca_file", "words"),
    [
        ("<(cat key.pem)", "holds no certificates but a private key"),
        ("<(iconv -t UTF-16 root.crt)", "UTF-16, as PowerShell"),
        ("leaf.pem", "is no CA certificate"),
        ("/dev/zero", "a device or a socket"),
        (".", "Is a directory"),
    ],
)
def test_what_is_no_root_ends_a_client_and_a_server_alike(
    ca_file: str, words: str, files: Path
) -> None:
    for program in ("mesh-client", "mesh-server"):
        done = shell(f"{program} --ca-url https://127.0.0.1:1 --ca-file {ca_file}", files)
        assert done.returncode
        line, *more = done.stderr.splitlines()
        assert words in line
        assert not more


def test_no_program_prints_a_key(tmp_path: Path) -> None:
    secret = secret_key()
    for at, name in enumerate(("line breaks to spaces", "its END line lost", "UTF-16")):
        (tmp_path / f"{at}.pem").write_bytes(MANGLINGS[name](secret.text))
    said = shell(
        "for file in *.pem; do pki-inspect show $file; pki-inspect verify $file --roots $file; done",
        tmp_path,
    )
    assert not secret.found_in(said.stdout + said.stderr)
    assert len(said.stderr.splitlines()) == 6
