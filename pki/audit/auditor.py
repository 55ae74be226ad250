"""What an auditor finds in a whole log: what was cut, edited, reordered, rewritten or rolled back, and where."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from attrs import define, field, frozen

from pki.audit.log import BadEntry, Checkpoint, Entry
from pki.codes import Code
from pki.errors import printable
from pki.tlog.merkle import GrowingTree, leaf_hash
from pki.validity import rfc3339

#: By how much the times of two neighbours may run backwards before it is worth a word.
_SLACK = timedelta(minutes=1)
#: So many gaps are remembered, to tell an entry that comes late from one that comes twice.
_MAX_GAPS = 1000


class Row(NamedTuple):
    """An entry as it is kept. A tuple, so that what a database answers is one already."""

    position: int
    entry: bytes | None
    """None once it is pruned: from the oldest on, never in between."""
    leaf: bytes | None = None
    """Its leaf hash in the stored tree; None if that is not known."""


@frozen
class Finding:
    """Something about a log that is not as it should be."""

    code: Code
    start: int
    end: int
    """The entries that it is about: from ``start`` up to ``end``, which is not among them."""
    detail: str
    is_breach: bool = True
    """False for what is worth a word and proves nothing."""


def examine(rows: Iterable[Row], checkpoints: Iterable[Checkpoint]) -> Iterator[Finding]:
    """Everything that is wrong with a whole log, held against every checkpoint that anybody has kept.

    Rows come in the order of their positions, from 0; checkpoints in any order, the log's own and
    those of witnesses, with their signatures already verified. Memory does not grow with the rows.

    Whoever can write to the store can change an entry, its leaf hash and the tree together. That shows
    only against a checkpoint, and is then located between the last one that holds and the first that
    does not; entries after the last checkpoint are vouched for by nobody.
    """
    known = list(checkpoints)
    if known:
        # The log is who it last said it is; its roots tell nothing about another log.
        origin = max(known, key=lambda checkpoint: checkpoint.at).origin
        yield from _of_other_logs(known, origin)
        known = [checkpoint for checkpoint in known if checkpoint.origin == origin]
    examination = _Examination(_by_size(known))
    yield from _forks(examination.signed)
    yield from examination.hold_against_signed()
    for position, entry, leaf in rows:
        # Without text and without hash there is nothing of it: it is missing like one without a row.
        if entry is not None or leaf is not None:
            yield from examination.see(position, entry, leaf)
    yield from examination.finish()


def _of_other_logs(known: Iterable[Checkpoint], origin: str) -> Iterator[Finding]:
    others: dict[str, int] = {}
    for checkpoint in known:
        if checkpoint.origin != origin:
            others[checkpoint.origin] = max(others.get(checkpoint.origin, 0), checkpoint.size)
    for other, size in sorted(others.items()):
        yield Finding(
            Code.LOG_REPLACED,
            0,
            size,
            f"{size} entries were signed as the log {printable(other, 80)}, and this is {printable(origin, 80)}",
        )


def _by_size(known: Iterable[Checkpoint]) -> dict[int, list[Checkpoint]]:
    signed = defaultdict(list)
    for checkpoint in sorted(known, key=lambda checkpoint: (checkpoint.size, checkpoint.at)):
        signed[checkpoint.size].append(checkpoint)
    return dict(signed)


def _forks(signed: dict[int, list[Checkpoint]]) -> Iterator[Finding]:
    """Two roots for one size, both signed: no entries are needed to know that one of them was a lie."""
    for size, rivals in signed.items():
        roots = {checkpoint.root: checkpoint for checkpoint in reversed(rivals)}
        if len(roots) > 1:
            times = " and ".join(rfc3339(c.at) for c in reversed(roots.values()))
            yield Finding(
                Code.LOG_FORKED,
                0,
                size,
                f"{len(roots)} different logs of {size} entries were signed, at {times}",
            )


@define(eq=False, repr=False)
class _Examination:
    """How far an examination has come."""

    signed: dict[int, list[Checkpoint]]
    """By size, ascending."""
    _tree: GrowingTree | None = field(factory=GrowingTree, init=False)
    """None from the first entry on without which no later root can be computed."""
    _end: int = field(default=0, init=False)
    _good: int = field(default=0, init=False)
    """The size of the largest checkpoint that holds."""
    _gaps: list[tuple[int, int]] = field(factory=list, init=False)
    _hole: int | None = field(default=None, init=False)
    """Where the text of entries began to be missing, after some that have theirs."""
    _keeps_text: bool = field(default=False, init=False)
    """Whether an entry with its text came by: from there on none may be without."""
    _latest: datetime | None = field(default=None, init=False)

    def see(self, position: int, entry: bytes | None, leaf: bytes | None) -> Iterator[Finding]:
        if position < self._end:
            yield self._late(position)
            return
        if position > self._end:
            self._tree = None
            self._gaps.append((self._end, position))
            if len(self._gaps) > _MAX_GAPS:
                yield _cut(*self._gaps.pop(0))
        self._end = position + 1
        if entry is None:
            if self._hole is None and self._keeps_text:
                self._hole = position
        else:
            self._keeps_text = True
            if self._hole is not None:
                yield from self._close_hole(position)
            computed = leaf_hash(entry)
            yield from self._read(position, entry, computed, leaf)
            leaf = leaf or computed
        if self._tree is not None and leaf is not None:
            self._tree.add(leaf)
            if self._tree.size in self.signed:
                yield from self.hold_against_signed()

    def finish(self) -> Iterator[Finding]:
        yield from self._close_hole(self._end)
        for gap in self._gaps:
            yield _cut(*gap)
        largest = max(self.signed, default=0)
        if largest > self._end:
            at = rfc3339(self.signed[largest][0].at)
            yield Finding(
                Code.LOG_ROLLED_BACK,
                self._end,
                largest,
                f"the log ends after {self._end} entries and had {largest} at {at}: at least "
                f"{largest - self._end} are gone",
            )

    def hold_against_signed(self) -> Iterator[Finding]:
        """Compare the tree, if there is one, with what was signed at its size."""
        if self._tree is None or self._tree.size not in self.signed:
            return
        size, rivals = self._tree.size, self.signed[self._tree.size]
        if any(checkpoint.root == self._tree.root for checkpoint in rivals):
            self._good = size
            return
        # Every later root would be wrong too, for the same reason.
        self._tree = None
        yield Finding(
            Code.LOG_REWRITTEN,
            self._good,
            size,
            f"the first {size} entries are not those that were signed at {rfc3339(rivals[0].at)}: "
            f"one or more from {self._good} to {size - 1} were changed"
            if size
            else "the checkpoint of the empty log is not that of an empty log",
        )

    def _late(self, position: int) -> Finding:
        """What a position means that should have come before: out of its place, or there twice."""
        for i, (start, end) in enumerate(self._gaps):
            if start <= position < end:
                rest = ((start, position), (position + 1, end))
                self._gaps[i : i + 1] = [gap for gap in rest if gap[0] < gap[1]]
                detail = f"entry {position} comes after entry {self._end - 1}"
                return Finding(Code.LOG_REORDERED, position, position + 1, detail)
        return Finding(
            Code.LOG_REPEATED, position, position + 1, f"entry {position} is there twice"
        )

    def _close_hole(self, end: int) -> Iterator[Finding]:
        if self._hole is not None:
            yield Finding(
                Code.LOG_CUT,
                self._hole,
                end,
                f"the text of {_span(self._hole, end)} is gone while older text is kept: that is not how "
                "a log is pruned",
            )
            self._hole = None

    def _read(
        self, position: int, entry: bytes, computed: bytes, leaf: bytes | None
    ) -> Iterator[Finding]:
        """What is wrong with one entry by itself."""
        where = position, position + 1
        if leaf is not None and computed != leaf:
            detail = f"entry {position} is not what was taken into the tree"
            yield Finding(Code.LOG_EDITED, *where, detail)
        try:
            at = Entry.parse(entry).at
        except BadEntry as error:
            yield Finding(Code.BAD_ENTRY, *where, f"entry {position}: {error}")
            return
        if self._latest is not None and at < self._latest - _SLACK:
            yield Finding(
                Code.TIME_BACKWARDS,
                *where,
                f"entry {position} is dated {rfc3339(at)}, after one of {rfc3339(self._latest)}",
                is_breach=False,
            )
        self._latest = at


def _cut(start: int, end: int) -> Finding:
    return Finding(Code.LOG_CUT, start, end, f"{_span(start, end)} missing from the log")


def _span(start: int, end: int) -> str:
    return f"entry {start}" if end == start + 1 else f"entries {start} to {end - 1}"
