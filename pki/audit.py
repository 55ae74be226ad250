"""The audit log of a CA: entries, signed checkpoints, and what a witness and an auditor look for.

Entries are leaves of a Merkle tree (:mod:`pki.merkle`). A checkpoint says how large the tree is and
what its root is; it is signed as a note (C2SP signed-note and tlog-checkpoint), so that tools which
read transparency logs can read it.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

import msgspec
from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pki.errors import HOSTILE_INPUT, Malformed, PkiError, printable
from pki.keys import UnusableKey
from pki.merkle import BadProof, GrowingTree, leaf_hash, verify_consistency
from pki.validity import parse_rfc3339

_ED25519 = b"\x01"
_DASH = "\u2014"
_NAME = re.compile(r"[^\s+]{1,200}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_NOTE = 10_000
#: By how much the times of two entries may run backwards before it is worth a word.
_SLACK = timedelta(minutes=1)


class Act(StrEnum):
    """What a CA does that is worth an entry."""

    ISSUE = "issue"
    RENEW = "renew"
    REVOKE = "revoke"
    WRITE_OFF = "write-off"
    """An intent whose signature was never finished is given up."""
    ROTATE = "rotate"
    """An issuing CA is prepared, activated or retired."""
    ADMINISTER = "administer"
    START = "start"
    STOP = "stop"
    RESTORE = "restore"
    REFUSE = "refuse"
    """Requests that were refused, counted."""


class BadEntry(Malformed):
    """These bytes are no entry of an audit log."""

    code = "bad-entry"


class BadCheckpoint(PkiError):
    """A note that is no checkpoint, or not signed by the log's key."""

    code = "bad-checkpoint"


class LogContradicts(PkiError):
    """A log is not what it was seen to be."""


class RolledBack(LogContradicts):
    """The log is shorter than it was."""

    code = "log-rolled-back"


class Forked(LogContradicts):
    """The log holds something else than it did."""

    code = "log-forked"


class Replaced(LogContradicts):
    """It is another log."""

    code = "log-replaced"


class _EntryShape(msgspec.Struct, forbid_unknown_fields=True):
    # In the order of the alphabet: this is the canonical one.
    act: Act
    actor: str
    at: str
    facts: dict[str, str]
    object: str


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_EntryShape).decode


@frozen
class Entry:
    """One act: when, what, by whom, to what. ``Entry.parse(entry.to_bytes()) == entry``."""

    at: datetime
    act: Act
    actor: str
    """What proved who asked: ``unix:uid:0``, ``x509:spiffe://… serial …``, ``self``."""
    object: str
    """A serial, a key id, a name."""
    facts: Mapping[str, str] = field(factory=dict)

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, no spaces, UTF-8."""
        at = self.at.astimezone(UTC).isoformat(timespec="microseconds")
        return _encode(
            _EntryShape(
                self.act,
                self.actor,
                at.replace("+00:00", "Z"),
                dict(self.facts),
                self.object,
            )
        )

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`BadEntry` for whatever :meth:`to_bytes` would not have written."""
        try:
            found = _decode(data)
            at = parse_rfc3339(found.at)
            entry = cls(at, found.act, found.actor, found.object, found.facts)
            canonical = entry.to_bytes()
        except (ValueError, OverflowError, RecursionError, PkiError, msgspec.DecodeError):
            raise BadEntry("this is no entry of an audit log: it is damaged or not ours") from None
        if canonical != data:
            raise BadEntry("this entry is not written canonically: it has been changed")
        return entry


@frozen
class Checkpoint:
    """Where a log stands: how many entries, and the root of the tree over them."""

    origin: str
    """The log's name, which is also its key's."""
    size: int
    root: bytes
    at: datetime
    """When that was signed, by the log's clock."""

    @property
    def text(self) -> str:
        """What is signed (C2SP tlog-checkpoint), with the time as its one extension line."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\ntime {_time_text(self.at)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`BadCheckpoint`."""
        try:
            origin, size, root, time, end = text.split("\n")
            checkpoint = cls(
                origin,
                int(size) if _SIZE.fullmatch(size) else -1,
                base64.b64decode(root, validate=True),
                parse_rfc3339(time.removeprefix("time ")),
            )
        except (ValueError, PkiError):
            raise BadCheckpoint("the note is no checkpoint of an audit log") from None
        if end or len(checkpoint.root) != 32 or checkpoint.text != text:
            raise BadCheckpoint("the checkpoint is not written as this log writes them")
        return checkpoint


