"""One issuing CA's CRL: kept up with what is revoked, one build at a time, and served until the next is there."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from pki.codes import Code
from pki.crl.entries import encode_entries
from pki.crl.issue import sign_crl
from pki.crl.schedule import Span, listed_from
from pki.errors import PkiError, printable
from pki.issuing.authority import Authority
from pki.keys import MemoryKey
from pki.svid.revocation_set import Revocation, RevocationSet
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger, reasons
from twisted_mesh.runtime.tasks import spawn

_log = logger("ca")
#: Longer lists are built off the reactor: so many take it some 10 ms.
LARGE = 2000


class NotPublished(PkiError):
    """The CRL that is wanted cannot be made now (HTTP 503)."""

    code = Code.NOT_PUBLISHED


@frozen(eq=False, repr=False)
class PublishedCrl:
    """A CRL that is being served."""

    issuer: str
    """The issuer's :func:`pki.keys.key_id`."""
    number: int
    span: Span
    entries: int
    made_at: datetime
    """When it took the place of another, or first was there; whole seconds."""
    der: bytes = field(repr=False)
    shares_its_second: bool = False
    """Whether the one before it was made in the same second."""

    def after(self, before: "PublishedCrl | None") -> Self:
        """The same, in the place of ``before``."""
        shares = before is not None and self.made_at <= before.made_at
        return evolve(self, shares_its_second=shares)

    @property
    def etag(self) -> str:
        """What tells it from others over HTTP (RFC 9110 section 8.8.3)."""
        return f'"{self.issuer[:16]}-{self.number}"'


