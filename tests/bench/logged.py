"""What a certificate takes that is shown to logs before it is issued, beside one that is not, in one run."""

import http.client
import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.log_list import LogList
from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId, TrustDomain
from tests.bench import load
from tests.bench.meshes import CLIENT_ID, MeshOnStage
from tests.bench.processes import SERVER_CORE, Service, Stage, stage
from tests.bench.tables import Table, Value, median
from tests.running import BIN, free_port
from twisted_mesh.ca.transparency.submitter import submitter
from twisted_mesh.state.key_files import KeyFiles

_CALLERS = (1, 16, 64)
_LOGS = 2
_CA = TrustDomain("mesh.local").member("mesh", "ca")


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    csr = build_csr(MemoryKey.generate(KeyAlgorithm.EC_P256), SpiffeId.parse(CLIENT_ID))
    body = json.dumps({"csr": csr.decode(), "requested_id": CLIENT_ID})
    told: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with stage(home) as running:
        directory = running.home / "logged"
        logs, known = _logs(running, directory)
        listed = ("--ct-logs", str(known), "--ct-quorum", str(_LOGS))
        ports = {
            "no log": _ca(running, running.home / "plain", ()),
            f"{_LOGS} logs": _ca(running, directory, listed),
        }
        sizes = {name: _size(port, body) for name, port in ports.items()}
        for number in range(rounds):
            for name, port in ports.items():
                for clients in _CALLERS:
                    before = [log.cpu_seconds() or 0.0 for log in logs]
                    found = load.work({**_posts(port, body, clients), "seconds": seconds})
                    used = [
                        (log.cpu_seconds() or 0.0) - was
                        for log, was in zip(logs, before, strict=True)
                    ]
                    found["log_cpu"] = max(used) / max(1, found["done"])
                    told.setdefault((name, clients), []).append(found)
            say(f"round {number + 1} of {rounds} done")
    rows = [_row(name, told, sizes[name]) for name in ports]
    return Table(
        "ct-issuance",
        f"certificates issued over kept-alive HTTP connections, shown to {_LOGS} logs and to none",
        tuple(rows),
        (
            "P-256 throughout; the CA has one core, the logs share the machine with the load. Without a log a",
            "certificate is signed once and is one durable transaction; with logs it is signed twice and takes two,",
            "and between these each log verifies, sequences and syncs its precertificate before it answers.",
        ),
    )


def _row(
    name: str, told: dict[tuple[str, int], list[dict[str, Any]]], size: int
) -> dict[str, Value]:
    row: dict[str, Value] = {"": f"mesh-ca, {name}"}
    for clients in _CALLERS:
        found = told[name, clients]
        row[f"{clients} at a time: /s"] = round(
            median([one["done"] / one["seconds"] for one in found])
        )
        for part in ("p50", "p99"):
            row[f"{part} of {clients}, ms"] = round(median([one[part] for one in found]) * 1000, 2)
    most = told[name, _CALLERS[-1]]
    row["CPU us of a log each"] = round(median([one["log_cpu"] for one in most]) * 1e6)
    row["bytes of a certificate"] = size
    return row


def _posts(port: int, body: str, clients: int) -> dict[str, Any]:
    return {
        **{"kind": "posts", "port": port, "path": "/api/v1/sign", "body": body},
        **{"clients": clients, "expected": "-----BEGIN CERTIFICATE-----"},
    }


def _size(port: int, body: str) -> int:
    """Of one certificate, in DER."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/api/v1/sign", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
    return len(certificate.public_bytes(Encoding.DER))


def _logs(running: Stage, directory: Path) -> tuple[list[Service], Path]:
    """Logs that know the CA which will live in ``directory``, and the list of them."""
    private = directory / "state" / "ca" / "private"
    private.mkdir(parents=True)
    private.chmod(0o700)
    pin = submitter(KeyFiles(private), _CA.trust_domain, datetime.now(UTC)).pin
    services, entries = [], []
    for number in range(1, _LOGS + 1):
        home = running.home / f"log-{number}"
        service = running.start(
            f"log-{number}-log",
            *(BIN / "twistd", "-n", "mesh-ctlog", "--state-dir", home),
            *("--listen", f"127.0.0.1:{free_port()}", "--accept-ca", f"{_CA}={pin}"),
            *("--roots", directory / "state" / "ca" / "root.crt"),
            *("--submission-rate", "1000000:1000000"),
        )
        service.wait_for(r"Ready to log certificates\.")
        services.append(service)
        entries += LogList.parse((home / "ctlog" / "log-list.json").read_bytes()).logs
    known = running.home / "logs.json"
    known.write_bytes(LogList(tuple(entries)).to_bytes())
    known.chmod(0o644)
    return services, known


def _ca(running: Stage, directory: Path, options: tuple[str, ...]) -> int:
    directory.mkdir(exist_ok=True)
    mesh = MeshOnStage(Stage(directory, running.services))
    ca = mesh.start_ca(
        *("--insecure-http", "0", "--quota", "1000000:1000000", *options), core=SERVER_CORE
    )
    return int(ca.wait_for(r"at http://localhost:(\d+)")[1])
