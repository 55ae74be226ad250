"""The CA's audit log: what it did, in a Merkle tree whose state it signs.

Each act is written by the store in the act's own transaction. :class:`AuditLog` makes the entries,
takes them into the tree a moment later, and signs where the tree then stands: only if it is what was
signed before, and more.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from attrs import define, field
from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime

from pki.audit.advance import LogContradicts, Unvouched, advance
from pki.audit.log import Act, BadCheckpoint, Checkpoint, Entry, LogSigner
from pki.codes import Code
from pki.errors import PkiError, printable
from pki.policy.principal import Principal, administrator
from pki.tlog.merkle import EMPTY_ROOT, BadProof, DamagedTree
from twisted_mesh.ca.checkpoint_memory import CheckpointMemory, SignedCheckpoint
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.state.key_files import remove_file
from twisted_mesh.state.memory import Memory
from twisted_mesh.stores.commands import ExtendLog, RecordAct, SaveCheckpoint
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import LogCut, LogHead, StoreError

_log = logger("ca")
#: Seconds between two looks for what is not in the tree yet.
TICK = 1.0
#: Seconds of refusals that are told in one entry: strangers must not be able to fill the disk.
SAMPLING = 60.0
#: So many kinds of refusals are told apart in one entry.
_KINDS = 50
#: So many acts may have been recorded and not signed when a CA dies: far more than it does in the seconds between.
_MOST_UNSIGNED = 100_000
OURSELVES = administrator("self")
#: What says that the log is not what it was, or that there is none to compare.
_CONTRADICTIONS = (LogContradicts, BadCheckpoint, BadProof, DamagedTree, LogCut)
#: Beside the remembered checkpoints: whoever may make it accepts the log as it is.
_ACCEPTED = "accept-log"


async def _at_once(work: Callable[[], None]) -> None:
    work()


@define(eq=False, repr=False)
class AuditLog:
    """Makes entries, and keeps the tree and its checkpoints up with them."""

    store: IStore
    key: LogSigner
    now: Now
    path: Path | None = None
    """Where the last checkpoints are remembered, apart from the store; None keeps them in memory."""
    aside: Callable[[Callable[[], None]], Awaitable[None]] = _at_once
    """How a file is written that the disk has to have: in a thread, where others wait."""
    keep_acts: timedelta | None = None
    """How long the text of an act stays, for whoever finds one missing; None where that is not known."""
    latest: SignedCheckpoint | None = field(default=None, init=False)
    contradiction: PkiError | None = field(default=None, init=False)
    """Why nothing is signed any more: the log is not what was signed before."""
    seen_elsewhere: int = field(default=0, init=False)
    """The most entries that an endpoint says it has seen, where that was more than there are; 0 if none does."""
    last_problem: PkiError | None = field(default=None, init=False)
    _behind: bool = field(default=True, init=False)
    """Whether an entry may have been written since the tree was last extended."""
    _refused: "Counter[tuple[str, str]]" = field(factory=Counter, init=False)
    _sampled_at: float = field(default=0.0, init=False)
    _ticker: Ticker | None = field(default=None, init=False)
    _extending: bool = field(default=False, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    """Held by whoever signs: of two that are signed at a time the smaller must not be remembered last."""
    _memory: CheckpointMemory = field(init=False)
    _unsaved: list[SignedCheckpoint] = field(factory=list, init=False)
    """Those that are remembered, and not in the record yet."""

    def __attrs_post_init__(self) -> None:
        self._memory = CheckpointMemory(self.key.verifier, self.path)

    @property
    def memory(self) -> Memory:
        """Whether the last checkpoints can be remembered."""
        return self._memory.memory

    def entry(self, act: Act, by: Principal, object: str, facts: Mapping[str, str]) -> Entry:
        """What the log is to say of an act, to be recorded by the command that does it."""
        self._behind = True
        return Entry(self.now(), act, by.evidence, object, facts)

    async def record(
        self, act: Act, object: str, facts: Mapping[str, str], by: Principal = OURSELVES
    ) -> None:
        """Record an act that changes nothing in the store. Where that fails, the act must not be done."""
        await self.store.apply(RecordAct(self.entry(act, by, object, facts)))

    def refused(self, code: Code, who: str) -> None:
        """Count a refusal; one entry a minute tells of all."""
        kind = (code, who)
        if kind not in self._refused and len(self._refused) >= _KINDS:
            kind = (code, "others")
        self._refused[kind] += 1

    def start(self, clock: IReactorTime) -> None:
        """Look each second, on ``clock``, what has to be taken in and signed."""
        self._sampled_at = clock.seconds()
        self._ticker = Ticker(clock, TICK, lambda: self._tick(clock), "the audit log", _log)
        self._ticker.start(now=False)

    def stop(self) -> None:
        """Look no more. May be said more than once, and before it was started."""
        if self._ticker is not None:
            self._ticker.stop()

    def _tick(self, clock: IReactorTime) -> None:
        if not self._extending:
            self._extending = True
            _ = spawn(self._keep_up(clock), "keeping the audit log", _log)

    async def _keep_up(self, clock: IReactorTime) -> None:
        try:
            if clock.seconds() - self._sampled_at >= SAMPLING:
                self._sampled_at = clock.seconds()
                await self.tell_refusals()
            if self.contradiction is not None:
                await self._accept()
                return
            if self._behind:
                await self.extend()
            if self.last_problem is not None:
                self.last_problem = None
                _log.info("The audit log is signed again", event="audit-recovered")
        except PkiError as error:
            if self.last_problem is None:
                _log.warn(
                    "The audit log cannot be extended: {problem}",
                    event="audit-behind",
                    problem=str(error),
                )
            self.last_problem = error
        finally:
            self._extending = False

    async def tell_refusals(self) -> None:
        """Write what was refused since the last time, if anything was, in one entry."""
        counted, self._refused = self._refused, Counter()
        if not counted:
            return
        facts = {
            f"{code} {printable(who, 100)}": str(number)
            for (code, who), number in sorted(counted.items())
        }
        try:
            await self.store.apply(
                RecordAct(Entry(self.now(), Act.REFUSE, OURSELVES.evidence, "requests", facts))
            )
        except PkiError:
            self._refused.update(counted)
            raise
        self._behind = True

    async def recall(self, *, is_restored: bool = False) -> None:
        """Hold the log against what was signed last, in an earlier life; where it does not fit, nothing is signed.

        ``is_restored``: whether a backup was restored since, so that the log goes on under another name.
        Raises :class:`StoreError`, :class:`StateError`.
        """
        remembered: SignedCheckpoint | None = None
        try:
            remembered = self._memory.recall()
            saved = self._opened(await self.store.last_checkpoint(), any_name=is_restored)
            count, _ = await self.store.last_act()
            base = self._memory.base(remembered, saved, count, is_restored=is_restored)
            head = await self._taken_in()
            await self._compare(base, head)
            self._bound_tail(base, head)
        except _CONTRADICTIONS as error:
            if remembered is not None and remembered.checkpoint.origin == self.key.name:
                self.latest = remembered
            self._contradict(error)
            await self._accept()
            return
        if base is not None and base.checkpoint.origin == self.key.name:
            self.latest = base
            if remembered is None or remembered.checkpoint != base.checkpoint:
                await self._remember(lambda: self._memory.keep(base))
            if base is remembered and (saved is None or base.checkpoint != saved.checkpoint):
                self._unsaved.append(base)  # which a crash has kept from it
            return
        # From now on the record alone says nothing, not even that there is no checkpoint yet.
        if head.size and base is not None:
            await self._sign(head)
        else:
            empty = await self._note(LogHead(0, EMPTY_ROOT))
            await self._remember(lambda: self._memory.begin_anew(empty))

    async def _remember(self, write: Callable[[], None]) -> None:
        """Have ``write`` done, and told where it cannot be. Raises :class:`StateError`."""
        with self.memory.watched():
            await self.aside(write)

    def _opened(self, saved: tuple[int, str] | None, *, any_name: bool) -> SignedCheckpoint | None:
        """What the store has as its last checkpoint; None for one of the time before a restore.

        Raises :class:`BadCheckpoint`.
        """
        if saved is None or (saved[1].partition("\n")[0] != self.key.name and not any_name):
            return None
        return self._memory.opened(saved[1])

    async def _taken_in(self) -> LogHead:
        """The tree once every recorded act is in it."""
        head = await self.store.apply(ExtendLog())
        while (more := await self.store.apply(ExtendLog())) != head:
            head = more
        return head

    async def _compare(self, base: SignedCheckpoint | None, head: LogHead) -> None:
        """Raises what says that the log of ``head`` does not go on from ``base``."""
        if base is None:
            return
        seen = base.checkpoint
        proof: Sequence[bytes] = ()
        if 0 < seen.size < head.size:
            proof = await self.store.consistency_proof(seen.size, head.size)
        advance(seen, Checkpoint(seen.origin, head.size, head.root, self.now()), proof)

    def _bound_tail(self, base: SignedCheckpoint | None, head: LogHead) -> None:
        """Raises :class:`Unvouched` for more acts after the last that is signed than a CA leaves that dies."""
        if base is not None and (tail := head.size - base.checkpoint.size) > _MOST_UNSIGNED:
            raise Unvouched(
                f"the record has {tail} acts more than the {base.checkpoint.size} that are signed: a CA that dies "
                f"leaves {_MOST_UNSIGNED} at most"
            )

    async def lost_checkpoints(self) -> Sequence[int]:
        """Sizes of those that are remembered, and that somebody has deleted from the record.

        What is older than the text of acts is kept may have been thinned out.
        """
        oldest = None if self.keep_acts is None else self.now() - self.keep_acts
        return await self.store.lost_checkpoints(self._memory.earlier(oldest))

    def was_seen(self, size: int, who: str) -> None:
        """An endpoint says how large a log it has seen. Nothing proves that: it is told, and stops nothing."""
        if self.latest is None or size <= max(self.latest.checkpoint.size, self.seen_elsewhere):
            return
        self.seen_elsewhere = size
        _log.warn(
            "{who} has seen an audit log of {seen} entries, and there are {size}: if that is so, the record and what "
            "is beside it were put back to an older state",
            event="log-seen-larger",
            who=printable(who, 200),
            seen=size,
            size=self.latest.checkpoint.size,
        )

    def _contradict(self, error: PkiError) -> None:
        self.contradiction = error
        _log.error(
            "The audit log is not what was signed last, and nothing is signed or issued until somebody has looked "
            "into it: {error}",
            event="log-contradicts",
            code=error.code,
            error=str(error),
        )

    def demand_intact(self) -> None:
        """Raises :class:`StoreError` where the record is not what was signed of it: who is in it then is no reason."""
        if self.contradiction is not None:
            raise StoreError(
                "the CA's record is not what was signed of it: nothing is issued until an administrator has looked "
                "into it (mesh-ctl doctor)"
            )

    async def _accept(self) -> None:
        """Go on from the log as it is, where somebody who owns the CA's files says so. Raises :class:`StoreError`."""
        problem = self.contradiction
        word = self.path and self.path.with_name(_ACCEPTED)
        if problem is None or word is None or not word.exists():
            return
        facts = {"did": "accept-log", "code": str(problem.code), "problem": str(problem)}
        if self.latest is not None:
            seen = self.latest.checkpoint
            facts |= {"seen": f"{seen.origin} {seen.size} {seen.root.hex()}"}
        await self.record(Act.ADMINISTER, "audit log", facts)
        try:
            head = await self._taken_in()
            signed = await self._note(head)
        except _CONTRADICTIONS as error:
            _log.error(
                "The audit log cannot be accepted, restore a backup: {error}",
                event="log-contradicts",
                code=error.code,
                error=str(error),
            )
            remove_file(word)
            return
        await self._remember(lambda: self._memory.begin_anew(signed))
        await self._save(signed)
        remove_file(word)
        self.contradiction = None
        _log.warn(
            "The audit log is accepted as it is, {size} entries; witnesses of what it was will say so",
            event="log-accepted",
            size=head.size,
        )

    async def extend(self) -> SignedCheckpoint | None:
        """Take every recorded act into the tree and sign where it stands. None for an empty log.

        Where the log is not what was signed before, the answer stays what it was.
        """
        await self._lock.acquire()
        try:
            if self.contradiction is None:
                await self._extend()
        finally:
            self._lock.release()
        return self.latest

    async def _extend(self) -> None:
        self._behind = False
        try:
            head = await self._taken_in()
            if head.size and (self.latest is None or self.latest.checkpoint.size != head.size):
                await self._compare(self.latest, head)
                await self._sign(head)
        except _CONTRADICTIONS as error:
            self._contradict(error)
        except BaseException:
            self._behind = True
            raise

    async def _sign(self, head: LogHead) -> None:
        signed = await self._note(head)
        # Remembered before anybody can have seen it.
        await self._remember(lambda: self._memory.keep(signed))
        self._unsaved.append(signed)
        await self._save_all()

    async def _save_all(self) -> None:
        """Have the record take what is remembered, in the order in which it was signed."""
        while self._unsaved:
            await self._save(self._unsaved[0])
            del self._unsaved[0]

    async def _note(self, head: LogHead) -> SignedCheckpoint:
        checkpoint = Checkpoint(self.key.name, head.size, head.root, self.now())
        return SignedCheckpoint(checkpoint, await self.key.sign(checkpoint))

    async def _save(self, signed: SignedCheckpoint) -> None:
        checkpoint = signed.checkpoint
        if checkpoint.size:
            await self.store.apply(SaveCheckpoint(checkpoint.size, checkpoint.at, signed.note))
            self.latest = signed

    async def consistency(self, since: int) -> Sequence[bytes]:
        """The proof that the latest checkpoint extends the tree of size ``since``."""
        if self.latest is None or not 0 < since <= self.latest.checkpoint.size:
            return ()
        proof = await self.store.consistency_proof(since, self.latest.checkpoint.size)
        return proof
