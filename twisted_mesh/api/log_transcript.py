"""A whole audit log in a file: JSON lines that prove themselves where no CA is.

The first line says whose log it is and where it stood, then come its checkpoints, then its entries.
"""

import binascii
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

import msgspec
from attrs import define, evolve, field

from pki.audit.auditor import Finding, Row
from pki.audit.log import BadCheckpoint, Checkpoint, Verifier
from pki.errors import Malformed, PkiError
from twisted_mesh.api.log_messages import LogEntry

T = TypeVar("T")

VERSION = 1
#: The longest line that is read: an entry is some hundred bytes.
_LONGEST = 1024 * 1024


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    version: int
    verifier: str
    checkpoint: str | None
    """The latest, a signed note; None of an empty log."""


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint: a signed note."""

    checkpoint: str


_header = msgspec.json.Decoder(Header).decode
_note = msgspec.json.Decoder(Note).decode
_entry = msgspec.json.Decoder(LogEntry).decode


class BadTranscript(Malformed):
    """The file is no export of an audit log, or a damaged one."""


def line(value: object) -> bytes:
    """A line of the file."""
    return msgspec.json.encode(value) + b"\n"


@define(eq=False)
class Transcript:
    """A transcript as it is read: the header and checkpoints at once, the entries one by one."""

    header: Header
    notes: list[str]
    _lines: Iterator[tuple[int, bytes]]
    _first: tuple[int, bytes] | None = None
    """The line after the checkpoints."""
    pruned: int = field(default=0, init=False)
    """How many entries were met whose text is gone."""
    size: int = field(default=0, init=False)
    """How many were met at all."""

    @classmethod
    def open(cls, file: IO[bytes]) -> "Transcript":
        """Raises :class:`BadTranscript`."""
        lines = _lines(file)
        number, line = next(lines, (1, b""))
        header = _decoded(_header, number, line)
        if header.version != VERSION:
            raise BadTranscript(
                f"the file is an export of version {header.version}, and this program reads {VERSION}: upgrade it"
            )
        notes: list[str] = []
        for number, line in lines:
            if not line.startswith(b'{"checkpoint"'):
                return cls(header, notes, lines, (number, line))
            notes.append(_decoded(_note, number, line).checkpoint)
        return cls(header, notes, lines)

    def rows(self) -> Iterator[Row]:
        """The entries. Once. Raises :class:`BadTranscript`."""
        if self._first is not None:
            yield self._row(*self._first)
        for number, line in self._lines:
            yield self._row(number, line)

    def checkpoints(self, verifier: Verifier) -> tuple[list[Checkpoint], list[Finding]]:
        """What is signed by that key, and what should be and is not.

        A CA that was restored goes on with the tree under another name: what was signed under the old
        one, with the same key, holds for this log too.
        """
        good, findings = [], []
        for number, note in enumerate(self.notes):
            name = note.partition("\n")[0]
            try:
                checkpoint = Verifier(name, verifier.public_bytes).open(note)
                good.append(evolve(checkpoint, origin=verifier.name))
            except BadCheckpoint as error:
                detail = f"checkpoint {number} of the log: {error}"
                findings.append(Finding(error.code, number, number + 1, detail))
        return good, findings

    def _row(self, number: int, line: bytes) -> Row:
        found = _decoded(_entry, number, line)
        try:
            leaf = binascii.unhexlify(found.leaf)
        except ValueError:
            raise _damaged(number) from None
        self.pruned += found.entry is None
        self.size += 1
        text = None if found.entry is None else found.entry.encode("utf-8", "surrogatepass")
        return Row(found.position, text, leaf)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(_LONGEST + 1):
        number += 1
        if len(line) > _LONGEST or not line.endswith(b"\n"):
            raise _damaged(number)
        yield number, line


def _decoded(decode: Callable[[bytes], T], number: int, line: bytes) -> T:
    try:
        return decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, ValueError):
        raise _damaged(number) from None


def _damaged(number: int) -> PkiError:
    return BadTranscript(
        f"line {number} of the file is not that of an export: it is damaged, cut short, or another file"
    )
