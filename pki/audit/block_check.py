"""Blocked keys in their table against the audit log: none is let go, or blocked, by a change of the table alone."""

from collections.abc import Iterator

from attrs import define, field

from pki.audit.acts import Acts
from pki.audit.recorded import Difference, RecordedBlock
from pki.codes import Code
from pki.errors import printable


@define
class BlockCheck:
    """:meth:`row` for each row once the whole log is read, then :meth:`missing`."""

    _acts: Acts
    judged: int = field(default=0, init=False)
    unjudged: int = field(default=0, init=False)
    """Rows of which the log says nothing any more."""
    _seen: set[str] = field(factory=set, init=False)

    def row(self, row: RecordedBlock) -> Iterator[Difference]:
        """What the log says differently of a key that is blocked."""
        self._seen.add(row.key)
        act, name = self._acts.blocked.get(row.key), printable(row.key, 80)
        if act is None:
            # Before keys were blocked, acts of revocation named none; and a restore brings over rows.
            is_of_revocation = row.serial is not None
            if is_of_revocation or self._acts.restored >= 0 or self._acts.may_be_untold(row.at):
                self.unjudged += 1
                return
            detail = f"the key {name} is blocked by the record, and the log does not say so"
            yield Difference(Code.RECORD_UNKNOWN, "key", row.key, detail)
            return
        self.judged += 1
        if row.key in self._acts.compromised and row.serial is None:
            yield Difference(
                Code.RECORD_CHANGED,
                "key",
                row.key,
                f"the key {name} can be let go by the record, and was compromised by the log",
                act,
            )

    def missing(self) -> Iterator[Difference]:
        """Keys that could be certified once more."""
        for key, act in self._acts.blocked.items():
            if key not in self._seen:
                yield Difference(
                    Code.RECORD_UNREVOKED,
                    "key",
                    key,
                    f"the key {printable(key, 80)} is not blocked by the record, and was by entry {act} of the log",
                    act,
                )
