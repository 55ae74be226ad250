"""The CA's audit log: what it did, in a Merkle tree whose state it signs.

Each act is written by the store in the act's own transaction. :class:`AuditLog` makes the entries,
takes them into the tree a moment later, and signs where the tree then stands.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from pki.audit.log import Act, Checkpoint, Entry, LogKey, advance
from pki.codes import Code
from pki.errors import PkiError, printable
from pki.policy.policy import Principal, administrator
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.stores.commands import ExtendLog, RecordAct, SaveCheckpoint
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import LogHead, StoreError

_log = logger("ca")
#: Seconds between two looks for what is not in the tree yet.
TICK = 1.0
#: Seconds of refusals that are told in one entry: strangers must not be able to fill the disk.
SAMPLING = 60.0
#: So many kinds of refusals are told apart in one entry.
_KINDS = 50
_OURSELVES = administrator("self")


@frozen
class SignedCheckpoint:
    """A checkpoint and the note that carries its signature."""

    checkpoint: Checkpoint
    note: str


@define(eq=False)
class AuditLog:
    """Makes entries, and keeps the tree and its checkpoints up with them."""

    store: IStore
    key: LogKey
    now: Now
    latest: SignedCheckpoint | None = field(default=None, init=False)
    last_problem: PkiError | None = field(default=None, init=False)
    _behind: bool = field(default=True, init=False)
    """Whether an entry may have been written since the tree was last extended."""
    _refused: "Counter[tuple[str, str]]" = field(factory=Counter, init=False)
    _sampled_at: float = field(default=0.0, init=False)
    _ticker: Ticker | None = field(default=None, init=False)
    _extending: bool = field(default=False, init=False)

    def entry(self, act: Act, by: Principal, object: str, facts: Mapping[str, str]) -> Entry:
        """What the log is to say of an act, to be recorded by the command that does it."""
        self._behind = True
        return Entry(self.now(), act, by.evidence, object, facts)

    async def record(
        self, act: Act, object: str, facts: Mapping[str, str], by: Principal = _OURSELVES
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
                RecordAct(Entry(self.now(), Act.REFUSE, _OURSELVES.evidence, "requests", facts))
            )
        except PkiError:
            self._refused.update(counted)
            raise
        self._behind = True

    async def recall(self) -> None:
        """Hold the log against what was signed last, in an earlier life; what does not fit is told."""
        signed = await self.store.last_checkpoint()
        if signed is None or not signed[1].startswith(f"{self.key.name}\n"):
            return  # nothing, or what was signed before a backup was restored
        note: str = signed[1]
        try:
            checkpoint = self.key.verifier.open(note)
            head = await self.store.log_head()
            proof: Sequence[bytes] = ()
            if 0 < checkpoint.size < head.size:
                proof = await self.store.consistency_proof(checkpoint.size, head.size)
            advance(checkpoint, Checkpoint(self.key.name, head.size, head.root, self.now()), proof)
        except StoreError:
            raise
        except PkiError as error:
            _log.error(
                "The audit log is not what was signed last: {error}",
                event="log-contradicts",
                code=error.code,
                error=str(error),
            )
        else:
            self.latest = SignedCheckpoint(checkpoint, note)

    async def extend(self) -> SignedCheckpoint | None:
        """Take every recorded act into the tree and sign where it stands. None for an empty log."""
        self._behind = False
        try:
            head = await self.store.apply(ExtendLog())
            while True:
                more = await self.store.apply(ExtendLog())
                if more == head:
                    break
                head = more
            if head.size and (self.latest is None or self.latest.checkpoint.size != head.size):
                self.latest = await self._sign(head, self.now())
        except BaseException:
            self._behind = True
            raise
        return self.latest

    async def _sign(self, head: LogHead, now: datetime) -> SignedCheckpoint:
        checkpoint = Checkpoint(self.key.name, head.size, head.root, now)
        note = await self.key.sign(checkpoint)
        await self.store.apply(SaveCheckpoint(head.size, now, note))
        return SignedCheckpoint(checkpoint, note)

    async def consistency(self, since: int) -> Sequence[bytes]:
        """The proof that the latest checkpoint extends the tree of size ``since``."""
        if self.latest is None or not 0 < since <= self.latest.checkpoint.size:
            return ()
        proof = await self.store.consistency_proof(since, self.latest.checkpoint.size)
        return proof
