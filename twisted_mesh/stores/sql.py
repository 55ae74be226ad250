"""The store on SQL: a thread writes, many commands to a commit, another reads; the reactor never waits."""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, TypeVar

from attrs import frozen
from sqlalchemy import Connection, Engine
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from pki.errors import PkiError
from twisted_mesh.stores import (
    blocked_keys,
    claims,
    entries,
    examination,
    federation,
    log,
    reading,
    tokens,
)
from twisted_mesh.stores.commands import Command, Returning
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.migrations import Tables, bring_up
from twisted_mesh.stores.records import (
    BlockedKey,
    Examined,
    Feed,
    Full,
    IssuedCertificate,
    IssuedToken,
    LastCrl,
    LoggedEntry,
    LogHead,
    Oddity,
    OpenIntent,
    Page,
    Query,
    StoredEntry,
    StoredFederation,
    StoreError,
    UsedClaim,
)
from twisted_mesh.stores.sqlite import Sqlite
from twisted_mesh.stores.transactions import Worker, Writer

T = TypeVar("T")

#: At most so many commands to a transaction: the first of them waits for the last.
_BATCH = 128
#: So many may wait for the disk, and so many for an answer; whoever comes then is told to come later.
_WAITING = 4096
_ASKING = 256


@frozen(eq=False, repr=False)
class _Question:
    ask: Callable[[Connection], object]


_Work = tuple[Returning[Any] | _Question, Deferred[Any]]


