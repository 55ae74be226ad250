"""The CRL watch: has believed what other people's CRLs list, and says when they have grown too old.

A list is taken up if its issuer has signed it, if it is of now and not older than the one before. One
that is refused changes nothing: the last good one stays in force until it is stale. What was listed
once stays revoked until the certificate ends, whatever a later list says.
"""

import random
from collections.abc import Callable, Sequence

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from pki import renewal
from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem
from pki.ocsp.evidence import ListInForce, lists_from
from pki.svid.revocation_set import Revocation, RevocationSet
from pki.validity import rfc3339
from twisted_mesh.http.fetch import Fetcher
from twisted_mesh.interfaces import Identity
from twisted_mesh.revocation.crl_numbers import SeenCrlNumbers
from twisted_mesh.revocation.crl_source import Content, CrlSource, content_of
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import codes, reasons
from twisted_mesh.runtime.tasks import Defer, sleep, spawn, within

#: Seconds between two looks at a file.
FILE_PAUSE = 1.0
#: Seconds between two questions to a URL at most; sooner where the list gets stale sooner.
URL_PAUSE = 60.0
#: Seconds after which a file that was refused is read again, though it is the same: its issuer may be known now.
AGAIN = 10.0
#: Seconds for which the first certificate waits for the lists.
PATIENCE = 5.0
#: So many entries are believed in one turn of the reactor: some ten milliseconds' worth.
A_TURN = 2000

_NOT_YET = Problem(Code.UNREACHABLE, "it has not been read yet", "wait")
_BROKEN = Problem(Code.INTERNAL, "reading it met a bug", "the log has a traceback: report it")


@define(eq=False, repr=False)
class _Watched:
    """One source, and what came from it."""

    source: CrlSource
    content: Content
    held: tuple[ListInForce, ...] = ()
    """The last good ones."""
    problems: tuple[Problem, ...] = (_NOT_YET,)
    """What is wrong with what came since."""
    failures: int = 0
    again_at: float = 0.0
    was_stale: bool = False
    seen: "Deferred[None]" = field(factory=Deferred)
    """Fires after the first look."""
    task: "Deferred[None] | None" = None


