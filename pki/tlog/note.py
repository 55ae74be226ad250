"""Signed notes (C2SP signed-note): a text, and lines of signatures by keys that have a name and four bytes."""

import base64
import hashlib
import re
from typing import Self

from attrs import frozen

from pki.codes import Code
from pki.errors import PkiError

DASH = "\u2014"
#: Characters. Sixteen signatures must be accepted, and some take 6,700 characters each.
LONGEST = 128 * 1024
MOST_SIGNATURES = 100
#: Control characters that no note has, and halves of surrogate pairs: no UTF-8 has them.
_FOREIGN = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_NAME = re.compile(r"[^\s+]{1,200}")


class BadNote(PkiError):
    """What should be a signed note is none, or not signed by the key that was looked for."""

    code = Code.BAD_CHECKPOINT


@frozen
class NoteSignature:
    """A line of a note: who says that it has signed, and its signature."""

    name: str
    key_hash: bytes
    signature: bytes

    @classmethod
    def parse(cls, line: str) -> Self:
        """Without the newline. Raises :class:`BadNote`."""
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        try:
            raw = unbase64(encoded)
        except ValueError:
            raw = b""
        if dash != DASH or not _NAME.fullmatch(name) or len(raw) < 4:
            raise BadNote("the note is damaged: a line of its signatures is none")
        return cls(name, raw[:4], raw[4:])

    def __str__(self) -> str:
        return f"{DASH} {self.name} {base64.b64encode(self.key_hash + self.signature).decode()}"


@frozen
class Note:
    """A text and its signatures, none of them verified. ``Note.parse(str(note)) == note``."""

    text: str
    """With the newline at its end."""
    signatures: tuple[NoteSignature, ...]

    @classmethod
    def parse(cls, note: str) -> Self:
        """Raises :class:`BadNote`."""
        if len(note) > LONGEST or _FOREIGN.search(note):
            raise BadNote("this is no signed note: it is too long, or has characters that none has")
        text, separator, signatures = note.rpartition("\n\n")
        if not separator or not signatures.endswith("\n"):
            raise BadNote("the note is damaged, or not signed")
        return cls(text + "\n", read_signatures(signatures))

    def __str__(self) -> str:
        return f"{self.text}\n" + "".join(f"{line}\n" for line in self.signatures)

    def by(self, name: str, key_hash: bytes) -> tuple[bytes, ...]:
        """The signatures that say they are of that key."""
        return tuple(
            line.signature
            for line in self.signatures
            if (line.name, line.key_hash) == (name, key_hash)
        )


def read_signatures(lines: str) -> tuple[NoteSignature, ...]:
    """Lines of signatures alone, each with a newline at its end, as a witness answers. Raises :class:`BadNote`."""
    if lines.count("\n") > MOST_SIGNATURES:
        raise BadNote(f"a note of over {MOST_SIGNATURES} signatures is not looked at")
    if len(lines) > LONGEST or not lines.endswith("\n"):
        raise BadNote("these are no lines of signatures of a note")
    return tuple(map(NoteSignature.parse, lines[:-1].split("\n")))


def key_hash(name: str, kind: int, key: bytes) -> bytes:
    """The four bytes that a line names a key by; ``kind`` is the type of its signatures."""
    return hashlib.sha256(name.encode() + b"\n" + bytes((kind,)) + key).digest()[:4]


def is_key_name(text: str) -> bool:
    """Whether a key may be called so: no spaces, no ``+``."""
    return bool(_NAME.fullmatch(text)) and not _FOREIGN.search(text)


def unbase64(text: str) -> bytes:
    """Raises ValueError for all but what base64 is written like; how much Python overlooks differs by version."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data