@implementer(IStore)
class SqlStore:
    """Keeps certificates in ``database``; see :class:`IStore`.

    The writer is given one batch at a time: what one turn of the reactor brings, then what has come
    while the last batch was written and in the turn after it, so that a slow disk makes larger commits
    instead of a longer queue. (A thread that helped itself would be woken for each command, and find
    that one alone.)
    A read sees every command that was answered before it. What is in memory has one thread for both.
    A commit that fails keeps nothing and tells each of its callers; the next one tries again.
    Cancelling an answer stops nothing: what was told is done.
    """

    def __init__(self, database: Sqlite, reactor: IReactorFromThreads) -> None:
        self._database = database
        self._reactor = reactor
        self._writer: Worker[_Work] | None = None
        self._reader: Worker[_Work] | None = None
        self._waiting: list[_Work] = []
        self._asking = 0
        self._busy = False
        """Whether a batch is with the writer, or about to be."""
        self._stopping: list[Deferred[None]] = []
        self._tables = Tables("", is_new=False)

    @property
    def id(self) -> str:
        """Identifies this store for good."""
        return self._tables.store

    @property
    def is_new(self) -> bool:
        """Whether :meth:`start` found nothing and made it."""
        return self._tables.is_new

    @property
    def is_shared(self) -> bool:
        """Never: a file of SQLite is one CA's."""
        return False

    @property
    def is_kept(self) -> bool:
        """Whether what it holds is there again at the next start."""
        return self._database.path is not None

    def start(self) -> None:
        """Open the database, bring its tables up to date, start the threads (twistd has forked by now)."""
        if self._writer is not None or self._stopping:
            raise StoreError(f"store {self._database}: it is open already")
        self._database.make()
        engines = self._open()
        if self._database.reserve is not None:
            self._database.reserve.hold()
        self._writer = self._reader = self._worker(engines[0], self._wrote)
        if len(engines) > 1:
            self._reader = self._worker(engines[1], self._answered)

    def stop(self) -> Deferred[None]:
        """Finish what is under way, and close; fires once both threads are gone, at once if there are none."""
        if self._writer is None and not self._stopping:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        if len(self._stopping) == 1 and not self._busy:
            self._hand_over()
        return done

    def apply(self, command: Returning[T]) -> Deferred[T]:
        """Have the writer do a command; fires with its result once that is on the disk.

        Errs with what the command's preconditions say, and with :class:`StoreError` while the store is closed or
        does not keep up.
        """
        if self._writer is None or self._stopping:
            return self._closed()
        if len(self._waiting) >= _WAITING:
            return self._overrun("its disk does not keep up")
        return self._queue(command)

    def find(self, serial: int) -> Deferred[IssuedCertificate | None]:
        """The certificate of that serial, or None."""
        return self._read(lambda connection: reading.find(connection, serial))

    def find_all(self, serials: Collection[int]) -> "Deferred[tuple[IssuedCertificate, ...]]":
        """Those of the serials that there are, without their DER, in no particular order."""
        return self._read(lambda connection: reading.find_all(connection, serials))

    def issued_since(self, at: datetime) -> "Deferred[tuple[tuple[str, str | None, int], ...]]":
        """How many certificates of each ID and entry were issued from that time on."""
        return self._read(lambda connection: reading.issued_since(connection, at))

    def find_request(self, request_key: str) -> Deferred[IssuedCertificate | None]:
        """The certificate that a request was answered with before, or None."""
        return self._read(lambda connection: reading.find_request(connection, request_key))

    def list(self, query: Query) -> Deferred[Page]:
        """One page of what the query asks for. Errs with :class:`BadCursor`."""
        return self._read(lambda connection: reading.page(connection, query))

    def feed(self, after: int) -> Deferred[Feed]:
        """What was revoked after a position of the feed; everything where there is no such position."""
        return self._read(lambda connection: reading.revocations(connection, self.id, after))

    def last_crl(self, issuer: str) -> Deferred[LastCrl | None]:
        """The issuer's last CRL by number, or None before the first."""
        return self._read(lambda connection: reading.last_crl(connection, issuer))

    def open_intents(self, limit: int = 1000) -> "Deferred[tuple[OpenIntent, ...]]":
        """The oldest signatures of which it is not known whether they were made, at most ``limit``."""
        return self._read(lambda connection: reading.open_intents(connection, limit))

    def entries(self) -> "Deferred[tuple[StoredEntry, ...]]":
        """All registration entries, the oldest first. Errs with :class:`StoreError` where one cannot be read."""
        return self._read(entries.everything)

    def tokens(self) -> "Deferred[tuple[IssuedToken, ...]]":
        """All join tokens, the newest first."""
        return self._read(tokens.everything)

    def federations(self) -> "Deferred[tuple[StoredFederation, ...]]":
        """Federated trust domains, by name. Errs with :class:`StoreError` where one cannot be read."""
        return self._read(federation.everything)

    def blocked_keys(self) -> "Deferred[tuple[BlockedKey, ...]]":
        """Keys that nothing is certified for, the oldest first. Errs with :class:`StoreError`."""
        return self._read(blocked_keys.everything)

    def find_token(self, digest: bytes) -> Deferred[IssuedToken | None]:
        """The join token with that SHA-256, whatever has become of it, or None."""
        return self._read(lambda connection: tokens.find(connection, digest))

    def find_claim(self, claim: str) -> Deferred[UsedClaim | None]:
        """Who has used that claim, or None."""
        return self._read(lambda connection: claims.find(connection, claim))

    def claims(self, after: str = "", limit: int = 1000) -> "Deferred[tuple[UsedClaim, ...]]":
        """At most ``limit`` claims that were used, by their text, after ``after``."""
        return self._read(lambda connection: claims.page(connection, after, limit))

    def log_head(self) -> Deferred[LogHead]:
        """Size and root of the tree over the audit log."""
        return self._read(log.head)

    def log_entries(self, start: int, limit: int) -> "Deferred[tuple[Sequence[LoggedEntry], int]]":
        """At most ``limit`` entries of the tree from position ``start`` on, and the tree's size."""
        return self._read(lambda connection: log.entries(connection, start, limit))

    def last_act(self) -> "Deferred[tuple[int, int | None]]":
        """How many acts are recorded, in the tree or not yet, and when the last was, in microseconds since 1970."""
        return self._read(log.recorded)

    def latest_act(self) -> "Deferred[int | None]":
        """The latest time of any act, in microseconds since 1970, whichever was recorded last."""
        return self._read(log.latest_time)

    def ca_acts(self) -> "Deferred[tuple[bytes, ...]]":
        """The entries about the CA's own certificates, the oldest first, of those that are not pruned."""
        return self._read(log.ca_acts)

    def federation_acts(self) -> "Deferred[tuple[bytes, ...]]":
        """The entries about federated trust domains and about restores, the oldest first, as far as there are any."""
        return self._read(log.federation_acts)

    def checkpoints(self, start: int, limit: int) -> "Deferred[Sequence[tuple[int, str]]]":
        """At most ``limit`` signed checkpoints, each with its size, from size ``start`` on."""
        return self._read(lambda connection: log.notes(connection, start, limit))

    def last_checkpoint(self) -> "Deferred[tuple[int, str] | None]":
        """The newest checkpoint with its size, or None before the first."""
        return self._read(log.latest)

    def inclusion_proof(self, position: int, size: int) -> "Deferred[tuple[bytes, ...]]":
        """The hashes that prove an entry's place in the tree of that size (RFC 9162 section 2.1.3)."""
        return self._read(lambda connection: log.inclusion(connection, position, size))

    def consistency_proof(self, first: int, second: int) -> "Deferred[tuple[bytes, ...]]":
        """The hashes that prove that one tree extends the other (RFC 9162 section 2.1.4)."""
        return self._read(lambda connection: log.consistency(connection, first, second))

    def examine(self, start: int, limit: int) -> Deferred[Examined]:
        """At most ``limit`` certificates as they stand in their table, from the row ``start`` on."""
        return self._read(lambda connection: examination.examine(connection, start, limit))

    def oddities(self) -> "Deferred[tuple[Oddity, ...]]":
        """What is odd about the record as a whole, and in its smaller tables."""
        return self._read(examination.oddities)

    def lost_checkpoints(self, sizes: Sequence[int]) -> "Deferred[tuple[int, ...]]":
        """Those of the sizes of which no checkpoint is kept."""
        return self._read(lambda connection: examination.lost_checkpoints(connection, sizes))

    def _open(self) -> Sequence[Engine]:
        """The writer's engine, and one of the reader's own where it can have that."""
        try:
            return self._prepared()
        except Full:
            # To open it takes a little space too.
            if self._database.reserve is None or not self._database.reserve.release():
                raise
            return self._prepared()

    def _prepared(self) -> Sequence[Engine]:
        engines: list[Engine] = []
        try:
            engines.append(self._database.engine())
            with engines[0].execution_options(writes=True).begin() as connection:
                self._tables = bring_up(connection, str(self._database))
            if self._database.path is not None:
                engines.append(self._database.engine())
        except Exception as error:
            for engine in engines:
                engine.dispose()
            raise self._database.explain(error) from None
        return engines

    def _worker(
        self, engine: Engine, done: Callable[[Sequence[_Work], Sequence[object]], None]
    ) -> Worker[_Work]:
        writer = Writer(self._database, engine)

        def work(batch: Sequence[_Work]) -> Sequence[object]:
            commands = [told for told, _ in batch if isinstance(told, Command)]
            outcomes = iter(writer.apply(commands) if commands else ())
            return [
                self._ask(engine, told) if isinstance(told, _Question) else next(outcomes)
                for told, _ in batch
            ]

        return Worker(self._reactor, work, done, engine.dispose)

    def _ask(self, engine: Engine, question: _Question) -> object:
        try:
            with engine.connect() as connection:
                return question.ask(connection)
        except PkiError as error:
            return error
        except Exception as error:
            return self._database.explain(error)

    def _read(self, ask: Callable[[Connection], T]) -> Deferred[T]:
        if self._reader is None or self._stopping:
            return self._closed()
        if self._asking >= _ASKING:
            return self._overrun("too much is asked of it at once")
        self._asking += 1
        if self._reader is self._writer:
            return self._queue(_Question(ask))
        answer: Deferred[T] = Deferred()
        self._reader.give(((_Question(ask), answer),))
        return answer

    def _queue(self, told: Returning[Any] | _Question) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self._waiting.append((told, answer))
        if not self._busy:
            self._busy = True
            # Not at once: first let this turn of the reactor bring what else it has.
            self._reactor.callFromThread(self._hand_over)
        return answer

    def _hand_over(self) -> None:
        """Give the writer its next batch; where there is none and all is over, tell both to end."""
        if self._writer is None or self._reader is None:
            return
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self._busy = bool(batch)
        if batch:
            self._writer.give(batch)
        elif self._stopping:
            writer, reader = self._writer, self._reader
            self._writer = self._reader = None
            # The writer closes last, alone, and so leaves one tidy file.
            ended = succeed(None) if reader is writer else reader.end()
            _ = ended.addCallback(lambda _: writer.end()).addCallback(self._stopped)

    def _answered(self, batch: Sequence[_Work], outcomes: Sequence[object]) -> None:
        for (told, answer), outcome in zip(batch, outcomes, strict=True):
            if isinstance(told, _Question):
                self._asking -= 1
            if isinstance(outcome, Exception):
                answer.errback(outcome)
            else:
                answer.callback(outcome)

    def _wrote(self, batch: Sequence[_Work], outcomes: Sequence[object]) -> None:
        self._answered(batch, outcomes)
        if self._waiting:
            # Not at once: those who were answered may have more, and one large commit costs less than two.
            self._reactor.callFromThread(self._hand_over)
        else:
            self._hand_over()

    def _stopped(self, _: object) -> None:
        stopping, self._stopping = self._stopping, []
        for done in stopping:
            done.callback(None)

    def _closed(self) -> Deferred[Any]:
        return fail(StoreError(f"store {self._database}: it is closed: ask again once it is open"))

    def _overrun(self, why: str) -> Deferred[Any]:
        return fail(StoreError(f"store {self._database}: {why}: ask again later"))
