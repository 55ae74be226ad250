"""An honest CA whose log vouches for all that is in its record, and archives of it that somebody has changed.

Who changes one does it well: every digest in the manifest is made to fit again, unless that is the point.
"""

import asyncio
import hashlib
import io
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from cryptography.hazmat.primitives.serialization import Encoding

from pki.audit.log import Act, Checkpoint, Entry, LogKey
from pki.policy.entry import EntryMembers, RegistrationEntry, read_entry
from pki.serial import serial_hex
from pki.svid.revocation_set import Reason
from pki.tlog import merkle
from pki.validity import rfc3339
from tests.authorities import DAY, HOUR, MESH, NOW, forge, mesh
from tests.twisted_mesh.backup.states import LOG_KEY, ca_state, tell
from twisted_mesh.backup import creation
from twisted_mesh.backup.archive import Manifest, Signature
from twisted_mesh.backup.provenance import sign_here
from twisted_mesh.ca.entries import facts_of
from twisted_mesh.state.directory import StateDirectory
from twisted_mesh.state.key_files import KeyFiles
from twisted_mesh.stores import log, schema
from twisted_mesh.stores.commands import (
    CreateEntry,
    CreateToken,
    ExtendLog,
    RecordAct,
    RecordCertificate,
    RecordIntent,
    Revoke,
)
from twisted_mesh.stores.records import IssuedCertificate, IssuedToken, StoredEntry
from twisted_mesh.stores.sqlite import Sqlite

BY = "unix:uid:0"
GOOD, REVOKED, BOUGHT = 0x4A01, 0x4A02, 0x4A03
TOKEN = IssuedToken(hashlib.sha256(b"token").digest(), "joined", NOW + DAY, NOW)


LEAVES = {
    serial: forge(mesh().issuing, serial=serial, end=NOW + HOUR)
    for serial in (GOOD, REVOKED, BOUGHT)
}


def entry_of(name: str, *selectors: str) -> RegistrationEntry:
    said = EntryMembers(selectors=list(selectors), spiffe_id="spiffe://mesh.local/service/web")
    return read_entry(name, MESH, said)


def made(entry: RegistrationEntry) -> Entry:
    facts = {"did": "create-entry", **facts_of(entry)}
    return Entry(NOW, Act.ADMINISTER, BY, f"entry {entry.id}", facts)


def honest_state(root: Path) -> StateDirectory:
    """Entries, a token that was spent, certificates, one of them revoked; all of it in a signed log."""
    state = ca_state(root)
    web, joined = entry_of("web", "unix:uid:7"), entry_of("joined", "token:joined")
    facts = {
        "did": "create-token",
        "entry": "joined",
        "expires_at": rfc3339(TOKEN.expires_at),
        **facts_of(joined),
    }
    token_act = Entry(NOW, Act.ADMINISTER, BY, f"token {TOKEN.id}", facts)
    tell(
        state,
        RecordAct(Entry(NOW, Act.START, "self", "mesh.local", {"keep_expired": "30d"})),
        CreateEntry(web, NOW, made(web)),
        CreateToken(TOKEN, token_act, StoredEntry(joined, NOW)),
        _issue(GOOD, "web"),
        _issue(REVOKED, "web"),
        _issue(BOUGHT, "joined", TOKEN),
        *(
            RecordCertificate(number, LEAVES[serial].public_bytes(Encoding.DER))
            for number, serial in enumerate(LEAVES, 1)
        ),
        Revoke(
            REVOKED,
            NOW,
            Reason.KEY_COMPROMISE,
            Entry(NOW, Act.REVOKE, BY, serial_hex(REVOKED), {"reason": "keyCompromise"}),
        ),
        ExtendLog(),
    )
    checkpoint(state.ca / "mesh.db", LOG_KEY)
    return state


def _issue(serial: int, entry: str, token: IssuedToken | None = None) -> RecordIntent:
    certificate = IssuedCertificate(
        issuer=mesh().issuing.key_id,
        serial=serial,
        spiffe_id=MESH.member("service", "web"),
        subject="CN=web",
        key="01" * 32,
        issued_at=NOW,
        expires_at=NOW + HOUR,
        requester=BY,
        entry=entry,
    )
    tbs = hashlib.sha256(LEAVES[serial].tbs_certificate_bytes).hexdigest()
    facts = {"spiffe_id": str(certificate.spiffe_id), "tbs": tbs, "entry": entry}
    actor = BY if token is None else f"token:{token.id}"
    act = Entry(NOW, Act.ISSUE, actor, serial_hex(serial), facts)
    digest = token.digest if token else None
    return RecordIntent(certificate, b"\0" * 32, act, token=digest, at=NOW)


