"""What the audit log of a restored record vouches for, and what it does not: that is listed before a restore."""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

from attrs import evolve, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from pki.audit.auditor import Row, examine
from pki.audit.log import Act, BadEntry, Checkpoint, Entry, Verifier
from pki.audit.record_check import RecordCheck
from pki.audit.recorded import (
    Difference,
    RecordedCertificate,
    RecordedClaim,
    RecordedEntry,
    RecordedFederation,
    RecordedToken,
)
from pki.codes import Code
from pki.ct.precertificate import without_scts
from pki.errors import HOSTILE_INPUT, PkiError, printable
from pki.policy.entry import RegistrationEntry
from pki.policy.join_token import token_id
from pki.serial import serial_hex
from pki.spiffe import TrustDomain
from pki.tlog import merkle
from twisted_mesh.backup.rows import opened, telling
from twisted_mesh.ca.entries import facts_of
from twisted_mesh.ca.federated import facts_on_record
from twisted_mesh.ca.federation_history import digest_of
from twisted_mesh.stores import schema
from twisted_mesh.stores.records import StoredFederation, StoreError

#: What a certificate that is none raises.
_DAMAGED: tuple[type[BaseException], ...] = (InvalidSignature, PkiError, *HOSTILE_INPUT)
_TAKING = (Act.REVOKE, Act.WRITE_OFF)
_TAKING_DEEDS = ("delete-entry", "revoke-token", "end-federation")
_BANNING = ("create-entry",)


@frozen
class Doubt:
    """Something in a record that its log does not vouch for."""

    code: str
    detail: str


@frozen
class Vouched:
    """How a record stands against its log."""

    doubts: tuple[Doubt, ...]
    judged: int
    """Rows that were held against an act."""
    unjudged: int
    """Rows that are older than what the log's text goes back to."""
    is_signed: bool
    """Whether a checkpoint of the log was verified with a key that is known otherwise than by the archive."""


def vouch(
    path: Path,
    keys: Iterable[bytes],
    issuers: Mapping[str, x509.Certificate],
    created_at: datetime,
    *,
    is_authentic: bool,
) -> Vouched:
    """Hold the tables of a record, which are up to date, against its log.

    ``keys`` are public keys of the log that are known otherwise than by the record, ``issuers`` the CA's certificates
    by the ids of their keys: what is revoked must be what they have signed. In a record that
    is not ``is_authentic`` only acts up to the last checkpoint vouch, and what is too old to be judged is doubtful too.
    Raises :class:`StoreError`.
    """
    with telling(path):
        return _vouch(path, tuple(keys), issuers, created_at, is_authentic=is_authentic)


def _vouch(
    path: Path,
    keys: tuple[bytes, ...],
    issuers: Mapping[str, x509.Certificate],
    created_at: datetime,
    *,
    is_authentic: bool,
) -> Vouched:
    with closing(opened(path, "ro")) as connection:
        note, size = _last_note(connection)
        checkpoint, is_signed = _verified(note, keys)
        doubts = list(_log_doubts(connection, note, checkpoint, is_signed, is_authentic))
        vouching = size if is_authentic else (checkpoint.size if checkpoint else 0)
        check = RecordCheck(created_at)
        try:
            for row in _acts(connection, size):
                check.act(row if row.position < vouching or _only_takes(row) else _silent(row))
            doubts += _differences(check, connection, issuers)
        finally:
            check.close()
        if check.unjudged and not is_authentic:
            detail = (
                f"{check.unjudged:,} rows are older than the text of the log, which says nothing of them: look "
                "through entries and tokens"
            )
            doubts.append(Doubt(str(Code.RECORD_UNKNOWN), detail))
        return Vouched(tuple(doubts), check.judged, check.unjudged, is_signed)


def _last_note(connection: sqlite3.Connection) -> tuple[str | None, int]:
    """The latest checkpoint's note, and how many acts there are."""
    size = _count(connection, "audit")
    row = connection.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    return (row[0] if row else None), size


