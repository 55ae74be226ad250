"""What ``mesh-ctl audit`` does: verify the whole log, show entries with their proofs, export."""

import binascii
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec
from attrs import evolve, frozen

from pki.audit.auditor import Finding, examine
from pki.audit.log import Act, BadEntry, Checkpoint, Entry, Verifier
from pki.audit.merkle import leaf_hash, verify_inclusion
from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.validity import parse_duration, spoken_time
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.messages import LARGEST_PAGE, LogEntry
from twisted_mesh.cli.ctl import audit_record, audit_transcript, output
from twisted_mesh.cli.ctl.audit_record import Compared
from twisted_mesh.cli.ctl.audit_transcript import Header, Transcript
from twisted_mesh.cli.status import DONE, REFUSED
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.state.directory import read_file, writing_whole
from twisted_mesh.trust.log_witness import LogStatement, LogWitness, witness_path, witnesses

_HEADINGS = ("ENTRY", "TIME", "ACT", "OBJECT", "ACTOR", "FACTS")


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
            told.append(f"checkpoint of {spoken_time(self.checkpoint.at)}")
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
            told.append(
                f"consistent with the {self.seen.size:,} seen at {spoken_time(self.seen.at)}"
            )
        verdict = output.status_word("ok" if self.ok else "fail")
        output.put(f"{verdict}: {', '.join(told)}; {trusted}")
        return DONE if self.ok else REFUSED

    def _to_dict(self, trusted: str) -> dict[str, object]:
        return {
            "ok": self.ok,
            "size": self.checkpoint.size if self.checkpoint else 0,
            "checkpoint": _told(self.checkpoint),
            "seen": _told(self.seen),
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


def _told(checkpoint: Checkpoint | None) -> dict[str, object] | None:
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


@frozen
class Verifying:
    """``audit verify`` of what a CA shows now."""

    state: Path
    """Where what was seen is remembered."""
    as_json: bool
    now: Now = wall_clock

    async def __call__(self, administration: Administration) -> int:
        witness = LogWitness(witness_path(self.state, f"{administration.client.address} mesh-ctl"))
        witness.recall()
        path = witness.path
        if path is not None and path.exists() and witness.verifier is None:
            raise Malformed(
                f"{path} is damaged, and it holds what was seen of the log: remove it to trust the log from now on"
            )
        with tempfile.TemporaryFile() as file:
            await audit_transcript.write(administration, file)
            file.seek(0)
            return await self._judge(administration, witness, file)

    async def _judge(
        self, administration: Administration, witness: LogWitness, file: IO[bytes]
    ) -> int:
        read = Transcript.open(file)
        told = Verifier.parse(read.header.verifier)
        verifier, seen = witness.verifier or told, witness.seen
        if verifier != told:
            replaced = Finding(
                Code.LOG_REPLACED, 0, 1, _replaced(read, verifier, told, witness.path)
            )
            report = Report(None, (replaced,), seen, 0, read.pruned)
            return report.put(as_json=self.as_json, trusted="do not trust it")
        others = [c for c in witnesses(self.state, verifier) if c != seen]
        report = inspected(read, verifier, others, seen)
        found = await audit_record.compared(administration, file, self.now())
        unsigned = await audit_record.refused(administration)
        kept = (await administration.head()).keep_audit
        if isinstance(kept, str):
            oldest = self.now() - parse_duration(kept)
            signed, _ = read.checkpoints(verifier)
            unsigned += audit_record.young_and_gone(signed, read.pruned, oldest)
        report = evolve(report, record=found, findings=(*report.findings, *unsigned))
        if report.ok and report.checkpoint is not None:
            problem = await self._remember(administration, witness, read.header, report.checkpoint)
            if problem is not None:
                finding = Finding(problem.code, 0, report.checkpoint.size, str(problem))
                report = evolve(report, findings=(*report.findings, finding))
        trusted = f"signed by {verifier.name}, as before"
        if seen is None:
            trusted = f"trusted from now on: {verifier}"
        return report.put(as_json=self.as_json, trusted=trusted if report.ok else "do not trust it")

    async def _remember(
        self,
        administration: Administration,
        witness: LogWitness,
        header: Header,
        checkpoint: Checkpoint,
    ) -> PkiError | None:
        """Witness it; the proof is the CA's, and the tree that we computed ourselves has shown the same."""
        proof: tuple[bytes, ...] = ()
        if 0 < witness.size < checkpoint.size:
            found = await administration.consistency(witness.size, checkpoint.size)
            proof = tuple(map(_hash, found.proof))
        witness.compare(LogStatement(header.verifier, header.checkpoint or "", proof), 0.0)
        return witness.problem


def _replaced(read: Transcript, before: Verifier, now: Verifier, path: Path | None) -> str:
    """That the log is another one, and what it says itself of why."""
    said = "nothing in it says why"
    for row in read.rows():
        entry = _parsed(row.entry)
        if entry is not None and entry.act is Act.RESTORE:
            said = (
                f"its entry {row.position} says that the CA was restored from a backup of "
                f"{entry.facts.get('backup.created_at', 'an unknown time')} by "
                f"{entry.facts.get('by', 'somebody')}, {entry.facts.get('lost.entries', 'some')} entries lost"
            )
    return (
        f"the log is signed as {now} now, and was as {before}; {said}: if you know of that, remove {path} to trust "
        "it from now on; if not, look into it"
    )


def verify_file(path: Path, verifier: str | None, state: Path, *, as_json: bool) -> int:
    """``audit verify --file``: nobody is asked."""
    given = Verifier.parse(verifier) if verifier is not None else None
    with _opened(path) as file:
        read = Transcript.open(file)
        own = Verifier.parse(read.header.verifier)
        report = inspected(read, given or own, witnesses(state, given or own), None)
    trusted = f"signed by {own.name}"
    if given is None:
        trusted = f"signed by a key that the file itself names ({own}): prove whose with --verifier"
    return report.put(as_json=as_json, trusted=trusted if report.ok else "do not trust it")


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError:
        read_file(path, "the export")  # which says why
        raise


def _hash(text: str) -> bytes:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        raise Malformed("the CA's proof is none: it holds something else than hashes") from None


@frozen
class Exporting:
    """``audit export``."""

    path: Path

    async def __call__(self, administration: Administration) -> int:
        with writing_whole(self.path, 0o600) as file:
            count = await audit_transcript.write(administration, file)
        output.say(f"{output.counted(count, 'entry', 'entries')} written to {self.path}")
        return DONE


@frozen
class Listing:
    """``audit show`` without a position."""

    start: int | None
    """None: the newest."""
    limit: int
    act: str | None
    object: str | None
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        forward = self.start is not None
        found = await (self._forward if forward else self._backward)(administration)
        if self.as_json:
            output.put_json([_shown(entry) for entry in found])
        elif found:
            output.put_table(_HEADINGS, map(_cells, found))
        else:
            output.say("there is no such entry")
        return DONE

    async def _forward(self, administration: Administration) -> list[LogEntry]:
        found: list[LogEntry] = []
        position: int | None = self.start
        while position is not None and len(found) < self.limit:
            page = await administration.entries(position)
            found += filter(self._wanted, page.entries)
            position = page.next
        return found[: self.limit]

    async def _backward(self, administration: Administration) -> list[LogEntry]:
        found: list[LogEntry] = []
        end = (await administration.entries(0, 1)).size
        while end > 0 and len(found) < self.limit:
            start = max(0, end - LARGEST_PAGE)
            page = await administration.entries(start, end - start)
            found = [*filter(self._wanted, page.entries), *found]
            end = start
        return found[-self.limit :]

    def _wanted(self, entry: LogEntry) -> bool:
        if self.act is None and self.object is None:
            return True
        read = _entry_of(entry)
        if read is None:
            return False
        return self.act in (None, read.act) and (
            self.object is None or self.object.lower() in read.object.lower()
        )


@frozen
class Showing:
    """``audit show POSITION``: the entry, and that it is where it says."""

    position: int
    state: Path
    as_json: bool

    async def __call__(self, administration: Administration) -> int:
        witness = LogWitness(witness_path(self.state, f"{administration.client.address} mesh-ctl"))
        witness.recall()
        head = await administration.head()
        verifier = witness.verifier or Verifier.parse(head.verifier)
        if head.checkpoint is None:
            raise Malformed("the log is empty")
        checkpoint = verifier.open(head.checkpoint)
        if self.position >= checkpoint.size:
            raise Malformed(f"there is no entry {self.position}: the log has {checkpoint.size}")
        (entry,) = (await administration.entries(self.position, 1)).entries[:1] or (None,)
        if entry is None or entry.position != self.position:
            raise Malformed(f"the CA did not show entry {self.position}")
        proof = await administration.inclusion(self.position, checkpoint.size)
        hashes = tuple(_hash(text) for text in proof.proof)
        leaf = _hash(entry.leaf)
        if entry.entry is not None:
            leaf = leaf_hash(entry.entry.encode("utf-8", "surrogatepass"))
        verify_inclusion(leaf, self.position, checkpoint.size, hashes, checkpoint.root)
        self._put(entry, leaf, hashes, checkpoint)
        return DONE

    def _put(
        self, entry: LogEntry, leaf: bytes, proof: tuple[bytes, ...], checkpoint: Checkpoint
    ) -> None:
        if self.as_json:
            proven = {
                "leaf": leaf.hex(),
                "proof": [h.hex() for h in proof],
                "checkpoint": _told(checkpoint),
            }
            output.put_json({**_shown(entry), **proven})
            return
        read = _entry_of(entry)
        facts: output.Facts = {"entry": str(entry.position)}
        if read is None:
            facts["text"] = entry.entry or "(pruned: only its hash is left)"
        else:
            facts |= {"time": spoken_time(read.at), "act": str(read.act), "object": read.object}
            facts |= {"actor": read.actor}
            facts |= {"facts": [f"{name}={value}" for name, value in read.facts.items()]}
        facts |= {"leaf": leaf.hex(), "proof": [h.hex() for h in proof]}
        facts["included"] = (
            f"yes, in the log of {checkpoint.size:,} entries of {spoken_time(checkpoint.at)}, "
            f"root {checkpoint.root.hex()}"
        )
        output.put_facts(facts)


def _entry_of(entry: LogEntry) -> Entry | None:
    """None where the text is pruned or damaged."""
    return _parsed((entry.entry or "").encode("utf-8", "surrogatepass"))


def _parsed(text: bytes | None) -> Entry | None:
    try:
        return Entry.parse(text or b"")
    except BadEntry:
        return None


def _shown(entry: LogEntry) -> dict[str, object]:
    try:
        read = msgspec.json.decode(entry.entry or "null")
    except msgspec.DecodeError:
        read = entry.entry
    return {"position": entry.position, "leaf": entry.leaf, "entry": read}


def _cells(entry: LogEntry) -> tuple[str, ...]:
    read = _entry_of(entry)
    if read is None:
        told = "(damaged)" if entry.entry is not None else "(pruned)"
        return (str(entry.position), "", told, "", "", "")
    facts = " ".join(f"{name}={value}" for name, value in read.facts.items())
    return (
        str(entry.position),
        spoken_time(read.at),
        str(read.act),
        read.object,
        read.actor,
        facts,
    )
