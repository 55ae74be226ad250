"""What a CA publishes: how long ``revoke`` takes until the CRL is served, and OCSP answers over HTTP."""

import http.client
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey, key_id
from pki.ocsp.request import SHA1, Issuer, OcspRequest
from pki.spiffe import SpiffeId
from pki.svid.x509svid import load_certificates
from tests.bench.processes import LOAD_CORE, SERVER_CORE, Service, Stage, pinned, stage
from tests.bench.tables import Table, Value, median
from tests.ca_socket import CaSocket
from tests.running import BIN, PATIENCE

_LISTED, _REVOCATIONS, _AT_ONCE = 100_000, 200, 1_000
_CONNECTIONS, _CALLERS = 8, 50
_ID = "spiffe://mesh.local/service/x"
_HOUR = 3_600_000_000
_READY = r"Ready to issue certificates\."


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    rows: list[dict[str, Value]] = []
    with stage(home) as running:
        for listed in (0, _LISTED):
            say(f"a CRL of {listed:,}")
            ca = _Ca.start(Stage(running.home / str(listed), running.services), listed)
            with pinned(LOAD_CORE):
                rows += _revoking(ca, listed, rounds)
            ca.service.stop()
        say("OCSP")
        ca = _Ca.start(Stage(running.home / "ocsp", running.services), 0)
        with pinned(LOAD_CORE):
            for what, nonce in (("kept", None), ("signed", b"n" * 16)):
                request = ca.ocsp_request(ca.sign(), nonce)
                rates = [_rate(ca, request, seconds) for _ in range(rounds)]
                rows.append(_row(f"OCSP answers, {what}, by POST, /s", [r for r, _ in rates]))
                of_core = [rate for _, rate in rates]
                rows.append(_row("the same, /s of one core", of_core))
    notes = (
        f"SQLite on this disk, P-256. revoke: {_REVOCATIONS} one after the other on one connection to the unix socket,",
        f"each answered once the CRL with it is served; then {_AT_ONCE:,} by {_CALLERS} callers. OCSP: {_CONNECTIONS}",
        "kept-alive connections to --crl-http.",
    )
    return Table("publishing", "what a CA publishes, over HTTP", tuple(rows), notes)


class _Ca:
    """A CA that runs, with so many on its CRL."""

    def __init__(self, home: Path, service: Service) -> None:
        self.state = home / "state"
        self.service = service
        self.crl_port = int(service.wait_for(r"certificate are at http://localhost:(\d+)")[1])
        self.local = threading.local()

    @classmethod
    def start(cls, on: Stage, listed: int) -> "_Ca":
        on.home.mkdir(parents=True)
        ca = cls(on.home, _service(on))
        if listed:
            ca.service.stop()
            issuer = load_certificates((ca.state / "ca/issuing.crt").read_bytes())[0]
            _fill(ca.state / "ca" / "mesh.db", key_id(issuer.public_key()), listed)
            ca = cls(on.home, _service(on))
        return ca

    @property
    def connection(self) -> CaSocket:
        """This thread's."""
        if not hasattr(self.local, "connection"):
            self.local.connection = CaSocket(self.state / "ca" / "ca.sock", PATIENCE * 2)
        return self.local.connection  # type: ignore[no-any-return]

    def sign(self) -> str:
        csr = build_csr(_KEY, SpiffeId.parse(_ID)).decode()
        told = self.connection.post("/api/v1/sign", {"csr": csr, "requested_id": _ID})
        return str(told["serial"])

    def revoke(self, serial: str) -> float:
        """Milliseconds."""
        start = time.perf_counter()
        self.connection.post("/api/v1/revoke", {"serial": serial})
        return (time.perf_counter() - start) * 1e3

    def cpu_seconds(self) -> float:
        return self.service.cpu_seconds() or 0.0

    def ocsp_request(self, serial: str, nonce: bytes | None) -> bytes:
        issuer = load_certificates((self.state / "ca/issuing.crt").read_bytes())[0]
        cert_id = Issuer.of(issuer).cert_id(int(serial, 16), SHA1)
        return OcspRequest((cert_id,), nonce).to_der()

    def crl(self) -> x509.CertificateRevocationList:
        connection = http.client.HTTPConnection("127.0.0.1", self.crl_port)
        connection.request("GET", "/crl")
        return x509.load_der_x509_crl(connection.getresponse().read())


