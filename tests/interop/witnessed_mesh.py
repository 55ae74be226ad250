"""A whole mesh whose certificates are shown to logs, each of which has a witness of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from tests.interop.logged_mesh import LoggedMesh, logged_mesh
from tests.running import BIN, Running, free_port


@define(eq=False)
class WitnessProcess:
    """A mesh-witness of the logs of a list."""

    home: Path
    logs: Path
    port: int = field(factory=free_port)
    running: Running | None = None

    def start(self) -> Running:
        self.home.mkdir(exist_ok=True)
        self.running = Running.start(
            BIN / "mesh-witness",
            *("--state-dir", str(self.home), "--ct-logs", str(self.logs)),
            *("--listen", f"127.0.0.1:{self.port}", "--name", f"witness.example/{self.home.name}"),
            cwd=self.home,
        )
        self.running.wait_for("Ready to cosign")
        return self.running

    def kill(self) -> None:
        if self.running is not None and self.running.process.poll() is None:
            self.running.process.kill()
            self.running.wait()

    @property
    def key(self) -> str:
        """As it is told to whoever is to believe it."""
        return (self.home / "log-witness" / "witness.pub").read_text().strip()

    @property
    def address(self) -> str:
        """As a log is told of it."""
        return f"https://localhost:{self.port}#{self.key}"


@define(eq=False)
class WitnessedMesh(LoggedMesh):
    """One whose logs have a witness each."""

    witnesses: list[WitnessProcess] = field(factory=list)

    @property
    def demand(self) -> tuple[str, ...]:
        """The options of an endpoint that believes nobody without receipts of two logs."""
        return "--require-sct", "2", "--ct-logs", str(self.list_file)

    def start_log(self, number: int) -> Running:
        """One of the logs, as it was started before."""
        return self.logs[number].start("--witness", self.witnesses[number].address)


@contextmanager
def witnessed_mesh(home: Path, count: int = 2) -> Iterator[WitnessedMesh]:
    """Logs that run and have a witness each, and a CA that is not started yet."""
    with logged_mesh(home, count) as logged:
        place = WitnessedMesh(logged.mesh, logged.logs)
        try:
            for number, log in enumerate(place.logs):
                witness = WitnessProcess(home / f"w{number + 1}", place.list_file)
                place.witnesses.append(witness)
                witness.start()
                log.kill()
                place.start_log(number)
            yield place
        finally:
            for witness in place.witnesses:
                witness.kill()
