"""Keys on a token beside keys in files: signatures a second, what /sign takes, and how soon a token is back in use."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.bench import load
from tests.bench.meshes import CLIENT_ID, MeshOnStage
from tests.bench.processes import SERVER_CORE, Stage, stage
from tests.bench.tables import Table, Value, median
from tests.twisted_mesh.pkcs11.softhsm import SoftHsm

_CALLERS = (1, 4, 16)
_ALGORITHMS = (KeyAlgorithm.EC_P256, KeyAlgorithm.EC_P384, KeyAlgorithm.RSA_2048)
_MODULE = "tests.bench.key_load"
_NONE = ("SoftHSM is not installed: apt-get install softhsm2, pip install 'twisted-mesh[pkcs11]'",)


@contextmanager
def token(home: Path) -> Iterator[SoftHsm | None]:
    """A token to make keys on; None where SoftHSM is not installed."""
    if shutil.which("softhsm2-util") is None:
        yield None
        return
    softhsm = SoftHsm.made(home / "softhsm", "mesh")
    with softhsm.here():
        yield softhsm


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    """Signatures, each verified, by the pool and by a file's key."""
    title = "signatures a second, each verified, by a key on SoftHSM (4 sessions) and in a file"
    with token(home) as softhsm:
        if softhsm is None:
            return Table("keys-signatures", title, (), _NONE)
        places = {"token": _on(softhsm), "file": {}}
        told: dict[tuple[str, str, int], list[dict[str, float]]] = {}
        for number in range(rounds):
            for algorithm in _ALGORITHMS:
                for name, place in places.items():
                    for callers in _CALLERS:
                        job = {"kind": "signatures", "callers": callers, "seconds": seconds}
                        found = load.work(
                            {**job, **place, "algorithm": algorithm}, SERVER_CORE, _MODULE
                        )
                        told.setdefault((algorithm, name, callers), []).append(found)
            say(f"round {number + 1} of {rounds} done")
        rows: list[dict[str, Value]] = []
        for algorithm in _ALGORITHMS:
            for name in places:
                row: dict[str, Value] = {"": f"{algorithm}, {name}"}
                for callers in _CALLERS:
                    found = told[algorithm, name, callers]
                    row[f"{callers} at a time: /s"] = round(median([one["rate"] for one in found]))
                    p99 = median([one["p99"] for one in found])
                    row[f"p99 of {callers}, ms"] = round(p99 * 1000, 2)
                rows.append(row)
        back = {
            **{"kind": "recovery", "tokens": str(softhsm.tokens), "times": 10 * rounds},
            **{"elsewhere": str(softhsm.directory / "elsewhere"), **_on(softhsm)},
        }
        returned = load.work(back, SERVER_CORE, _MODULE)
    return Table(
        "keys-signatures",
        title,
        tuple(rows),
        (
            "The process has one core, with SoftHSM, OpenSSL and Python in it: more sessions help where a token is",
            "another machine's, or a chip.",
            f"A token that was taken out (its files moved) and put back signs again {returned['median']:.2f} s",
            f"after its return (the longest of {back['times']}: {returned['longest']:.2f} s), asked each 10 ms;",
            "asked by nobody, within the 5 s between two looks.",
        ),
    )


def measure_signing(
    home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0
) -> Table:
    """What a certificate takes whose issuing CA is on a token."""
    title = "certificates signed over 16 kept-alive HTTP connections, by an issuing key on SoftHSM and in a file"
    csr = build_csr(MemoryKey.generate(KeyAlgorithm.EC_P256), SpiffeId.parse(CLIENT_ID))
    body = json.dumps({"csr": csr.decode(), "requested_id": CLIENT_ID})
    with token(home) as softhsm, stage(home) as running:
        if softhsm is None:
            return Table("keys-sign", title, (), _NONE)
        places = {
            "file": (),
            "SoftHSM": ("--issuing-key", softhsm.uri(), "--token-pin-file", str(softhsm.pin)),
        }
        ports = {name: _ca(running, name, options) for name, options in places.items()}
        told: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for number in range(rounds):
            for name, port in ports.items():
                for clients in (1, 16):
                    job = {
                        **{"kind": "posts", "port": port, "path": "/api/v1/sign", "body": body},
                        **{"clients": clients, "expected": "-----BEGIN CERTIFICATE-----"},
                    }
                    found = load.work({**job, "seconds": seconds})
                    told.setdefault((name, clients), []).append(found)
            say(f"round {number + 1} of {rounds} done")
    rows: list[dict[str, Value]] = []
    for name in ports:
        row: dict[str, Value] = {"": f"mesh-ca, issuing key: {name}"}
        for clients in (1, 16):
            found = told[name, clients]
            rate = median([one["done"] / one["seconds"] for one in found])
            row[f"{clients} at a time: /s"] = round(rate)
            row[f"p50 of {clients}, ms"] = round(median([one["p50"] for one in found]) * 1000, 2)
            row[f"p99 of {clients}, ms"] = round(median([one["p99"] for one in found]) * 1000, 2)
        rows.append(row)
    return Table("keys-sign", title, tuple(rows), ("P-256 throughout; SQLite, durably.",))


def _on(softhsm: SoftHsm) -> dict[str, str]:
    return {"uri": softhsm.uri(), "pin": str(softhsm.pin)}


def _ca(running: Stage, name: str, options: tuple[str, ...]) -> int:
    directory = running.home / name
    directory.mkdir()
    mesh = MeshOnStage(Stage(directory, running.services))
    ca = mesh.start_ca(
        *("--insecure-http", "0", "--quota", "1000000:1000000", *options), core=SERVER_CORE
    )
    return int(ca.wait_for(r"at http://localhost:(\d+)")[1])
