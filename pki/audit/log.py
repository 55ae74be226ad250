"""The audit log of a CA: entries and signed checkpoints. What a witness looks for is in :mod:`pki.audit.advance`.

Entries are leaves of a Merkle tree (:mod:`pki.tlog.merkle`). A checkpoint says how large the tree is and
what its root is; it is signed as a note (C2SP signed-note and tlog-checkpoint), so that tools which
read transparency logs can read it.
"""

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Self

import msgspec
from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pki.codes import Code
from pki.errors import Malformed, PkiError, printable
from pki.keys import KeptKey, KeyAlgorithm, MemoryKey, UnusableKey, signature_over
from pki.keys.pkcs8 import read_pem, write_pem
from pki.tlog.merkle import EMPTY_ROOT
from pki.tlog.note import BadNote, Note, NoteSignature, is_key_name, key_hash, unbase64
from pki.validity import parse_rfc3339, rfc3339_exactly

_ED25519 = b"\x01"
#: What every key of a log is: witnesses verify nothing else.
LOG_ALGORITHM = KeyAlgorithm.ED25519
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_MAX_SIZE = 2**63 - 1


class Act(StrEnum):
    """What a CA does that is worth an entry."""

    ISSUE = "issue"
    RENEW = "renew"
    REVOKE = "revoke"
    WRITE_OFF = "write-off"
    """An intent whose signature was never finished is given up."""
    ISSUE_JWT = "issue-jwt"
    """A token; its object is the token's ``jti``."""
    ROTATE = "rotate"
    """An issuing CA, or a key that signs tokens, is prepared, activated or retired."""
    ADMINISTER = "administer"
    START = "start"
    STOP = "stop"
    RESTORE = "restore"
    REFUSE = "refuse"
    """Requests that were refused, counted."""


class BadEntry(Malformed):
    """These bytes are no entry of an audit log."""

    code = Code.BAD_ENTRY


class BadCheckpoint(PkiError):
    """A note that is no checkpoint, or not signed by the log's key."""

    code = Code.BAD_CHECKPOINT


class _Written(msgspec.Struct):
    # In the order of the alphabet: this is the canonical one.
    act: Act
    actor: str
    at: datetime | str
    facts: Mapping[str, str]
    object: str


class _Read(msgspec.Struct, forbid_unknown_fields=True):
    act: Act
    actor: str
    at: Annotated[datetime, msgspec.Meta(tz=True)]
    facts: dict[str, str]
    object: str


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Read).decode


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
        """Canonical JSON: sorted keys, no spaces, UTF-8; the time in UTC with microseconds."""
        at = self.at if self.at.tzinfo is UTC else self.at.astimezone(UTC)
        # msgspec writes times four times as fast as datetime does, and leaves a fraction of zero out.
        written = at if at.microsecond else rfc3339_exactly(at)
        return _encode(_Written(self.act, self.actor, written, dict(self.facts), self.object))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises :class:`BadEntry` for whatever :meth:`to_bytes` would not have written."""
        try:
            found = _decode(data)
            entry = cls(found.at, found.act, found.actor, found.object, found.facts)
            # A key twice, a space, a time in another zone: whatever is read is held against what we write.
            canonical = entry.to_bytes()
        except (ValueError, OverflowError, RecursionError, msgspec.DecodeError):
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
        return f"{self.origin}\n{self.size}\n{root}\ntime {rfc3339_exactly(self.at)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`BadCheckpoint`."""
        try:
            origin, size, root, time, end = text.split("\n")
            if not _SIZE.fullmatch(size):
                raise ValueError
            at = parse_rfc3339(time.removeprefix("time "))
            checkpoint = cls(origin, int(size), unbase64(root), at)
        except (ValueError, PkiError):
            raise BadCheckpoint("the note is no checkpoint of an audit log") from None
        if end or len(checkpoint.root) != 32 or checkpoint.text != text:
            raise BadCheckpoint("the checkpoint is not written as this log writes them")
        if checkpoint.size > _MAX_SIZE or (not checkpoint.size and checkpoint.root != EMPTY_ROOT):
            raise BadCheckpoint(f"no log of {checkpoint.size} entries has that root")
        return checkpoint


def _demand_name(_instance: object, _attribute: object, name: str) -> None:
    if not is_key_name(name):
        raise BadCheckpoint(
            f"{printable(name, 80)!r} is no name of an audit log: it has no spaces, no + and at most 200 characters"
        )


