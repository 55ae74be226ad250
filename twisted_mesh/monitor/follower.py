"""One log, followed: its head held against the one before, and every entry against its head, from where it was left."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, gatherResults

from pki.codes import Code
from pki.ct.entry import key_hash_of
from pki.ct.errors import LogAway
from pki.ct.log_list import Log
from pki.ct.tree_head import open_note
from pki.errors import ANY_ERROR, PkiError
from pki.tlog.merkle import BadProof, DamagedTree, verify_consistency
from pki.validity import rfc3339, spoken_duration
from twisted_mesh.ct.errors import LogUnusable, TilesContradict
from twisted_mesh.ct.reader import WIDTH, SignedHead
from twisted_mesh.monitor.alert import Alert, AlertKind
from twisted_mesh.monitor.contradiction import Contradiction, between
from twisted_mesh.monitor.index import Index, Place, moment
from twisted_mesh.monitor.reading import EntryReader, Part, unknown_issuers
from twisted_mesh.monitor.source import Source, view_of
from twisted_mesh.monitor.tile_scan import Scanned
from twisted_mesh.monitor.watch_list import WatchList
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Defer
from twisted_mesh.state.directory import StateError

_log = logger("ct")
#: Data tiles that are fetched, judged and written together, and how many are asked for at a time.
TILES, _AT_ONCE = 64, 8
#: Bytes of them, beyond which no more are fetched: of a log that lies each tile may be as long as is read at all.
MOST_BYTES = 64 * 1024 * 1024
#: So far ahead of ours may a log's clock be.
AHEAD = timedelta(minutes=5)


@frozen
class Patience:
    """How long a log may be silent before that is an alert."""

    away: timedelta = timedelta(minutes=10)
    """Without an answer."""
    stale: timedelta = timedelta(hours=24)
    """Without a new head."""


@define(eq=False, repr=False)
class Follower:
    """Reads one log as far as it has signed."""

    source: Source
    index: Index
    in_index: Defer
    """Calls something where the index may be used, and nothing else waits for it."""
    watch: WatchList
    now: Now
    patience: Patience = Patience()
    place: Place | None = field(default=None, init=False)
    head_at: datetime | None = field(default=None, init=False)
    """By the log's clock, when its newest head was signed."""
    answered_at: datetime | None = field(default=None, init=False)
    """By ours, when it has last answered well."""
    _issuers: dict[bytes, bytes] = field(factory=dict, init=False)
    """Of certificates, by their fingerprint, the SHA-256 of their key."""
    _reader: EntryReader = field(init=False)
    _turns: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(_AT_ONCE), init=False)

    def __attrs_post_init__(self) -> None:
        self._reader = EntryReader(self.origin, self.watch, self._issuers)

    @property
    def log(self) -> Log:
        """Which."""
        return self.source.log

    @property
    def origin(self) -> str:
        """Its name."""
        return self.log.origin

    async def turn(self) -> bool:
        """Read on to the newest head; whether the log could be read. What is wrong with it is an alert."""
        if self.place is None:
            self.place = await self.in_index(self.index.place, self.log.log_id, self.origin)
        if self.answered_at is None:
            self.answered_at = self.now()
        try:
            signed = await self.source.checkpoint()
            place = await self._seen(self.place, signed)
            if place is None:
                return False
            await self._read_on(place, signed)
        except (TilesContradict, BadProof, DamagedTree) as error:
            await self._stands(
                AlertKind.CONTRADICTS,
                f"the log {self.origin} serves something else than it has signed ({error}): what was read before "
                "stands, and nothing after it; ask its operator, and compare with another copy of it",
            )
            return False
        except StateError:
            raise  # what is wrong with the index is not the log's
        except PkiError as error:
            await self._away(error)
            return False
        except CancelledError:
            raise
        except ANY_ERROR:
            _log.failure("reading a log broke", event="ct-log-broke", origin=self.origin)
            await self._stands(
                AlertKind.AWAY,
                f"the log {self.origin} cannot be read on, by a bug of this monitor, whose own log has the details: "
                "nobody sees what is logged meanwhile",
            )
            return False
        self.answered_at = self.now()
        for kind in (AlertKind.AWAY, AlertKind.CONTRADICTS):
            await self._over(kind)
        return True

    # Heads.

    async def _seen(self, place: Place, signed: SignedHead) -> Place | None:
        """The place with that head, if it is one that extends the last; else None, and the alert is raised."""
        before = None
        if place.head:
            before = SignedHead(open_note(place.head, self.log), place.head)
        await self._judge_clock(before, signed)
        if before is not None:
            found = await between(self.source, before, signed)
            if found is not None:
                await self._contradicts(found)
                return None
            for kind in (AlertKind.FORKED, AlertKind.ROLLED_BACK):
                await self._over(kind)
        elif signed.size < place.size:
            raise LogUnusable(f"{self.origin} has fewer entries than were read of it")
        if before is None or signed.head.timestamp > before.head.timestamp:
            place = await self.in_index(self.index.seen, place, signed.note)
            self.place = place
        return place

    async def _judge_clock(self, before: SignedHead | None, signed: SignedHead) -> None:
        now, at = self.now(), moment(signed.head.timestamp / 1000)
        self.head_at = at
        if at > now + AHEAD:
            await self._stands(
                AlertKind.CLOCK,
                f"the log {self.origin} dates its head {rfc3339(at)}, and here it is {rfc3339(now)}: compare the two "
                "machines' clocks; receipts from the future count nowhere",
            )
        elif (
            before is not None
            and signed.size > before.size
            and signed.head.timestamp < before.head.timestamp
        ):
            await self._stands(
                AlertKind.CLOCK,
                f"the log {self.origin} dates its head {rfc3339(at)}, which is before the one it has signed earlier: "
                "its clock went back",
            )
        else:
            await self._over(AlertKind.CLOCK)
        if now - at > self.patience.stale:
            await self._stands(
                AlertKind.STALE,
                f"the log {self.origin} has signed no head for {spoken_duration(now - at)}: look whether it runs, and "
                "whether this is all of it that can be read",
            )
        else:
            await self._over(AlertKind.STALE)

    async def _contradicts(self, found: Contradiction) -> None:
        path = await self.in_index(found.keep, self.index.database.path.parent / "evidence")
        told = {"evidence": str(path)} if path else {}
        remedy = f"; mesh-ctl ct verify {path} shows it to anybody" if path else ""
        alert = Alert.of(found.kind, self.now(), f"{found.detail}{remedy}", self.origin, **told)
        await self.in_index(self.index.begins, alert)

    # Entries.

    async def _read_on(self, place: Place, signed: SignedHead) -> None:
        view = view_of(self.source, signed)
        at = place.size
        fetching = self._fetch(at, signed.size)
        try:
            while at < signed.size:
                part = await fetching
                entries: list[Scanned] = await self.in_index(part.entries)
                fetching = self._fetch(part.end, signed.size)
                await self._look_up(entries)
                tree = place.tree
                latest = max(entry.timestamp for entry in entries)
                step = await self.in_index(self._reader.step, entries, at, tree, self.now())
                at = tree.size
                proof = await view.consistency_proof(at) if at < signed.size else ()
                verify_consistency(at, signed.size, tree.root, signed.root, proof)
                if latest > signed.head.timestamp:
                    await self._stands(
                        AlertKind.CLOCK,
                        f"the log {self.origin} has an entry before {at} that is dated after the head that it is in: "
                        "its clock is wrong, or went back",
                    )
                place = self.place = await self.in_index(self.index.go_on, place, step)
        finally:
            _give_up(fetching)

    def _fetch(self, start: int, size: int) -> "Deferred[Part]":
        """The next data tiles, in their order; asked for while those before are looked at."""
        return Deferred.fromCoroutine(self._part(start, size))

    async def _part(self, start: int, size: int) -> Part:
        number = start // WIDTH
        first = number * WIDTH
        end = min(size, (number // TILES + 1) * TILES * WIDTH)
        if start >= size:
            return Part(first, (), 0, start)
        tiles: list[bytes] = []
        last = -(-end // WIDTH)
        while number + len(tiles) < last and sum(map(len, tiles)) < MOST_BYTES:
            at = number + len(tiles)
            tiles += await self._tiles(range(at, min(at + _AT_ONCE, last)), size)
        end = min(end, (number + len(tiles)) * WIDTH)
        return Part(first, tiles, start - first, end)

    async def _tiles(self, numbers: range, size: int) -> Sequence[bytes]:
        asked = [self._turns.run(self._tile, at, min(size - at * WIDTH, WIDTH)) for at in numbers]
        try:
            return await gatherResults(asked, consumeErrors=True)
        except BaseException as error:
            for one in asked:
                one.cancel()
            raise getattr(getattr(error, "subFailure", None), "value", error) from None

    def _tile(self, number: int, width: int) -> "Deferred[bytes]":
        return Deferred.fromCoroutine(self.source.data_tile(number, width))

    async def _look_up(self, entries: Sequence[Scanned]) -> None:
        for fingerprint in unknown_issuers(entries, self._issuers):
            self._issuers[fingerprint] = key_hash_of(await self.source.issuer(fingerprint))

    # How it stands.

    async def _away(self, error: PkiError) -> None:
        since = self.answered_at or self.now()
        silent = self.now() - since
        is_refused = not isinstance(error, LogAway) and error.problems[0].code != Code.UNREACHABLE
        _log.warn(
            "The log {origin} cannot be read: {reason}",
            event="ct-log-unread",
            origin=self.origin,
            reason=str(error),
        )
        if is_refused or silent >= self.patience.away:
            await self._stands(
                AlertKind.AWAY,
                f"the log {self.origin} cannot be read since {rfc3339(since)} ({error}): nobody sees what is logged "
                "meanwhile",
            )

    async def _stands(self, kind: AlertKind, detail: str) -> None:
        await self.in_index(self.index.begins, Alert.of(kind, self.now(), detail, self.origin))

    async def _over(self, kind: AlertKind) -> None:
        if await self.in_index(self.index.ends, self.origin, kind):
            _log.info(
                "That is over: {kind} of {origin}",
                event="ct-alert-over",
                kind=str(kind),
                origin=self.origin,
            )


def _give_up(fetching: "Deferred[Part]") -> None:
    """Whatever has become of it, nobody wants it any more."""
    _ = fetching.addErrback(lambda _: None)
    fetching.cancel()