@frozen
class Verifier:
    """The public half of a log's key. ``Verifier.parse(str(x)) == x`` (C2SP signed-note)."""

    name: str
    public_bytes: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name+hash+key``. Raises :class:`BadCheckpoint`."""
        name, _, rest = text.partition("+")
        digest, _, key = rest.partition("+")
        try:
            raw = base64.b64decode(key, validate=True)
        except (ValueError, binascii.Error):
            raw = b""
        verifier = cls(name, raw[1:])
        if not _NAME.fullmatch(name) or len(raw) != 33 or raw[:1] != _ED25519:
            raise BadCheckpoint(f"{printable(text, 80)!r} is no key of an audit log")
        if digest != verifier.key_hash.hex() or str(verifier) != text:
            raise BadCheckpoint(f"{printable(text, 80)!r}: its hash is not that of the key")
        return verifier

    def __str__(self) -> str:
        key = base64.b64encode(_ED25519 + self.public_bytes).decode()
        return f"{self.name}+{self.key_hash.hex()}+{key}"

    @property
    def key_hash(self) -> bytes:
        named = self.name.encode("utf-8", "replace") + b"\n" + _ED25519 + self.public_bytes
        return hashlib.sha256(named).digest()[:4]

    def open(self, note: str) -> Checkpoint:
        """The checkpoint in a signed note. Raises :class:`BadCheckpoint`.

        Lines signed by others are passed over; a line of this key must hold.
        """
        text, separator, signatures = note.partition("\n\n")
        text += "\n"
        if len(note) > _MAX_NOTE or not separator or not signatures.endswith("\n"):
            raise BadCheckpoint("the note is damaged, or not signed")
        ours = [
            signature[4:]
            for signature in map(self._signature, signatures[:-1].split("\n"))
            if signature is not None and signature[:4] == self.key_hash
        ]
        if not ours:
            raise BadCheckpoint(f"the note is not signed by the key of {self.name}")
        try:
            key = Ed25519PublicKey.from_public_bytes(self.public_bytes)
            for signature in ours:
                key.verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            raise BadCheckpoint(f"the signature of {self.name} on the note is wrong") from None
        checkpoint = Checkpoint.parse(text)
        if checkpoint.origin != self.name:
            raise BadCheckpoint(
                f"the checkpoint is of the log {printable(checkpoint.origin, 80)}, not of {self.name}"
            )
        return checkpoint

    def _signature(self, line: str) -> bytes | None:
        """Key hash and signature in a line that names this key; None for another's."""
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        if dash != _DASH or not name or not encoded:
            raise BadCheckpoint("the note is damaged: a line of its signatures is none")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except ValueError:
            raise BadCheckpoint("the note is damaged: a signature is no base64") from None
        return raw if name == self.name else None


@frozen(eq=False)
class LogKey:
    """What signs a log's checkpoints: an Ed25519 key and the log's name. Its ``repr`` shows no secret."""

    name: str
    private_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> Self:
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, name: str, pem: bytes, passphrase: bytes | None = None) -> Self:
        """Raises :class:`UnusableKey`, never with key material in it."""
        try:
            key = serialization.load_pem_private_key(pem, passphrase)
        except HOSTILE_INPUT as error:
            if isinstance(error, TypeError):
                raise UnusableKey(
                    "the audit log's key: its passphrase is missing, or given for a key that has none"
                ) from None
            raise UnusableKey(
                "the audit log's key is damaged, or the passphrase is wrong: restore it from a backup"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey("the audit log's key is an Ed25519 key, and this is another kind")
        return cls(name, key)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS #8, encrypted if there is a passphrase."""
        return self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase)
            if passphrase
            else serialization.NoEncryption(),
        )

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.name, self.private_key.public_key().public_bytes_raw())

    async def sign(self, checkpoint: Checkpoint) -> str:
        """The signed note."""
        text = checkpoint.text
        signature = self.verifier.key_hash + self.private_key.sign(text.encode())
        return f"{text}\n{_DASH} {self.name} {base64.b64encode(signature).decode()}\n"


