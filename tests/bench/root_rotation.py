"""A root's rotation while everybody is at work: prepare, activate, retire, and no request may fail.

A real CA; services that are processes of their own and services that share one; an agent with an Envoy at its socket,
where there is one; clients with the files that this agent keeps; and another trust domain that federates with this one,
whose server these clients call, and whose client calls a server here. All of this mesh's reach its CA over mutual TLS,
as from other machines. ``python -m tests.bench.root_rotation DIRECTORY`` measures it without the rest.

Certificates live for a minute or two here, so that what waits for the last of them does not wait for a day; and the
bundle's refresh hint is the least that there is, so that five times that, for whoever polls, are 25 seconds. The
federated trust domain polls. Where there is none nobody does, and *activate* is forced a few seconds after *prepare*,
once nothing but that time stands against it.
"""

import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from pki.validity import parse_rfc3339
from tests.bench import load
from tests.bench.federated_peer import CLIENT_ID as PEER_ID
from tests.bench.federated_peer import DOMAIN, OPTIONS, FederatedPeer, FederatingCa
from tests.bench.meshes import CLIENT_ID, MeshOnStage
from tests.bench.processes import Service, Stage, stage
from tests.bench.tables import Table, Value
from tests.recipes.estate import adapted, blocks, is_open
from tests.running import BIN, free_port, is_listening, until

_ROOT = "/api/v1/ca/root"
_TOO_SOON = "root-too-soon"
#: Seconds for which a step may wait: leaves live for a minute or two here.
_LONGEST = 300.0
_STEPS = ("prepare", "activate", "retire")
#: Seconds between two looks at what a step waits for.
_LOOK = 0.25
_PROCESSES = 2


@frozen
class Scale:
    """How much of everything there is."""

    requests: int
    seconds: float
    """Over which they are spread; they go on at that pace for as long as the rotation takes."""
    life: int
    """Of certificates, in seconds."""
    servers: int
    """Processes of mesh-server."""
    crowd: int
    """Services in one process."""
    clients: int
    after: float = 4.0
    """Seconds of asking before the first step, and after each."""
    envoy: bool = True
    """Whether there is one, where its program is installed."""
    peer: bool = True
    """Whether there is a federated trust domain."""
    seed: int = 20261129


WHOLE = Scale(requests=100_000, seconds=200.0, life=90, servers=6, crowd=14, clients=8)


@frozen
class Step:
    """One of the steps."""

    name: str
    waited: float
    """Seconds until nothing stood against it, but for what was passed over."""
    took: float
    """Seconds of the command, until it was done."""
    passed_over: tuple[str, ...]
    """Codes of what it was forced over."""
    heard: float | None
    """Seconds until the federated trust domain believed the same roots as everybody here; None without one."""


@frozen
class Rotated:
    """What came of it."""

    requests: int
    connections: int
    seconds: float
    failures: Counter[str]
    steps: tuple[Step, ...]
    still_asked: float
    """Seconds for which requests went on after the last step."""
    signatures: Counter[int]
    """In each second, from the first step to the end."""
    endpoints: int
    envoy: bool
    complaints: tuple[str, ...]
    """Of the endpoints' logs."""

    @property
    def worst_second(self) -> int:
        return max(self.signatures.values(), default=0)

    @property
    def mean_second(self) -> float:
        span = max(self.signatures) - min(self.signatures) + 1 if self.signatures else 1
        return self.signatures.total() / span


