"""What a witness does with a checkpoint: cosign what extends what it has seen, and keep the proof of what does not."""

from collections.abc import Callable
from http import HTTPStatus

from attrs import define, field, frozen
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from pki.ct.evidence import Evidence
from pki.ct.log_list import Log, LogList
from pki.ct.tree_head import TreeHead, WitnessKey, cosign, open_note, with_signatures
from pki.errors import PkiError, Problem, printable
from pki.keys import SigningKey
from pki.tlog.merkle import BadProof, verify_consistency
from pki.tlog.note import BadNote, Note
from twisted_mesh.ct.contradiction import of_two_heads
from twisted_mesh.ct.evidence_files import EvidenceFiles
from twisted_mesh.ct.reader import SignedHead
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.witness.errors import WitnessStateError
from twisted_mesh.witness.record import CosignedHead, Record
from twisted_mesh.witness.request import AddCheckpoint

#: Of the size that is answered with a 409 (C2SP tlog-witness).
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"


@frozen
class Reply:
    """What a caller is answered."""

    status: int
    body: bytes
    content_type: str = TEXT_TYPE


class Refusal(PkiError):
    """Why a checkpoint is not cosigned, and the status that says so."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


def _nothing(log: Log, seen: SignedHead, new: SignedHead) -> None:
    """Nobody looks into it."""


@define(eq=False, repr=False)
class Witness:
    """Cosigns for the logs of a list, each by the last head that it has cosigned."""

    name: str
    key: SigningKey
    record: Record
    logs: Callable[[], LogList]
    evidence: EvidenceFiles
    now: Now
    on_thread: Defer
    log: Logger
    cosigned: int = field(default=0, init=False)
    """How many checkpoints, since the start."""
    problem: Problem | None = field(default=None, init=False)
    """Why the record cannot be written; None while it can."""
    _heads: dict[str, CosignedHead] = field(factory=dict, init=False)
    _doubt: Callable[[Log, SignedHead, SignedHead], None] = field(default=_nothing, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    def load(self) -> None:
        """Take up what the record has. Raises :class:`WitnessStateError`."""
        self._heads = dict(self.record.heads())

    def tell_of_doubts(self, doubt: Callable[[Log, SignedHead, SignedHead], None]) -> None:
        """Call that for a head (the last) that was not shown to extend the one that was seen."""
        self._doubt = doubt

    @property
    def public(self) -> WitnessKey:
        """What others know it by."""
        return WitnessKey(self.name, self.key.public_key.public_bytes_raw())  # type: ignore[union-attr]

    def head_of(self, origin: str) -> CosignedHead | None:
        """The last head that was cosigned of that log."""
        return self._heads.get(origin)

    async def add_checkpoint(self, body: bytes) -> Reply:
        """The answer to what a log asks."""
        try:
            asked = AddCheckpoint.parse(body)
        except PkiError as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        log = self.logs().log_at(asked.head.origin)
        if log is None:
            origin = printable(asked.head.origin, 80)
            return _refused(
                HTTPStatus.NOT_FOUND, f"the log {origin} is not in this witness's list of logs"
            )
        try:
            head = open_note(str(asked.note), log)
        except BadNote as error:
            return _refused(HTTPStatus.FORBIDDEN, str(error))
        # One after the other: what is compared with is what will be replaced.
        return await self._lock.run(self._in_turn, asked, log, head)

    async def _in_turn(self, asked: AddCheckpoint, log: Log, head: TreeHead) -> Reply:
        seen = self._heads.get(log.origin)
        try:
            await self._compare(asked, log, head, seen)
            return await self._cosign(asked.note, head, seen, log)
        except Refusal as error:
            if error.status is HTTPStatus.CONFLICT:
                size = 0 if seen is None else seen.head.size
                return Reply(HTTPStatus.CONFLICT, f"{size}\n".encode(), SIZE_TYPE)
            return _refused(error.status, str(error))
        except WitnessStateError as error:
            self.problem = error.problems[0]
            self.log.error(
                "Nothing is cosigned: {error}", event="witness-not-kept", error=str(error)
            )
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    async def _compare(
        self, asked: AddCheckpoint, log: Log, head: TreeHead, seen: CosignedHead | None
    ) -> None:
        """Raises :class:`Refusal` unless ``head`` is to be cosigned."""
        if head.size < asked.old_size:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "the old size is larger than that of the checkpoint"
            )
        new = SignedHead(head, str(asked.note))
        size, root = (0, b"") if seen is None else (seen.head.size, seen.head.root)
        if seen is not None:
            found = of_two_heads(SignedHead(seen.head, seen.note), new)
            if found is not None:
                await self.keep(found, log)
        if asked.old_size != size:
            raise Refusal(HTTPStatus.CONFLICT, "another size was cosigned last")
        if head.size == size and seen is not None and head.root != root:
            raise Refusal(HTTPStatus.CONFLICT, "another root of that size was cosigned")
        if size == 0:
            if asked.proof:
                raise Refusal(
                    HTTPStatus.UNPROCESSABLE_ENTITY, "where the old size is 0 there is no proof"
                )
            return
        try:
            verify_consistency(size, head.size, root, head.root, asked.proof)
        except BadProof as error:
            if seen is not None:
                # Whoever sends a wrong proof may have made a mistake; what the log's own tiles show is none.
                self._doubt(log, SignedHead(seen.head, seen.note), new)
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None

    async def _cosign(
        self, note: Note, head: TreeHead, seen: CosignedHead | None, log: Log
    ) -> Reply:
        # A clock that was put back says of no later head that it is earlier.
        at = max(int(self.now().timestamp()), 0 if seen is None else seen.cosigned_at)
        line = await cosign(head.text, at, self.name, self.key)
        ours = tuple(one for one in note.signatures if one.name == log.origin)
        whole = with_signatures(str(Note(note.text, ours)), (line,))
        new = CosignedHead(head, whole, at)
        await self.on_thread(self.record.replace, seen, new)
        self._heads[log.origin] = new
        self.cosigned += 1
        self.problem = None
        return Reply(HTTPStatus.OK, f"{line}\n".encode())

    async def keep(self, found: Evidence, log: Log) -> None:
        """Raise an alarm, and keep what shows it. Goes on where it cannot be written, which is logged."""
        try:
            await self.on_thread(self.evidence.keep, found, LogList((log,)))
        except PkiError as error:
            self.log.error(
                "Evidence against {ct_log} is not kept: {error}",
                event="ct-evidence-not-kept",
                ct_log=log.origin,
                error=str(error),
            )


def _refused(status: HTTPStatus, text: str) -> Reply:
    return Reply(status, f"{text}\n".encode())