def advance(seen: Checkpoint | None, new: Checkpoint, proof: Sequence[bytes]) -> Checkpoint:
    """What a witness that has ``seen`` one checkpoint remembers after a new one.

    Raises :class:`LogContradicts` where the log was not simply extended.
    """
    if seen is None:
        return new
    if new.origin != seen.origin:
        raise Replaced(
            f"the log is {new.origin} now and was {seen.origin}: the CA was restored or made anew; "
            "if nobody did that, somebody has put another in its place"
        )
    if new.size < seen.size:
        raise RolledBack(
            f"the log has {new.size} entries and had {seen.size} at {_time_text(seen.at)}: what came between "
            "is gone, revocations with it; find out who put an older state back"
        )
    try:
        if new.size == seen.size:
            verify_consistency(max(seen.size, 1), max(new.size, 1), seen.root, new.root, ())
        elif seen.size:
            verify_consistency(seen.size, new.size, seen.root, new.root, proof)
    except BadProof as error:
        raise Forked(
            f"the log of {new.size} entries does not contain the {seen.size} that were there at "
            f"{_time_text(seen.at)} ({error}): its history was changed, or callers are told different things"
        ) from None
    return new


@frozen
class Row:
    """An entry as it is kept: its bytes (None once pruned) and its stored leaf hash (None if unknown)."""

    position: int
    entry: bytes | None
    leaf: bytes | None = None


@frozen
class Finding:
    """Something about a log that is not as it should be."""

    code: str
    start: int
    end: int
    """The entries that it is about: from ``start`` up to ``end``, which is not among them."""
    detail: str
    is_breach: bool = True
    """False for what is worth a word and proves nothing."""


def examine(rows: Iterable[Row], checkpoints: Iterable[Checkpoint]) -> Iterator[Finding]:
    """Everything that is wrong with a whole log, held against every checkpoint that anybody has kept.

    Rows come in the order of their positions, from 0; memory does not grow with them.
    """
    waiting = sorted(checkpoints, key=lambda checkpoint: checkpoint.size, reverse=True)
    tree: GrowingTree | None = GrowingTree()
    following, good, latest = 0, 0, None
    while waiting and waiting[-1].size == 0:
        waiting.pop()
    for row in rows:
        if row.position < following:
            yield Finding(
                "log-reordered",
                row.position,
                row.position + 1,
                f"entry {row.position} comes after entry {following - 1}",
            )
            continue
        if row.position > following:
            yield Finding(
                "log-cut",
                following,
                row.position,
                f"{row.position - following} entries are missing",
            )
            tree = None  # without them no later root can be computed
        following = row.position + 1
        if row.entry is not None:
            yield from _misfits(row, latest)
            latest = _time_of(row.entry) or latest
        leaf = row.leaf or (leaf_hash(row.entry) if row.entry is not None else None)
        if leaf is None:
            tree = None
        if tree is None or leaf is None:
            continue
        tree.add(leaf)
        while waiting and waiting[-1].size == tree.size:
            checkpoint = waiting.pop()
            if checkpoint.root == tree.root:
                good = tree.size
                continue
            yield Finding(
                "log-rewritten",
                good,
                checkpoint.size,
                f"entries {good} to {checkpoint.size - 1} are not those that were signed at "
                f"{_time_text(checkpoint.at)}",
            )
            tree = None
            break
    larger = [checkpoint for checkpoint in waiting if checkpoint.size > following]
    if larger:
        largest = larger[0]
        yield Finding(
            "log-rolled-back",
            following,
            largest.size,
            f"{largest.size - following} entries that were signed at {_time_text(largest.at)} are missing at the end",
        )


def _misfits(row: Row, latest: datetime | None) -> Iterator[Finding]:
    """What is wrong with one entry by itself."""
    entry = row.entry or b""
    where = row.position, row.position + 1
    if row.leaf is not None and leaf_hash(entry) != row.leaf:
        yield Finding(
            "log-edited", *where, f"entry {row.position} is not what was taken into the tree"
        )
    try:
        at = Entry.parse(entry).at
    except BadEntry as error:
        yield Finding("bad-entry", *where, f"entry {row.position}: {error}")
        return
    if latest is not None and at < latest - _SLACK:
        yield Finding(
            "time-backwards",
            *where,
            f"entry {row.position} is dated {_time_text(at)}, after one of {_time_text(latest)}",
            is_breach=False,
        )


def _time_of(entry: bytes) -> datetime | None:
    try:
        return Entry.parse(entry).at
    except BadEntry:
        return None


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
