"""Certificates issued over HTTP, CSR in and certificate out, beside cfssl."""

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pki.issuing.csr import build_csr
from pki.keys import KeyAlgorithm, MemoryKey
from pki.spiffe import SpiffeId
from tests.bench.meshes import CLIENT_ID, MeshOnStage
from tests.bench.peers import wait_until_open
from tests.bench.processes import SERVER_CORE, Service, Stage, stage
from tests.bench.rounds import Contestant, busy, compete
from tests.bench.tables import Table, beside

_CONNECTIONS = 32
_CFSSL = "cfssl serve"
_CFSSL_RECORDS = "cfssl serve, SQLite"
#: Those of cfssl's migrations for SQLite, with the columns of later versions.
_CFSSL_TABLES = """
CREATE TABLE certificates (
    serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, ca_label blob, status blob NOT NULL,
    reason int, expiry timestamp, revoked_at timestamp, pem blob NOT NULL, issued_at timestamp,
    not_before timestamp, metadata text, sans text, common_name text,
    PRIMARY KEY (serial_number, authority_key_identifier));
CREATE TABLE ocsp_responses (
    serial_number blob NOT NULL, authority_key_identifier blob NOT NULL, body blob NOT NULL, expiry timestamp,
    PRIMARY KEY (serial_number, authority_key_identifier));
"""


def measure(home: Path, rounds: int, say: Callable[[str], None], seconds: float = 2.0) -> Table:
    key = MemoryKey.generate(KeyAlgorithm.EC_P256)
    csr = build_csr(key, SpiffeId.parse(CLIENT_ID), ["localhost"]).decode()
    body = json.dumps({"csr": csr, "requested_id": CLIENT_ID})
    with stage(home) as running:
        contestants = [
            _ours(running, "mesh-ca, SQLite", "sqlite", body),
            _ours(running, "mesh-ca, memory", "memory:", body),
        ]
        notes = [
            "mesh-ca verifies proof of possession, lints the draft, checks its signature, records certificate and act",
            "(SQLite: durably, before it answers), and logs both; cfssl logs a line, and stores nothing without SQLite",
            "(a write-ahead log and FULL, as mesh-ca has them).",
        ]
        for name in (_CFSSL, _CFSSL_RECORDS):
            cfssl = _start_cfssl(running, name)
            if cfssl is None:
                notes.append("cfssl: not installed, skipped (apt-get install golang-cfssl)")
                break
            service, port = cfssl
            job = posting(port, "/api/v1/cfssl/sign", json.dumps({"certificate_request": csr}))
            contestants.append(Contestant(name, service, job))
        compete(contestants, rounds, seconds, say)
        rows = [contestant.row("certificates") for contestant in contestants]
    return Table(
        "signatures",
        f"certificates signed over {_CONNECTIONS} kept-alive HTTP connections, P-256 throughout",
        beside(
            beside(rows, "CPU us each", _CFSSL, f"CPU beside {_CFSSL}"),
            *(
                "certificates/s of one core",
                _CFSSL_RECORDS,
                f"rate of one core beside {_CFSSL_RECORDS}",
            ),
        ),
        (*notes, *busy(contestants)),
    )


def posting(port: int, path: str, body: str) -> dict[str, object]:
    """What is asked of a CA: the same over all connections, again and again."""
    return {
        "kind": "posts",
        "port": port,
        "path": path,
        "body": body,
        "clients": _CONNECTIONS,
        "expected": "-----BEGIN CERTIFICATE-----",
    }


def _ours(running: Stage, name: str, store: str, body: str) -> Contestant:
    directory = running.home / store.strip(":")
    mesh = MeshOnStage(Stage(directory, running.services))
    directory.mkdir()
    # Every certificate is for one ID: the usual quota would be used up within some rounds.
    options = ("--store", store, "--insecure-http", "0", "--quota", "1000000:1000000")
    ca = mesh.start_ca(*options, core=SERVER_CORE)
    port = int(ca.wait_for(r"at http://localhost:(\d+)")[1])
    return Contestant(name, ca, posting(port, "/api/v1/sign", body))


def _start_cfssl(running: Stage, name: str) -> tuple[Service, int] | None:
    cfssl = shutil.which("cfssl")
    if cfssl is None:
        return None
    keeps = name == _CFSSL_RECORDS
    directory = running.home / ("cfssl-sqlite" if keeps else "cfssl")
    directory.mkdir()
    _write_ca(directory)
    usages = ["digital signature", "client auth", "server auth"]
    settings = {"signing": {"default": {"expiry": "1h", "usages": usages}}}
    (directory / "config.json").write_text(json.dumps(settings))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    service = running.start(
        f"{directory.name}-log",
        *(cfssl, "serve", "-address", "127.0.0.1", "-port", port),
        *("-ca", directory / "ca.pem", "-ca-key", directory / "ca.key"),
        *("-config", directory / "config.json"),
        *(("-db-config", _write_records(directory)) if keeps else ()),
    )
    wait_until_open(port)
    return service, port


def _write_records(directory: Path) -> Path:
    """A database that cfssl is to keep its certificates in; the file that says so."""
    with closing(sqlite3.connect(directory / "certs.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(_CFSSL_TABLES)
    told = directory / "db.json"
    told.write_text(json.dumps({"driver": "sqlite3", "data_source": str(directory / "certs.db")}))
    return told


def _write_ca(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CA of the bench")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = os.open(directory / "ca.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(private, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
