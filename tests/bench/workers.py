"""One process, and two workers with their parent: new connections, and requests on connections that stay.

The load needs cores too, so what tells is processor time: how much of it each operation takes of all processes, and
of the busiest. With a core for each process that one is the limit.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.bench import load
from tests.bench.meshes import MeshOnStage
from tests.bench.processes import cpu_seconds, stage
from tests.bench.tables import Table, Value, beside, median

ONE, TWO = "1 process", "2 workers"
#: With connections that stay, so many that chance shares them out evenly.
_KINDS = (("handshakes", 8), ("kept-alive", 128))


@define(eq=False)
class Group:
    """The processes of one service, under one kind of load."""

    name: str
    pids: Sequence[int]
    job: dict[str, Any]
    rates: list[float] = field(factory=list)
    costs: list[float] = field(factory=list)
    busiest: list[float] = field(factory=list)
    failures: int = 0

    def load(self, seconds: float) -> None:
        before = [cpu_seconds(pid) for pid in self.pids]
        told = load.work({**self.job, "seconds": seconds}, None)
        spent = [cpu_seconds(pid) - was for pid, was in zip(self.pids, before, strict=True)]
        self.failures += sum(told["failures"].values())
        self.rates.append(told["done"] / told["seconds"])
        self.costs.append(sum(spent) / told["done"])
        self.busiest.append(max(spent) / told["done"])

    def row(self) -> dict[str, Value]:
        return {
            "": self.name,
            "operations/s here": round(median(self.rates)),
            "CPU us each": round(median(self.costs) * 1e6),
            "CPU us of the busiest": round(median(self.busiest) * 1e6),
            "operations/s, a core each": round(1 / median(self.busiest)),
            "failures": self.failures,
        }


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    rows: list[dict[str, Value]] = []
    with stage(home) as running:
        mesh = MeshOnStage(running)
        mesh.start_ca(core=None)
        single, port = mesh.start_server(core=None)
        identity = mesh.export(port)
        several, to_several = mesh.start_server("--workers", "2", core=None, name="workers")
        told = several.wait_for(r"2 workers serve: processes ([0-9, ]+)")[1]
        pids = [several.pid, *map(int, told.split(", "))]
        for kind, clients in _KINDS:
            job = {"kind": kind, "path": "/api/status", "clients": clients, **identity.job()}
            groups = [
                Group(f"{kind}, {ONE}", [single.pid], {**job, "port": port}),
                Group(f"{kind}, {TWO}", pids, {**job, "port": to_several}),
            ]
            for number in range(rounds):
                for group in groups if number % 2 == 0 else reversed(groups):
                    group.load(seconds)
                say(f"{kind}: round {number + 1} of {rounds} done")
            compared = beside(
                [group.row() for group in groups],
                *("operations/s, a core each", f"{kind}, {ONE}", "beside 1 process"),
            )
            rows += [dict(row) for row in compared]
    return Table(
        "workers",
        "GET over mutual TLS, by one process and by two workers",
        tuple(rows),
        (
            "The load shares the cores with what is measured: compare what there would be with a core for each "
            "process, which is what the busiest of them allows.",
        ),
    )
