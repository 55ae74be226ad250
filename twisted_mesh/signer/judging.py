"""What is asked of a signer, judged one after the other, and on the disk before anything is signed.

Judging, remembering and logging happen in one thread, in batches: one transaction and one flush for all that came
meanwhile. Only what a batch has let through is then signed, by whatever has the keys.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from pki.errors import PkiError
from pki.signing.errors import NotSignable, SigningRefused
from pki.signing.judge import judge
from pki.signing.memory import HeldKey, Verdict
from pki.signing.policy import SigningPolicy
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.tasks import Defer, spawn
from twisted_mesh.signer.errors import SignerStateError
from twisted_mesh.signer.key_row import KeyRow
from twisted_mesh.signer.record import ADOPTED, Record
from twisted_mesh.signer.signing_log import Said, SigningLog

#: What is judged at a time: more would let the first wait for the last.
_MOST, _MOST_BYTES = 256, 32 * 1024 * 1024
#: Of what waits; whoever comes then is told to come later.
_MOST_WAITING = 4096


@frozen(eq=False)
class Asked:
    """One request."""

    key: HeldKey
    data: bytes = field(repr=False)
    by: str


@define(eq=False)
class _Waiting:
    asked: Asked | None
    """None for what a person or the signer itself does."""
    work: Callable[[], Sequence[Said]] | None
    done: "Deferred[Verdict | None]" = field(factory=Deferred)

    @property
    def size(self) -> int:
        return len(self.asked.data) if self.asked is not None else 0


_Outcome = Verdict | PkiError | None


@define(eq=False)
class Judging:
    """The judge of one signer, with its record and its log."""

    record: Record
    log: SigningLog
    policy: SigningPolicy
    now: Now
    defer: Defer
    told: Logger
    refusals: Callable[[], bool]
    """Whether one more refusal may be written into the log: whoever is refused must not fill the disk."""
    _first: "deque[_Waiting]" = field(factory=deque, init=False)
    """Of revocation: it never waits for certificates."""
    _queue: "deque[_Waiting]" = field(factory=deque, init=False)
    _is_working: bool = field(default=False, init=False)
    problem: PkiError | None = field(default=None, init=False)
    """Why the last batch could not be kept; None while that works."""

    def go_by(self, policy: SigningPolicy) -> None:
        """Judge by that from now on."""
        self.policy = policy

    async def judge(self, asked: Asked, *, is_urgent: bool = False) -> Verdict:
        """What is let through, on the disk.

        Raises :class:`NotSignable`, :class:`SigningRefused` and :class:`SignerStateError`.
        """
        verdict = await self._wait(_Waiting(asked, None), is_urgent=is_urgent)
        if verdict is None:
            raise AssertionError("what was asked was judged")
        return verdict

    async def do(self, work: Callable[[], Sequence[Said]]) -> None:
        """Change the record in its turn, and log what ``work`` says of that. Raises as :meth:`judge`."""
        await self._wait(_Waiting(None, work), is_urgent=False)

    async def add_key(self, row: KeyRow, by: str) -> None:
        """Have a new key known."""

        def work() -> Sequence[Said]:
            self.record.add_key(row, self.now())
            held = row.held
            facts = {"algorithm": str(held.algorithm), "label": row.label, "store": row.store}
            return [
                Said(self.now().isoformat(), "key", held.name, held.purpose, by=by, facts=facts)
            ]

        await self.do(work)

    async def _wait(self, waiting: _Waiting, *, is_urgent: bool) -> Verdict | None:
        if len(self._queue) + len(self._first) >= _MOST_WAITING:
            raise SignerStateError("too much is waiting to be judged: ask again in a moment")
        (self._first if is_urgent else self._queue).append(waiting)
        if not self._is_working:
            self._is_working = True
            _ = spawn(self._work(), "judging", self.told)
        return await waiting.done

    async def _work(self) -> None:
        try:
            while batch := self._batch():
                outcomes: Sequence[_Outcome | Failure]
                try:
                    outcomes = await self.defer(self._judged, batch)
                    self.problem = None
                except PkiError as error:
                    self.problem = error
                    outcomes = [error] * len(batch)
                except Exception:
                    self.told.failure("judging broke", event="judging-broke")
                    outcomes = [Failure()] * len(batch)
                for waiting, outcome in zip(batch, outcomes, strict=True):
                    if isinstance(outcome, PkiError | Failure):
                        waiting.done.errback(outcome)
                    else:
                        waiting.done.callback(outcome)
        finally:
            self._is_working = False

    def _batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while (queue := self._first or self._queue) and len(batch) < _MOST and size < _MOST_BYTES:
            batch.append(queue.popleft())
            size += batch[-1].size
        return batch

    def _judged(self, batch: Sequence[_Waiting]) -> list[_Outcome]:
        """In the thread."""
        outcomes: list[_Outcome] = []
        with self.record.changing():
            said: list[Said] = []
            approvals = self.record.unlogged()
            for approval in approvals:
                facts = {"pin": approval.pin, "until": approval.until.isoformat()}
                at = self.now().isoformat()
                event = "adopt" if approval.pin.startswith(ADOPTED) else "approve"
                said.append(Said(at, event, by=approval.by, facts=facts))
            self.record.mark_logged(approvals)
            for waiting in batch:
                outcome, lines = self._one(waiting)
                outcomes.append(outcome)
                said += lines
            self.record.forget_ended(self.now())
            if said:
                # Where the commit then fails, the lines stay, and the next batch has the same number.
                self.log.append(said, self.record.log_end.batch + 1)
                self.record.log_end = self.log.end
        return outcomes

    def _one(self, waiting: _Waiting) -> tuple[_Outcome, Sequence[Said]]:
        if waiting.asked is None:
            return None, waiting.work() if waiting.work is not None else ()
        asked, now = waiting.asked, self.now()
        digest = sha256(asked.data).hexdigest()
        try:
            verdict = judge(asked.data, asked.key, self.policy, self.record, now)
        except (NotSignable, SigningRefused) as error:
            return error, self._refused(asked, digest, error, now)
        if verdict.effect is not None:
            self.record.apply(asked.key, verdict.effect, asked.data)
        at = now.isoformat()
        line = Said(at, "sign", asked.key.name, verdict.kind, digest, asked.by, verdict.facts)
        return verdict, [line]

    def _refused(
        self, asked: Asked, digest: str, error: NotSignable | SigningRefused, now: datetime
    ) -> Sequence[Said]:
        if not self.refusals():
            return ()
        rule = getattr(error, "rule", "not-signable")
        facts = {"rule": rule, "detail": str(error)[:400]}
        return [
            Said(now.isoformat(), "refuse", asked.key.name, "", digest, asked.by, facts),
        ]