@define(eq=False)
class _House:
    """The mesh of it."""

    stage: Stage
    scale: Scale
    mesh: MeshOnStage = field(init=False)
    ca: Service = field(init=False)
    federating: FederatingCa = field(init=False)
    url: str = field(init=False)
    fingerprint: str = field(init=False)
    agent: Service = field(init=False)
    envoy: Service | None = None
    peer: FederatedPeer | None = None
    federated: dict[str, Any] = field(factory=dict)
    """The target in the other trust domain."""
    targets: list[dict[str, Any]] = field(factory=list)
    """Where the clients' requests go."""

    def __attrs_post_init__(self) -> None:
        self.mesh = MeshOnStage(self.stage)
        life = f"{self.scale.life}s"
        options = ("--cert-duration", life, "--max-cert-duration", life, "--no-default-entry")
        self.ca = self.mesh.start_ca(*options, *OPTIONS, core=None)
        self.federating = FederatingCa("mesh.local", self.home / "state", self.ca)
        self.url = "https://localhost:" + self.ca.wait_for(r"listening on https://[^:]+:(\d+)")[1]
        self.fingerprint = self.status()["roots"][0]["fingerprint"]

    @property
    def home(self) -> Path:
        return self.stage.home

    @property
    def services(self) -> list[Service]:
        return self.stage.services

    # The CA, as its operator speaks to it.

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return self.federating.ask(method, path, body)

    def status(self) -> Any:
        return self.ask("GET", _ROOT)

    def step(self, name: str) -> Step:
        """Wait until nothing stands against it but the clock of those who poll, where nobody does; have it done."""
        began = time.monotonic()
        against: set[str] = set()
        while True:
            looked = self.ask("POST", f"{_ROOT}/{name}", {"dry_run": True})
            against = {wait["code"] for wait in looked["waits"] if wait["blocking"]}
            if against <= self.passed_over:
                break
            assert time.monotonic() < began + _LONGEST, looked["waits"]
            time.sleep(_LOOK)
        ready = time.monotonic()
        how = {"force": True} if against else {}
        done = self.ask("POST", f"{_ROOT}/{name}", how)["done"]
        while not done:
            # Of retire: chains lead to the new root, and not everybody serves them yet.
            assert time.monotonic() < ready + _LONGEST, looked["waits"]
            time.sleep(_LOOK)
            looked = self.ask("POST", f"{_ROOT}/{name}", {"dry_run": True})
            if not any(wait["blocking"] for wait in looked["waits"]):
                done = self.ask("POST", f"{_ROOT}/{name}", how)["done"]
        done_at, heard = time.monotonic(), None
        if self.peer is not None:
            roots = {root["fingerprint"] for root in self.status()["roots"]}
            heard = self.peer.believes(self.federating, roots)
        return Step(name, ready - began, done_at - ready, tuple(sorted(against)), heard)

    @property
    def passed_over(self) -> set[str]:
        """What is not waited for."""
        return {_TOO_SOON} if self.peer is None else set()

    def signed(self) -> Iterator[float]:
        """When each certificate on record was issued, as POSIX times."""
        cursor = ""
        while True:
            page = self.ask("GET", f"/api/v1/certificates?limit=500{cursor}")
            for row in page["certificates"]:
                yield parse_rfc3339(row["issued_at"]).timestamp()
            if not page.get("next"):
                return
            cursor = f"&cursor={page['next']}"

    # Who is there.

    def joining(self, name: str, kind: str = "service") -> tuple[str, ...]:
        """The options by which somebody of that name reaches the CA as from another machine."""
        if kind == "agent":
            answer = self.ask("POST", "/api/v1/agents", {"name": name})
        else:
            whose = {"spiffe_id": f"spiffe://mesh.local/service/{name}"}
            told = {"federates_with": [DOMAIN]} if self.scale.peer else {}
            answer = self.ask("POST", "/api/v1/tokens", {**whose, **told})
        path = self.home / f"{name}.token"
        path.write_text(answer["token"])
        path.chmod(0o600)
        return (
            *("--ca-url", self.url, "--ca-fingerprint", self.fingerprint),
            *("--join-token-file", str(path), "--state-dir", str(self.home / name)),
        )

    def start_servers(self) -> None:
        for number in range(self.scale.servers):
            name = f"s{number}"
            options = ("--spiffe-id", f"spiffe://mesh.local/service/{name}", *self.joining(name))
            for allowed in ("spiffe://mesh.local/**", *([PEER_ID] if self.scale.peer else [])):
                options += ("--allow", allowed)
            _, port = self.mesh.start_server(*options, core=None, name=name)
            self.targets.append({"name": name, "port": port, "expected": CLIENT_ID})

    def start_crowd(self) -> None:
        names = [f"c{number}" for number in range(self.scale.crowd)]
        for name in names:
            _ = self.joining(name)
        crowd = self.stage.module(
            "crowd",
            "tests.bench.endpoint_crowd",
            *(self.home, self.url, self.fingerprint, *names),
            core=None,
        )
        for name in names:
            port = int(crowd.wait_for(rf"^{name} listens at (\d+)$")[1])
            self.targets.append({"name": name, "port": port, "expected": CLIENT_ID})

    def start_agent(self) -> None:
        """One that serves workloads, and keeps the clients' files."""
        name, files = "node-1", CLIENT_ID.rpartition("/")[2]
        _ = self.joining(files)
        socket = self.home / "workload.sock"
        self.agent = self.stage.start(
            name,
            *(BIN / "twistd", "-n", "mesh-agent", "--name", name, *self.joining(name, "agent")),
            *("--socket", socket, "--write", self.home / "files", "--spiffe-id", CLIENT_ID),
            *("--write-join-token-file", self.home / f"{files}.token"),
            env=self.mesh.env,
            core=None,
        )
        until(lambda: is_listening(socket), lambda: self.agent.text)
        self.agent.wait_for(r"Files in \S+ are new: svid, bundle")

    def start_envoy(self) -> None:
        """By the recipe: it lets in the clients, and takes whoever comes to the first of the servers."""
        found = find_spec("envoy")
        if not self.scale.envoy or found is None or found.origin is None:
            return
        entry = {
            "parent": "spiffe://mesh.local/mesh/agent/node-1",
            "selectors": [f"unix:uid:{os.geteuid()}"],
            "spiffe_id": "spiffe://mesh.local/service/web",
        }
        self.ask("POST", "/api/v1/entries", entry)
        (block,) = blocks("envoy-sds", "yaml")
        behind, port, out = self.targets[0], free_port(), free_port()
        clients, _, servers = block.partition("listeners:")
        clients = clients.replace("service/shop", f"service/{behind['name']}")
        servers = servers.replace("spiffe://mesh.local/service/shop", CLIENT_ID)
        places = {
            "/run/mesh/workload.sock": self.home / "workload.sock",
            **{"8443": behind["port"], "9443": port, "9080": out},
        }
        written = self.home / "envoy.yaml"
        written.write_text(adapted(f"{clients}listeners:{servers}", places))
        self.envoy = self.stage.start(
            "envoy",
            *(Path(found.origin).parent / "_bin" / "envoy", "-c", written),
            *("--concurrency", "1", "--disable-hot-restart", "-l", "warning"),
            core=None,
        )
        until(lambda: is_open(port) and is_open(out), (self.home / "envoy.log").read_text)
        self.targets += [
            {"name": "envoy", "port": port, "expected": "hello", "path": "/"},
            {
                "name": "through envoy",
                "port": out,
                "plain": True,
                "expected": "spiffe://mesh.local/service/web",
            },
        ]

    def start_peer(self) -> None:
        """Before whoever is to have its bundle."""
        if not self.scale.peer:
            return
        self.peer = FederatedPeer(self.stage)
        self.federated = self.peer.start(self.federating, CLIENT_ID)

    def call_across(self) -> None:
        """Requests from each of the two trust domains to the other."""
        if self.peer is None:
            return
        self.targets += [
            self.federated,
            self.peer.caller(self.targets[0], self.federating.domain),
        ]
        federated = self.home / "files" / f"svid_bundle.{DOMAIN}.pem"
        until(federated.exists, lambda: self.agent.text)


