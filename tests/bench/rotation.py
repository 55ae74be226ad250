"""Requests from several clients to a server whose certificate rotates every second."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from tests.bench import load
from tests.bench.meshes import CLIENT_ID, MeshOnStage
from tests.bench.processes import Service, stage
from tests.bench.tables import Table

_PROCESSES = 2
_THREADS = 4
#: How long the last connections may take to be gone.
_SETTLING = 10.0
_INTERVAL = 0.25


@frozen
class Moment:
    """What the server held at one moment."""

    descriptors: int | None
    resident_kib: int | None

    @classmethod
    def of(cls, server: Service) -> "Moment":
        return cls(server.descriptors(), server.resident_kib())


@frozen
class Endured:
    """What came of it."""

    requests: int
    handshakes: int
    seconds: float
    failures: Counter[str]
    rotations: int
    start: Moment
    middle: Moment
    most_descriptors: int | None
    end: Moment
    complaints: tuple[str, ...]
    """What the server's log says in warning or worse, but for starting without --allow."""


def endure(home: Path, requests: int, seconds: float, seed: int, ttl: str = "2s") -> Endured:
    """About ``requests`` by eight clients in two processes, spread over ``seconds``.

    The server's certificate lives for ``ttl`` and is renewed after half of it.
    """
    with stage(home) as running:
        mesh = MeshOnStage(running)
        mesh.start_ca(core=None)
        server, port = mesh.start_server("--ttl", ttl, "--rotate-at", "0.5", core=None)
        identity = mesh.export(port)
        job = {
            "kind": "paced",
            "port": port,
            "path": "/api/status",
            "clients": _THREADS,
            "expected": CLIENT_ID,
            **identity.job(),
        }
        # What is loaded once and kept: codecs, caches, the first contexts.
        load.work({**job, "requests": 200, "seconds": 1.0, "seed": seed + 100}, None)
        _settle(server, None)
        start, rotated, began = Moment.of(server), _rotations(server), time.monotonic()
        with _Watch(server) as watch:
            parts = [
                load.begin(
                    {
                        **job,
                        "requests": requests // _PROCESSES,
                        "seconds": seconds,
                        "seed": seed + n,
                    },
                    None,
                )
                for n in range(_PROCESSES)
            ]
            told = [load.finish(part) for part in parts]
        spent = time.monotonic() - began
        rotations = _rotations(server) - rotated
        _settle(server, start.descriptors)
        end = Moment.of(server)
        failures: Counter[str] = Counter()
        for part in told:
            failures.update(part["failures"])
        lines = server.text.splitlines()
    return Endured(
        requests=sum(part["done"] for part in told),
        handshakes=sum(part["handshakes"] for part in told),
        seconds=spent,
        failures=failures,
        rotations=rotations,
        start=start,
        middle=watch.middle,
        most_descriptors=watch.most,
        end=end,
        complaints=tuple(
            line
            for line in lines
            if ("WARNING" in line or "ERROR" in line) and "--allow" not in line
        ),
    )


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once: ``rounds`` are for what varies."""
    came = endure(home, requests=10_000, seconds=20.0, seed=1)
    say("done")
    return Table(
        "rotation",
        "10,000 requests by 8 clients, some kept alive, while the server's certificate rotates every second",
        (
            {"": "requests answered", "start": None, "middle": None, "end": came.requests},
            {
                "": "failures (must be 0)",
                "start": None,
                "middle": None,
                "end": came.failures.total(),
            },
            {"": "full handshakes", "start": None, "middle": None, "end": came.handshakes},
            {"": "rotations seen", "start": None, "middle": None, "end": came.rotations},
            {
                "": "server's descriptors",
                "start": came.start.descriptors,
                "middle": came.middle.descriptors,
                "end": came.end.descriptors,
            },
            {
                "": "server's memory, KiB",
                "start": came.start.resident_kib,
                "middle": came.middle.resident_kib,
                "end": came.end.resident_kib,
            },
        ),
        (
            f"{came.seconds:.1f} s, {came.most_descriptors} descriptors at most. "
            "Unpinned. One connection in each of the two processes lives throughout.",
            *(f"failed: {what} ({count} times)" for what, count in came.failures.items()),
            *(f"log: {line}" for line in came.complaints[:5]),
        ),
    )


def _rotations(server: Service) -> int:
    return server.count("Certificate rotation complete.")


def _settle(server: Service, descriptors: int | None) -> None:
    """Wait until the server is back at so many descriptors, or for their number to stay the same."""
    deadline = time.monotonic() + _SETTLING
    before = None
    while time.monotonic() < deadline:
        now = server.descriptors()
        if now is None or (now <= descriptors if descriptors is not None else now == before):
            return
        before = now
        time.sleep(0.5)


@define(eq=False)
class _Watch:
    """Looks at a server while something else goes on."""

    server: Service
    _moments: list[Moment] = field(factory=list, init=False)
    _over: threading.Event = field(factory=threading.Event, init=False)
    _thread: threading.Thread = field(init=False)

    def __enter__(self) -> "_Watch":
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_INTERVAL):
            with suppress(OSError):
                self._moments.append(Moment.of(self.server))

    @property
    def middle(self) -> Moment:
        return self._moments[len(self._moments) // 2] if self._moments else Moment(None, None)

    @property
    def most(self) -> int | None:
        return max(
            (m.descriptors for m in self._moments if m.descriptors is not None), default=None
        )
