"""Claims in their table against the audit log: each that was used up by the log is used up by the record."""

from collections.abc import Iterator

from attrs import define, field

from pki.audit.acts import Acts, Use, time_of
from pki.audit.recorded import Difference, RecordedClaim
from pki.codes import Code
from pki.errors import printable
from pki.serial import serial_hex


@define
class ClaimCheck:
    """:meth:`row` for each row once the whole log is read, then :meth:`missing`."""

    _acts: Acts
    judged: int = field(default=0, init=False)
    unjudged: int = field(default=0, init=False)
    """Rows of which the log says nothing any more, and uses that may have been forgotten."""
    _uses: dict[str, Use] | None = field(default=None, init=False)
    """Those of the log that no row was shown of yet."""

    def row(self, row: RecordedClaim) -> Iterator[Difference]:
        """What the log says differently of a claim that is used up."""
        use, name = self._used().pop(row.claim, None), printable(row.claim, 200)
        if use is None:
            # A restore brings over those of the record that was replaced.
            if self._acts.restored >= 0 or self._acts.may_be_untold(row.at):
                self.unjudged += 1
                return
            detail = f"the claim {name} is used by the record, and the log does not say so"
            yield Difference(Code.RECORD_UNKNOWN, "claim", row.claim, detail)
            return
        self.judged += 1
        if use.serial != row.serial and use.position > self._acts.restored:
            yield Difference(
                Code.RECORD_CHANGED,
                "claim",
                row.claim,
                f"the claim {name} has bought {serial_hex(row.serial)} by the record, and {serial_hex(use.serial)} by "
                f"entry {use.position} of the log",
                use.position,
            )

    def _used(self) -> dict[str, Use]:
        if self._uses is None:
            self._uses = {use.claim: use for use in self._acts.used()}
        return self._uses

    def missing(self) -> Iterator[Difference]:
        """Claims that could be used once more."""
        for use in self._used().values():
            end = time_of(use.until)
            if end is not None and self._acts.is_over(end):
                self.unjudged += 1
                continue
            yield Difference(
                Code.RECORD_UNSPENT,
                "claim",
                use.claim,
                f"the claim {printable(use.claim, 200)} can be used by the record, and has bought "
                f"{serial_hex(use.serial)} by entry {use.position} of the log",
                use.position,
            )
