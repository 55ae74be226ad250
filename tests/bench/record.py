"""A CA that has issued a million certificates: how long it takes to start, what it weighs, how fast it answers."""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pki.tlog.merkle import append, leaf_hash
from tests.bench.tables import Table, Value, median
from tests.ca_socket import CaSocket
from tests.running import PATIENCE, Mesh, Running, mesh

_ROWS = 1_000_000
_READY = r"Ready to issue certificates\."
#: Some of each kind: what is revoked, what has expired.
_REVOKED, _IDS = 100, 5000
_HOUR = 3_600_000_000
_QUESTIONS = {
    "the newest": "",
    "one SPIFFE ID": "?spiffe_id=spiffe://mesh.local/service/s17",
    "a subtree": "?spiffe_id=spiffe://mesh.local/service/**",
    "revoked": "?status=revoked",
    "valid": "?status=valid",
    "expired": "?status=expired",
    "by key": f"?key={'0' * 64}",
    "issued long ago": "?issued_before=2020-01-01T00:00:00Z",
}


def measure(home: Path, rounds: int, say: Callable[[str], None]) -> Table:
    with mesh(home, real=True) as running:
        assert _start(running)[0].stop() == 0
        database = running.state / "ca" / "mesh.db"
        _fill(database)
        say(f"{_ROWS:,} certificates are in the record, of {database.stat().st_size >> 20} MiB")
        starts, weights = [], []
        for _ in range(rounds):
            ca, seconds = _start(running)
            starts.append(seconds)
            weights.append(_resident_mib(ca))
            assert ca.stop() == 0
        ca, _ = _start(running)
        rows = [
            _row("start to Ready, s", starts, 3.0),
            _row("memory once ready, MiB", weights, None),
            *(
                _row(f"a page of 100, {what}, ms", _times(running, path, rounds), 50.0)
                for what, path in _QUESTIONS.items()
            ),
        ]
    return Table(
        "record",
        f"a CA whose record holds {_ROWS:,} certificates and as many entries of the audit log",
        tuple(rows),
        (
            "Pages are asked for over the unix socket, one connection each; a page may be short and have a next.",
        ),
    )


def _row(what: str, values: list[float], bound: float | None) -> dict[str, Value]:
    return {
        "": what,
        "median": round(median(values), 3),
        "most": round(max(values), 3),
        "must be under": bound,
    }


def _start(running: Mesh) -> tuple[Running, float]:
    start = time.perf_counter()
    ca = running.twistd(
        "mesh-ca",
        "--port",
        "0",
        "--root-key",
        "ec-p256",
        "--keep-expired",
        "9999d",
        "--rate-limit",
        "off",
    )
    ca.wait_for(_READY, PATIENCE * 2)
    return ca, time.perf_counter() - start


def _resident_mib(ca: Running) -> float:
    status = Path(f"/proc/{ca.process.pid}/status")
    text = status.read_text() if status.exists() else ""
    return int((text.partition("VmRSS:")[2].split() or ["0"])[0]) / 1024


def _times(running: Mesh, query: str, rounds: int) -> list[float]:
    found = []
    for _ in range(rounds * 3):
        connection = CaSocket(running.socket)
        start = time.perf_counter()
        connection.request("GET", f"/api/v1/certificates{query}")
        answer = connection.getresponse()
        body = answer.read()
        found.append((time.perf_counter() - start) * 1000)
        connection.close()
        assert answer.status == 200, body
        assert "certificates" in json.loads(body)
    return found


def _fill(database: Path) -> None:
    """Write the rows that so many issuances would have left; the tree over the log too."""
    now = time.time_ns() // 1000
    der, issuer = secrets.token_bytes(650), secrets.token_hex(32)
    with sqlite3.connect(database) as record:
        record.execute("PRAGMA synchronous = OFF")
        first = record.execute("SELECT value FROM counters WHERE name = 'certificate'").fetchone()[
            0
        ]
        size = record.execute("SELECT value FROM counters WHERE name = 'audit'").fetchone()[0]
        ids = range(first + 1, first + _ROWS + 1)
        record.executemany(
            "INSERT INTO certificates (id, serial, issuer, spiffe_id, subject, key, issued_at, expires_at, requester, "
            "revoked_at, reason) VALUES (?, ?, ?, ?, 'CN=s', ?, ?, ?, 'unix:uid:0', ?, ?)",
            _certificates(ids, issuer, now),
        )
        record.executemany("INSERT INTO bodies VALUES (?, ?)", ((number, der) for number in ids))
        revoked = [number for number in ids if number % _REVOKED == 0]
        record.executemany("INSERT INTO feed VALUES (?, ?)", enumerate(revoked, 1))
        acts = [b'{"object":"%x"}' % number for number in ids]
        rows = ((size + at, now, act) for at, act in enumerate(acts))
        record.executemany("INSERT INTO audit (position, at, entry) VALUES (?, ?, ?)", rows)
        tiles = append(size, [leaf_hash(act) for act in acts], _reader(record))
        record.executemany(
            "INSERT OR REPLACE INTO tiles (level, number, hashes) VALUES (?, ?, ?)",
            ((level, number, hashes) for (level, number), hashes in tiles.items()),
        )
        for name, value in (
            ("certificate", ids[-1]),
            ("feed", len(revoked)),
            ("audit", size + _ROWS),
            ("tree", size + _ROWS),
        ):
            record.execute("UPDATE counters SET value = ? WHERE name = ?", (value, name))
    record.close()


def _certificates(ids: range, issuer: str, now: int) -> Iterator[tuple[Any, ...]]:
    for number in ids:
        issued_at = now - (ids[-1] - number) * 7200
        revoked = number % _REVOKED == 0
        yield (
            number,
            f"{secrets.randbits(126):040x}",
            issuer,
            f"spiffe://mesh.local/service/s{number % _IDS}",
            secrets.token_hex(32),
            issued_at,
            issued_at + _HOUR,
            now if revoked else None,
            "superseded" if revoked else None,
        )


def _reader(record: sqlite3.Connection) -> Callable[[int, int], bytes]:
    def read(level: int, number: int) -> bytes:
        found = record.execute(
            "SELECT hashes FROM tiles WHERE level = ? AND number = ?", (level, number)
        ).fetchone()
        return found[0] if found else b""

    return read
