"""Thousands of mutual TLS connections are cut at one moment and come back at once: what a server makes of it, or a CA.

The process that has them is killed with -9 and started again. At a server each asks for its status; at a CA each has
its certificate renewed over the new connection. ``MESH_CROWD`` says how many they are.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
from OpenSSL import SSL

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from tests.authorities import MESH
from tests.bench.crowd import Caller, Crowd
from tests.bench.key_exchange import CLASSICAL, HYBRID
from tests.bench.keys import token
from tests.bench.meshes import MeshOnStage
from tests.bench.processes import LOAD_CORE, SERVER_CORE, Service, Stage, pinned, stage
from tests.bench.tables import Table, Value
from tests.ca_socket import CaSocket
from tests.running import free_port
from twisted_mesh.tls.groups import offer

_CALLERS = 1000
#: Seconds for all to come, and for all to be back. Who is not by then is told.
_PATIENCE = 40.0, 40.0
#: SPIFFE IDs, keys and addresses, shared out among the callers.
_IDENTITIES = 50
_STATUS = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    """Once, however many ``rounds``: each turn takes a minute at most."""
    count = int(os.environ.get("MESH_CROWD", _CALLERS))
    rows, notes = [], []
    with token(home) as softhsm:
        turns: dict[str, tuple[Callable[..., Any], str, tuple[str, ...]]] = {
            "mesh-server": (_server, CLASSICAL, ()),
            "mesh-server --require-pq": (_server, HYBRID, ("--require-pq",)),
            "mesh-ca, issuing key in a file": (_ca, CLASSICAL, ()),
        }
        if softhsm is None:
            notes.append("SoftHSM is not installed: apt-get install softhsm2.")
        else:
            key = ("--issuing-key", softhsm.uri(), "--token-pin-file", str(softhsm.pin))
            turns["mesh-ca, issuing key on SoftHSM"] = (_ca, CLASSICAL, key)
        for number, (name, (turn, group, options)) in enumerate(turns.items()):
            say(name)
            with stage(home / str(number)) as running:
                row, failures = turn(running, count, group, options)
            rows.append({"": name, **row})
            told = ", ".join(f"{why} ({times:,})" for why, times in failures.most_common(4))
            notes.append(f"{name}, tries that failed: {told or 'none'}.")
    return Table(
        "return-crowd",
        f"{count:,} mutual TLS connections, all cut by kill -9, and how soon all of them are back",
        tuple(rows),
        (
            "s are from the kill, the start of the process included, and then from the first who is back on.",
            "All dial in the moment in which somebody listens again, and after 50 to 250 ms where that fails; a wait",
            "is from a caller's loss to its answer. The callers are one process on one core. At a CA each has its",
            "certificate renewed over its new connection. MiB are resident: of all before, of all back, and the most",
            "in between.",
            *notes,
        ),
    )


def _server(
    running: Stage, count: int, group: str, options: Sequence[str]
) -> tuple[dict[str, Value], "Counter[str]"]:
    mesh = MeshOnStage(running)
    mesh.start_ca(*options)
    words = ("--listen", f"127.0.0.1:{free_port()}", *options)
    server, port = mesh.start_server(*words)
    return _cut(
        server,
        lambda: mesh.begin_server(*words, name="mesh-server-again"),
        Crowd(port, _callers(running.home, count, group, is_renewal=False)),
    )


def _ca(
    running: Stage, count: int, group: str, options: Sequence[str]
) -> tuple[dict[str, Value], "Counter[str]"]:
    mesh = MeshOnStage(running)
    words = ("--port", str(free_port()), "--quota", "off", *options)
    ca = mesh.start_ca(*words, core=SERVER_CORE)
    port = int(ca.wait_for(r"listening on https://[^:]+:(\d+)")[1])
    return _cut(
        ca,
        lambda: mesh.begin_ca(*words, core=SERVER_CORE, name="mesh-ca-again"),
        Crowd(port, _callers(running.home, count, group, is_renewal=True)),
    )


def _callers(home: Path, count: int, group: str, *, is_renewal: bool) -> list[Caller]:
    """With certificates that the CA's administrator has had signed."""
    kinds = []
    with closing(CaSocket(home / "state" / "ca" / "ca.sock")) as asked:
        for number in range(_IDENTITIES):
            key = MemoryKey.generate(KeyAlgorithm.EC_P256)
            name = MESH.member("service", f"caller-{number}")
            body = {"csr": build_csr(key, name).decode(), "requested_id": str(name)}
            answer = asked.post("/api/v1/sign", body)
            shown, kept = home / f"{number}.pem", home / f"{number}.key"
            shown.write_text("".join((answer["certificate"], *answer["chain"])))
            kept.write_bytes(key.to_pem())
            context = SSL.Context(SSL.TLS_METHOD)
            context.set_min_proto_version(SSL.TLS1_3_VERSION)
            context.load_verify_locations(str(home / "state" / "ca" / "root.crt"))
            context.set_verify(SSL.VERIFY_PEER)
            context.use_certificate_chain_file(str(shown))
            context.use_privatekey_file(str(kept))
            if not offer(context, group):
                raise ValueError(group)
            # Their hosts are many: of one address a flood is made out sooner.
            host = f"127.0.0.{2 + number}" if sys.platform == "linux" else "127.0.0.1"
            kinds.append((context, host, _sign(body) if is_renewal else _STATUS))
    return [Caller(*kinds[number % _IDENTITIES]) for number in range(count)]


def _sign(body: object) -> bytes:
    data = msgspec.json.encode(body)
    head = (
        "POST /api/v1/sign HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _cut(
    service: Service, start: Callable[[], Service], crowd: Crowd
) -> tuple[dict[str, Value], "Counter[str]"]:
    come, back = _PATIENCE
    with pinned(LOAD_CORE), closing(crowd):
        crowd.come(come)
        before = service.resident_kib()
        crowd.forget()
        killed_at = time.monotonic()
        service.kill()
        again = start()
        crowd.go_on(back, crowd.are_back)
        after, most = again.resident_kib(), again.most_resident_kib()
        missing = len(crowd.callers) - crowd.back
    waits = sorted(crowd.waits) or [0.0]
    row: dict[str, Value] = {
        "first back, s": round(crowd.first_back_at - killed_at, 2),
        "all back, s": None if missing else round(crowd.last_back_at - killed_at, 2),
        "from first to last, s": round(crowd.last_back_at - crowd.first_back_at, 2),
        "a second": round(len(waits) / max(0.001, crowd.last_back_at - crowd.first_back_at)),
        "median wait, s": round(waits[len(waits) // 2], 2),
        "longest wait, s": round(waits[-1], 2),
        "not back": missing,
        "MiB before": _mib(before),
        "back": _mib(after),
        "most": _mib(most),
    }
    return row, crowd.failures


def _mib(kib: int | None) -> int | None:
    return None if kib is None else round(kib / 1024)
