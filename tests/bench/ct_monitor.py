"""A monitor that was away for a million entries: how fast it reads them, and what its index weighs."""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from pki.ct.entry import key_hash_of
from pki.ct.log_key import LogKey
from pki.ct.log_list import Log, LogList
from pki.ct.sct import milliseconds
from pki.ct.tile_path import CHECKPOINT, TilePath, issuer_path
from pki.ct.tree_head import TreeHead, sign_head
from pki.ct.wire import vector
from pki.tlog.merkle import append, root
from tests.authorities import key, mesh
from tests.bench.tables import Table, median
from tests.running import BIN, CHECKOUT, PATIENCE, Running, free_port, run

ENTRIES = int(os.environ.get("BENCH_CT_ENTRIES", "1_000_000"))
_WIDTH, _CHUNK = 256, 256 * 256
_NAME, _SERIAL = b"spiffe://mesh.local/service/n%08d", 16


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    copy = home / "log"
    log, weight = write_log(copy, ENTRIES)
    say(f"{ENTRIES:,} entries are on disk, of {weight >> 20} MiB")
    (home / "logs.json").write_bytes(LogList((log,), datetime.now(UTC)).to_bytes())
    rows = []
    for what in ("files", "HTTP"):
        seconds, memory, index = [], [], 0
        for number in range(rounds):
            state = home / f"{what}-{number}"
            with _served(home, copy, log, what) as options:
                start = time.perf_counter()
                memory.append(_watch(home, state, options))
                seconds.append(time.perf_counter() - start)
            index = (state / "ct-watch" / "index.db").stat().st_size
            again = time.perf_counter()
            _watch(home, state, _copied(copy))
            again = time.perf_counter() - again
            search = time.perf_counter()
            _search(home, state)
            search = time.perf_counter() - search
        figures = {
            "from": what,
            "s": round(median(seconds), 1),
            "entries/s": round(ENTRIES / median(seconds)),
            "memory, MiB": round(median(memory)),
            "index, bytes/entry": round(index / ENTRIES),
            "started again, s": round(again, 2),
            "a search, s": round(search, 2),
        }
        rows.append(figures)
    return Table(
        "ct-monitor",
        f"mesh-ctl ct watch --once, at the beginning of a log of {ENTRIES:,} precertificates",
        tuple(rows),
        (
            f"An entry has {weight / ENTRIES:.0f} bytes with its share of the tree; files are a copy's (--copy).",
            "All is verified and indexed by name, serial and key; started again it finds nothing new.",
        ),
    )


def write_log(path: Path, count: int) -> tuple[Log, int]:
    """A log of so many precertificates, each of another name, serial and key; and the bytes of its files."""
    issuer = mesh().issuing.certificate
    der = issuer.public_bytes(Encoding.DER)
    fingerprint, key_hash = sha256(der).digest(), key_hash_of(issuer)
    spiffe_id = mesh().trust_domain.member("service", "n00000000")
    cert = mesh().leaf(spiffe_id, now=datetime.now(UTC))
    tbs = bytearray(cert.tbs_certificate_bytes)
    after = cert.public_bytes(Encoding.DER)[len(tbs) + 4 :]
    serial_at = tbs.index(cert.serial_number.to_bytes(_SERIAL, "big"))
    name_at = tbs.index(_NAME % 0)
    point_at = tbs.index(b"\x03\x42\x00\x04") + 4
    tiles: dict[tuple[int, int], bytes] = {}

    def read(level: int, number: int) -> bytes:
        return tiles.get((level, number), b"")

    now, weight = milliseconds(datetime.now(UTC)) - count, 0
    write(path / issuer_path(fingerprint), der)
    for start in range(0, count, _CHUNK):
        hashes = []
        for first in range(start, min(start + _CHUNK, count), _WIDTH):
            data = []
            end = min(first + _WIDTH, count)
            drawn = secrets.token_bytes(80 * (end - first))
            for number in range(first, end):
                at = 80 * (number - first)
                tbs[serial_at + 1 : serial_at + 16] = drawn[at : at + 15]
                tbs[point_at : point_at + 64] = drawn[at + 16 : at + 80]
                tbs[name_at : name_at + len(_NAME % 0)] = _NAME % number
                body = vector(3, bytes(tbs))
                index = b"\0\x08\0\0\x05" + number.to_bytes(5, "big")
                entry = (now + number).to_bytes(8, "big") + b"\0\1" + key_hash + body + index
                hashes.append(sha256(b"\0\0\0" + entry).digest())
                pre = vector(3, b"\x30\x82\x02\x00" + bytes(tbs) + after)
                data.append(entry + pre + vector(2, fingerprint))
            weight += write(
                path / str(TilePath(None, first // _WIDTH, end - first)), b"".join(data)
            )
        tiles.update(append(start, hashes, read))
    for (level, number), tile in tiles.items():
        weight += write(path / str(TilePath(level, number, len(tile) // 32)), tile)
    log = Log(
        "a log", LogKey.of(key("log").public_key), "https://log.example/b", "https://log.example/b"
    )
    at = now + count
    head = TreeHead(log.origin, count, root(count, read), at)
    write(path / CHECKPOINT, asyncio.run(sign_head(head, key("log"))).encode())
    return log, weight


def write(path: Path, data: bytes) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(data)


def _copied(copy: Path) -> list[str | Path]:
    return ["--copy", copy, "--ct-logs", "logs.json"]


@contextmanager
def _served(home: Path, copy: Path, log: Log, what: str) -> Iterator[list[str | Path]]:
    if what == "files":
        yield _copied(copy)
        return
    port = free_port()
    server = Running.start(
        *(BIN / "twistd", "-n", "--pidfile=", "web", f"--listen=tcp:{port}:interface=127.0.0.1"),
        *("--path", copy),
        cwd=home,
        real=True,
    )
    server.wait_for("starting factory|Starting factory", PATIENCE)
    at = f"http://127.0.0.1:{port}"
    listed = Log(log.description, log.key, log.submission_url, at)
    (home / "http.json").write_bytes(LogList((listed,), datetime.now(UTC)).to_bytes())
    try:
        yield ["--ct-logs", "http.json"]
    finally:
        server.stop()


def _watch(home: Path, state: Path, options: list[str | Path]) -> float:
    """Look once; MiB that it took at most."""
    code = (
        "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(json.dumps([done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))"
    )
    ctl: list[str | Path] = [
        CHECKOUT / "bin" / "mesh-ctl",
        "ct",
        "watch",
        "--once",
        "--timeout",
        "60s",
    ]
    done = run(
        *(BIN / "python", "-c", code, *ctl, *options),
        cwd=home,
        env={"MESH_STATE_DIR": str(state)},
        timeout=1800,
        real=True,
    )
    status, kib = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise AssertionError(done.stdout + done.stderr)
    return float(kib) / 1024


def _search(home: Path, state: Path) -> None:
    asked = ["ct", "search", "--name", (_NAME % (ENTRIES // 2)).decode(), "--format", "json"]
    done = run(
        *(CHECKOUT / "bin" / "mesh-ctl", *asked),
        cwd=home,
        env={"MESH_STATE_DIR": str(state)},
        real=True,
    )
    if len(json.loads(done.stdout)) != 1:
        raise AssertionError(done.stdout + done.stderr)
