"""The signer's record: its keys, and as much of what they signed as its judge has to know.

It is small on purpose: a serial is kept until its certificate has ended, and a list as the serials of the last one.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pki.errors import printable
from pki.issuing.unsigned import assemble
from pki.keys import spki_der
from pki.serial import serial_hex
from pki.signing.memory import (
    CertificateEffect,
    Certified,
    CheckpointEffect,
    CrlEffect,
    Effect,
    HeldKey,
    PrecertificateEffect,
    SignedCheckpoint,
    SignedCrl,
    pin_of,
)
from twisted_mesh.signer.errors import SignerStateError, UnknownKey
from twisted_mesh.signer.key_row import KEYS, KeyRow, key_row
from twisted_mesh.signer.signing_log import End
from twisted_mesh.signer.tables import EARLIER, TABLES, VERSION

#: What an approval begins with that is no pin, but the digest of a certificate that was shown.
ADOPTED = "certificate:"
#: How long after its end a certificate is remembered: a clock may be put right.
_AFTER_END = timedelta(days=7)
#: Rows that are forgotten at a time.
_AT_A_TIME = 1000


@frozen
class Approval:
    """What a person has approved and the log does not say yet."""

    pin: str
    until: datetime
    by: str


@define(eq=False)
class Record:
    """A :class:`pki.signing.memory.Memory`. Used in one thread at a time."""

    path: Path
    _connection: sqlite3.Connection | None = field(default=None, init=False)

    # Opened, and changed whole.

    def open(self, trust_domain: str | None) -> None:
        """Open it, or make it; None for one that has to be there, of whatever trust domain.

        Raises :class:`SignerStateError`.
        """
        with self._explaining():
            if not self.path.exists():
                if trust_domain is None:
                    raise SignerStateError(f"there is no signer here: {self.path} does not exist")
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self.path, isolation_level=None, timeout=5.0, check_same_thread=False
            )
            self._connection = connection
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = FULL")
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchall():
                with self.changing():
                    for table in TABLES:
                        connection.execute(table)
                    self._set("version", VERSION)
                    self._set("trust-domain", trust_domain or "")
        self._refuse_foreign()
        self._upgrade()
        version, domain = self._get("version"), self.trust_domain
        if version != VERSION:
            raise SignerStateError(
                f"{self.path} is of version {printable(version or 'none', 20)}, and this program knows {VERSION}: "
                "upgrade twisted-mesh"
            )
        if trust_domain is not None and domain != trust_domain:
            raise SignerStateError(
                f"{self.path} is of the trust domain {printable(domain, 80)} and not of {trust_domain}: a "
                "signer is of one, so choose another --state-dir"
            )

    @property
    def trust_domain(self) -> str:
        """Which it is of."""
        return self._get("trust-domain") or ""

    def close(self) -> None:
        """May be said again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One transaction, durable once it is left; taken back whole where anything is raised."""
        with self._explaining():
            self._do("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._do("ROLLBACK")
                raise
            self._do("COMMIT")

    @property
    def log_end(self) -> End:
        """Where the log ended when this was last changed."""
        found = self._get("log-end")
        if found is None:
            return End()
        seq, digest, batch, size = found.split(" ")
        return End(int(seq), digest, int(batch), int(size))

    @log_end.setter
    def log_end(self, end: End) -> None:
        self._set("log-end", f"{end.seq} {end.digest} {end.batch} {end.size}")

    # Keys.

    def all_keys(self) -> list[KeyRow]:
        """All of them, in the order in which they were made."""
        return [key_row(row) for row in self._rows(f"{KEYS} ORDER BY made_at, name")]

    def key(self, name: str) -> KeyRow:
        """Raises :class:`UnknownKey`."""
        for row in self._rows(f"{KEYS} WHERE name = ?", name):
            return key_row(row)
        raise unknown(name)

    def add_key(self, row: KeyRow, now: datetime) -> None:
        """Within :meth:`changing`."""
        held = row.held
        self._do(
            "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            held.name,
            held.purpose,
            str(held.algorithm),
            row.label,
            held.spki,
            row.store,
            int(held.is_made_here),
            now.isoformat(),
        )

    # What a judge asks: see Memory.

    def certificates_of(self, key: HeldKey) -> Sequence[x509.Certificate]:
        return [
            _certificate(der)
            for (der,) in self._rows("SELECT der FROM ca_certificates WHERE key = ?", key.name)
        ]

    def holder_of(self, spki: bytes) -> HeldKey | None:
        for row in self._rows(f"{KEYS} WHERE spki = ?", spki):
            return key_row(row).held
        return None

    def is_approved(self, spki: bytes, now: datetime) -> bool:
        rows = self._rows("SELECT until FROM approvals WHERE pin = ?", pin_of(spki))
        return any(until > now.timestamp() for (until,) in rows)

    def certified(self, key: HeldKey, serial: int) -> Certified | None:
        return self._signed("certified", key, serial)

    def precertified(self, key: HeldKey, serial: int) -> Certified | None:
        return self._signed("precertificates", key, serial)

    def _signed(self, table: str, key: HeldKey, serial: int) -> Certified | None:
        sql = f"SELECT sha256, not_after FROM {table} WHERE key = ? AND serial = ?"  # noqa: S608
        for digest, not_after in self._rows(sql, key.name, _serial(serial)):
            return Certified(digest, _moment(not_after))
        return None

    def last_crl(self, key: HeldKey) -> SignedCrl | None:
        for number, digest in self._rows("SELECT number, sha256 FROM crls WHERE key = ?", key.name):
            return SignedCrl(int(number), digest)
        return None

    def listed(self, key: HeldKey) -> Mapping[int, datetime | None]:
        rows = self._rows(
            "SELECT l.serial, coalesce(l.not_after, c.not_after, p.not_after) FROM listed l "
            "LEFT JOIN certified c ON c.key = l.key AND c.serial = l.serial "
            "LEFT JOIN precertificates p ON p.key = l.key AND p.serial = l.serial WHERE l.key = ?",
            key.name,
        )
        return {int(serial, 16): None if end is None else _moment(end) for serial, end in rows}

    def last_checkpoint(self, origin: str) -> SignedCheckpoint | None:
        # A log may have had several keys, each of which remains the key of that log.
        largest = "SELECT size, root FROM checkpoints WHERE origin = ? ORDER BY size DESC LIMIT 1"
        for size, root in self._rows(largest, origin):
            return SignedCheckpoint(size, root)
        return None

    def origin_of(self, key: HeldKey) -> str | None:
        for (origin,) in self._rows("SELECT origin FROM checkpoints WHERE key = ?", key.name):
            return str(origin)
        return None

    def has_roots(self) -> bool:
        return bool(self._rows("SELECT 1 FROM keys WHERE purpose = 'root'"))

    # What follows from a verdict.

    def apply(self, key: HeldKey, effect: Effect, tbs: bytes) -> None:
        """Remember it, within :meth:`changing`."""
        match effect:
            case CertificateEffect():
                self._do(
                    "INSERT INTO certified VALUES (?, ?, ?, ?)",
                    key.name,
                    _serial(effect.serial),
                    sha256(tbs).hexdigest(),
                    int(effect.not_after.timestamp()),
                )
                if effect.is_ca:
                    der = assemble(effect.tbs, key.algorithm.identifier)
                    self._show(x509.load_der_x509_certificate(der))
            case PrecertificateEffect():
                self._do(
                    "INSERT INTO precertificates VALUES (?, ?, ?, ?)",
                    key.name,
                    _serial(effect.serial),
                    effect.sha256,
                    int(effect.not_after.timestamp()),
                )
            case CrlEffect():
                self._do(
                    "INSERT OR REPLACE INTO crls VALUES (?, ?, ?)",
                    key.name,
                    str(effect.number),
                    effect.sha256,
                )
                for serial in effect.dropped:
                    self._do(
                        "DELETE FROM listed WHERE key = ? AND serial = ?", key.name, _serial(serial)
                    )
                for serial, end in effect.added.items():
                    self._do(
                        "INSERT INTO listed VALUES (?, ?, ?)",
                        key.name,
                        _serial(serial),
                        None if end is None else int(end.timestamp()),
                    )
            case CheckpointEffect():
                self._do(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?)",
                    key.name,
                    effect.origin,
                    effect.size,
                    effect.root,
                )

    def _show(self, certificate: x509.Certificate) -> str | None:
        holder = self.holder_of(spki_der(certificate.public_key()))
        if holder is None:
            return None
        der = certificate.public_bytes(serialization.Encoding.DER)
        digest = sha256(der).hexdigest()
        self._do("INSERT OR IGNORE INTO ca_certificates VALUES (?, ?, ?)", digest, holder.name, der)
        return holder.name

    def forget_ended(self, now: datetime) -> int:
        """Forget some of the certificates that have ended long ago, within :meth:`changing`; how many."""
        before = int((now - _AFTER_END).timestamp())
        gone = 0
        for table in ("certified", "precertificates"):
            gone += self._do(
                f"DELETE FROM {table} WHERE (key, serial) IN "  # noqa: S608
                f"(SELECT key, serial FROM {table} WHERE not_after < ? LIMIT ?)",
                before,
                _AT_A_TIME,
            ).rowcount
        return gone

    # What a person does, perhaps in another process.

    def adopt(self, certificate: x509.Certificate, by: str) -> str:
        """Take a CA certificate of a key of ours for known, within :meth:`changing`; which key that is.

        Raises :class:`UnknownKey`.
        """
        name = self._show(certificate)
        if name is None:
            raise UnknownKey("that certificate is of no key of this signer")
        digest = sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.approve(f"{ADOPTED}{digest}", certificate.not_valid_after_utc, by)
        return name

    def approve(self, pin: str, until: datetime, by: str) -> None:
        """Let a root of ours certify that key for a while, within :meth:`changing`."""
        self._do(
            "INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, 0)", pin, int(until.timestamp()), by
        )

    def unlogged(self) -> list[Approval]:
        """What was approved since the log was last written."""
        rows = self._rows("SELECT pin, until, by FROM approvals WHERE is_logged = 0")
        return [Approval(pin, _moment(until), by) for pin, until, by in rows]

    def mark_logged(self, approvals: Sequence[Approval]) -> None:
        """Within :meth:`changing`."""
        for approval in approvals:
            self._do("UPDATE approvals SET is_logged = 1 WHERE pin = ?", approval.pin)

    # SQLite.

    def _do(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self._connection is None:
            raise SignerStateError(f"{self.path} is not open: the signer is being stopped")
        return self._connection.execute(sql, values)

    def _rows(self, sql: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._explaining():
            return self._do(sql, *values).fetchall()

    def _get(self, name: str) -> str | None:
        for (value,) in self._rows("SELECT value FROM meta WHERE name = ?", name):
            return str(value)
        return None

    def _set(self, name: str, value: str) -> None:
        self._do("INSERT OR REPLACE INTO meta VALUES (?, ?)", name, value)

    def _upgrade(self) -> None:
        """Have the tables that an earlier version had not."""
        known = EARLIER.get(self._get("version") or "")
        if known is not None:
            with self.changing():
                for table in TABLES[known:]:
                    self._do(table)
                self._set("version", VERSION)

    def _refuse_foreign(self) -> None:
        """A trigger or a view would act by itself: nothing is in there but what is made here."""
        rows = self._rows("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid")
        found = [sql for (sql,) in rows]
        meta = found[:1] == list(TABLES[:1])
        known = EARLIER.get((self._get("version") if meta else None) or "", len(TABLES))
        if found != list(TABLES[:known]):
            raise SignerStateError(
                f"{self.path} has tables, triggers or views that are not as this program makes them: somebody has "
                "changed it; bring it back from a backup"
            )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            raise SignerStateError(
                f"{self.path} cannot be used ({name}: {printable(str(error), 120)}): nothing was signed; free some "
                "space, or look at its owner and mode"
            ) from None


def unknown(name: str) -> UnknownKey:
    """What whoever asks for a key of that name is told."""
    return UnknownKey(
        f"this signer has no key {printable(name, 80)!r}: mesh-signer keys lists what it has"
    )


@lru_cache(maxsize=256)
def _certificate(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def _serial(serial: int) -> str:
    return serial_hex(serial) if serial >= 0 else f"-{serial_hex(-serial)}"


def _moment(timestamp: int) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)
