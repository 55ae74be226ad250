"""What ``mesh-ctl audit`` does with a whole log: verify it, and the record against it; export it."""

from pathlib import Path
from typing import IO

from attrs import evolve, frozen

from pki.audit.auditor import Finding
from pki.audit.log import Act, Checkpoint, Verifier
from pki.codes import Code
from pki.errors import Malformed, PkiError
from pki.validity import parse_duration
from twisted_mesh.api.admin_client import Administration
from twisted_mesh.api.log_transcript import Header, Transcript
from twisted_mesh.cli.ctl import audit_record, audit_transcript, output
from twisted_mesh.cli.ctl.audit_report import Report, inspected
from twisted_mesh.cli.ctl.audit_show import hash_of, parsed
from twisted_mesh.cli.status import DONE
from twisted_mesh.runtime.clock import Now, wall_clock
from twisted_mesh.state.directory import read_file, writing_whole
from twisted_mesh.trust.log_witness import LogStatement, LogWitness, witness_path, witnesses


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
        with await audit_transcript.fetched(administration) as file:
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
        unsigned += audit_record.undecided(found)
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
            proof = tuple(map(hash_of, found.proof))
        witness.compare(LogStatement(header.verifier, header.checkpoint or "", proof), 0.0)
        return witness.problem


def _replaced(read: Transcript, before: Verifier, now: Verifier, path: Path | None) -> str:
    """That the log is another one, and what it says itself of why."""
    said = "nothing in it says why"
    for row in read.rows():
        entry = parsed(row.entry)
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


@frozen
class Exporting:
    """``audit export``."""

    path: Path

    async def __call__(self, administration: Administration) -> int:
        with writing_whole(self.path, 0o600) as file:
            count = await audit_transcript.write(administration, file)
        output.say(f"{output.counted(count, 'entry', 'entries')} written to {self.path}")
        return DONE
