"""A whole audit log in a file: JSON lines, to be verified where no CA is.

The first line says whose log it is and where it stood, then come its checkpoints, then its entries.
"""

import binascii
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO, BinaryIO, TypeVar

import msgspec
from attrs import define, evolve, field

from pki.audit.auditor import Finding, Row
from pki.audit.log import BadCheckpoint, Checkpoint, Verifier
from pki.errors import Malformed, PkiError, printable
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.log_messages import LogEntry
from twisted_mesh.state.directory import StateError

T = TypeVar("T")

_VERSION = 1
#: Bytes of checkpoints beyond which they are in a file while the log is fetched.
_IN_MEMORY = 4 * 1024 * 1024
#: The longest line that is read: an entry is some hundred bytes.
_LONGEST = 1024 * 1024


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    version: int
    verifier: str
    checkpoint: str | None
    """The latest, a signed note; None of an empty log."""


class _Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    checkpoint: str


_header = msgspec.json.Decoder(Header).decode
_note = msgspec.json.Decoder(_Note).decode
_entry = msgspec.json.Decoder(LogEntry).decode


class BadTranscript(Malformed):
    """The file is no export of an audit log, or a damaged one."""


async def fetched(administration: Administration) -> IO[bytes]:
    """The whole log in a file without a name, for whoever closes it. Raises :class:`StateError`."""
    with telling_scratch():
        file = TemporaryFile()  # noqa: SIM115 - closed by whoever asked for it
        try:
            await write(administration, file)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


@contextmanager
def telling_scratch() -> Iterator[None]:
    """That there is no room for what is only needed meanwhile, as :class:`StateError`."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StateError(
            f"what is fetched cannot be put aside ({printable(why, 200)}): set TMPDIR to a directory with room"
        ) from None


async def write(administration: Administration, file: BinaryIO) -> int:
    """Fetch the whole log by pages; the number of its entries. What comes meanwhile is left out."""
    with SpooledTemporaryFile(_IN_MEMORY) as notes:
        start: int | None = 0
        while start is not None:
            page = await administration.checkpoints(start)
            for note in page.checkpoints:
                notes.write(_line(_Note(note)))
            start = page.next
        # After all of them: one that is signed meanwhile and larger would say that this one was rolled back.
        head = await administration.head()
        file.write(_line(Header(_VERSION, head.verifier, head.checkpoint)))
        if head.checkpoint is None:
            return 0
        notes.seek(0)
        shutil.copyfileobj(notes, file)
    size = Verifier.parse(head.verifier).open(head.checkpoint).size
    position: int | None = 0
    while position is not None and position < size:
        entries = await administration.entries(position)
        for entry in entries.entries:
            if entry.position < size:
                file.write(_line(entry))
        position = entries.next
    return size


def _line(value: object) -> bytes:
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
        if header.version != _VERSION:
            raise BadTranscript(
                f"the file is an export of version {header.version}, and this program reads {_VERSION}: upgrade it"
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
