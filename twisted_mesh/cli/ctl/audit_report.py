"""What was found out about an audit log and the record beside it, and how it is told."""

from collections.abc import Sequence

from attrs import frozen

from pki.audit.auditor import Finding, examine
from pki.audit.log import Checkpoint, Verifier
from pki.errors import PkiError
from pki.validity import rfc3339
from twisted_mesh.api.log_transcript import Transcript
from twisted_mesh.cli.ctl import output
from twisted_mesh.cli.ctl.audit_record import Compared
from twisted_mesh.cli.status import DONE, REFUSED


@frozen
class Report:
    """What was found out about a log."""

    checkpoint: Checkpoint | None
    """The latest; None of an empty log."""
    findings: tuple[Finding, ...]
    seen: Checkpoint | None
    """What was remembered of it."""
    held: int
    """How many checkpoints the log was held against."""
    pruned: int
    record: Compared | None = None
    """The record against it; None where only a log is at hand."""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the log or the record; warnings do not."""
        differs = self.record is not None and self.record.differences
        return not differs and not any(finding.is_breach for finding in self.findings)

    def put(self, *, as_json: bool, trusted: str) -> int:
        """Print it; ``trusted`` says where the belief in the log's key comes from."""
        if as_json:
            output.put_json(self._to_dict(trusted))
            return DONE if self.ok else REFUSED
        for finding in self.findings:
            word = output.status_word("fail" if finding.is_breach else "warn")
            output.put(f"{word}: {finding.code}: {finding.detail}")
        for difference in self.record.differences if self.record else ():
            output.put(f"{output.status_word('fail')}: {difference.code}: {difference.detail}")
        size = self.checkpoint.size if self.checkpoint else 0
        told = [output.counted(size, "entry", "entries")]
        if self.checkpoint is not None:
            told.append(f"checkpoint of {rfc3339(self.checkpoint.at)}")
        told.append(f"{output.counted(self.held, 'checkpoint')} compared")
        if self.pruned:
            told.append(f"{self.pruned:,} only by hash: their text is pruned")
        if self.record is not None:
            told.append(
                f"{output.counted(self.record.judged, 'row')} of the record compared with it"
            )
            if self.record.unjudged:
                told.append(f"{self.record.unjudged:,} not judged: what says so may be pruned")
        if self.seen is not None and self.ok:
            told.append(f"consistent with the {self.seen.size:,} seen at {rfc3339(self.seen.at)}")
        verdict = output.status_word("ok" if self.ok else "fail")
        output.put(f"{verdict}: {', '.join(told)}; {trusted}")
        return DONE if self.ok else REFUSED

    def _to_dict(self, trusted: str) -> dict[str, object]:
        return {
            "ok": self.ok,
            "size": self.checkpoint.size if self.checkpoint else 0,
            "checkpoint": told_of(self.checkpoint),
            "seen": told_of(self.seen),
            "compared": self.held,
            "pruned": self.pruned,
            "record": _compared(self.record),
            "trust": trusted,
            "findings": [
                {
                    "code": finding.code,
                    "start": finding.start,
                    "end": finding.end,
                    "detail": finding.detail,
                    "breach": finding.is_breach,
                }
                for finding in self.findings
            ],
        }


def _compared(record: Compared | None) -> dict[str, object] | None:
    if record is None:
        return None
    differences = [
        {
            "code": found.code,
            "kind": found.kind,
            "name": found.name,
            "detail": found.detail,
            "entry": found.position,
        }
        for found in record.differences
    ]
    return {"judged": record.judged, "unjudged": record.unjudged, "differences": differences}


def told_of(checkpoint: Checkpoint | None) -> dict[str, object] | None:
    """A checkpoint as JSON tells it."""
    if checkpoint is None:
        return None
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "time": checkpoint.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }


def inspected(
    read: Transcript, verifier: Verifier, seen: Sequence[Checkpoint], latest: Checkpoint | None
) -> Report:
    """Hold a whole log against its own checkpoints and those that ``seen`` are of it.

    ``latest`` is what this command itself remembered, which is told apart.
    """
    findings: list[Finding] = []
    head: Checkpoint | None = None
    if read.header.checkpoint is not None:
        try:
            head = verifier.open(read.header.checkpoint)
        except PkiError as error:
            findings.append(Finding(error.code, 0, 1, f"the latest checkpoint: {error}"))
    signed, wrong = read.checkpoints(verifier)
    findings += wrong
    ours = [c for c in (*seen, *([latest] if latest else [])) if c.origin == verifier.name]
    held = {(c.size, c.root): c for c in (*signed, *ours, *([head] if head else []))}
    findings += examine(read.rows(), held.values())
    return Report(head, tuple(findings), latest, len(held), read.pruned)
