"""What an agent gives to workloads: how soon, how many, and in how much memory."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import define

from tests.bench.tables import Table
from tests.ca_socket import CaSocket
from tests.running import Mesh, mesh
from tests.twisted_mesh.workload.estate import US, Node, Workload, workload

_ENTRIES, _CROWD = 200, 1000
_FIRST_UID = 3_000_000
_CROWD_PROGRAM = Path(__file__).with_name("workload_crowd.py")


@define
class _Crowd:
    """Workloads that have all been answered."""

    seconds: float
    answered: int


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    rows = []
    home.parent.chmod(0o711)  # other users are to come to the socket
    with mesh(home / "mesh", real=True) as made:
        made.start_ca("--rate-limit", "off", "--quota", "off")
        node = Node(made, "node-1", home / "node")
        node.join()
        say(f"{_ENTRIES} entries, one after the other")
        rows += _arrivals(made, node)
        if os.geteuid() == 0:
            say(f"{_CROWD} workloads, each with an entry")
            _make_entries(made, node)
            rows.append(_crowd(node, _FIRST_UID, "each with an SVID of its own"))
        say(f"{_CROWD} workloads of one entry")
        _post_entry(made, node, "shared", US)
        rows.append(_crowd(node, 0, "all with one SVID"))
    return Table(
        "workloads",
        "one agent, one CA, real processes; P-256",
        tuple(rows),
        (
            "soon: from the request that makes an entry, at the CA's socket, to the answer in the workload's hands.",
            "a second: until all of them, who come at once, have their SVIDs; memory: of the agent, per workload.",
        ),
    )


def _row(what: str, **facts: float | int | None) -> dict[str, float | int | str | None]:
    columns = ("median ms", "p99 ms", "workloads", "a second", "KiB each")
    return {"what": what, **{name: facts.get(name) for name in columns}}


def _arrivals(made: Mesh, node: Node) -> list[dict[str, float | int | str | None]]:
    standing = _post_entry(made, node, "standing", US)
    found: dict[str, list[float]] = {}
    with workload(node.socket, "again") as one:
        one.wait_for_id("standing")
        found["an entry, to who follows already"] = _each(made, node, one)
    _delete(made, standing)
    with workload(node.socket, "again") as one:
        one.wait_for(lambda told: "status" in told)
        found["an entry, to who asks again each 20 ms"] = _each(made, node, one)
    return [
        _row(
            what,
            **{
                "median ms": round(statistics.median(times) * 1000, 1),
                "p99 ms": round(statistics.quantiles(times, n=100)[98] * 1000, 1),
            },
        )
        for what, times in found.items()
    ]


def _each(made: Mesh, node: Node, one: Workload) -> list[float]:
    times = []
    for number in range(_ENTRIES):
        name = f"w{number}"
        began = time.time()
        entry = _post_entry(made, node, name, US)
        times.append(one.wait_for_id(name)["at"] - began)
        _delete(made, entry)
        path = f"spiffe://mesh.local/service/{name}"
        one.wait_for(lambda told, path=path: path not in told.get("ids", ()))  # type: ignore[misc]
    return times


def _post_entry(made: Mesh, node: Node, name: str, selector: str) -> str:
    """Its id."""
    with closing(CaSocket(made.socket)) as caller:
        answer = caller.post(
            "/api/v1/entries",
            {
                "selectors": [selector],
                "spiffe_id": f"spiffe://mesh.local/service/{name}",
                "parent": node.id,
            },
        )
    entry: str = answer["id"]
    return entry


def _delete(made: Mesh, entry: str) -> None:
    with closing(CaSocket(made.socket)) as caller:
        caller.request("DELETE", f"/api/v1/entries/{entry}")
        answer = caller.getresponse()
        text = answer.read()
        assert answer.status < 300, text


def _make_entries(made: Mesh, node: Node) -> None:
    for number in range(_CROWD):
        _post_entry(made, node, f"e{number}", f"unix:uid:{_FIRST_UID + number}")


def _crowd(node: Node, first_uid: int, what: str) -> dict[str, float | int | str | None]:
    assert node.agent is not None
    before = _memory(node.agent.process.pid)
    with _following(node.socket, first_uid) as crowd:
        after = _memory(node.agent.process.pid)
    return _row(
        f"{_CROWD} workloads, {what}",
        **{
            "workloads": crowd.answered,
            "a second": round(crowd.answered / crowd.seconds),
            "KiB each": round((after - before) / max(1, crowd.answered), 1),
        },
    )


@contextmanager
def _following(socket: Path, first_uid: int) -> Iterator[_Crowd]:
    process = subprocess.Popen(
        [sys.executable, _CROWD_PROGRAM, socket, str(_CROWD), str(first_uid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        seconds, answered = process.stdout.readline().split()
        yield _Crowd(float(seconds), int(answered))
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _memory(pid: int) -> int:
    """In KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0])
