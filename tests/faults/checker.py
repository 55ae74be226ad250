"""An independent judge of a CA's record: it uses none of the CA's code, and believes none of it.

It reads the database file with ``sqlite3`` and the certificates with ``cryptography``, recomputes the
Merkle tree from RFC 9162's definition, and compares all of that with what clients hold.
"""

import base64
import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@frozen
class Evidence:
    """What clients hold after it happened."""

    certificates: tuple[bytes, ...] = ()
    """DER of every certificate that was received whole."""
    revoked: Mapping[int, str] = field(factory=dict)
    """Serials whose revocation was acknowledged, and the time that the answer told."""
    idempotent: frozenset[bytes] = frozenset()
    """SubjectPublicKeyInfo of requests that were made under one Idempotency-Key."""
    verifier: str = ""
    checkpoints: tuple[str, ...] = ()
    """Signed notes that the CA showed."""


@frozen
class Row:
    """A row of ``certificates`` with what other tables say of it."""

    id: int
    serial: int
    revoked_at: int | None
    intent: bytes | None
    der: bytes | None
    in_feed: int


@frozen
class Token:
    id: str
    entry: str | None
    """The one that it is bound to, if that is there."""
    bound_to: str
    spent_at: int | None
    serial: int | None


@frozen
class LoggedAct:
    position: int
    act: str
    serial: int | None
    tbs: str


_OF_A_SERIAL = ("issue", "renew", "revoke", "write-off")


@define
class Record:
    """Everything in the database, read at once."""

    rows: Sequence[Row]
    entries: Sequence[tuple[int, bytes]]
    acts: Sequence[LoggedAct]
    tiles: Mapping[tuple[int, int], bytes]
    checkpoints: Sequence[tuple[int, str]]
    counters: Mapping[str, int]
    feed: Sequence[tuple[int, int]]
    tokens: Sequence[Token]

    @classmethod
    def read(cls, database: Path) -> "Record":
        with closing(sqlite3.connect(f"file:{database}?mode=rw", uri=True)) as connection:
            (state,) = connection.execute("PRAGMA integrity_check").fetchone()
            if state != "ok":
                raise AssertionError(f"the file is damaged: {state}")
            connection.execute("BEGIN")
            rows = connection.execute(
                "SELECT c.id, c.serial, c.revoked_at, i.digest, b.der, "
                "(SELECT count(*) FROM feed f WHERE f.certificate = c.id) FROM certificates c "
                "LEFT JOIN intents i ON i.certificate = c.id LEFT JOIN bodies b ON b.certificate = c.id"
            ).fetchall()
            entries = connection.execute(
                "SELECT position, entry FROM audit ORDER BY position"
            ).fetchall()
            return cls(
                rows=[Row(row[0], int(row[1], 16), *row[2:]) for row in rows],
                entries=[(position, bytes(entry)) for position, entry in entries],
                acts=[_act(position, entry) for position, entry in entries],
                tiles={
                    (level, number): bytes(hashes)
                    for level, number, hashes in connection.execute("SELECT * FROM tiles")
                },
                checkpoints=connection.execute(
                    "SELECT size, note FROM checkpoints ORDER BY size"
                ).fetchall(),
                counters=dict(connection.execute("SELECT name, value FROM counters").fetchall()),
                feed=connection.execute(
                    "SELECT position, certificate FROM feed ORDER BY position"
                ).fetchall(),
                tokens=[
                    Token(*row, None if serial is None else int(serial, 16))
                    for *row, serial in connection.execute(
                        "SELECT t.id, e.id, t.entry, t.spent_at, t.serial FROM tokens t "
                        "LEFT JOIN entries e ON e.id = t.entry"
                    )
                ],
            )


def _act(position: int, entry: bytes) -> LoggedAct:
    told: dict[str, Any] = json.loads(entry)
    serial = int(told["object"], 16) if told["act"] in _OF_A_SERIAL else None
    return LoggedAct(position, told["act"], serial, told["facts"].get("tbs", ""))


def findings(database: Path, evidence: Evidence, *, settled: bool) -> list[str]:
    """Everything that is not as it must be.

    ``settled``: the CA came to its end in order, so nothing is under way and all is signed. Otherwise
    it died, and a signature that was under way is still open.
    """
    try:
        record = Record.read(database)
    except (AssertionError, sqlite3.Error, ValueError, KeyError) as error:
        return [f"the record cannot be read: {error}"]
    judges = (
        _held_is_recorded(record, evidence),
        _recorded_is_accounted(record, settled),
        _revocations_survive(record, evidence),
        _bought_once(record, evidence),
        _tokens_buy_once(record),
        _numbers(record),
        _log_is_whole(record, evidence, settled),
    )
    return [finding for judge in judges for finding in judge]


