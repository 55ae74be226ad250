"""A sidecar at each end: what it carries, how much longer that takes, and what a connection costs."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen

from tests.bench import load
from tests.bench.peers import ENVOY
from tests.bench.processes import LOAD_CORE, Service, Stage, pinned, stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.sidecars import Sidecar, sidecars
from tests.bench.tables import Table, Value, beside
from tests.running import PATIENCE

_LOAD = "tests.bench.plain_load"
DIRECT = "direct"
#: MB of one answer, by how many connections ask for them.
_BULK = {1: 16, 64: 2}
_TRIPS = (1, 64)
_AT_ONCE = 8
_FRAME = 16
_WARM, _IDLE, _LADEN = 100, 600, 200
_LOAD_OF_ONE = 4_000_000
#: Seconds until memory that is not needed any more is given back.
_SETTLED = 1.0
_NOTES = (
    "Two processes each, both on one core: plain to mutual TLS, and mutual TLS to plain. CPU is of both together.",
    "All check that their peer's chain ends in the root; mesh-proxy and envoy that it is who it must be by SPIFFE ID, "
    "and mesh-proxy what was revoked. All log a line for each connection.",
)


@frozen
class Hops:
    """Processes that are measured as one."""

    services: Sequence[Service]

    def cpu_seconds(self) -> float | None:
        """Of all together; None where that cannot be told."""
        times = [service.cpu_seconds() for service in self.services]
        found = [seconds for seconds in times if seconds is not None]
        return sum(found) if found and len(found) == len(times) else None


def measure_bulk(
    home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.2
) -> Table:
    """MB a second by one connection, and by 64."""
    return _competition(
        "sidecar-bulk",
        "bytes through a sidecar at each end: how many connections carry them stands behind the name",
        "MB",
        {
            clients: {
                "kind": "exchanges",
                "clients": clients,
                "size": size * 1_000_000,
                "each": size,
            }
            for clients, size in _BULK.items()
        },
        *(home, rounds, say, seconds),
    )


def measure_trips(
    home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.2
) -> Table:
    """Sixteen bytes there and back, by one connection and by 64."""
    return _competition(
        "sidecar-trips",
        "sixteen bytes there and back through a sidecar at each end: how many connections are under way stands behind "
        "the name",
        "round trips",
        {clients: {"kind": "exchanges", "clients": clients, "size": _FRAME} for clients in _TRIPS},
        *(home, rounds, say, seconds),
        times=True,
    )


def measure_connections(
    home: Path, rounds: int, say: Callable[[str], None], seconds: float = 1.2
) -> Table:
    """New connections, each with its own two handshakes of TCP and one of TLS."""
    return _competition(
        "sidecar-connections",
        f"new connections through a sidecar at each end, {_AT_ONCE} at a time: sixteen bytes there and back on each",
        "connections",
        {_AT_ONCE: {"kind": "connections", "clients": _AT_ONCE, "size": _FRAME}},
        *(home, rounds, say, seconds),
        times=True,
    )


def _competition(  # noqa: PLR0917
    name: str,
    title: str,
    unit: str,
    jobs: Mapping[int, Mapping[str, Any]],
    home: Path,
    rounds: int,
    say: Callable[[str], None],
    seconds: float,
    *,
    times: bool = False,
) -> Table:
    rows: list[Mapping[str, Value]] = []
    warnings: tuple[str, ...] = ()
    with _carrying(home) as (there, absent, backend):
        for clients, job in jobs.items():
            contestants = [
                Contestant(
                    f"{sidecar.name}, {clients}",
                    Hops(sidecar.hops),
                    {**job, "port": sidecar.port},
                    _work,
                )
                for sidecar in there
            ]
            direct = Contestant(f"{DIRECT}, {clients}", Hops(()), {**job, "port": backend}, _work)
            compete([*contestants, direct], rounds, seconds, say)
            rows += _rows(unit, clients, contestants, direct, times=times)
            warnings = (*warnings, *busy(contestants))
    return Table(name, title, tuple(rows), (*_NOTES, *absent, *warnings[:1]))


def _rows(
    unit: str, clients: int, contestants: Sequence[Contestant], direct: Contestant, *, times: bool
) -> Iterator[Mapping[str, Value]]:
    usual = direct.told("p50") or 0.0
    found: list[Mapping[str, Value]] = []
    for one in (*contestants, direct):
        row = one.row(unit)
        p50, p99 = one.told("p50"), one.told("p99")
        timed = {
            "p50 us": round((p50 or 0) * 1e6),
            "p99 us": round((p99 or 0) * 1e6),
            "added us": None if one is direct else round(((p50 or 0) - usual) * 1e6),
        }
        found.append(
            {
                "": row[""],
                "a second": row[f"{unit}/s"],
                "CPU us each": row["CPU us each"],
                **(timed if times else {}),
                "core used": row["core used"],
                "failures": row["failures"],
            }
        )
    peer = f"{ENVOY}, {clients}"
    rated = beside(found, "a second", peer, f"rate beside {ENVOY}")
    yield from beside(rated, "CPU us each", peer, f"CPU beside {ENVOY}")


def measure_idle(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """What an idle connection takes of both processes. Once: ``rounds`` are for what differs between them."""
    with _carrying(home) as (there, absent, _):
        rows: list[Mapping[str, Value]] = []
        for sidecar in there:
            rows.append({"": sidecar.name, **_grown(sidecar)})
            say(f"{sidecar.name} is measured")
    return Table(
        "sidecar-idle",
        f"resident memory of both hops for each of {_IDLE:,} idle connections, after one round trip on each",
        tuple(rows),
        (
            f"Beyond what {_WARM} connections, which stay, had made them take before. Each hop holds two sockets of a "
            f"carried connection, of which one speaks TLS. The last column is what {_LADEN} of them take more once "
            f"each has carried {_LOAD_OF_ONE // 1_000_000} MB and is idle again, of both hops.",
            "mesh-proxy agrees on X25519MLKEM768, whose keys OpenSSL keeps: one end takes 41 KiB by itself, and 34 "
            "with X25519 alone.",
            *absent,
        ),
    )


def _grown(sidecar: Sidecar) -> Mapping[str, float]:
    def resident() -> list[int]:
        return [service.resident_kib() or 0 for service in sidecar.hops]

    with ExitStack() as kept, pinned(LOAD_CORE):

        def call() -> socket.socket:
            caller = socket.create_connection(("127.0.0.1", sidecar.port), PATIENCE)
            kept.enter_context(caller)
            _ask(caller, _FRAME)
            return caller

        for _ in range(_WARM):
            call()
        before = resident()
        callers = [call() for _ in range(_IDLE)]
        time.sleep(_SETTLED)
        idle = resident()
        for caller in callers[:_LADEN]:
            _ask(caller, _LOAD_OF_ONE)
        time.sleep(_SETTLED)
        laden = resident()
    outside, inside = ((now - was) / _IDLE for now, was in zip(idle, before, strict=True))
    more = (sum(laden) - sum(idle)) / _LADEN
    told = {
        "KiB each": outside + inside,
        "plain to TLS": outside,
        "TLS to plain": inside,
        "KiB more after bulk": more,
    }
    return {name: round(value, 1) for name, value in told.items()}


def _ask(caller: socket.socket, size: int) -> None:
    caller.sendall(b"%16d" % size)
    while size:
        got = len(caller.recv(min(size, 1024 * 1024)))
        if not got:
            raise AssertionError("closed in the middle")
        size -= got


@contextmanager
def _carrying(home: Path) -> Iterator[tuple[list[Sidecar], list[str], int]]:
    """All that are there, what is to be said of the others, and the backend's port."""
    with stage(home) as running:
        port = _backend(running)
        yield (*sidecars(running, port), port)


def _backend(running: Stage) -> int:
    service = running.module("backend", _LOAD, "backend", core=LOAD_CORE)
    return int(service.wait_for(r"^(\d+)$")[1])


_work = partial(load.work, module=_LOAD)
