"""Signed tree heads of logs of certificates, as checkpoints (C2SP static-ct-api), and cosignatures of witnesses.

The origin is not under the log's signature: a note is opened for a log that is known, by its key.
"""

import base64
import re
from collections.abc import Collection, Iterable
from typing import Self

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pki.ct.errors import BadSct
from pki.ct.log_key import LogKey, log_signature
from pki.ct.log_list import Log
from pki.ct.sct import LATEST, MOST_ENTRIES, read_signature
from pki.ct.wire import vector
from pki.errors import printable
from pki.keys import KeyAlgorithm, SigningKey, UnusableKey, signature_over
from pki.tlog.merkle import EMPTY_ROOT
from pki.tlog.note import BadNote, Note, NoteSignature, is_key_name, key_hash, unbase64

#: Types of signatures (C2SP signed-note).
COSIGNATURE, RFC6962 = 0x04, 0x05
_SIZE = re.compile(r"0|[1-9][0-9]{0,12}", re.ASCII)
_ED25519_SIZE = 64


@frozen
class TreeHead:
    """How large a log's tree is, its root, and when that was signed."""

    origin: str
    size: int
    root: bytes
    timestamp: int
    """Milliseconds since 1970, by the log's clock."""

    @property
    def text(self) -> str:
        """What the note says, and witnesses sign; the time stands in the log's signature."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @property
    def signed_data(self) -> bytes:
        """What the log signs: the TreeHeadSignature of RFC 6962 section 3.5."""
        numbers = self.timestamp.to_bytes(8, "big") + self.size.to_bytes(8, "big")
        return b"\0\1" + numbers + self.root


@frozen
class HeadText:
    """What the text of a note says, whoever has signed it. ``HeadText.parse(x.text) == x``."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises :class:`BadNote`: a log of certificates has no line but these three."""
        lines = text.split("\n")
        try:
            origin, size, root, end = lines
            if end or not _SIZE.fullmatch(size) or not is_key_name(origin):
                raise ValueError
            found = cls(origin, int(size), unbase64(root))
        except ValueError:
            raise BadNote("the note is no checkpoint of a log of certificates") from None
        if len(found.root) != 32 or found.size > MOST_ENTRIES:
            raise BadNote("the checkpoint has no such root, or no such size")
        if not found.size and found.root != EMPTY_ROOT:
            raise BadNote("no log without entries has that root")
        return found


def head_key_hash(origin: str, key: LogKey) -> bytes:
    """The four bytes by which a line names the log's key."""
    return key_hash(origin, RFC6962, key.log_id)


async def sign_head(head: TreeHead, key: SigningKey) -> str:
    """The signed note. Raises as :func:`pki.ct.log_key.log_signature`."""
    signature, *algorithms = await log_signature(head.signed_data, key)
    body = head.timestamp.to_bytes(8, "big") + bytes(algorithms) + vector(2, signature)
    hashed = head_key_hash(head.origin, LogKey.of(key.public_key))
    return str(Note(head.text, (NoteSignature(head.origin, hashed, body),)))


def open_note(note: str, log: Log) -> TreeHead:
    """The tree head that ``log`` has signed. Raises :class:`BadNote`; lines of others are passed over."""
    return open_head(note, log.origin, log.key)


def open_head(note: str, origin: str, key: LogKey) -> TreeHead:
    """As :func:`open_note`, by origin and key."""
    found = Note.parse(note)
    ours = found.by(origin, head_key_hash(origin, key))
    if len(ours) != 1:
        raise BadNote(
            f"the checkpoint is not signed by the key of {printable(origin, 80)}, or more than once"
        )
    text = HeadText.parse(found.text)
    if text.origin != origin:
        raise BadNote(
            f"the checkpoint is of the log {printable(text.origin, 80)}, not of {printable(origin, 80)}"
        )
    head = TreeHead(origin, text.size, text.root, int.from_bytes(ours[0][:8], "big"))
    if head.timestamp > LATEST:
        raise BadNote(f"the checkpoint of {printable(origin, 80)} is of no year that there will be")
    try:
        signature, *algorithms = read_signature(ours[0][8:])
        key.verify(signature, (algorithms[0], algorithms[1]), head.signed_data)
    except BadSct:
        raise BadNote(
            f"the signature of {printable(origin, 80)} on its checkpoint is wrong"
        ) from None
    return head


