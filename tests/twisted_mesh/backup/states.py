"""State directories of CAs that do not run, with as much in them as a test needs."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from pki.audit.log import LogKey
from pki.svid.x509svid import certificates_pem
from tests.authorities import DAY, NOW, Mesh, mesh
from tests.twisted_mesh.stores import certificates
from twisted_mesh.state.directory import StateDirectory, write_whole
from twisted_mesh.stores import schema
from twisted_mesh.stores import tokens as stored_tokens
from twisted_mesh.stores.commands import Command
from twisted_mesh.stores.records import TokenStatus
from twisted_mesh.stores.sqlite import Sqlite
from twisted_mesh.stores.transactions import apply_all

LOG_KEY = LogKey.generate("mesh.local/audit/of-a-test")


def ca_state(root: Path, home: Mesh | None = None) -> StateDirectory:
    """A CA as its first start leaves it, with an empty record."""
    home = home or mesh()
    state = StateDirectory(root)
    state.prepare()
    write_whole(state.root_certificate, certificates_pem([home.root.certificate]), 0o644)
    write_whole(state.ca / "issuing.crt", certificates_pem([home.issuing.certificate]), 0o644)
    for name, key in (("root", home.root.key), ("issuing", home.issuing.key), ("audit", LOG_KEY)):
        write_whole(state.private / f"{name}.key", key.to_pem(), 0o600)  # type: ignore[union-attr]
    database = Sqlite(state.ca / "mesh.db")
    database.make()
    engine = database.engine()
    with engine.execution_options(writes=True).begin() as connection:
        schema.create(connection)
    engine.dispose()
    return state


def tell(state: StateDirectory, *commands: Command) -> None:
    """Have its record do what its store would."""
    engine = Sqlite(state.ca / "mesh.db").engine()
    outcomes = apply_all(engine.execution_options(writes=True), commands)
    engine.dispose()
    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def entries(state: StateDirectory) -> set[str]:
    with closing(_opened(state)) as connection:
        return {name for (name,) in connection.execute("SELECT id FROM entries")}


def tokens(state: StateDirectory) -> dict[str, TokenStatus]:
    """What each is good for, by its entry."""
    engine = Sqlite(state.ca / "mesh.db").engine()
    with engine.connect() as connection:
        found = stored_tokens.everything(connection)
    engine.dispose()
    return {token.entry: token.status(certificates.NOW) for token in found}


def record_certificate(
    state: StateDirectory, serial: int, *, revoked: bool = False, expired: bool = False
) -> None:
    """A row, its body, its act in the log, and its place in the feed if it is revoked."""
    ends = NOW + (-DAY if expired else DAY)
    with closing(_opened(state)) as connection, connection:
        number = _next(connection, "certificate")
        position = _next(connection, "audit") - 1
        row = {
            "id": number,
            "serial": schema.serial_text(serial),
            "issuer": "00" * 32,
            "spiffe_id": f"spiffe://mesh.local/number/{serial}",
            "subject": f"CN={serial}",
            "key": "11" * 32,
            "issued_at": schema.microseconds(NOW - 2 * DAY + timedelta(seconds=number)),
            "expires_at": schema.microseconds(ends),
            "requester": "unix:uid:0",
        }
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO certificates ({names}) VALUES ({marks})", row)
        connection.execute("INSERT INTO bodies VALUES (?, ?)", (number, b"DER %d" % serial))
        connection.execute("INSERT INTO audit VALUES (?, ?, ?)", (position, 0, b"{}"))
    if revoked:
        revoke(state, serial)


def revoke(state: StateDirectory, serial: int) -> None:
    with closing(_opened(state)) as connection, connection:
        connection.execute(
            "UPDATE certificates SET revoked_at = ?, reason = 'superseded' WHERE serial = ?",
            (schema.microseconds(NOW), schema.serial_text(serial)),
        )
        connection.execute(
            "INSERT INTO feed SELECT ?, id FROM certificates WHERE serial = ?",
            (_next(connection, "feed"), schema.serial_text(serial)),
        )
        _next(connection, "audit")


def revocations(database: Path) -> dict[int, bool]:
    """Serials, and whether each is revoked and in the feed."""
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT serial, revoked_at IS NOT NULL, position IS NOT NULL FROM certificates "
            "LEFT JOIN feed ON feed.certificate = certificates.id"
        ).fetchall()
    assert all(revoked == told for _, revoked, told in rows)
    return {int(serial, 16): bool(revoked) for serial, revoked, _ in rows}


def _opened(state: StateDirectory) -> sqlite3.Connection:
    return sqlite3.connect(state.ca / "mesh.db")


def _next(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(
        "UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value", (name,)
    ).fetchone()
    return int(value)