def _held_is_recorded(record: Record, evidence: Evidence) -> Iterator[str]:
    rows = {row.serial: row for row in record.rows}
    issued = {act.serial: act for act in record.acts if act.act in ("issue", "renew")}
    for der in evidence.certificates:
        certificate = x509.load_der_x509_certificate(der)
        serial = certificate.serial_number
        row = rows.get(serial)
        if row is None or row.der is None:
            yield f"{serial:x} is held and not recorded"
        elif row.der != der:
            yield f"{serial:x} is held, and recorded with other bytes"
        tbs = hashlib.sha256(drafted(certificate)).hexdigest()
        if serial not in issued:
            yield f"{serial:x} is held, and the log has no entry of its issue"
        elif issued[serial].tbs != tbs:
            yield f"{serial:x} is held, and the log tells of other contents"


def _recorded_is_accounted(record: Record, settled: bool) -> Iterator[str]:
    acts: dict[int | None, Counter[str]] = defaultdict(Counter)
    for act in record.acts:
        acts[act.serial][act.act] += 1
    digests = {act.serial: act.tbs for act in record.acts if act.act in ("issue", "renew")}
    for row in record.rows:
        of_it = acts[row.serial]
        if of_it["issue"] + of_it["renew"] != 1:
            yield f"{row.serial:x} is recorded with {of_it['issue'] + of_it['renew']} entries of its issue"
        if row.der is not None:
            certificate = x509.load_der_x509_certificate(row.der)
            if certificate.serial_number != row.serial:
                yield f"{row.serial:x} is recorded with the certificate of another serial"
            tbs = hashlib.sha256(drafted(certificate)).hexdigest()
            if digests.get(row.serial) != tbs:
                yield f"{row.serial:x} is recorded with contents that the log does not tell of"
        if row.intent is not None:
            if row.der is not None:
                yield f"{row.serial:x} has its certificate, and its intent is open"
            if row.intent.hex() != digests.get(row.serial):
                yield f"{row.serial:x} is intended with contents that the log does not tell of"
            if settled:
                yield f"{row.serial:x} is still under way"
        elif row.der is None and not of_it["write-off"]:
            yield f"{row.serial:x} has neither certificate nor intent, and was not written off"
        ends = of_it["revoke"] + of_it["write-off"]
        if row.revoked_at is None and ends:
            yield f"{row.serial:x} was revoked by the log, and counts as valid"
        if row.revoked_at is not None and not ends:
            yield f"{row.serial:x} is revoked, and the log does not say so"
        if row.in_feed != (row.revoked_at is not None):
            yield f"{row.serial:x} stands in the feed {row.in_feed} times"
    recorded = {row.serial for row in record.rows}
    for serial in acts:
        if serial is not None and serial not in recorded:
            yield f"the log tells of {serial:x}, which is not recorded"


def _revocations_survive(record: Record, evidence: Evidence) -> Iterator[str]:
    rows = {row.serial: row for row in record.rows}
    for serial, told in evidence.revoked.items():
        row = rows.get(serial)
        if row is None or row.revoked_at is None:
            yield f"the revocation of {serial:x} was acknowledged and is lost"
        elif row.revoked_at // 1_000_000 != _seconds(told):
            yield f"{serial:x} was revoked at {told} by the answer, and at another time by the record"


def _seconds(rfc3339: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(rfc3339).timestamp())


def _bought_once(record: Record, evidence: Evidence) -> Iterator[str]:
    valid: Counter[bytes] = Counter()
    for row in record.rows:
        if row.der is not None and row.revoked_at is None:
            valid[public_key_of(x509.load_der_x509_certificate(row.der))] += 1
    for key in evidence.idempotent:
        if valid[key] > 1:
            yield f"one Idempotency-Key bought {valid[key]} certificates that are valid"


def _tokens_buy_once(record: Record) -> Iterator[str]:
    rows = {row.serial: row for row in record.rows}
    written_off = {act.serial for act in record.acts if act.act == "write-off"}
    bought = Counter(token.serial for token in record.tokens if token.serial is not None)
    for serial, count in bought.items():
        if count > 1:
            yield f"{serial:x} was bought with {count} tokens"
    for token in record.tokens:
        if token.entry is None:
            yield f"the token {token.id} is bound to {token.bound_to}, which is not there"
        if token.serial is None:
            if token.spent_at is not None:
                yield f"the token {token.id} was spent, and bought nothing"
            continue
        if token.spent_at is None:
            yield f"the token {token.id} bought {token.serial:x} and counts as live"
        if token.serial not in rows:
            yield f"the token {token.id} was spent on {token.serial:x}, which is not recorded"
        elif token.serial in written_off:
            yield f"{token.serial:x} was written off, and has cost the token {token.id}"


