"""What signs heads and receipts of one log: its key in this process's memory, and its name."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from attrs import field, frozen

from pki.ct.entry import LogEntry
from pki.ct.log_key import LogKey
from pki.ct.receipt import sign_sct
from pki.ct.sct import SignedCertificateTimestamp
from pki.ct.tree_head import TreeHead, open_head, sign_head
from pki.keys import MemoryKey

T = TypeVar("T")


@frozen(eq=False, repr=False)
class HeadKey:
    """The log that signs."""

    origin: str
    key: MemoryKey = field(repr=False)
    public: LogKey = field(init=False)

    @public.default
    def _public(self) -> LogKey:
        return LogKey.of(self.key.public_key)

    def sign_head(self, size: int, root: bytes, timestamp: int) -> str:
        """The signed note."""
        return _at_once(sign_head(TreeHead(self.origin, size, root, timestamp), self.key))

    def open(self, note: str) -> TreeHead:
        """What this log has signed. Raises :class:`pki.tlog.note.BadNote`."""
        return open_head(note, self.origin, self.public)

    def receipt(self, entry: LogEntry) -> SignedCertificateTimestamp:
        """The receipt for an entry that is in the log."""
        return _at_once(sign_sct(entry.signed, entry.timestamp, entry.leaf_index, self.key))


def _at_once(signing: Coroutine[Any, Any, T]) -> T:
    """A key in memory signs without waiting for anything."""
    try:
        signing.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    raise AssertionError("a key in memory waits for nothing")