def checkpoint(database: Path, key: LogKey) -> None:
    """Sign where the tree of a record stands, with whatever key."""
    engine = Sqlite(database).engine()
    with engine.execution_options(writes=True).begin() as connection:
        log.extend(connection)
        head = log.head(connection)
        note = asyncio.run(key.sign(Checkpoint(key.name, head.size, head.root, NOW)))
        log.keep(connection, head.size, schema.microseconds(NOW), note)
    engine.dispose()


def signer(state: StateDirectory) -> creation.Signer:
    keys = KeyFiles(state.private)
    return lambda manifest: sign_here(keys, LOG_KEY.name, manifest.digest)


@define(eq=False)
class Falsified:
    """The files of an archive, to be changed and written again."""

    home: Path
    manifest: Manifest
    signature: Signature | None
    files: dict[str, bytes]
    is_mended: bool = True
    """Whether the manifest is made to fit what was changed."""
    order: Callable[[list[str]], list[str]] = field(default=lambda names: names)
    header: Callable[[tarfile.TarInfo], Any] = field(default=lambda _: None)
    cut: int | None = None

    @classmethod
    def of(cls, archive: Path, home: Path) -> "Falsified":
        with tarfile.open(archive) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        manifest = msgspec.json.decode(files.pop("manifest.json"), type=Manifest)
        raw = files.pop("manifest.sig", None)
        signature = None if raw is None else msgspec.json.decode(raw, type=Signature)
        return cls(home, manifest, signature, files)

    def sql(self, *statements: str) -> None:
        """Change the record as who can write its file does."""
        with (
            self._database() as path,
            closing(sqlite3.connect(path, isolation_level=None)) as connection,
        ):
            for statement in statements:
                connection.execute(statement)
            connection.execute("PRAGMA journal_mode = DELETE")

    def record(self, change: Callable[[Path], object]) -> None:
        with self._database() as path:
            change(path)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")

    @contextmanager
    def _database(self) -> Iterator[Path]:
        path = self.home / "changed.db"
        path.write_bytes(self.files["ca/mesh.db"])
        yield path
        self.files["ca/mesh.db"] = path.read_bytes()

    def say(self, **facts: Any) -> None:
        self.manifest = msgspec.structs.replace(self.manifest, **facts)

    def write(self) -> Path:
        if self.is_mended:
            self.say(
                members=[
                    msgspec.structs.replace(
                        member,
                        size=len(self.files[member.name]),
                        sha256=hashlib.sha256(self.files[member.name]).hexdigest(),
                    )
                    for member in self.manifest.members
                ]
            )
        written = [("manifest.json", self.manifest.to_bytes())]
        if self.signature is not None:
            written.append(("manifest.sig", msgspec.json.encode(self.signature)))
        names = self.order([member.name for member in self.manifest.members])
        written += [(name, self.files[name]) for name in names]
        path = self.home / "falsified.tar"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, data in written:
                header = tarfile.TarInfo(name)
                header.size = len(data)
                self.header(header)
                tar.addfile(header, io.BytesIO(data))
        if self.cut is not None:
            path.write_bytes(path.read_bytes()[: self.cut])
        return path


def add_entry(database: Path, *, with_act: bool = False, key: LogKey | None = None) -> None:
    """Let everybody of uid 666 be anything; with an act that says so, and a checkpoint by whatever ``key``."""
    bad = entry_of("bad", "unix:uid:666")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO entries VALUES ('bad', ?, ?)",
            (schema.microseconds(NOW), bad.to_document()),
        )
        if with_act:
            row = "SELECT value, ?, ? FROM counters WHERE name = 'audit'"
            connection.execute(
                f"INSERT INTO audit {row}", (schema.microseconds(NOW), made(bad).to_bytes())
            )
            connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'audit'")
    if key is not None:
        checkpoint(database, key)


def edit_act(database: Path, *, rehashed: bool) -> None:
    """Have the act of an entry's making say another selector."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE audit SET entry = cast(replace(cast(entry AS TEXT), 'unix:uid:7', 'unix:uid:8') AS BLOB)"
        )
        acts = [row[0] for row in connection.execute("SELECT entry FROM audit ORDER BY position")]
        if rehashed:
            hashes = merkle.append(0, [merkle.leaf_hash(act) for act in acts], lambda *_: b"")
            for (level, number), found in hashes.items():
                connection.execute(
                    "UPDATE tiles SET hashes = ? WHERE level = ? AND number = ?",
                    (found, level, number),
                )