def drafted(certificate: x509.Certificate) -> bytes:
    """What was to be signed before logs were asked: all but their SCTs."""
    try:
        return certificate.tbs_precertificate_bytes
    except ValueError:
        return certificate.tbs_certificate_bytes


def public_key_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _numbers(record: Record) -> Iterator[str]:
    positions = [position for position, _ in record.entries]
    if positions != list(range(len(positions))):
        yield "positions of the audit log are missing"
    if record.counters["audit"] != len(positions):
        yield f"{record.counters['audit']} acts were counted, and there are {len(positions)}"
    if [position for position, _ in record.feed] != list(range(1, len(record.feed) + 1)):
        yield "positions of the feed are missing"
    if record.counters["feed"] != len(record.feed):
        yield f"{record.counters['feed']} revocations were counted, and there are {len(record.feed)}"
    if record.counters["certificate"] != len(record.rows):
        yield f"{record.counters['certificate']} certificates were counted, and there are {len(record.rows)}"
    if record.counters["tree"] > len(positions):
        yield "the tree is larger than the log"


def _log_is_whole(record: Record, evidence: Evidence, settled: bool) -> Iterator[str]:
    leaves = [hashlib.sha256(b"\0" + entry).digest() for _, entry in record.entries]
    tree = Tree(leaves)
    size = min(record.counters["tree"], len(leaves))
    if record.tiles != tree.tiles(size):
        yield "the tiles of the tree are not those of its entries"
    if not evidence.verifier:
        return
    key = NoteKey.read(evidence.verifier)
    yield from _notes(tree, key, "saved", (note for _, note in record.checkpoints))
    yield from _notes(tree, key, "seen", evidence.checkpoints)
    last = record.checkpoints[-1][0] if record.checkpoints else 0
    if last > record.counters["tree"]:
        yield f"a checkpoint of {last} entries is saved, and the tree has {record.counters['tree']}"
    if settled and not last == record.counters["tree"] == len(leaves):
        yield f"{len(leaves)} acts are recorded, and {last} are signed"


def _notes(tree: "Tree", key: "NoteKey", which: str, notes: Iterable[str]) -> Iterator[str]:
    for note in dict.fromkeys(notes):
        try:
            size, root = key.open(note)
        except (InvalidSignature, ValueError) as error:
            yield f"a checkpoint that was {which} is not signed by the log's key: {error}"
            continue
        if size > len(tree.leaves):
            yield f"a checkpoint that was {which} has {size} entries, and there are {len(tree.leaves)}"
        elif tree.root(0, size) != root:
            yield f"a checkpoint of {size} entries that was {which} has another root"


class Tree:
    """A Merkle tree by the definition in RFC 9162 section 2.1.1, and as C2SP's tiles of 256."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def root(self, start: int, end: int) -> bytes:
        if end - start == 0:
            return hashlib.sha256(b"").digest()
        if end - start == 1:
            return self.leaves[start]
        if (start, end) not in self._known:
            half = 1
            while half * 2 < end - start:
                half *= 2
            left, right = self.root(start, start + half), self.root(start + half, end)
            self._known[start, end] = hashlib.sha256(b"\1" + left + right).digest()
        return self._known[start, end]

    def tiles(self, size: int) -> dict[tuple[int, int], bytes]:
        tiles: dict[tuple[int, int], bytes] = {}
        level, below = 0, 1
        while size // below:
            hashes = [self.root(i * below, (i + 1) * below) for i in range(size // below)]
            for number in range(-(-len(hashes) // 256)):
                tiles[level, number] = b"".join(hashes[number * 256 : (number + 1) * 256])
            level, below = level + 1, below * 256
        return tiles


@frozen
class NoteKey:
    """The key in a verifier string (C2SP signed-note): ``name+hash+base64(1 || Ed25519 key)``."""

    name: str
    id: bytes
    public: bytes

    @classmethod
    def read(cls, verifier: str) -> "NoteKey":
        name, digest, key = verifier.split("+", 2)
        return cls(name, bytes.fromhex(digest), base64.b64decode(key)[1:])

    def open(self, note: str) -> tuple[int, bytes]:
        """Size and root of a checkpoint."""
        text, _, signatures = note.rpartition("\n\n")
        for line in signatures.splitlines():
            _, name, encoded = line.split(" ")
            raw = base64.b64decode(encoded)
            if name == self.name and raw[:4] == self.id:
                Ed25519PublicKey.from_public_bytes(self.public).verify(
                    raw[4:], f"{text}\n".encode()
                )
                origin, size, root, *_ = text.split("\n")
                if origin != self.name:
                    raise ValueError("it is of another log")
                return int(size), base64.b64decode(root)
        raise ValueError("there is no signature of this key")
