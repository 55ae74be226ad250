"""Two heads of one log that cannot both be: what that is called, and what is kept of it for anybody to verify."""

import hashlib
from pathlib import Path

from attrs import frozen

from pki.ct.evidence import Evidence, RolledBack, SplitView
from pki.tlog.merkle import BadProof, verify_consistency
from pki.validity import rfc3339
from twisted_mesh.ct.reader import SignedHead
from twisted_mesh.monitor.alert import AlertKind
from twisted_mesh.monitor.index import moment
from twisted_mesh.monitor.source import Source, view_of
from twisted_mesh.state.directory import StateError, write_whole

#: Pieces of evidence that are kept at most: a log that contradicts itself can do so as often as it likes.
_MOST = 100


@frozen
class Contradiction:
    """What is wrong between two heads."""

    kind: AlertKind
    detail: str
    evidence: Evidence | None
    """None where nothing proves it to others."""

    def keep(self, directory: Path) -> Path | None:
        """Write the evidence there; None where there is none, or no room for it."""
        if self.evidence is None:
            return None
        data = self.evidence.to_bytes()
        path = directory / f"{self.kind}-{hashlib.sha256(data).hexdigest()[:16]}.json"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists():
                return path
            if len(list(directory.iterdir())) >= _MOST:
                return None
            write_whole(path, data, 0o600)
        except (StateError, OSError):
            return None
        return path


async def between(source: Source, before: SignedHead, after: SignedHead) -> Contradiction | None:
    """What is wrong with ``after``, where ``before`` was seen; None where it simply goes on.

    Raises :class:`PkiError` where the log, which has to show that, does not.
    """
    was = f"one of {before.size} entries at {rfc3339(moment(before.head.timestamp / 1000))}"
    if after.size < before.size:
        if after.head.timestamp > before.head.timestamp:
            evidence: Evidence | None = RolledBack(before.note, after.note)
            said = "and signs on from there: an older state was put back"
        else:
            evidence, said = (
                None,
                "which was signed earlier: an older state was put back, or a cache shows it",
            )
        return Contradiction(
            AlertKind.ROLLED_BACK,
            f"the log {after.head.origin} has {after.size} entries, and had {was}, {said}",
            evidence,
        )
    prefix = after.root
    proof: tuple[bytes, ...] = ()
    if before.size < after.size and before.size:
        view = view_of(source, after)
        prefix, proof = await view.root_at(before.size), await view.consistency_proof(before.size)
        try:
            verify_consistency(before.size, after.size, prefix, after.root, proof)
        except BadProof as error:
            raise AssertionError(f"a view gives what is verified ({error})") from None
    if not before.size or prefix == before.root:
        return None
    return Contradiction(
        AlertKind.FORKED,
        f"the log {after.head.origin} has signed a tree of {after.size} entries that does not go on from {was}: it "
        "shows different things to different people, or its history was changed",
        SplitView(before.note, after.note, prefix, proof),
    )
