"""A CA that shows its certificates to logs, each of which is a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from attrs import define, field

from pki.ct.log_list import LogList
from pki.spiffe import TrustDomain
from tests.running import BIN, Mesh, Running, free_port, mesh
from twisted_mesh.ca.transparency.submitter import submitter
from twisted_mesh.state.key_files import KeyFiles

DOMAIN = TrustDomain("mesh.local")
_READY = r"Ready to log certificates\."


@define(eq=False)
class LogProcess:
    """A mesh-ctlog, started again and again at one address."""

    home: Path
    pin: str
    roots: Path
    port: int = field(factory=free_port)
    running: Running | None = None

    def start(self, *options: str) -> Running:
        self.home.mkdir(exist_ok=True)
        self.running = Running.start(
            BIN / "mesh-ctlog",
            *("--state-dir", str(self.home / "state"), "--listen", f"127.0.0.1:{self.port}"),
            *("--accept-ca", f"{DOMAIN.member('mesh', 'ca')}={self.pin}"),
            *("--roots", str(self.roots), "--description", self.home.name, *options),
            cwd=self.home,
        )
        self.running.wait_for(_READY)
        return self.running

    def kill(self) -> None:
        if self.running is not None and self.running.process.poll() is None:
            self.running.process.kill()
            self.running.wait()

    @property
    def entry(self) -> LogList:
        return LogList.parse((self.home / "state" / "ctlog" / "log-list.json").read_bytes())


@define(eq=False)
class LoggedMesh:
    """A mesh, its logs, and the list of them."""

    mesh: Mesh
    logs: list[LogProcess]

    @property
    def list_file(self) -> Path:
        return self.mesh.home / "logs.json"

    @property
    def known(self) -> LogList:
        return LogList.parse(self.list_file.read_bytes())

    def write_list(self) -> None:
        logs = tuple(log for one in self.logs for log in one.entry.logs)
        self.list_file.write_bytes(
            LogList(logs, datetime.now(UTC).replace(microsecond=0)).to_bytes()
        )
        self.list_file.chmod(0o644)

    def start_ca(self, *options: str, wait: bool = True) -> Running:
        return self.mesh.start_ca("--ct-logs", str(self.list_file), *options, wait=wait)


@contextmanager
def logged_mesh(home: Path, count: int = 2) -> Iterator[LoggedMesh]:
    """Logs that run, and a CA that is not started yet; nothing is left running."""
    with mesh(home) as made:
        private = made.state / "ca" / "private"
        private.mkdir(parents=True, mode=0o711)
        private.chmod(0o700)
        pin = str(submitter(KeyFiles(private), DOMAIN, datetime.now(UTC)).pin)
        roots = made.state / "ca" / "root.crt"
        logs = [LogProcess(home / f"log-{number}", pin, roots) for number in range(1, count + 1)]
        found = LoggedMesh(made, logs)
        try:
            for log in logs:
                log.start()
            found.write_list()
            yield found
        finally:
            for log in logs:
                log.kill()