@frozen
class WitnessKey:
    """The Ed25519 key of a witness. ``WitnessKey.parse(str(x)) == x`` (C2SP tlog-cosignature)."""

    name: str = field()
    public_bytes: bytes

    @name.validator
    def _demand_name(self, _: object, name: str) -> None:
        if not is_key_name(name):
            raise BadNote(
                f"{printable(name, 80)!r} is no name of a witness: it has no spaces and no +"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name+hash+key``. Raises :class:`BadNote`."""
        name, _, rest = text.partition("+")
        digest, _, key = rest.partition("+")
        try:
            raw = unbase64(key)
        except ValueError:
            raw = b""
        if len(raw) != 33 or raw[0] != COSIGNATURE:
            raise BadNote(
                f"{printable(text, 120)!r} is no key of a witness: name+hash+key, as mesh-witness prints it"
            )
        found = cls(name, raw[1:])
        if digest != found.key_hash.hex() or str(found) != text:
            raise BadNote(f"{printable(text, 120)!r}: its hash is not that of the key")
        return found

    def __str__(self) -> str:
        key = base64.b64encode(bytes((COSIGNATURE,)) + self.public_bytes).decode()
        return f"{self.name}+{self.key_hash.hex()}+{key}"

    @property
    def key_hash(self) -> bytes:
        """The four bytes by which a line names it."""
        return key_hash(self.name, COSIGNATURE, self.public_bytes)


@frozen
class Cosignature:
    """That a witness has seen no other tree of that log."""

    witness: WitnessKey
    timestamp: int
    """Seconds since 1970, by the witness's clock."""


def _cosigned(text: str, timestamp: int) -> bytes:
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()


async def cosign(text: str, timestamp: int, name: str, key: SigningKey) -> NoteSignature:
    """A witness's line for a checkpoint's text; ``timestamp`` is in seconds. Raises :class:`UnusableKey`."""
    public = key.public_key
    if key.algorithm is not KeyAlgorithm.ED25519 or not isinstance(public, Ed25519PublicKey):
        raise UnusableKey("a witness's key is an Ed25519 key, and this is another kind")
    made = await signature_over(_cosigned(text, timestamp), key, public)
    witness = WitnessKey(name, public.public_bytes_raw())
    return NoteSignature(name, witness.key_hash, timestamp.to_bytes(8, "big") + made)


def cosignatures_of(note: str, witnesses: Iterable[WitnessKey]) -> tuple[Cosignature, ...]:
    """Those of these witnesses, one of each. Raises :class:`BadNote` where one that names a known key is wrong."""
    found = Note.parse(note)
    return tuple(
        Cosignature(witness, max(times))
        for witness in dict.fromkeys(witnesses)
        if (
            times := [
                _checked(found.text, witness, line)
                for line in found.by(witness.name, witness.key_hash)
            ]
        )
    )


def _checked(text: str, witness: WitnessKey, signature: bytes) -> int:
    timestamp = int.from_bytes(signature[:8], "big")
    try:
        if len(signature) != 8 + _ED25519_SIZE or timestamp >= 1 << 63:
            raise ValueError
        key = Ed25519PublicKey.from_public_bytes(witness.public_bytes)
        key.verify(signature[8:], _cosigned(text, timestamp))
    except (ValueError, InvalidSignature):
        raise BadNote(f"the cosignature of {witness.name} on the checkpoint is wrong") from None
    return timestamp


def with_signatures(note: str, lines: Collection[NoteSignature]) -> str:
    """The note with more lines; those that it has already are not repeated. Raises :class:`BadNote`."""
    found = Note.parse(note)
    return str(Note(found.text, tuple(dict.fromkeys((*found.signatures, *lines)))))
