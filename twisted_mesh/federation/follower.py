"""Follows federated trust domains: asks each at its time, and keeps the last good bundle when one fails.

SPIFFE Federation, sections 4.2 and 6.2. Each domain is by itself: what is wrong with one changes nothing of another.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Protocol

from attrs import define, evolve, field
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from pki.codes import Code
from pki.errors import ANY_ERROR, PkiError, Problem, Refused
from pki.spiffe import TrustDomain
from pki.svid.bundle import BundleSet, TrustBundle
from pki.svid.federated_document import FederatedDocument
from pki.svid.federation import BadFederation, Relationship, accept
from pki.svid.refresh import Refresh
from pki.svid.revocation_set import RevocationSet
from twisted_mesh.federation.diary import Diary
from twisted_mesh.federation.following import Following
from twisted_mesh.federation.holdings import Holdings
from twisted_mesh.runtime.clock import Now
from twisted_mesh.runtime.tasks import Ticker, spawn

#: Seconds between two looks at how old everything is.
_LOOK = 10.0
_BROKEN = Problem(Code.INTERNAL, "following it met a bug", "the log has a traceback: report it")


class Fetch(Protocol):
    """:class:`~twisted_mesh.federation.fetcher.BundleFetcher`, or what stands in its place."""

    def fetch_bundle(
        self,
        relationship: Relationship,
        bundles: BundleSet,
        revocations: RevocationSet | None = None,
    ) -> Awaitable[FederatedDocument]:
        """What the endpoint has now. Raises :class:`PkiError`."""


@define(eq=False, repr=False)
class _Followed:
    """One trust domain, and what is under way for it."""

    state: Following
    call: IDelayedCall | None = None
    """Has it asked for again."""
    task: "Deferred[None] | None" = None
    unreadable: tuple[Problem, ...] = ()
    """What was passed over of the document itself."""
    turn: DeferredLock = field(factory=DeferredLock)
    """So that it is asked once at a time."""

    @property
    def trust_domain(self) -> TrustDomain:
        return self.state.relationship.trust_domain

    def put_off(self) -> None:
        """Whatever time it had is not its time any more."""
        call, self.call = self.call, None
        if call is not None and call.active():
            call.cancel()

    def stop(self) -> None:
        """Ask no more."""
        self.put_off()
        task, self.task = self.task, None
        if task is not None:
            task.cancel()


@define(eq=False, repr=False, slots=False)
class Follower(Service):
    """Follows many trust domains. What it learns it tells; it keeps nothing on disk."""

    fetcher: Fetch
    own: Callable[[], TrustBundle]
    """Our own bundle of the moment: its roots are nobody else's."""
    clock: IReactorTime
    now: Now
    log: Logger
    on_bundle: Callable[[TrustDomain, TrustBundle | None], object]
    """Hears what is to be believed of a trust domain from now on, whenever that is another than before; None once
    what is held has grown too old."""
    on_state: Callable[[Following], object] = lambda _: None
    """Hears how a trust domain stands after each attempt, so that its bundle and that time are kept over a restart."""
    revocations: Callable[[], RevocationSet | None] = lambda: None
    """What is known to be revoked, for the endpoints' own certificates."""
    blocked: Callable[[PublicKeyTypes], Problem | None] = lambda key: None
    """Why a key is nobody's any more; :meth:`review` when that has changed."""
    refresh: Refresh = field(factory=Refresh)
    at_once: int = 8
    """Questions under way at most; an administrator's come besides."""
    draw: random.Random = field(factory=random.SystemRandom)
    _followed: dict[TrustDomain, _Followed] = field(factory=dict, init=False)
    _holdings: Holdings = field(init=False)
    _diary: Diary = field(init=False)
    _waiting: deque[_Followed] = field(factory=deque, init=False)
    """Whose time has come, and who wait for a place."""
    _under_way: int = field(default=0, init=False)
    _is_beginning: bool = field(default=False, init=False)
    _ticker: Ticker = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._holdings, self._diary = Holdings(self.own, self.blocked), Diary(self.log)
        self._ticker = Ticker(self.clock, _LOOK, self._look_at_the_clock, "federation", self.log)

    def startService(self) -> None:
        """Ask from now on: not all at once."""
        super().startService()
        self._ticker.start(now=False)
        for followed in self._followed.values():
            self._ask_in(followed, self._left(followed.state) or self._spread())

    def stopService(self) -> None:
        """Ask no more. What is believed stays."""
        super().stopService()
        self._ticker.stop()
        self._waiting.clear()
        for followed in self._followed.values():
            followed.stop()

    def follow(
        self,
        relationship: Relationship,
        held: TrustBundle | None = None,
        fetched_at: datetime | None = None,
    ) -> None:
        """Follow it from now on, in place of what was said of that trust domain before.

        ``held`` is the bundle of the :class:`Following` that was told last, with its ``fetched_at``; without a time it
        is what an administrator gives now. Of what is believed by that nothing is told: :attr:`believed` has it.
        """
        domain = relationship.trust_domain
        self.forget(domain)
        now = self.now()
        # A clock that was ahead makes nothing last longer.
        given_at = None if held is None else min(fetched_at or now, now)
        state = Following(relationship, held, given_at, refresh=self.refresh)
        followed = self._followed[domain] = _Followed(state)
        if held is not None:
            self._hold(followed, held)
        if self.running:
            self._ask_in(followed, self._left(state) if fetched_at else 0.0)

    def forget(self, trust_domain: TrustDomain) -> bool:
        """Follow it no more; whether it was followed. :attr:`on_bundle` is not told."""
        followed = self._followed.pop(trust_domain, None)
        if followed is None:
            return False
        followed.stop()
        self._holdings.release(trust_domain)
        return True

    async def refresh_now(
        self, trust_domain: TrustDomain, *, accept_older: bool = False
    ) -> Following:
        """Ask now, and have it believed; how it stands then. Raises :class:`PkiError` where that fails."""
        followed = self._followed.get(trust_domain)
        if followed is None:
            raise BadFederation(f"{trust_domain} is not followed: add it first")
        try:
            await self._ask(followed, accept_older=accept_older)
        finally:
            self._ask_again(followed)
        if not self._is_followed(followed):
            raise BadFederation(f"{trust_domain} was removed, or said anew, while it was asked")
        return followed.state

    def review(self) -> None:
        """Other keys may be blocked than before: hold all anew, and tell of what is believed no more, or again."""
        for followed in list(self._followed.values()):
            before, domain = followed.state, followed.trust_domain
            believed = self._holdings.believed(domain)
            if before.bundle is None or self._holdings.latest(domain) is None:
                continue
            self._holdings.release(
                domain
            )  # whatever becomes of it, what is blocked is believed no more
            self._hold(followed, before.bundle)
            self._diary.reviewed(before, followed.state)
            if (now_believed := self._holdings.believed(domain)) != believed:
                self._tell(self.on_bundle, domain, now_believed)

    def following(self, trust_domain: TrustDomain) -> Following | None:
        """How it stands; None where it is not followed."""
        followed = self._followed.get(trust_domain)
        return None if followed is None else followed.state

    def __iter__(self) -> Iterator[Following]:
        """How each stands, by name."""
        return iter([self._followed[name].state for name in sorted(self._followed)])

    @property
    def believed(self) -> BundleSet:
        """What is to be believed of those that are followed: without what is too old, and what is somebody else's."""
        return self._holdings.all_believed

    def _left(self, state: Following) -> float:
        """Seconds until it is its time, by when it was had last."""
        if state.fetched_at is None:
            return 0.0
        interval = self.refresh.interval(state.hint, len(self._followed))
        age = (self.now() - state.fetched_at).total_seconds()
        return max(0.0, interval - max(age, 0.0))

    def _spread(self) -> float:
        """Seconds by which one of many is put off, so that not all are asked at once."""
        return self.draw.random() * len(self._followed) / self.refresh.together

    def _ask_in(self, followed: _Followed, seconds: float) -> None:
        followed.put_off()
        at = self.now() + timedelta(seconds=seconds)
        followed.state = evolve(followed.state, next_at=at)
        followed.call = self.clock.callLater(seconds, self._due, followed)

    def _ask_again(self, followed: _Followed) -> None:
        """After an attempt: by the hint of what is held now."""
        if self.running and self._is_followed(followed):
            state, many = followed.state, len(self._followed)
            self._ask_in(followed, self.refresh.pause(state.hint, state.failures, self.draw, many))

    def _is_followed(self, followed: _Followed) -> bool:
        return self._followed.get(followed.trust_domain) is followed

    def _due(self, followed: _Followed) -> None:
        followed.call = None
        self._waiting.append(followed)
        self._begin()

    def _begin(self) -> None:
        """Ask those whose time has come, while there are places."""
        if self._is_beginning:
            return
        self._is_beginning = True
        try:
            while self._waiting and self._under_way < self.at_once:
                followed = self._waiting.popleft()
                if self._is_followed(followed):
                    self._under_way += 1
                    asking = self._ask_in_turn(followed)
                    followed.task = spawn(asking, "asking for a federated bundle", self.log)
        finally:
            self._is_beginning = False

    async def _ask_in_turn(self, followed: _Followed) -> None:
        try:
            await self._ask(followed)
        except PkiError:
            pass  # it was told
        finally:
            self._under_way -= 1
            self._ask_again(followed)
            self._begin()

    async def _ask(self, followed: _Followed, *, accept_older: bool = False) -> None:
        """One attempt. Raises :class:`PkiError`, which has been told by then."""
        await followed.turn.acquire()
        try:
            asked_at, relationship = self.now(), followed.state.relationship
            followed.state = evolve(followed.state, next_at=None)
            document = await self.fetcher.fetch_bundle(
                relationship, self._proof_of(relationship), self.revocations()
            )
            if self._is_followed(followed):
                self._take(followed, document, asked_at, accept_older=accept_older)
        except CancelledError:
            raise  # we are being stopped
        except PkiError as error:
            self._fail(followed, error.problems)
            raise
        except ANY_ERROR:
            self.log.failure("following a trust domain broke", event="federation-broke")
            self._fail(followed, (_BROKEN,))
            raise Refused((_BROKEN,)) from None
        finally:
            followed.turn.release()

    def _proof_of(self, relationship: Relationship) -> BundleSet:
        """By what the endpoint proves itself: the latest that there is, however old (section 5.2.2.4)."""
        if relationship.endpoint_id is None:
            return BundleSet()
        bundle = self._holdings.latest(relationship.endpoint_id.trust_domain)
        return BundleSet() if bundle is None else BundleSet.of(bundle)

    def _take(
        self,
        followed: _Followed,
        document: FederatedDocument,
        asked_at: datetime,
        *,
        accept_older: bool,
    ) -> None:
        """Believe it, or raise :class:`PkiError`: then nothing has changed."""
        before, domain = followed.state, followed.trust_domain
        published = accept(before.bundle, document.bundle, accept_older=accept_older)
        believed = self._holdings.believed(domain)
        foreign = self._holdings.hold(published)
        followed.unreadable = document.passed_over
        passed_over = (*document.passed_over, *foreign)
        followed.state = state = Following(
            before.relationship, published, asked_at, passed_over=passed_over, refresh=self.refresh
        )
        self._diary.had(before, state)
        if (now_believed := self._holdings.believed(domain)) != believed:
            self._tell(self.on_bundle, domain, now_believed)
        self._tell(self.on_state, state)

    def _fail(self, followed: _Followed, problems: tuple[Problem, ...]) -> None:
        """What is held stays, and grows older."""
        before, now = followed.state, self.now()
        since = before.failed_since or now
        failures = before.failures + 1
        followed.state = state = evolve(
            before, failures=failures, failed_since=since, problems=problems
        )
        if self._is_followed(followed):
            self._diary.failed(before, state, now)
            self._tell(self.on_state, state)

    def _hold(self, followed: _Followed, held: TrustBundle) -> None:
        """What was held before. Where that is refused, nobody is believed until another has come."""
        is_too_old = followed.state.is_too_old(self.now())
        try:
            foreign = self._holdings.hold(held, is_too_old=is_too_old)
        except PkiError as error:
            self._fail(followed, error.problems)
        else:
            followed.state = evolve(followed.state, passed_over=(*followed.unreadable, *foreign))

    def _look_at_the_clock(self) -> None:
        """Have what has grown too old believed no more."""
        now = self.now()
        for followed in list(self._followed.values()):
            state = followed.state
            domain = followed.trust_domain
            if self._holdings.believed(domain) is None or not state.is_too_old(now):
                continue
            self._holdings.outdate(domain)
            self._diary.too_old(state)
            self._tell(self.on_bundle, domain, None)
            self._tell(self.on_state, state)
            if not state.failures and followed.call is not None:
                # It was not asked: this machine slept, or its clock was set.
                self._ask_in(followed, self._spread())

    def _tell(self, listener: Callable[..., object], *what: object) -> None:
        """Whatever a listener makes of it, the next attempt comes."""
        try:
            listener(*what)
        except ANY_ERROR:
            self.log.failure("telling of a federated bundle broke", event="federation-broke")