def rotate(home: Path, scale: Scale, say: Callable[[str], None] = lambda text: None) -> Rotated:
    """All of it."""
    with stage(home) as staged:
        house = _House(staged, scale)
        house.start_peer()
        house.start_servers()
        house.start_crowd()
        house.start_agent()
        house.start_envoy()
        house.call_across()
        say(f"{len(house.targets)} services are there")
        over = home / "over"
        job = {
            "kind": "paced",
            "path": "/api/status",
            "kept": str(home / "files"),
            "targets": house.targets,
            "requests": scale.requests // _PROCESSES,
            "seconds": scale.seconds,
            "clients": scale.clients // _PROCESSES,
            "until": str(over),
        }
        began, wall = time.monotonic(), time.time()
        parts = [load.begin({**job, "seed": scale.seed + n}, None) for n in range(_PROCESSES)]
        time.sleep(scale.after)
        steps = []
        for name in _STEPS:
            steps.append(house.step(name))
            time.sleep(scale.after)  # in which agents fetch the CRLs of CAs that are new
            say(f"{name}: waited {steps[-1].waited:.1f} s, took {steps[-1].took:.2f} s")
        done = time.monotonic() - scale.after
        over.touch()
        told = [load.finish(part) for part in parts]
        ended = time.monotonic()
        signatures = Counter(int(moment) for moment in house.signed() if moment >= int(wall))
        assert house.status()["phase"] == "settled"
        failures: Counter[str] = Counter()
        for part in told:
            failures.update(part["failures"])
        return Rotated(
            requests=sum(part["done"] for part in told),
            connections=sum(part["handshakes"] for part in told),
            seconds=ended - began,
            failures=failures,
            steps=tuple(steps),
            still_asked=ended - done,
            signatures=signatures,
            endpoints=scale.servers + scale.crowd,
            envoy=house.envoy is not None,
            complaints=tuple(_complaints(house.services)),
        )


