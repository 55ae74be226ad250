"""The audit log of an offline root: one file, written whole at each act, that ``audit verify --file`` verifies."""

import os
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field

from pki.audit.advance import LogContradicts
from pki.audit.auditor import examine
from pki.audit.log import BadCheckpoint, Checkpoint, Entry, LogKey
from pki.errors import PkiError
from pki.tlog.merkle import GrowingTree, leaf_hash
from twisted_mesh.api.log_messages import LogEntry
from twisted_mesh.api.log_transcript import VERSION, Header, Note, Transcript, line
from twisted_mesh.runtime.clock import Now
from twisted_mesh.state.directory import StateError, write_whole


class BrokenLog(StateError):
    """The log is not what this root has signed: nothing is done by it."""


def actor() -> str:
    """Who is at the keyboard, as the kernel knows them."""
    return f"unix:uid:{os.getuid()}"


@define(eq=False, repr=False)
class OfflineLog:
    """Entries, and a signed checkpoint after each, which the one before is held against at every load."""

    path: Path
    key: LogKey
    now: Now
    entries: list[Entry] = field(factory=list, init=False)
    _notes: list[str] = field(factory=list, init=False)
    _tree: GrowingTree = field(factory=GrowingTree, init=False)

    def load(self) -> None:
        """Read all of it, and hold it against everything that was signed of it. Raises :class:`BrokenLog`."""
        try:
            with self.path.open("rb") as file:
                self._take(Transcript.open(file))
        except OSError as error:
            raise BrokenLog(f"the log {self.path} cannot be read ({error.strerror})") from None
        except PkiError as error:
            raise BrokenLog(f"the log {self.path} is not what was signed of it: {error}") from None

    def _take(self, read: Transcript) -> None:
        verifier = self.key.verifier
        if read.header.verifier != str(verifier) or read.header.checkpoint is None:
            raise BadCheckpoint(f"it is the log of {read.header.verifier}, and not of this root")
        latest = verifier.open(read.header.checkpoint)
        signed, wrong = read.checkpoints(verifier)
        rows = list(read.rows())
        findings = [*wrong, *examine(rows, [*signed, latest])]
        if latest.size != len(rows):
            raise LogContradicts(f"it has {len(rows)} entries, and {latest.size} were signed")
        if breach := next((found for found in findings if found.is_breach), None):
            raise LogContradicts(breach.detail)
        for row in rows:
            if row.entry is None:
                raise LogContradicts(f"the text of entry {row.position} is gone")
            self._add(Entry.parse(row.entry))
        self._notes = list(read.notes)

    def _add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._tree.add(leaf_hash(entry.to_bytes()))

    @property
    def checkpoint(self) -> Checkpoint:
        """Where it stands."""
        return Checkpoint(self.key.name, self._tree.size, self._tree.root, self.now())

    async def record(self, *new: Entry) -> None:
        """Add entries, and sign where the log then stands; on the disk when this returns. Raises StateError."""
        for entry in new:
            self._add(entry)
        note = await self.key.sign(self.checkpoint)
        self._notes.append(note)
        write_whole(self.path, b"".join(self._lines(note)), 0o600)

    def _lines(self, latest: str) -> Sequence[bytes]:
        texts = [entry.to_bytes() for entry in self.entries]
        return [
            line(Header(VERSION, str(self.key.verifier), latest)),
            *(line(Note(note)) for note in self._notes),
            *(
                line(LogEntry(at, leaf_hash(text).hex(), text.decode()))
                for at, text in enumerate(texts)
            ),
        ]