def _count(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
    return int(value)


def _verified(note: str | None, keys: tuple[bytes, ...]) -> tuple[Checkpoint | None, bool]:
    """What the note says, if any of the keys has signed it; without keys, what it says of itself."""
    if note is None:
        return None, False
    name = note.partition("\n")[0]
    for key in keys:
        try:
            return Verifier(name, key).open(note), True
        except PkiError:
            continue
    if keys:
        return None, False
    try:
        return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n"), False
    except PkiError:
        return None, False


def _log_doubts(
    connection: sqlite3.Connection,
    note: str | None,
    checkpoint: Checkpoint | None,
    is_signed: bool,
    is_authentic: bool,
) -> Iterator[Doubt]:
    size = _count(connection, "tree")
    # A log that the CA has only begun has no checkpoint yet.
    acts = size if is_authentic else _count(connection, "audit")
    if checkpoint is None:
        if note is not None or acts:
            yield Doubt(
                str(Code.LOG_UNVOUCHED),
                "the last checkpoint of its audit log is not signed by the log's key that is known here"
                if note is not None
                else f"its audit log of {acts:,} acts has no checkpoint",
            )
    elif not is_signed:
        yield Doubt(
            str(Code.LOG_UNVOUCHED),
            "no key of its audit log is known here: the log is held to itself alone, and whoever wrote the archive may "
            "have written it",
        )
    known = [] if checkpoint is None else [checkpoint]
    try:
        for finding in examine(_acts(connection, size), known):
            if finding.is_breach:
                yield Doubt(str(finding.code), printable(finding.detail, 1000))
    except merkle.DamagedTree as error:
        yield Doubt(str(Code.DAMAGED_TREE), str(error))


def _acts(connection: sqlite3.Connection, size: int) -> Iterator[Row]:
    """Every act, those whose text is pruned with their leaf."""

    def read(level: int, number: int) -> bytes:
        row = connection.execute(
            "SELECT hashes FROM tiles WHERE level = ? AND number = ?", (level, number)
        ).fetchone()
        return bytes(row[0]) if row else b""

    tree = _count(connection, "tree")
    for start in range(0, size, 1024):
        end = min(start + 1024, size)
        texts = dict(
            connection.execute(
                "SELECT position, entry FROM audit WHERE position >= ? AND position < ?",
                (start, end),
            ).fetchall()
        )
        hashed = min(end, tree)
        leaves = list(merkle.leaves(start, hashed, read)) if start < hashed else []
        for position in range(start, end):
            leaf = leaves[position - start] if position < hashed else None
            yield Row(position, texts.get(position), leaf)


def _silent(row: Row) -> Row:
    """The same place in the log, with nothing said there."""
    return Row(row.position, b"", row.leaf)


def _only_takes(row: Row) -> bool:
    """Whether an act takes rights away, so that it counts whoever has written it."""
    try:
        entry = Entry.parse(row.entry or b"")
    except BadEntry:
        return False
    if entry.act is not Act.ADMINISTER:
        return entry.act in _TAKING
    # To make the ban of an agent is to take, and to delete it is to give.
    deeds = _BANNING if "banned" in entry.facts else _TAKING_DEEDS
    return entry.facts.get("did") in deeds


#: The certificates themselves only of what is revoked: nothing else is told of anybody who may still be heard.
_CERTIFICATES = """
SELECT c.serial, c.spiffe_id, c.issued_at, c.expires_at, c.revoked_at, c.reason, c.entry, c.claim,
    c.issuer, CASE WHEN c.revoked_at IS NULL THEN NULL ELSE b.der END
FROM certificates c LEFT JOIN bodies b ON b.certificate = c.id
"""


def _differences(
    check: RecordCheck, connection: sqlite3.Connection, issuers: Mapping[str, x509.Certificate]
) -> Iterator[Doubt]:
    for *row, issuer, der in connection.execute(_CERTIFICATES):
        with _reading(f"the certificate {printable(row[0], 60)}"):
            certificate = RecordedCertificate(
                serial=int(row[0], 16),
                spiffe_id=row[1],
                issued_at=_time(row[2]),
                expires_at=_time(row[3]),
                revoked_at=_maybe(row[4]),
                reason=row[5],
                entry=row[6],
                claim=row[7],
            )
        if certificate.revoked_at is not None:
            certificate, what = _looked_into(certificate, der, issuers.get(issuer), check.now)
            if what:
                name = serial_hex(certificate.serial)
                detail = f"the certificate {name} is revoked on record, and {what}: others would not know it by that"
                yield Doubt(str(Code.RECORD_CHANGED), detail)
        yield from map(_doubt, check.certificate(certificate))
    for name, created_at, document in connection.execute(
        "SELECT id, created_at, document FROM entries"
    ):
        with _reading(f"the entry {printable(name, 60)}"):
            said = RegistrationEntry.from_document(document)
            if said.id != name:
                raise ValueError
            entry = RecordedEntry(name, facts_of(said), _time(created_at))
        yield from map(_doubt, check.entry(entry))
    for row in connection.execute(
        "SELECT id, digest, entry, expires_at, created_at, key, revoked_at, spent_at FROM tokens"
    ):
        with _reading(f"the token {printable(row[0], 60)}"):
            if token_id(row[1]) != row[0]:
                raise ValueError
            times = _time(row[3]), _time(row[4])
            token = RecordedToken(row[0], row[2], *times, row[5], _maybe(row[6]), _maybe(row[7]))
        yield from map(_doubt, check.token(token))
    for name, serial, at in connection.execute("SELECT claim, serial, at FROM claims"):
        with _reading(f"the claim {printable(name, 200)}"):
            used = RecordedClaim(name, int(serial, 16), _time(at))
        yield from map(_doubt, check.claim(used))
    for row in connection.execute(
        "SELECT trust_domain, relationship, created_at, bundle FROM federation"
    ):
        with _reading(f"the federation with {printable(row[0], 60)}"):
            stored = StoredFederation(TrustDomain.parse(row[0]), row[1], _time(row[2]), row[3])
            digest = None if stored.bundle is None else digest_of(stored.bundle)
            facts = facts_on_record(stored)
            federated = RecordedFederation(row[0], facts, stored.created_at, digest)
        yield from map(_doubt, check.federation(federated))
    check.knows_federations()
    yield from map(_doubt, check.missing())


def _looked_into(
    row: RecordedCertificate, der: bytes | None, issuer: x509.Certificate | None, now: datetime
) -> tuple[RecordedCertificate, str]:
    """A revoked row with the digest of what was drafted, and what of it is not as the certificate has it."""
    is_over = row.expires_at < now
    if issuer is None and not is_over:
        return row, "its issuer is none of the CA's"
    if der is None:
        # What was written off was never signed, as far as anybody knows.
        is_missing = not is_over and row.reason != "unspecified"
        return row, "it is not there itself" if is_missing else ""
    try:
        certificate = x509.load_der_x509_certificate(der)
        tbs = hashlib.sha256(without_scts(certificate.tbs_certificate_bytes)).hexdigest()
        is_same = (certificate.serial_number, certificate.not_valid_after_utc) == (
            row.serial,
            row.expires_at.replace(microsecond=0),
        )
        if issuer is not None:
            certificate.verify_directly_issued_by(issuer)
    except _DAMAGED:
        return row, "it was not issued by the CA that is its issuer there"
    return evolve(
        row, tbs=tbs
    ), "" if is_same else "its serial or its end is not that of the certificate"


def _doubt(difference: Difference) -> Doubt:
    return Doubt(str(difference.code), printable(difference.detail, 1000))


def _time(microseconds: int) -> datetime:
    return schema.time_of(microseconds)


def _maybe(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else schema.time_of(microseconds)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    try:
        yield
    except (PkiError, ValueError, OverflowError):
        raise StoreError(
            f"{what} in the backup's record cannot be read: use another backup"
        ) from None
