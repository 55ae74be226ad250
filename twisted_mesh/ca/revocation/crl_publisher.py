"""What the CA publishes of revocation: a CRL for each issuing CA that has its key here, and one for the root."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from pki.codes import Code
from pki.crl.schedule import list_life
from pki.errors import PkiError, Problem
from pki.issuing.profile import generation_of
from pki.keys import KeptKey, key_id
from pki.svid.revocation_set import Revocation
from twisted_mesh.ca.audit_log import AuditLog
from twisted_mesh.ca.authorities import CurrentAuthorities
from twisted_mesh.ca.revocation.crl import IssuingCrl, NotPublished, PublishedCrl
from twisted_mesh.ca.revocation.crl_numbers import CrlNumbers
from twisted_mesh.ca.revocation.root_crl import RootCrl
from twisted_mesh.interfaces import IRevocationListener
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.log import logger
from twisted_mesh.runtime.tasks import Ticker, spawn
from twisted_mesh.stores.interface import IStore
from twisted_mesh.stores.records import Unknown

_log = logger("ca")
#: Seconds between two looks at what is due.
TICK = 1.0
#: Seconds until the root's CRL is tried again.
_ROOT_AGAIN = 30.0


@implementer(IRevocationListener)
@define(eq=False, repr=False)
class CrlPublisher:
    """Keeps the CRLs up with what is revoked and with the clock.

    Nobody waits for it before :meth:`begin`: a CA in a test, which publishes nothing, revokes at once.
    """

    authorities: CurrentAuthorities
    store: IStore
    log: AuditLog
    now: Now
    directory: Path | None = None
    """Where the numbers and the root's CRL are kept; None for a CA that keeps nothing."""
    earlier: IRevocationListener | None = None
    """Hears at the start what was revoked in earlier lives."""
    aside: Callable[..., Awaitable[Any]] = deferToThread
    """Runs what takes long, off the reactor."""
    demand_life: Callable[[datetime], None] = lambda next_update: None
    """Raises :class:`PkiError` for what would be dead on arrival, by the moment when it ends."""
    numbers: CrlNumbers = field(init=False)
    _roots: dict[str, RootCrl] = field(factory=dict, init=False)
    """By the roots' key ids, the one that chains lead to first."""
    _lists: dict[str, IssuingCrl] = field(factory=dict, init=False)
    _has_begun: bool = field(default=False, init=False)
    _is_ready: bool = field(default=False, init=False)
    _getting_ready: "list[Deferred[None]] | None" = field(default=None, init=False)
    _early: list[Revocation] = field(factory=list, init=False)
    """What was revoked before the record was read."""
    _root_again_at: dict[str, float] = field(factory=dict, init=False)
    """When a root's CRL is tried again that could not be signed."""
    _is_attending: bool = field(default=False, init=False)
    _ticker: Ticker | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        kept = self.directory
        self.numbers = CrlNumbers(self.store, self.now, kept / "crl-numbers" if kept else None)
        self._follow_roots()

    def begin(self) -> None:
        """From now on whoever revokes waits until that is published."""
        self._has_begun = True

    async def ready(self) -> None:
        """Know what was revoked in earlier lives. Raises StoreError; may be asked for again."""
        while not self._is_ready:
            if self._getting_ready is not None:
                done: Deferred[None] = Deferred()
                self._getting_ready.append(done)
                await done
                continue
            self._getting_ready = []
            try:
                await self._recall()
            finally:
                waiting, self._getting_ready = self._getting_ready, None
                for waiter in waiting:
                    waiter.callback(None)

    async def _recall(self) -> None:
        self.numbers.recall()
        for root in self._roots.values():
            root.recall()
        self._follow()
        for known in self._lists.values():
            last = await self.store.last_crl(known.key_id)
            known.recall(last.served if last is not None else None)
        authorities = [row.revocation for row in self.authorities.current.revoked]
        self._add(authorities)
        if self.earlier is not None and authorities:
            self.earlier.revoked(authorities)
        feed = await self.store.feed(0)
        while feed.revocations:
            self._add(feed.revocations)
            if self.earlier is not None:
                self.earlier.revoked(feed.revocations)
            feed = await self.store.feed(feed.position)
        self._is_ready = True
        self._add(self._early)
        self._early.clear()

    def start(self, clock: IReactorTime) -> None:
        """Look each second what is due, on ``clock``."""
        self._ticker = Ticker(clock, TICK, lambda: self._tick(clock), "publishing", _log)
        self._ticker.start()

    def stop(self) -> None:
        """Look no more. May be said more than once, and before it was started."""
        if self._ticker is not None:
            self._ticker.stop()

    def retry_now(self) -> None:
        """What could not be signed may be now: try it at once, the roots' CRLs too."""
        self._root_again_at.clear()
        if self._ticker is not None:
            self._ticker.look()

    # What is asked by others.

    @property
    def root(self) -> RootCrl:
        """Of the root that chains lead to."""
        self._follow_roots()
        return next(iter(self._roots.values()))

    @property
    def lists(self) -> Iterator[IssuingCrl]:
        """Those of the issuing CAs."""
        yield from self._lists.values()

    def of_root(self, root: x509.Certificate) -> RootCrl:
        """Of one of the roots that are believed."""
        self._follow_roots()
        return self._roots[key_id(root.public_key())]

    def current(self, issuer: str) -> PublishedCrl | None:
        """The CRL that is being served for an issuer, by its key id."""
        known = self._roots.get(issuer) or self._lists.get(issuer)
        return known.current if known is not None else None

    async def crl(self, issuer: str) -> PublishedCrl:
        """The same, made first where need be. Raises :class:`Unknown` and :class:`NotPublished`."""
        await self.ready()
        self._follow()
        if issuer in self._roots:
            return await self._of_root(self._roots[issuer])
        known = self._lists.get(issuer)
        if known is None:
            raise Unknown(
                "no CA here has this key id: GET /api/v1/certificates shows each issuer's"
            )
        return known.current or await known.up_to_date()

    def find(self, issuer: str, serial: int) -> Revocation | None:
        """The revocation of a certificate, as far as it is on a CRL or is about to be."""
        known = self._lists.get(issuer)
        return known.find(serial) if known is not None else None

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """These are revoked, and that is durable: a CRL that says so is on its way when this returns."""
        if not self._is_ready:
            if self._has_begun or self._getting_ready is not None:
                self._early += revocations
            return
        self._follow()
        self._add(revocations)
        for issuer in {revocation.issuer for revocation in revocations}:
            if issuer in self._lists:
                self._lists[issuer].build()

    async def published(self, issuer: str) -> None:
        """Once all that was told of an issuer is on its CRL. Raises :class:`NotPublished`."""
        if not self._has_begun:
            return
        await self.ready()
        if issuer in self._lists:
            await self._lists[issuer].up_to_date()

    def forgettable_before(self) -> datetime:
        """What is revoked and expired before that may go from the record: no CRL lists it any more."""
        return min((known.forgettable_before for known in self._lists.values()), default=self.now())

    async def sign_root(self, key: KeptKey) -> None:
        """Sign the root's CRL now: its key is about to leave. Raises :class:`PkiError`."""
        await self.ready()
        await self._roots[key_id(key.public_key)].sign(key, self._root_until())

    async def sign_roots(self) -> None:
        """Sign each root's CRL that lacks something, as far as the keys are here. Raises :class:`PkiError`."""
        await self.ready()
        self._follow()
        for issuer, key in self.authorities.current.root_keys.items():
            if self._roots[issuer].is_behind:
                await self.sign_root(key)

    def waiting(self) -> Problem | None:
        """What cannot be published as it should be."""
        if not self._is_ready:
            return None
        for known in self._lists.values():
            if known.problem is not None:
                detail = f"the CRL of {known.name} cannot be made: {known.problem}"
                return Problem(
                    Code.CRL_STALE, detail, "see to that first; it is tried again each second"
                )
        keys = self.authorities.current.root_keys
        found = (root.waiting(has_key=root.key_id in keys) for root in self._roots.values())
        return next((problem for problem in found if problem is not None), None)

    @property
    def overdue(self) -> int:
        """How many revocations are on record and on no CRL, but for those of a CRL that is being made."""
        if not self._is_ready:
            return 0
        roots = sum(root.unpublished for root in self._roots.values())
        return roots + sum(k.unpublished for k in self._lists.values() if k.problem is not None)

    # What is done.

    async def attend(self, seconds: float = 0.0) -> None:
        """Do all that is due. ``seconds`` is the steady clock's time."""
        await self.ready()
        self._follow()
        for known in self._lists.values():
            known.build()
        keys = self.authorities.current.root_keys
        for root in tuple(self._roots.values()):
            if root.key_id not in keys:
                self._root_again_at.pop(root.key_id, None)
            elif root.is_due() and seconds >= self._root_again_at.get(root.key_id, 0.0):
                self._root_again_at[root.key_id] = seconds + _ROOT_AGAIN
                await root.sign(keys[root.key_id], self._root_until())
                del self._root_again_at[root.key_id]

    def _tick(self, clock: IReactorTime) -> None:
        if not self._is_attending:
            self._is_attending = True
            _ = spawn(self._attend(clock.seconds()), "publishing", _log)

    async def _attend(self, seconds: float) -> None:
        try:
            await self.attend(seconds)
        except PkiError as error:
            _log.debug("publishing has to wait: {error}", error=str(error))
        finally:
            self._is_attending = False

    def _follow(self) -> None:
        """The issuing CAs come and go."""
        self._follow_roots()
        there = {authority.key_id: authority for authority in self.authorities.current.in_use}
        for gone in self._lists.keys() - there.keys():
            del self._lists[gone]
        for issuer, authority in there.items():
            if issuer in self._lists:
                self._lists[issuer].follow(authority)
                continue
            life = list_life(self.authorities.lifetimes.default)
            self._lists[issuer] = IssuingCrl(
                authority, self.numbers, self.now, life, self.aside, self.demand_life
            )

    def _add(self, revocations: Sequence[Revocation]) -> None:
        for issuer in {revocation.issuer for revocation in revocations}:
            known = self._roots.get(issuer) or self._lists.get(issuer)
            if known is not None:
                known.add(r for r in revocations if r.issuer == issuer)

    async def _of_root(self, root: RootCrl) -> PublishedCrl:
        key = self.authorities.current.root_keys.get(root.key_id)
        if root.current is None and key is not None:
            await self.sign_root(key)
        if root.current is None:
            raise NotPublished(
                "there is no CRL of the root, and its key is not here: it is made once that is back"
            )
        return root.current

    def _follow_roots(self) -> None:
        """The roots come and go, too, and change places."""
        there = {key_id(root.public_key()): root for root in self.authorities.current.roots}
        if list(there) == list(self._roots):
            return
        former, self._roots = self._roots, {}
        for name, root in there.items():
            known = former.pop(name, None)
            if known is None:
                path = None if self.directory is None else self.directory / crl_name(root)
                known = RootCrl(root, self.numbers, self.log, self.now, path)
                if self._is_ready:
                    known.recall()
                    revoked = (row.revocation for row in self.authorities.current.revoked)
                    known.add(revocation for revocation in revoked if revocation.issuer == name)
            self._roots[name] = known
        for gone in former.values():
            if gone.path is not None:
                gone.path.unlink(missing_ok=True)

    def _root_until(self) -> datetime:
        """The last issuing CA's end: by then at the latest the root's key is needed anyway."""
        line = self.authorities.current.line
        return (line.prepared or line.active).ends_at


def crl_name(root: x509.Certificate) -> str:
    """The file of a root's CRL: it keeps its name whichever root chains lead to."""
    generation = generation_of(root.subject)
    return "root.crl" if generation == 1 else f"root-{generation}.crl"