@define(eq=False, repr=False)
class IssuingCrl:
    """What one issuing CA has revoked, and the CRL that says so.

    At most one CRL is being made; whatever is revoked meanwhile is in the next one, all of it in the
    same. An entry is written once: a list that grows is signed anew and not written anew.
    """

    issuer: Authority
    numbers: CrlNumbers
    now: Now
    life: timedelta
    """Of each CRL."""
    aside: Callable[..., Awaitable[Any]] = deferToThread
    """Runs what takes long, off the reactor."""
    demand_life: Callable[[datetime], None] = lambda next_update: None
    """Raises :class:`PkiError` for a CRL that would be dead on arrival, by the moment when it ends."""
    current: PublishedCrl | None = field(default=None, init=False)
    problem: PkiError | None = field(default=None, init=False)
    """Why the last attempt to make one failed."""
    known: RevocationSet = field(factory=RevocationSet, init=False)
    _on_record: datetime | None = field(default=None, init=False)
    """What the record says was served."""
    _unwritten: list[Revocation] = field(factory=list, init=False)
    _written: bytes = field(default=b"", init=False, repr=False)
    _entries: int = field(default=0, init=False)
    """How many are written."""
    _added: int = field(default=0, init=False)
    """How many were ever added, and how many of these the current CRL is about."""
    _shown: int = field(default=0, init=False)
    _is_building: bool = field(default=False, init=False)
    _waiting: "list[tuple[int, Deferred[None]]]" = field(factory=list, init=False)

    @property
    def key_id(self) -> str:
        """The issuer's :func:`pki.keys.key_id`."""
        return self.issuer.key_id

    @property
    def name(self) -> str:
        """The issuer's subject."""
        return self.issuer.name

    def follow(self, issuer: Authority) -> None:
        """The same key, by another certificate it may be: chains may lead to another root by now."""
        self.issuer = issuer

    def recall(self, served: datetime | None) -> None:
        """What the record says: when the last CRL was made that was served."""
        self._on_record = served

    @property
    def forgettable_before(self) -> datetime:
        """Whatever expired before is on no CRL any more, nor would it be after a restart."""
        earlier = self.now() - self.life
        return listed_from(earlier, self.life, self._on_record)

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Of this issuer. What is there already, and what expired long ago, changes nothing."""
        since = self._listed_from()
        fresh: dict[int, Revocation] = {}
        for revocation in revocations:
            if revocation.expires_at >= since and not self.find(revocation.serial):
                fresh.setdefault(revocation.serial, revocation)
        if fresh:
            self.known = self.known.merged(fresh.values(), since)
            self._unwritten += fresh.values()
            self._added += len(fresh)

    def find(self, serial: int) -> Revocation | None:
        """The revocation of a certificate of this issuer."""
        return self.known.find(self.key_id, serial)

    @property
    def is_behind(self) -> bool:
        """Whether the current CRL lacks something, or is to be replaced soon."""
        if self.current is None or self._shown < self._added:
            return True
        return self.current.span.is_due(self.now())

    @property
    def unpublished(self) -> int:
        """How many revocations the current CRL lacks; all of them while there is none."""
        return self._added - self._shown

    def build(self) -> None:
        """See to it that a CRL is made, if one is wanted and none is under way."""
        if not self._is_building and self.is_behind:
            self._is_building = True
            _ = spawn(self._build(), "making a CRL", _log)

    async def up_to_date(self) -> PublishedCrl:
        """The CRL with all that was added by now, once it is served. Raises :class:`NotPublished`."""
        if self.current is None or self._shown < self._added:
            done: Deferred[None] = Deferred()
            self._waiting.append((self._added, done))
            self.build()
            await done
        if self.current is None:
            raise AssertionError("who waited for a CRL was told of one that is not there")
        return self.current

    def _listed_from(self) -> datetime:
        served = self.current.span.this_update if self.current is not None else self._on_record
        return listed_from(self.now(), self.life, served)

    async def _build(self) -> None:
        problem: PkiError | None = None
        try:
            while problem is None and (self.is_behind or self._waiting):
                problem = await self._attempt()
        finally:
            self._is_building = False
        if problem is None:
            return
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done.errback(_not_published(problem))

    async def _attempt(self) -> PkiError | None:
        """Make one CRL; what went wrong."""
        goal = self._added
        try:
            await self._make()
        except PkiError as error:
            self._tell(error)
            self.problem = error
            return error
        except Exception as error:
            _log.failure("a CRL could not be made", event="publishing-broke")
            self.problem = NotPublished(f"{type(error).__name__}: {printable(str(error), 200)}")
            return self.problem
        if self.problem is not None:
            self.problem = None
            _log.info("The CRL of {issuer} is made again", event="crl-recovered", issuer=self.name)
        self._shown = goal
        served = [done for wanted, done in self._waiting if wanted <= goal]
        self._waiting = [(wanted, done) for wanted, done in self._waiting if wanted > goal]
        for done in served:
            done.callback(None)
        return None

    async def _make(self) -> None:
        now, since = self.now(), self._listed_from()
        known = self.known = self.known.merged((), since)
        unwritten, self._unwritten = self._unwritten, []
        try:
            span = Span.starting(now, self.life)
            self.demand_life(span.next_update)
            before = self.current.span.this_update if self.current is not None else None
            number = await self.numbers.take(self.key_id, before)
            self._on_record = before or self._on_record
            # Fewer than were added: some have been forgotten, and all are written anew.
            is_whole = len(known) != self._entries + len(unwritten)
            fresh = known.of(self.key_id) if is_whole else unwritten
            written = b"" if is_whole else self._written
            making = _made(self.issuer, written, fresh, number, span)
            if len(known) > LARGE and isinstance(self.issuer.key, MemoryKey):
                self._written, der = await self.aside(partial(_at_once, making))
            else:
                self._written, der = await making
        except BaseException:
            self._unwritten = unwritten + self._unwritten
            raise
        self._entries = len(known)
        crl = PublishedCrl(self.key_id, number, span, len(known), now.replace(microsecond=0), der)
        self.current = crl.after(self.current)
        _log.debug(
            "CRL {number} of {issuer} has {entries} entries",
            number=number,
            issuer=self.name,
            entries=len(known),
        )

    def _tell(self, error: PkiError) -> None:
        if self.problem is None:
            _log.warn(
                "The CRL of {issuer} cannot be made: {reasons}. Endpoints hear of revocations all the same",
                event="crl-failed",
                issuer=self.name,
                reasons=reasons(error.problems),
            )


async def _made(
    issuer: Authority, written: bytes, fresh: Iterable[Revocation], number: int, span: Span
) -> tuple[bytes, bytes]:
    """The entries with the fresh ones, and the CRL that has them."""
    entries = written + encode_entries(fresh)
    der = await sign_crl(
        issuer, entries, number, this_update=span.this_update, next_update=span.next_update
    )
    return entries, der


def _at_once(coroutine: Coroutine[Any, Any, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """The result of a coroutine that does not wait: signing with a key in memory, on a thread."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: tuple[bytes, bytes] = stop.value
        return result
    coroutine.close()
    raise AssertionError("a key in memory does not wait")


def _not_published(why: PkiError) -> NotPublished:
    """For each caller one of its own: who gets an exception adds to it."""
    return NotPublished(f"the CRL cannot be made now: {why}")
