"""Docker and Podman themselves: a process in their container is attested by their word, from their socket."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import pytest

from pki.policy.selector import Selector
from tests.pki.policy.kinds import own_kinds
from tests.running import BIN, PATIENCE, Mesh, mesh, until
from tests.twisted_mesh.attest.processes import only_linux, only_root
from tests.twisted_mesh.attest.real_runtimes import RUNTIMES, Runtime
from tests.twisted_mesh.grpc.sockets import own_reactor, run
from twisted_mesh.attest.container_cgroup import container_of
from twisted_mesh.attest.container_runtime import ContainerRuntime, RuntimeSettings
from twisted_mesh.attest.evidence import Attestation
from twisted_mesh.attest.local_workloads import LocalWorkloads
from twisted_mesh.attest.registry import declare_kinds

_SIBLING = "tests/twisted_mesh/attest/test_container_runtime.py::" + (
    "test_labels_and_image_come_as_spire_spells_them_and_where_its_first_process_is"
)
pytestmark = [only_linux, only_root, pytest.mark.interop(_SIBLING)]

SEEN = Attestation("unix:uid:0", frozenset({Selector("unix:uid", "0")}), uid=0)
LABELS = ("--label", "com.example.name=foo", "-e", "ENVIRONMENT=prod", "-e", "SECRET=hunter2")


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    with RUNTIMES[request.param]() as found:
        yield found


@pytest.fixture(autouse=True)
def _kinds() -> Iterator[None]:
    with own_kinds():
        declare_kinds()
        yield


@contextmanager
def connected_from(pid: int) -> Iterator[socket.socket]:
    """Our end of a connection of a process that is made in the cgroups of that one."""
    with TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listening:
        path = str(Path(directory, "s"))
        listening.bind(path)
        listening.listen()
        listening.settimeout(PATIENCE)
        child = os.fork()
        if not child:
            try:
                _enter(pid)
                calling = socket.socket(socket.AF_UNIX)
                calling.connect(path)
                calling.recv(1)
            finally:
                os._exit(0)
        try:
            ours, _ = listening.accept()
            with ours:
                yield ours
        finally:
            os.waitpid(child, 0)


def _enter(pid: int) -> None:
    """Go where ``pid`` is, as ``docker exec`` does."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for _, where, kind, options, *_ in mounts:
            is_v2 = kind == "cgroup2" and not controllers
            wanted = set(controllers.split(",")) if controllers else set()
            if is_v2 or (kind == "cgroup" and wanted and wanted <= set(options.split(","))):
                Path(where + path, "cgroup.procs").write_text(str(os.getpid()))
                break


def asking(runtime: Runtime) -> LocalWorkloads:
    settings = RuntimeSettings(runtime.socket, env=("ENVIRONMENT",))
    return LocalWorkloads(own_reactor(), [ContainerRuntime(own_reactor(), settings)])


def attested(workloads: LocalWorkloads, connected: socket.socket) -> set[str]:
    found = run(workloads.add(connected, SEEN)).selectors - SEEN.selectors
    return set(map(str, found))


def test_its_cgroups_tell_the_container(runtime: Runtime) -> None:
    with runtime.running(command=("sleep", "600")) as (container, pid):
        found = container_of(Path(f"/proc/{pid}/cgroup").read_bytes())
    assert found is not None
    assert (found.id, found.user, found.is_in_unit) == (container, None, False)


def test_a_process_in_it_is_attested_by_its_labels_its_image_and_what_was_named_of_its_environment(
    runtime: Runtime,
) -> None:
    workloads = asking(runtime)
    with (
        runtime.running(*LABELS, command=("sleep", "600")) as (_, pid),
        connected_from(pid) as ours,
    ):
        found = attested(workloads, ours)
    digest = f"docker:image_config_digest:{image_of(runtime)}"
    assert {"docker:label:com.example.name:foo", "docker:env:ENVIRONMENT=prod", digest} <= found
    assert any(text.startswith("docker:image_id:localhost/mesh-tiny") for text in found)
    assert not any("hunter2" in text for text in found)


def image_of(runtime: Runtime) -> str:
    found = runtime.do("inspect", "-f", "{{.Id}}", "localhost/mesh-tiny:1")
    return found if found.startswith("sha256:") else f"sha256:{found}"


def test_a_process_beside_it_is_not(runtime: Runtime) -> None:
    workloads = asking(runtime)
    with runtime.running(*LABELS, command=("sleep", "600")), connected_from(os.getpid()) as ours:
        assert attested(workloads, ours) == set()


def test_once_it_is_removed_nobody_is_in_it(runtime: Runtime) -> None:
    with runtime.running(*LABELS, command=("sleep", "600")) as (_, pid):
        place = container_of(Path(f"/proc/{pid}/cgroup").read_bytes())
    assert place is not None
    source = asking(runtime).sources[0]
    assert run(source.tell(place)) is None


def test_an_entry_of_a_label_lets_in_who_is_in_that_container_and_nobody_else(
    runtime: Runtime, tmp_path: Path
) -> None:
    entries = tmp_path / "entries.toml"
    entries.write_text("""
        [entries.foo]
        selectors = ["docker:label:com.example.name:foo"]
        spiffe_id = "spiffe://mesh.local/service/foo"
    """)
    entries.chmod(0o600)
    asked = ("--workload-attestor", f"{runtime.kind}:{runtime.socket}")
    with (
        runtime.running(*LABELS, command=("sleep", "600")) as (_, pid),
        runtime.running(command=("sleep", "600")) as (_, other),
        mesh(tmp_path / "mesh") as running,
    ):
        running.start_ca("--no-default-entry", "--entries", str(entries), *asked)
        with agent_in(running, pid) as (files, _):
            until((files / "svid.pem").exists)
        with agent_in(running, other) as (files, log):
            until(partial(_says, log, "rule no-entry"), log.read_text)
            assert not (files / "svid.pem").exists()


def _says(log: Path, text: str) -> bool:
    return text in log.read_text()


@contextmanager
def agent_in(running: Mesh, pid: int) -> Iterator[tuple[Path, Path]]:
    """An agent that keeps files, in the cgroups of that process; and its log."""
    files = Path(mkdtemp(dir=running.home))
    log = files.with_suffix(".log")
    with log.open("wb") as output:
        words = ("--write", files, "--spiffe-id", "spiffe://mesh.local/service/foo")
        process = subprocess.Popen(
            [BIN / "mesh-agent", *words],
            env={**os.environ, **running.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: _enter(pid),  # noqa: PLW1509 (it takes no lock)
        )
        try:
            yield files, log
        finally:
            process.kill()
            process.wait(PATIENCE)
