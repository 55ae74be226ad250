"""The checkpoints that the CA signed last, in a file beside the record, which can be rewritten without them."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from attrs import define, field, frozen

from pki.audit.advance import Replaced, Unvouched
from pki.audit.log import BadCheckpoint, Checkpoint, Verifier
from pki.errors import PkiError
from pki.validity import rfc3339
from twisted_mesh.runtime.log import logger
from twisted_mesh.state.directory import read_file, write_whole
from twisted_mesh.state.memory import Memory

_log = logger("ca")
#: So many of the newest stay, and of those before them one for each power of two that the log has grown by since.
_NEWEST = 16


class _File(msgspec.Struct, forbid_unknown_fields=True):
    checkpoints: list[str]
    """Signed notes of one log, by size."""


class Damaged(BadCheckpoint):
    """The file is there, and does not say what was signed."""


@frozen
class SignedCheckpoint:
    """A checkpoint and the note that carries its signature."""

    checkpoint: Checkpoint
    note: str


@define(eq=False, repr=False)
class CheckpointMemory:
    """Remembers where one log stood. Nobody without its key can put something else there."""

    verifier: Verifier
    path: Path | None = None
    """The file; None for a CA that keeps nothing."""
    memory: Memory = field(init=False)
    """Whether that can be written, by whoever has it written. The log is signed again each second."""
    _kept: list[SignedCheckpoint] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self.memory = Memory(
            "checkpoints",
            self.path,
            "The audit log is not signed, since no checkpoint is shown that is not remembered",
            event="checkpoints-not-kept",
            log=_log,
        )

    def recall(self) -> SignedCheckpoint | None:
        """The last one, of whichever log it is that our key has signed; None where there is no file.

        Raises :class:`Damaged` for a file that is there and cannot be used: it is replaced whole, so that no crash
        leaves it so.
        """
        if self.path is None or not os.path.lexists(self.path):
            return None
        try:
            told = msgspec.json.decode(read_file(self.path, "the file"), type=_File)
            self._kept = [self.opened(note) for note in told.checkpoints]
            return self._kept[-1]
        except IndexError:
            why = "it holds no checkpoint"
        except (PkiError, msgspec.DecodeError, msgspec.ValidationError) as error:
            why = str(error)
        raise Damaged(
            f"what was signed last cannot be known, since {self.path} is damaged ({why}): no crash leaves it so, "
            "somebody or the disk has changed it"
        )

    def base(
        self,
        remembered: SignedCheckpoint | None,
        saved: SignedCheckpoint | None,
        count: int,
        *,
        is_restored: bool,
    ) -> SignedCheckpoint | None:
        """What the log must go on from; None for a log that nobody has signed yet. Raises :class:`LogContradicts`.

        - After a restore: what is remembered of the log that it made, else what the restored record says.
        - Otherwise what is remembered, or what the record says if that is more.
        - Where the memory is lost: what the record says, with a word.
        - Where there is neither: nothing, in a record without acts.
        """
        if remembered is not None and remembered.checkpoint.origin != self.verifier.name:
            if not is_restored:
                seen = remembered.checkpoint
                raise Replaced(
                    f"the record has the log {self.verifier.name} of {count} entries, and {self.path} remembers "
                    f"{seen.origin} of {seen.size}: the record was replaced or begun anew, and no restore says why"
                )
            return saved
        if remembered is not None:
            larger = saved is not None and saved.checkpoint.size > remembered.checkpoint.size
            return saved if larger and not is_restored else remembered
        if saved is not None or is_restored:
            if not is_restored and self.path is not None:
                _log.warn(
                    "{path} is not there, so the audit log is believed as the record has it: {size} entries of {at}",
                    event="checkpoints-lost",
                    path=str(self.path),
                    size=saved.checkpoint.size if saved else 0,
                    at=rfc3339(saved.checkpoint.at) if saved else "no time",
                )
            return saved
        if count:
            raise Unvouched(
                f"the record has {count} acts, and no checkpoint of them is left, in it or in {self.path}"
            )
        return None

    def earlier(self, since: datetime | None) -> Sequence[int]:
        """Sizes of those from then on, without the last one, which may not be anywhere else yet."""
        before = [signed.checkpoint for signed in self._kept[:-1]]
        return [c.size for c in before if since is None or c.at > since]

    def keep(self, signed: SignedCheckpoint) -> None:
        """Remember it, whole and flushed to the disk. Of another log or of a smaller one, it is the only one then.

        Raises :class:`StateError`.
        """
        checkpoint = signed.checkpoint
        before = [
            kept
            for kept in self._kept
            if kept.checkpoint.size < checkpoint.size
            and kept.checkpoint.origin == checkpoint.origin
        ]
        self._write([*_thinned(before, checkpoint.size), signed])

    def begin_anew(self, signed: SignedCheckpoint) -> None:
        """Forget all before this one. Raises :class:`StateError`."""
        self._write([signed])

    def _write(self, kept: list[SignedCheckpoint]) -> None:
        if self.path is not None:
            notes = _File([signed.note for signed in kept])
            write_whole(self.path, msgspec.json.encode(notes), 0o600)
        self._kept = kept

    def opened(self, note: str) -> SignedCheckpoint:
        """By our key, under the name that the note has: a CA that was restored has another than before.

        Raises :class:`BadCheckpoint`.
        """
        name = note.partition("\n")[0]
        return SignedCheckpoint(Verifier(name, self.verifier.public_bytes).open(note), note)


def _thinned(kept: Sequence[SignedCheckpoint], size: int) -> list[SignedCheckpoint]:
    """By size; ``size`` is that of the log now."""
    old, newest = kept[: 1 - _NEWEST], kept[1 - _NEWEST :]
    by_age: dict[int, SignedCheckpoint] = {}
    for signed in old:
        by_age.setdefault((size - signed.checkpoint.size).bit_length(), signed)
    return [*by_age.values(), *newest]
