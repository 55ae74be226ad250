"""Docker and Podman themselves, each with a state of its own, where they are installed and can run a container here."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from attrs import frozen

from tests.running import PATIENCE, is_listening, until

#: A program that is one file and needs no other: what there is in the image.
BUSYBOX = "busybox"
_IMAGE = "localhost/mesh-tiny:1"


@frozen
class Runtime:
    """One that takes commands, and serves its API."""

    kind: str
    command: Sequence[str]
    socket: Path
    run_options: Sequence[str]

    def do(self, *words: str, stdin: str | None = None) -> str:
        """What a command prints; the test is skipped where this machine lets it run no container."""
        with open(stdin or os.devnull, "rb") as given:
            done = subprocess.run(
                [*self.command, *words], stdin=given, capture_output=True, timeout=PATIENCE
            )
        if done.returncode:
            pytest.skip(f"{self.kind} cannot run a container here: {done.stderr.decode()[-300:]}")
        return done.stdout.decode().strip()

    @contextmanager
    def running(self, *options: str, command: Sequence[str]) -> Iterator[tuple[str, int]]:
        """The ID of a container, and the PID of its first process."""
        words = (
            "run",
            "-d",
            "--network",
            "none",
            "--stop-timeout",
            "0",
            *self.run_options,
            *options,
            _IMAGE,
            *command,
        )
        container = self.do(*words).splitlines()[-1]
        try:
            yield container, int(self.do("inspect", "-f", "{{.State.Pid}}", container))
        finally:
            self.do("rm", "-f", container)


def image(directory: Path) -> Path:
    """A tarball of a file system with a shell in it."""
    path = directory / "image.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(_tool(BUSYBOX), "bin/busybox")
        for name in ("sh", "sleep", "mkdir"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return path


def _tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


@contextmanager
def _served(command: Sequence[str], socket: Path) -> Iterator[None]:
    with (socket.parent / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            try:
                until(lambda: process.poll() is not None or is_listening(socket))
            except AssertionError:
                pytest.skip(f"{command[0]} does not begin to serve here")
            if process.poll() is not None:
                said = (socket.parent / "log").read_text(errors="replace")
                pytest.skip(f"{command[0]} does not run here: {said[-300:]}")
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


@contextmanager
def docker() -> Iterator[Runtime]:
    daemon, client = _tool("dockerd"), _tool("docker")
    with TemporaryDirectory(prefix="mesh-docker-") as directory:
        home = Path(directory)
        socket = home / "d.sock"
        words = [
            *(daemon, "-H", f"unix://{socket}", "--data-root", str(home / "data")),
            *("--exec-root", str(home / "exec"), "--pidfile", str(home / "pid")),
            *("--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs"),
        ]
        with _served(words, socket):
            runtime = Runtime("docker", [client, "-H", f"unix://{socket}"], socket, ())
            runtime.do("import", "--change", "ENV A=fromimage", "-", _IMAGE, stdin=str(image(home)))
            yield runtime


@contextmanager
def podman() -> Iterator[Runtime]:
    program, runc = _tool("podman"), _tool("runc")
    with TemporaryDirectory(prefix="mesh-podman-") as directory:
        home = Path(directory)
        socket = home / "p.sock"
        command = [
            *(program, "--root", str(home / "root"), "--runroot", str(home / "run")),
            *("--tmpdir", str(home / "tmp"), "--storage-driver", "vfs", "--runtime", runc),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "none"),
        ]
        with _served([*command, "system", "service", "-t", "0", f"unix://{socket}"], socket):
            limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
            runtime = Runtime("podman", command, socket, limits)
            runtime.do("import", "--change", "ENV A=fromimage", str(image(home)), _IMAGE)
            yield runtime


RUNTIMES: dict[str, Callable[[], "contextmanager[Runtime]"]] = {"docker": docker, "podman": podman}  # type: ignore[type-arg,dict-item]