@frozen
class Verifier:
    """The public half of a log's key. ``Verifier.parse(str(x)) == x`` (C2SP signed-note)."""

    name: str = field(validator=_demand_name)
    public_bytes: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name+hash+key``. Raises :class:`BadCheckpoint`."""
        name, _, rest = text.partition("+")
        digest, _, key = rest.partition("+")
        try:
            raw = unbase64(key)
        except ValueError:
            raw = b""
        if len(raw) != 33 or raw[:1] != _ED25519:
            raise BadCheckpoint(f"{printable(text, 80)!r} is no key of an audit log")
        verifier = cls(name, raw[1:])
        if digest != verifier.key_hash.hex() or str(verifier) != text:
            raise BadCheckpoint(f"{printable(text, 80)!r}: its hash is not that of the key")
        return verifier

    def __str__(self) -> str:
        key = base64.b64encode(_ED25519 + self.public_bytes).decode()
        return f"{self.name}+{self.key_hash.hex()}+{key}"

    @property
    def key_hash(self) -> bytes:
        """Four bytes by which a line of a signed note names this key (C2SP signed-note)."""
        return key_hash(self.name, _ED25519[0], self.public_bytes)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raises ``cryptography.exceptions.InvalidSignature`` unless the log's key signed ``data``."""
        Ed25519PublicKey.from_public_bytes(self.public_bytes).verify(signature, data)

    def open(self, note: str) -> Checkpoint:
        """The checkpoint in a signed note. Raises :class:`BadCheckpoint`.

        Lines signed by others are passed over; a line of this key must hold.
        """
        try:
            found = Note.parse(note)
        except BadNote as error:
            raise BadCheckpoint(str(error)) from None
        text, ours = found.text, found.by(self.name, self.key_hash)
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


@frozen(eq=False, repr=False)
class LogKey:
    """What signs a log's checkpoints: an Ed25519 key and the log's name. Its ``repr`` shows no secret."""

    name: str = field(validator=_demand_name)
    private_key: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> Self:
        """A fresh key for the log ``name``."""
        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, name: str, pem: bytes, passphrase: bytes | None = None) -> Self:
        """Raises :class:`UnusableKey`, never with key material in it."""
        try:
            key = read_pem(pem, passphrase)
        except UnusableKey as error:
            raise type(error)(f"the audit log's key: {error}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey("the audit log's key is an Ed25519 key, and this is another kind")
        return cls(name, key)

    @property
    def key(self) -> MemoryKey:
        """The key alone, as others sign by it."""
        return MemoryKey(self.private_key, LOG_ALGORITHM)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """PKCS #8, encrypted if there is a passphrase."""
        return write_pem(self.private_key, passphrase)

    @property
    def verifier(self) -> Verifier:
        """What everybody may have, to verify what this key signs."""
        return Verifier(self.name, self.private_key.public_key().public_bytes_raw())

    async def sign(self, checkpoint: Checkpoint) -> str:
        """The signed note. Raises :class:`BadCheckpoint` for a checkpoint of another log."""
        text = _text_of(checkpoint, self.name)
        return _note(text, self.verifier, self.private_key.sign(text.encode()))


@frozen(eq=False, repr=False)
class StoredLogKey:
    """The same where the Ed25519 key is on a token, or behind a signer."""

    name: str = field(validator=_demand_name)
    key: KeptKey = field()

    @key.validator
    def _demand_ed25519(self, _: object, key: KeptKey) -> None:
        if key.algorithm is not LOG_ALGORITHM:
            raise UnusableKey(
                f"the audit log's key is an Ed25519 key, and this is {key.algorithm.label}: witnesses verify nothing "
                "else"
            )

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        """Where it is, for its file."""
        return self.key.to_pem(passphrase)

    @property
    def verifier(self) -> Verifier:
        """As of :class:`LogKey`."""
        public = self.key.public_key
        if not isinstance(public, Ed25519PublicKey):
            raise AssertionError("an Ed25519 key has an Ed25519 public key")
        return Verifier(self.name, public.public_bytes_raw())

    async def sign(self, checkpoint: Checkpoint) -> str:
        """As :meth:`LogKey.sign`; raises :class:`SigningFailed` and what the key raises besides."""
        text = _text_of(checkpoint, self.name)
        made = await signature_over(text.encode(), self.key, self.key.public_key)
        return _note(text, self.verifier, made)


#: What signs a log's checkpoints.
LogSigner = LogKey | StoredLogKey


def _text_of(checkpoint: Checkpoint, name: str) -> str:
    if checkpoint.origin != name:
        raise BadCheckpoint(
            f"the key of {name} does not sign for the log {printable(checkpoint.origin, 80)}"
        )
    return checkpoint.text


def _note(text: str, verifier: Verifier, made: bytes) -> str:
    return str(Note(text, (NoteSignature(verifier.name, verifier.key_hash, made),)))
