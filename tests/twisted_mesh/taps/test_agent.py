"""mesh-agent as a process: files of a real CA's, kept up with it, and what whoever uses them is told."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.measuring import MEASURED
from tests.running import BIN, Mesh, Running, mesh, until

WEB = "spiffe://mesh.local/service/web"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A CA; each test has directories of its own."""
    with mesh(tmp_path_factory.mktemp("agent")) as made:
        made.start_ca()
        yield made


def pair(directory: Path) -> x509.Certificate:
    """The certificate in one generation, whose key is beside it."""
    home = (directory / "current").resolve()
    leaf = x509.load_pem_x509_certificates((home / "svid.pem").read_bytes())[0]
    key = serialization.load_pem_private_key((home / "svid_key.pem").read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    return leaf


def revoked(directory: Path) -> set[int]:
    """The serials on all CRLs in the file."""
    blocks = (directory / "crl.pem").read_bytes().split(b"-----END X509 CRL-----\n")
    crls = [
        x509.load_pem_x509_crl(block + b"-----END X509 CRL-----\n") for block in blocks if block
    ]
    assert len(crls) >= 2
    return {entry.serial_number for crl in crls for entry in crl}


def status(path: Path, question: str = "/readyz") -> tuple[int, Any]:
    class Local(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(path))

    with closing(Local("localhost")) as caller:
        caller.request("GET", question)
        answer = caller.getresponse()
        body = answer.read()
    return answer.status, json.loads(body) if question == "/readyz" else body.decode()


def test_files_are_kept_up_with_renewals_and_revocations(running: Mesh, tmp_path: Path) -> None:
    told, health = tmp_path / "told", tmp_path / "status"
    command = f"sh -c 'echo $MESH_CHANGED >> {told}'"
    agent = running.start_agent(
        *(tmp_path / "web", "--ttl", "2s", "--on-update", command, "--status", f"unix:{health}")
    )
    first = pair(tmp_path / "web")
    agent.wait_for(r"Files in \S+ are new: svid", count=2)
    assert pair(tmp_path / "web") != first
    done = running.ctl("cert", "revoke", "--spiffe-id", WEB, "--yes")
    assert done.returncode == 0, done.stderr
    until(lambda: first.serial_number in revoked(tmp_path / "web"))
    until(lambda: "crl" in told.read_text().splitlines()[1:] or "crl svid" in told.read_text())
    assert told.read_text().splitlines()[:2] == ["bundle crl svid", "svid"]
    code, ready = status(health)
    assert (code, ready["status"]) == (200, "ready")
    assert "degraded" not in ready
    metrics = status(health, "/metrics")[1]
    assert 'mesh_files_behind{part="crls"} 0.0' in metrics
    shown = set(re.findall(r"^mesh_files_\w+", metrics, re.MULTILINE))
    assert shown == {name for name in MEASURED if name.startswith("mesh_files_")}
    assert agent.stop() == 0


@pytest.mark.interop(
    "tests/twisted_mesh/files/test_pid_signal.py::test_the_process_is_signalled_and_named"
)
def test_a_process_is_signalled_each_time(running: Mesh, tmp_path: Path) -> None:
    script = f"trap 'echo x >> {tmp_path}/got' HUP; echo $$ > {tmp_path}/pid; while :; do sleep 0.1; done"
    service = subprocess.Popen(["sh", "-c", script])
    try:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        option = f"HUP:{tmp_path / 'pid'}"
        agent = running.start_agent(tmp_path / "web", "--ttl", "2s", "--on-update-signal", option)
        agent.wait_for(rf"HUP was sent to PID {service.pid} \(\S+\) for new files", count=2)
        until(lambda: (tmp_path / "got").read_text().count("x") == 2)
        assert agent.stop() == 0
    finally:
        service.kill()
        service.wait()


def test_two_writers_on_one_directory_are_refused(running: Mesh, tmp_path: Path) -> None:
    first = running.start_agent(tmp_path / "web")
    second = running.start_agent(tmp_path / "web", wait=False)
    second.wait_for(
        rf"mesh-agent: another process, PID {first.process.pid}, keeps files in {tmp_path}/web: stop"
    )
    assert second.wait() == 1
    client = running.run(BIN / "mesh-client", "--export", tmp_path / "web", "--follow")
    assert client.returncode == 2
    assert "keeps files in" in client.stderr
    assert "Traceback" not in client.stderr
    assert first.stop() == 0


def test_one_that_was_killed_leaves_its_files_and_the_next_one_goes_on(
    running: Mesh, tmp_path: Path
) -> None:
    agent = running.start_agent(tmp_path / "web")
    before = pair(tmp_path / "web")
    agent.stop(signal.SIGKILL)
    assert pair(tmp_path / "web") == before
    told = tmp_path / "told"
    again = running.start_agent(tmp_path / "web", "--on-update", f"touch {told}")
    again.wait_for("touch was run for new files: bundle, crl, svid")
    assert pair(tmp_path / "web") != before
    assert again.stop() == 0


@pytest.mark.interop(
    "tests/twisted_mesh/files/test_keeper.py::test_who_could_not_be_told_is_told_again_of_all_that_has_changed"
)
def test_a_command_that_keeps_failing_is_in_readyz_and_the_files_go_on(
    running: Mesh, tmp_path: Path
) -> None:
    health = tmp_path / "status"
    agent = running.start_agent(
        *(tmp_path / "web", "--ttl", "4s", "--status", f"unix:{health}"),
        *("--on-update", "sh -c 'echo no such service; exit 5'"),
    )
    until(lambda: "degraded" in status(health)[1])
    code, ready = status(health)
    assert code == 200
    assert ready["degraded"] == [
        {"name": "command", "detail": "sh ended with status 5: no such service", "remedy": ""}
    ]
    agent.wait_for(r"Files in \S+ are new: svid$")
    assert agent.text.count("no such service") <= 3
    assert agent.stop() == 0


def test_a_command_that_hangs_is_ended_when_the_agent_is_stopped(
    running: Mesh, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    agent = running.start_agent(
        *(tmp_path / "web", "--drain", "0s", "--on-update", f"sh -c 'echo $$ > {pid}; sleep 600'")
    )
    until(lambda: pid.exists() and pid.read_text() != "")
    assert agent.stop() == 0
    until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())


@pytest.mark.interop(
    "tests/twisted_mesh/files/test_writer.py::test_a_directory_that_has_vanished_is_made_again_and_owned_again"
)
def test_a_directory_that_vanishes_comes_back(running: Mesh, tmp_path: Path) -> None:
    agent = running.start_agent(tmp_path / "web", "--ttl", "2s")
    shutil.rmtree(tmp_path / "web")
    agent.wait_for(r"Files in \S+ are new", count=2)
    assert pair(tmp_path / "web")
    assert agent.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_a_directory_of_somebody_else_ends_the_start(running: Mesh, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    os.chown(tmp_path / "web", 65534, 65534)
    agent = running.start_agent(tmp_path / "web", wait=False)
    assert agent.wait() == 1
    assert f"mesh-agent: {tmp_path}/web belongs to another user" in agent.text
    assert "Traceback" not in agent.text


def test_an_agent_waits_for_its_ca_and_says_so_in_readyz(tmp_path: Path) -> None:
    with mesh(tmp_path) as alone:
        health = tmp_path / "status"
        agent = alone.start_agent(tmp_path / "web", "--status", f"unix:{health}", wait=False)
        agent.wait_for("No certificate from the CA at")
        code, ready = status(health)
        assert (code, ready["code"]) == (503, "no-identity")
        alone.start_ca()
        agent.wait_for(r"Files in \S+ are new")
        until(lambda: status(health)[0] == 200)
        assert agent.stop() == 0


def test_a_client_follows_without_a_server(running: Mesh, tmp_path: Path) -> None:
    client = Running.start(
        *(BIN / "mesh-client", "--export", tmp_path / "me", "--follow", "--ttl", "2s"),
        cwd=running.home,
        env=running.env,
    )
    running.processes.append(client)
    client.wait_for(r"Files in \S+ are new: svid, bundle, crl")
    client.wait_for(r"Files in \S+ are new: svid$")
    assert pair(tmp_path / "me")
    assert revoked(tmp_path / "me") is not None
    assert client.stop(signal.SIGINT) == 130
    assert "Traceback" not in client.text


def test_a_client_that_is_to_follow_needs_to_know_where(running: Mesh) -> None:
    done = running.run(BIN / "mesh-client", "--follow")
    assert done.returncode == 2
    assert "--follow keeps files fresh: say with --export in which directory" in done.stderr