def _complaints(services: Sequence[Service]) -> Iterator[str]:
    for service in services:
        for line in service.text.splitlines():
            if any(word in line for word in ("WARNING", "ERROR", "Traceback", "[warn", "[err")):
                yield f"{service.log.stem}: {line}"


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once: ``rounds`` are for what varies."""
    came = rotate(home, WHOLE, say)
    rows: list[dict[str, Value]] = [
        {"": "requests answered", "figure": came.requests, "must be": ""},
        {"": "failures", "figure": came.failures.total(), "must be": 0},
        {"": "connections", "figure": came.connections, "must be": ""},
    ]
    for step in came.steps:
        rows += [
            {"": f"{step.name}: waited, s", "figure": step.waited, "must be": ""},
            {"": f"{step.name}: took, s", "figure": step.took, "must be": ""},
        ]
        if step.heard is not None:
            heard = round(step.heard, 1)
            rows.append({"": f"{step.name}: heard by {DOMAIN}, s", "figure": heard, "must be": ""})
    rows += [
        {"": "signatures in the worst second", "figure": came.worst_second, "must be": ""},
        {"": "in the mean", "figure": came.mean_second, "must be": ""},
    ]
    return Table(
        "root-rotation",
        f"{WHOLE.requests:,} requests by {WHOLE.clients} clients to {came.endpoints} services"
        + (" and an Envoy" if came.envoy else "; no Envoy here")
        + (f", to and from {DOMAIN}" if WHOLE.peer else "")
        + ", while the root is replaced",
        tuple(rows),
        (
            f"{WHOLE.servers} processes of mesh-server, {WHOLE.crowd} services in one process, one agent; certificates "
            f"live for {WHOLE.life} s. {came.seconds:.0f} s; {came.still_asked:.0f} s of them after the last step.",
            *(
                f"{s.name} was forced over {', '.join(s.passed_over)}"
                for s in came.steps
                if s.passed_over
            ),
            *(f"failed: {what} ({count} times)" for what, count in came.failures.items()),
            *(f"log: {line}" for line in came.complaints[:5]),
        ),
    )


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    size = Scale(**json.loads(sys.argv[2])) if len(sys.argv) > 2 else WHOLE
    found = rotate(where, size, lambda text: print(text, flush=True))
    for line in found.complaints:
        print(line)
    print(found.steps, found.failures, found.requests, found.connections, f"{found.seconds:.1f} s")
    print(f"{found.worst_second=} {found.mean_second=:.2f} {found.still_asked=:.1f} {found.envoy=}")
