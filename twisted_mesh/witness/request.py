"""What a log asks a witness (C2SP tlog-witness): its new checkpoint, and a proof that it extends the one of a size."""

import base64
import re
from typing import Self

from attrs import frozen

from pki.ct.sct import MOST_ENTRIES
from pki.ct.tree_head import HeadText
from pki.errors import Malformed
from pki.tlog.note import LONGEST, Note, unbase64

#: Bytes of a body: a note, and as many hashes as a proof may have.
LARGEST_BODY = 4 * LONGEST
_MOST_HASHES = 63
_OLD = re.compile(r"old (0|[1-9][0-9]{0,12})", re.ASCII)
_HASH = 32


@frozen
class AddCheckpoint:
    """The body of ``add-checkpoint``. ``AddCheckpoint.parse(x.to_bytes()) == x``."""

    old_size: int
    """Of the checkpoint that the witness is thought to have cosigned last; 0 for none."""
    proof: tuple[bytes, ...]
    note: Note
    head: HeadText
    """What the note says, whoever has signed it."""

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises :class:`~pki.errors.PkiError`, a :class:`Malformed` or a bad note."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            raise Malformed("the body of add-checkpoint is UTF-8") from None
        above, separator, note = text.partition("\n\n")
        first, *lines = above.split("\n")
        old = _OLD.fullmatch(first)
        if not separator or old is None or int(old[1]) > MOST_ENTRIES:
            raise Malformed(
                "the body of add-checkpoint begins with a line 'old SIZE', then has the proof's hashes, an empty line "
                "and the checkpoint"
            )
        if len(lines) > _MOST_HASHES:
            raise Malformed(f"a proof has {_MOST_HASHES} hashes at the most")
        try:
            proof = tuple(map(unbase64, lines))
        except ValueError:
            proof = (b"",)
        if any(len(one) != _HASH for one in proof):
            raise Malformed(f"each line of a proof is the base64 of {_HASH} bytes")
        found = Note.parse(note)
        return cls(int(old[1]), proof, found, HeadText.parse(found.text))

    def to_bytes(self) -> bytes:
        """As a log sends it."""
        hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in self.proof)
        return f"old {self.old_size}\n{hashes}\n{self.note}".encode()
