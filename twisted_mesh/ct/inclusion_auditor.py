"""Whether logs keep their promises: entries of peers that were met are looked for, in the background.

An endpoint that meets a certificate believes its receipts at once. Later it asks each log for the entry at the index
that the receipt names. One that is not there, a tree that is another than before, or shorter, is an alarm, and a file
by which anybody can verify it. Nothing of this is waited for: what is met goes into a queue, which is bounded.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from attrs import define, field
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from pki.ct.evidence import Evidence
from pki.ct.log_list import Log, LogList
from pki.ct.sct import moment
from pki.errors import ANY_ERROR, HOSTILE_INPUT, PkiError, Problem
from pki.validity import rfc3339
from twisted_mesh.ct.audit_memory import AuditMemory, Remembered
from twisted_mesh.ct.contradiction import of_two_heads, of_view
from twisted_mesh.ct.errors import LogUnusable
from twisted_mesh.ct.evidence_files import EvidenceFiles
from twisted_mesh.ct.promise import Promise, promises_of
from twisted_mesh.ct.reader import WIDTH, LogReader, SignedHead
from twisted_mesh.ct.view import LogView
from twisted_mesh.interfaces import IReactor
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer, spawn

#: Seconds over which endpoints that meet a certificate at one moment ask about it.
SPREAD = 60.0
#: How long after it is due a head that has an entry may be missing here before that is told: caches show older ones.
_PATIENCE = timedelta(minutes=10)
#: The longest pause after failures, in seconds.
_LONGEST_PAUSE = 3600.0
#: Promises that are looked into in one round, and those of one log that are waited with.
_AT_ONCE = 64
MOST_PENDING = 1024
_READ_AT_ONCE = 16
#: Certificates that are not looked into again, by their fingerprints.
_MOST_KNOWN = 8192
#: Tiles that one round remembers.
_TILES = 32

Opens = Callable[[Log], LogReader]


@define(eq=False, repr=False)
class _Audit:
    """One log: what is to be looked for there, and when."""

    pending: OrderedDict[tuple[bytes, int, bytes], Promise] = field(factory=OrderedDict)
    head: SignedHead | None = None
    """The largest that was seen, which all later ones have to extend."""
    timer: IDelayedCall | None = None
    is_running: bool = False
    failures: int = 0
    problem: Problem | None = None


@define(eq=False, repr=False, slots=False)
class InclusionAuditor(Service):
    """Looks for the entries of all certificates that :meth:`saw` is told of, while it runs."""

    logs: Callable[[], LogList]
    """Those that count now."""
    reactor: IReactor
    now: Now
    evidence: EvidenceFiles
    memory: AuditMemory
    on_thread: Defer
    opens: Opens
    spread: float = SPREAD
    draw: Callable[[], float] = random.random
    log: Logger = field(factory=lambda: logger("ct"))
    most_met: int = 1024
    """Certificates that were met and are not read yet; they are read a few at a time."""
    verified: int = field(default=0, init=False)
    """Entries that were found in their place, since the start."""
    dropped: int = field(default=0, init=False)
    """Certificates that there was no room for."""
    _met: "deque[tuple[x509.Certificate, x509.Certificate]]" = field(factory=deque, init=False)
    _known: OrderedDict[bytes, None] = field(factory=OrderedDict, init=False)
    _audits: dict[bytes, _Audit] = field(factory=dict, init=False)
    _reading: IDelayedCall | None = field(default=None, init=False)
    _rounds: "set[Deferred[None]]" = field(factory=set, init=False)

    # what is met

    def saw(self, path: Sequence[x509.Certificate]) -> None:
        """A peer was let in with that path, leaf first. Takes microseconds, raises nothing, and asks nobody."""
        if len(path) < 2:
            return
        try:
            fingerprint = path[0].fingerprint(SHA256())
        except HOSTILE_INPUT:
            return
        if fingerprint in self._known:
            self._known.move_to_end(fingerprint)
            return
        if len(self._met) >= self.most_met:
            self._drop()
            return
        self._known[fingerprint] = None
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        self._met.append((path[0], path[1]))
        self._read_soon()

    def _drop(self) -> None:
        if not self.dropped:
            self.log.warn(
                "More certificates are met than logs can be asked about: some are not looked for",
                event="ct-audit-overflow",
            )
        self.dropped += 1

    def _read_soon(self) -> None:
        if self._reading is None and self.running and self._met:
            self._reading = self.reactor.callLater(0.05, self._read)

    def _read(self) -> None:
        """Some of what was met: their receipts are verified once more, which the judge has kept to itself."""
        self._reading = None
        logs, now = self.logs(), self.now()
        for _ in range(min(len(self._met), _READ_AT_ONCE)):
            certificate, issuer = self._met.popleft()
            try:
                found = promises_of(certificate, issuer, logs, now)
            except PkiError:
                continue  # nobody was let in by these
            for promise in found:
                self._await(promise)
        self._read_soon()

    def _await(self, promise: Promise) -> None:
        log = self.logs().log_of(promise.log_id)
        if log is None or not log.monitoring_url:
            return
        audit = self._audits.setdefault(promise.log_id, _Audit())
        if promise.key not in audit.pending:
            # Of each log: one that is away for as long as it likes takes no other's room.
            if len(audit.pending) >= MOST_PENDING:
                self._drop()
                return
            audit.pending[promise.key] = promise
            self.memory.is_due = True
        self._schedule(promise.log_id, self.spread * self.draw())

    # rounds

    def startService(self) -> None:
        """Take up what was remembered, and begin to ask."""
        super().startService()
        self.evidence.recall(self.logs())
        remembered = self.memory.recall(self.logs())
        for log_id, head in remembered.heads.items():
            self._audits.setdefault(log_id, _Audit()).head = head
        for promise in remembered.promises:
            self._await(promise)
        self.memory.is_due = False
        self.memory.start(self.reactor, self.snapshot, self.on_thread)
        self._read_soon()

    def stopService(self) -> None:
        """Ask no more; what was not looked into yet is kept."""
        super().stopService()
        for timer in (self._reading, *(audit.timer for audit in self._audits.values())):
            if timer is not None and timer.active():
                timer.cancel()
        self._reading = None
        for audit in self._audits.values():
            audit.timer = None
        for running in tuple(self._rounds):
            running.cancel()
        while self._met:  # what was met is kept too
            self._read()
        self.memory.stop(self.snapshot())

    def _schedule(self, log_id: bytes, seconds: float) -> None:
        audit = self._audits[log_id]
        if self.running and audit.timer is None and not audit.is_running and audit.pending:
            audit.timer = self.reactor.callLater(seconds, self._begin, log_id)

    def _begin(self, log_id: bytes) -> None:
        audit = self._audits[log_id]
        audit.timer, audit.is_running = None, True
        log = self.logs().log_of(log_id)
        if log is None:  # it does not count any more
            del self._audits[log_id]
            self.memory.is_due = True
            return
        task = spawn(self._round(log, audit), "an audit of a log", self.log)
        self._rounds.add(task)
        _ = task.addBoth(lambda _: self._rounds.discard(task))

    async def _round(self, log: Log, audit: _Audit) -> None:
        pause = self.spread * (0.5 + self.draw())
        try:
            await self._ask(log, audit)
            audit.failures, audit.problem = 0, None
        except CancelledError:
            raise
        except PkiError as error:
            pause = self._failed(log, audit, error, pause)
        except ANY_ERROR:
            self.log.failure(
                "an audit of {ct_log} broke", event="ct-audit-broke", ct_log=log.origin
            )
            pause = _LONGEST_PAUSE
        finally:
            audit.is_running = False
        self._schedule(log.log_id, pause)

    def _failed(self, log: Log, audit: _Audit, error: PkiError, pause: float) -> float:
        if audit.problem is None or audit.problem.detail != error.problems[0].detail:
            self.log.warn(
                "{ct_log} could not be asked about {pending} entries: {error}",
                event="ct-audit-failed",
                ct_log=log.origin,
                pending=len(audit.pending),
                code=str(error.code),
                error=str(error),
            )
        audit.problem = error.problems[0]
        audit.failures += 1
        longest: float = _LONGEST_PAUSE * (0.5 + self.draw())
        return min(pause * float(1 << min(audit.failures, 12)), longest)

    async def _ask(self, log: Log, audit: _Audit) -> None:
        reader = self.opens(log)
        try:
            latest = await reader.checkpoint()
            view = await self._advanced(log, audit, reader, latest)
            await self._look_for(log, audit, view, latest)
        finally:
            # A thousand endpoints would keep a thousand connections.
            reader.hang_up()

    async def _advanced(
        self, log: Log, audit: _Audit, reader: LogReader, latest: SignedHead
    ) -> LogView:
        """The tree that entries are looked for in: the largest that was seen, once it extends all before it."""
        before, view = audit.head, LogView(reader, latest, _TILES)
        if before is not None:
            if (found := of_two_heads(before, latest)) is not None:
                await self._alarm(found, log)
            if latest.size <= before.size:
                # An older one, as a cache may serve it, or a contradiction: what was seen first goes on to count.
                return LogView(reader, before, _TILES)
            if (found := await of_view(view, before)) is not None:
                await self._alarm(found, log)
                return view
        audit.head = latest
        self.memory.is_due = True
        return view

    async def _look_for(self, log: Log, audit: _Audit, view: LogView, latest: SignedHead) -> None:
        within = [promise for promise in audit.pending.values() if promise.index < view.size]
        for promise in within[:_AT_ONCE]:
            start = promise.index // WIDTH * WIDTH
            hashes = await view.leaf_hashes(start, min(start + WIDTH, view.size))
            there = hashes[promise.index - start]
            if there == promise.leaf_hash:
                self.verified += 1
            else:
                proof = await view.inclusion_proof(promise.index)
                await self._alarm(promise.missing(view.signed.note, there, proof), log)
            self._settle(audit, promise)
        overdue = 0
        for promise in [one for one in audit.pending.values() if one.index >= view.size]:
            due = promise.sct.timestamp + log.mmd * 1000
            if latest.head.timestamp > due:
                await self._alarm(promise.missing(latest.note), log)
                self._settle(audit, promise)
            elif self.now() > moment(due) + _PATIENCE:
                overdue += 1
        if overdue:
            at = rfc3339(moment(latest.head.timestamp))
            raise LogUnusable(
                f"the newest head of {log.origin} is of {at}, and it has signed none since that has the "
                f" {overdue} entries that receipts (SCTs) have promised: look whether it runs, and "
                "whether what is read here is a cache"
            )

    def _settle(self, audit: _Audit, promise: Promise) -> None:
        audit.pending.pop(promise.key, None)
        self.memory.is_due = True

    async def _alarm(self, found: Evidence, log: Log) -> None:
        """Raises :class:`~pki.errors.PkiError` where it cannot be written: what it is about stays pending."""
        await self.on_thread(self.evidence.keep, found, LogList((log,)))

    # what is told

    @property
    def _pending(self) -> int:
        return sum(len(audit.pending) for audit in self._audits.values())

    @property
    def pending(self) -> int:
        """Entries that nobody has looked for yet."""
        return self._pending + len(self._met)

    def snapshot(self) -> Remembered:
        """What is not to be forgotten."""
        heads: Mapping[bytes, SignedHead] = {
            log_id: audit.head for log_id, audit in self._audits.items() if audit.head is not None
        }
        promises = [one for audit in self._audits.values() for one in audit.pending.values()]
        return Remembered(heads, promises)

    def troubles(self) -> Sequence[tuple[str, Problem]]:
        """What is wrong, by name: alarms that stand, and logs that cannot be asked."""
        alarms = [("ct", alarm.problem) for alarm in self.evidence.alarms]
        failing = [
            ("ct-audit", audit.problem)
            for audit in self._audits.values()
            if audit.problem is not None
        ]
        return (*alarms, *failing)
