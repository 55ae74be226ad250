"""Entries that mesh-ctlog takes a second, each on the disk and in a published tree before it is answered."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from gzip import compress
from pathlib import Path

from pki.ct.entry import parse_data_tile
from pki.keys import KeyAlgorithm, MemoryKey
from tests.bench.processes import LOAD_CORE, SERVER_CORE, Service, pinned
from tests.bench.tables import Table, Value, median
from tests.ctlogs import RunningLog, chain_of, precertificate
from tests.running import BIN

_ENTRIES = 2048
_READY = r"Ready to log certificates\."


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    rows = []
    for connections in (1, 8, 64):
        rates: list[float] = []
        costs: list[float] = []
        waits: list[float] = []
        for number in range(rounds):
            rate, cost, wait = _round(home / f"{connections}-{number}", connections)
            rates.append(rate)
            costs.append(cost)
            waits.append(wait)
            say(f"{connections} connections: {rate:.0f} entries/s")
        rows.append(_row(f"{connections} connections", median(rates), median(costs), median(waits)))
    size, packed = _storage(home / f"{connections}-0" / "log" / "state" / "ctlog" / "public")
    return Table(
        "ct-log",
        "precertificates of P-256 added over kept-alive TLS, each published before its receipt",
        tuple(rows),
        (
            f"On the disk an entry takes {size:.0f} bytes in full tiles: its data tile's and 32 of hashes; gzip makes "
            f"of that {packed:.0f}.",
            f"4.8 million entries a day (100,000 workloads, an hour each) are {size * 4.8e6 / 2**30:.1f} GiB a day.",
        ),
    )


def _row(what: str, rate: float, cost: float, wait: float) -> dict[str, Value]:
    return {
        "": what,
        "entries/s": round(rate),
        "entries/s of one core": round(1e6 / cost) if cost else None,
        "CPU us each": round(cost),
        "ms until the receipt": round(wait, 1),
    }


def _round(home: Path, connections: int) -> tuple[float, float, float]:
    log = RunningLog(home / "log")
    now = datetime.now(UTC)
    bodies = [_body(log, number, now) for number in range(_ENTRIES)]
    words = [BIN / "mesh-ctlog", *log.words, "--submission-rate", "off"]
    service = Service.start(words, home / "log.txt", cwd=home, core=SERVER_CORE)
    try:
        service.wait_for(_READY)
        waits: list[float] = []
        with pinned(LOAD_CORE):
            shares = [bodies[at::connections] for at in range(connections)]
            opened = [log.connect() for _ in range(connections)]
            for connection in opened:
                connection.connect()
            before, began = service.cpu_seconds() or 0.0, time.perf_counter()
            threads = [
                threading.Thread(target=_submit, args=(connection, share, waits))
                for connection, share in zip(opened, shares, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            took = time.perf_counter() - began
            cost = ((service.cpu_seconds() or 0.0) - before) / _ENTRIES * 1e6
        if log.head.size != _ENTRIES or len(waits) != _ENTRIES:
            raise AssertionError(f"{log.head.size} of {_ENTRIES} entries are in the log")
    finally:
        service.stop()
    return _ENTRIES / took, cost, median(waits) * 1000


def _body(log: RunningLog, number: int, now: datetime) -> str:
    # Each with a key of its own: gzip would find that of others again.
    leaf_key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    pre = precertificate(log.of, f"s{number}", now, timedelta(hours=1), leaf_key)
    return json.dumps({"chain": [base64.b64encode(one).decode() for one in chain_of(log.of, pre)]})


def _submit(
    connection: http.client.HTTPSConnection, bodies: Sequence[str], waits: list[float]
) -> None:
    for body in bodies:
        began = time.perf_counter()
        connection.request("POST", "/ct/v1/add-pre-chain", body)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            waits.append(time.perf_counter() - began)


def _storage(public: Path) -> tuple[float, float]:
    """Bytes that an entry takes in full tiles, and that would be left of them by gzip."""
    tiles = [path for path in (public / "tile" / "data").iterdir() if path.is_file()]
    data = [path.read_bytes() for path in tiles]
    entries = sum(len(parse_data_tile(one)) for one in data)
    hashes = 32 * entries
    return (
        (sum(map(len, data)) + hashes) / entries,
        (sum(len(compress(one, 6)) for one in data) + hashes) / entries,
    )