@define(eq=False, repr=False)
class CrlWatch:
    """Follows sources of CRLs. Never raises: what goes wrong is logged, once."""

    sources: Sequence[CrlSource]
    issuers: Sequence[x509.Certificate]
    """Besides our own issuing CA and the roots, which are learnt as they come."""
    fetcher: Fetcher
    clock: IReactorTime
    now: Now
    log: Logger
    revoke: Callable[[Sequence[Revocation]], None]
    known: Callable[[], RevocationSet]
    """What is believed to be revoked now."""
    numbers: SeenCrlNumbers = field(factory=lambda: SeenCrlNumbers(None))
    defer: Defer = deferToThread
    """Has a function called somewhere else, and its result here."""
    draw: random.Random = field(factory=random.SystemRandom)
    content_of: Callable[[CrlSource, Fetcher, Defer], Content] = content_of
    _learnt: tuple[x509.Certificate, ...] = field(default=(), init=False)
    _roots: tuple[x509.Certificate, ...] = field(default=(), init=False)
    _watched: tuple[_Watched, ...] = field(default=(), init=False)

    async def prepare(self, identity: Identity) -> None:
        """Learn whose lists may come; at the first time begin, and wait until all have been looked at."""
        self.learn(identity.svid.intermediates, identity.bundles.all_roots)
        if self._watched or not self.sources:
            return
        self._begin()
        await self.first_looks()

    async def first_looks(self) -> None:
        """Wait until all have been looked at, and not for long."""
        try:
            looks = gatherResults([w.seen for w in self._watched], consumeErrors=True)
            await within(self.clock, PATIENCE, looks)
        except TimeoutError:
            self.log.warn(
                "Not all CRLs could be read within {seconds:g} s: they are believed when they come",
                event="crl-late",
                seconds=PATIENCE,
            )

    async def look_now(self) -> None:
        """Read them all at once, whenever it was their turn, and wait for that, though not for long."""
        for watched in self._watched:
            if watched.task is not None:
                watched.task.cancel()
            if watched.seen.called:
                watched.seen = Deferred()
            watched.task = spawn(self._follow(watched), "following a CRL", self.log)
        await self.first_looks()

    def learn(self, issuers: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> None:
        """Take the lists of these roots from now on, and of no other, and those of ``issuers`` too."""
        self._roots = tuple(roots)
        self._learnt = tuple(dict.fromkeys((*self._learnt, *issuers)))

    def begin(self, roots: Sequence[x509.Certificate]) -> None:
        """Follow the lists of these CAs, and of :attr:`issuers`, without an identity. Said again, of these instead."""
        self._roots = tuple(roots)
        if not self._watched:
            self._begin()

    def know(self, issuers: Sequence[x509.Certificate]) -> None:
        """Lists of these may come from now on, besides those of the roots."""
        self.issuers = issuers

    def _begin(self) -> None:
        self._watched = tuple(
            _Watched(source, self.content_of(source, self.fetcher, self.defer))
            for source in self.sources
        )
        for watched in self._watched:
            watched.task = spawn(self._follow(watched), "following a CRL", self.log)

    def stop(self) -> None:
        """Follow them no more."""
        for watched in self._watched:
            if watched.task is not None:
                watched.task.cancel()

    def look_anew(self, issuers: Sequence[x509.Certificate]) -> None:
        """Take each list for one that was never read, at the next look, and of these issuers.

        What is believed stays.
        """
        self.issuers = issuers
        for watched in self._watched:
            watched.content.forget()

    def doubt(self) -> Problem | None:
        """Why it may not be known who is revoked: a list is stale, or there never was one."""
        if not self._watched and self.sources:
            return _stale(self.sources[0], "has not been asked for yet")
        for watched in self._watched:
            if not watched.held:
                return _stale(watched.source, f"is not known: {reasons(watched.problems)}")
            if late := self._late(watched):
                return _stale(
                    watched.source,
                    f"was to be replaced by {rfc3339(late.next_update)}, and was not",
                )
        return None

    def _late(self, watched: _Watched) -> ListInForce | None:
        now = self.now()
        return next((found for found in watched.held if found.next_update < now), None)

    async def _follow(self, watched: _Watched) -> None:
        while True:
            await self._look(watched)
            if not watched.seen.called:
                watched.seen.callback(None)
            await sleep(self.clock, self._pause(watched))

    async def _look(self, watched: _Watched) -> None:
        if watched.problems and self.clock.seconds() >= watched.again_at:
            watched.content.forget()
        try:
            data = await watched.content.fetch()
            if data is not None:
                await self._take(watched, data)
            elif watched.source.url is not None:
                self._recovered(watched)
        except CancelledError:
            raise  # we are being stopped
        except PkiError as error:
            self._refuse(watched, error.problems)
        except ANY_ERROR:
            self.log.failure("reading a CRL broke", event="crl-broke")
            self._refuse(watched, (_BROKEN,))
        self._log_if_stale(watched)

    async def _take(self, watched: _Watched, data: bytes) -> None:
        """Believe what it lists, a part of it in each turn. Raises :class:`PkiError` where it is refused."""
        source = watched.source.text
        candidates = (*self.issuers, *self._learnt, *self._roots)
        lists, fresh = await self.defer(
            lists_from,
            data,
            candidates,
            self.now(),
            seen=self.numbers.seen(source),
            known=self.known(),
        )
        for start in range(0, len(fresh), A_TURN):
            self.revoke(fresh[start : start + A_TURN])
            await sleep(self.clock, 0)
        is_new = {found.number for found in lists} != {found.number for found in watched.held}
        watched.held = lists
        self.numbers.remember(
            source, {found.issuer: found.number for found in lists if found.number is not None}
        )
        (self.log.info if is_new else self.log.debug)(
            "CRL from {place} believed: number {numbers}, {entries} revoked, {news} of them new here",
            event="crl-believed",
            place=str(watched.source),
            issuers=[found.subject for found in lists],
            numbers=", ".join("none" if f.number is None else str(f.number) for f in lists),
            entries=sum(found.size for found in lists),
            news=len(fresh),
            next_update=min(rfc3339(found.next_update) for found in lists),
        )
        self._recovered(watched)

    def _recovered(self, watched: _Watched) -> None:
        watched.problems, watched.failures = (), 0

    def _refuse(self, watched: _Watched, problems: tuple[Problem, ...]) -> None:
        """What came is no good, or nothing did: what was good before stays in force."""
        # The first one too, although that it has not been read yet has the same code.
        is_other = not watched.failures or codes(watched.problems) != codes(problems)
        watched.problems = problems
        watched.again_at = self.clock.seconds() + AGAIN
        watched.failures += 1
        if watched.source.url is not None:
            watched.content.forget()
        (self.log.warn if is_other else self.log.debug)(
            "CRL from {place} refused: {reasons}; {meanwhile}",
            event="crl-refused",
            place=str(watched.source),
            codes=codes(problems),
            reasons=reasons(problems),
            meanwhile="the last good one stays in force"
            if watched.held
            else "there was none before",
        )

    def _log_if_stale(self, watched: _Watched) -> None:
        was_stale, late = watched.was_stale, self._late(watched)
        watched.was_stale = late is not None
        if late is not None and not was_stale:
            self.log.error(
                "The CRL of {issuer} from {place} is stale: it was to be replaced by {next_update}",
                event="crl-stale",
                issuer=late.subject,
                place=str(watched.source),
                next_update=rfc3339(late.next_update),
            )

    def _pause(self, watched: _Watched) -> float:
        if watched.source.url is None:
            return FILE_PAUSE
        if watched.problems:
            return renewal.backoff(watched.failures - 1, self.draw).total_seconds()
        until = min(found.next_update for found in watched.held)
        left = (until - self.now()).total_seconds() / 2
        return max(FILE_PAUSE, min(URL_PAUSE, left))


def _stale(source: CrlSource, what: str) -> Problem:
    return Problem(
        Code.STALE_REVOCATION,
        f"the CRL from {source} {what}",
        "publish it again, or reach who does; --on-stale grace goes on without it",
        "--crl",
    )
