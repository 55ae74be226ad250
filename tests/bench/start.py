"""How long a user waits: for a CA, for a server, for a client, for help."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.tables import Table, Value, beside, median
from tests.running import BIN, PATIENCE, Mesh, mesh

_HELPS = 10
_PEER = "openssl x509 -text"
_BOUNDS = {"pki-inspect show": 0.15, "mesh-ctl cert list": 0.35}


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    firsts, seconds, servers, clients = [], [], [], []
    commands: dict[str, list[float]] = {}
    for number in range(rounds):
        with mesh(home / str(number), real=True) as running:
            firsts.append(_ca(running))
            running.stop()
            seconds.append(_ca(running))
            servers.append(_server(running))
            clients.append(_client(running))
            root = str(running.state / "ca" / "root.crt")
            for _ in range(_HELPS):
                for name, command in _commands(root).items():
                    commands.setdefault(name, []).append(_run(running, command))
        say(f"round {number + 1} of {rounds} done")
    helps = [_help() for _ in range(_HELPS)]
    rows = (
        _row("mesh-ca, first start, to Ready (makes an RSA-4096 root)", firsts, None),
        _row("mesh-ca, second start, to Ready", seconds, 0.6),
        _row("mesh-server, to Ready", servers, None),
        _row("mesh-client, key to answer", clients, None),
        _row("pki-inspect --help", helps, 0.4),
        *(_row(name, values, _BOUNDS.get(name)) for name, values in commands.items()),
    )
    return Table(
        "start",
        "seconds from the command to what the user waits for",
        beside(rows, "median s", _PEER, f"beside {_PEER}"),
        ("Unpinned, one after the other. RSA-4096 takes as long as its primes take to find.",),
    )


def _row(what: str, values: list[float], bound: float | None) -> dict[str, Value]:
    return {
        "": what,
        "median s": round(median(values), 3),
        "least": round(min(values), 3),
        "most": round(max(values), 3),
        "runs": len(values),
        "must be under": bound,
    }


def _commands(certificate: str) -> dict[str, list[str]]:
    ours = {
        "pki-inspect show": [str(BIN / "pki-inspect"), "show", certificate],
        "mesh-ctl cert list": [str(BIN / "mesh-ctl"), "cert", "list"],
    }
    openssl = shutil.which("openssl")
    if openssl is None:
        return ours
    return {
        **ours,
        "openssl version": [openssl, "version"],
        _PEER: [openssl, "x509", "-noout", "-text", "-in", certificate],
    }


def _run(running: Mesh, command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, env={**os.environ, **running.env})
    spent = time.perf_counter() - start
    assert not done.returncode, done.stderr
    return spent


def _ca(running: Mesh) -> float:
    """As a user starts it, keys and all; only the port is another."""
    start = time.perf_counter()
    ca = running.twistd("mesh-ca", "--port", "0")
    ca.wait_for(r"Ready to issue certificates\.", PATIENCE * 2)
    return time.perf_counter() - start


def _server(running: Mesh) -> float:
    start = time.perf_counter()
    running.start_server()
    return time.perf_counter() - start


def _client(running: Mesh) -> float:
    start = time.perf_counter()
    done = running.client()
    spent = time.perf_counter() - start
    assert done.returncode == 0, done.stdout + done.stderr
    return spent


def _help() -> float:
    start = time.perf_counter()
    subprocess.run([BIN / "pki-inspect", "--help"], capture_output=True, check=True)
    return time.perf_counter() - start