_KEY = MemoryKey.generate(KeyAlgorithm.EC_P256)


def _service(on: Stage) -> Service:
    service = on.start(
        f"ca-{len(on.services)}",
        *(BIN / "twistd", "-n", "mesh-ca", "--port", "0", "--root-key", "ec-p256"),
        *("--state-dir", on.home / "state", "--crl-http", "127.0.0.1:0", "--rate-limit", "off"),
        env={"PYTHONUNBUFFERED": "1"},
        core=SERVER_CORE,
    )
    service.wait_for(_READY, PATIENCE * 2)
    return service


def _revoking(ca: _Ca, listed: int, rounds: int) -> Iterator[dict[str, Value]]:
    ca.revoke(ca.sign())
    one_by_one: list[float] = []
    cpu: list[float] = []
    for _ in range(rounds):
        serials = [ca.sign() for _ in range(_REVOCATIONS)]
        used = ca.cpu_seconds()
        one_by_one += [ca.revoke(serial) for serial in serials]
        cpu.append((ca.cpu_seconds() - used) / _REVOCATIONS * 1e3)
    p99 = sorted(one_by_one)[int(len(one_by_one) * 0.99)]
    yield _row(f"revoke with {listed:,} on the CRL, ms", one_by_one, round(p99, 1))
    yield _row("the same, ms of processor time", cpu)
    bursts = []
    with ThreadPoolExecutor(_CALLERS) as pool:
        for _ in range(rounds):
            serials = [ca.sign() for _ in range(_AT_ONCE)]
            start = time.perf_counter()
            list(pool.map(ca.revoke, serials))
            bursts.append((time.perf_counter() - start) * 1e3)
    yield _row(f"{_AT_ONCE:,} at once with {listed:,} on it, ms in all", bursts)
    crl = ca.crl()
    assert crl.get_revoked_certificate_by_serial_number(int(serials[-1], 16))
    assert len(crl) > listed
    yield _row("its size then, kB", [len(crl.public_bytes(Encoding.DER)) / 1e3])


def _row(what: str, values: list[float], p99: float | None = None) -> dict[str, Value]:
    return {
        "": what,
        "median": round(median(values), 1),
        "p99": p99,
        "most": round(max(values), 1),
    }


def _rate(ca: _Ca, request: bytes, seconds: float) -> tuple[float, float]:
    """Answers a second, by the clock and by the processor time that they took."""
    head = (
        b"POST /ocsp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\n"
        b"Content-Length: %d\r\n\r\n" % len(request)
    )
    stop_at = time.perf_counter() + seconds

    def ask(_: int) -> int:
        done = 0
        with socket.create_connection(("127.0.0.1", ca.crl_port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.perf_counter() < stop_at:
                connection.sendall(head + request)
                _read(connection)
                done += 1
        return done

    start, used = time.perf_counter(), ca.cpu_seconds()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        answered = sum(pool.map(ask, range(_CONNECTIONS)))
    return answered / (time.perf_counter() - start), answered / (ca.cpu_seconds() - used)


def _read(connection: socket.socket) -> None:
    """One answer, which says how long it is."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += _more(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += _more(connection)


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "the CA hung up"
    return data


def _fill(database: Path, issuer: str, count: int) -> None:
    """So many revoked certificates that have not expired."""
    now = time.time_ns() // 1000
    with sqlite3.connect(database) as record:
        record.execute("PRAGMA synchronous = OFF")
        (first,) = record.execute(
            "SELECT value FROM counters WHERE name = 'certificate'"
        ).fetchone()
        ids = range(first + 1, first + count + 1)
        record.executemany(
            "INSERT INTO certificates (id, serial, issuer, spiffe_id, subject, key, issued_at, expires_at, requester, "
            "revoked_at, reason) VALUES (?, ?, ?, ?, 'CN=x', ?, ?, ?, 'unix:uid:0', ?, 'superseded')",
            (
                (
                    number,
                    f"{secrets.randbits(126):040x}",
                    issuer,
                    _ID,
                    "0" * 64,
                    now,
                    now + _HOUR,
                    now,
                )
                for number in ids
            ),
        )
        record.executemany("INSERT INTO feed VALUES (?, ?)", enumerate(ids, 1))
        for name, value in (("certificate", ids[-1]), ("feed", count)):
            record.execute("UPDATE counters SET value = ? WHERE name = ?", (value, name))
    record.close()
